package buttons

import (
	"context"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// clearRetries clears counts on all nodes of a policy. Each PatchRetry remembers
// the press in the write that clears it, also where there is nothing to clear: what
// is counted after that stays, however often managers begin anew. What is left to
// do for a node, which is to tell its agent and to answer, Retries does.
func (r *Policies) clearRetries(ctx context.Context, object client.Object, press *v1alpha1.ButtonPress) (said answer, again time.Duration, err error) {
	nodes, err := r.nodes(ctx, object)
	if err != nil {
		return said, 0, err
	}
	list := &v1alpha1.PatchRetryList{}
	if err := r.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return said, 0, fmt.Errorf("listing the counts to clear for policy %s: %w", object.GetName(), err)
	}
	retries := make(map[string]*v1alpha1.PatchRetry, len(list.Items))
	for i := range list.Items {
		retries[list.Items[i].Name] = &list.Items[i]
	}
	this := fmt.Sprintf("%s/%d", object.GetUID(), press.Number)
	what := parseClearing(press.Value)
	busy := false
	var left []*v1alpha1.PatchRetry
	known := map[string]*v1alpha1.PatchAssignment{}
	for _, node := range nodes {
		retry := retries[node.Name]
		switch {
		case retry == nil, !retry.DeletionTimestamp.IsZero(), acted(retry, this):
		case owed(retry) != "":
			busy = true // with a press of its own, whose answer must not be lost
		default:
			left, known[node.Name] = append(left, retry), node
		}
	}
	again, err = each(ctx, left, func(ctx context.Context, retry *v1alpha1.PatchRetry) error {
		return r.clearOn(ctx, retry, known[retry.Name], what, this)
	})
	if err != nil {
		return said, 0, err
	}
	if busy && again == 0 {
		again = afterConflict
	}
	patches := "all patches"
	if !what.all {
		patches = some(what.names, clearedBytes)
	}
	return answer{patchlog.AllRetriesCleared, fmt.Sprintf(
		"Counts of %s are cleared on the policy's %s; each says itself what that was", patches, nodesOf(len(nodes)))}, again, nil
}

// clearOn clears counts of one node, or else notes that there was nothing to clear.
func (r *Policies) clearOn(ctx context.Context, before *v1alpha1.PatchRetry, assignment *v1alpha1.PatchAssignment, what clearing, this string) error {
	retry := before.DeepCopy()
	trial := before.Status.DeepCopy()
	if what.apply(trial); len(trial.Patches) < len(retry.Status.Patches) {
		what.clear(retry, assignment)
	}
	if retry.Status.Handled == nil {
		retry.Status.Handled = &v1alpha1.HandledButtons{}
	}
	retry.Status.Handled.PolicyPress = this
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Status().Patch(ctx, retry, patch, client.FieldOwner(v1alpha1.ManagerFieldOwner)); err != nil {
		return fmt.Errorf("clearing counts of node %s: %w", retry.Name, outdated(err))
	}
	return nil
}

// acted says whether a node's counts were cleared by a press of its policy's
// button, whose UID and number are given.
func acted(retry *v1alpha1.PatchRetry, press string) bool {
	return retry.Status.Handled != nil && retry.Status.Handled.PolicyPress == press
}
