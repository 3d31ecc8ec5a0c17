package buttons

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// afterConflict is when to look again after somebody else wrote first.
const afterConflict = 100 * time.Millisecond

// Retries clears counts of failed attempts for nodepatch.io/clear-retries on a
// PatchRetry.
//
// The counts go in one write, with which the status also remembers the value and
// the answer that it owes: from then on whoever comes next, after this process or
// beside it, makes good what is left and clears nothing again, so that what the
// agent counts in the meantime stays. What was cleared by a button of the node's
// policy is told and answered in the same way. A value with a token is remembered for good.
// Only a press of the very same value, without a token, that comes while no manager
// runs and the last one died between its last two writes is taken for that one.
type Retries struct {
	// Client reads what it wrote before.
	Client client.Client
	// Log takes the manager's entries of the patch log.
	Log patchlog.Sink
	// Clock tells the time.
	Clock clock.PassiveClock
}

// Reconcile looks at one node's PatchRetry.
func (r *Retries) Reconcile(ctx context.Context, retry *v1alpha1.PatchRetry) (ctrl.Result, error) {
	if !retry.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	assignment, err := r.assignment(ctx, retry.Name)
	if err != nil {
		return ctrl.Result{}, err
	}
	steps := []func(context.Context, *v1alpha1.PatchRetry, *v1alpha1.PatchAssignment) error{
		r.tell, r.answer, r.release, r.forget,
	}
	switch value, pressed := retry.Annotations[v1alpha1.ClearRetriesAnnotation]; {
	case owed(retry) != "":
		// Somebody began, and did not come to the end.
	case pressed && (remembered(retry) == "" || remembered(retry) != handled(value)):
		if err := r.clear(ctx, retry, assignment, value); err != nil {
			return settle(err)
		}
	default:
		return ctrl.Result{}, nil
	}
	for _, step := range steps {
		if err := step(ctx, retry, assignment); err != nil {
			return settle(err)
		}
	}
	return ctrl.Result{}, nil
}

// clear takes the counts out, and remembers what is to be said about it.
func (r *Retries) clear(ctx context.Context, retry *v1alpha1.PatchRetry, assignment *v1alpha1.PatchAssignment, value string) error {
	before := retry.DeepCopy()
	parseClearing(value).clear(retry, assignment)
	retry.Status.Handled.Press = &v1alpha1.ButtonPress{
		Button: v1alpha1.ClearRetriesAnnotation, Value: handled(value), Number: retry.Status.Clears, Time: metav1.NewMicroTime(r.Clock.Now()),
	}
	// A press without a token in between does not have Git's act again.
	if parseClearing(value).token != "" {
		retry.Status.Handled.ClearRetries = handled(value)
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Status().Patch(ctx, retry, patch, client.FieldOwner(v1alpha1.ManagerFieldOwner)); err != nil {
		return fmt.Errorf("clearing counts of node %s: %w", retry.Name, outdated(err))
	}
	klog.FromContext(ctx).Info("Cleared retry counts", "node", klog.KRef("", retry.Name), "answer", owed(retry))
	return nil
}

// clear takes counts out of a PatchRetry, and has its status owe the answer.
func (c clearing) clear(retry *v1alpha1.PatchRetry, assignment *v1alpha1.PatchAssignment) {
	status := &retry.Status
	answer := c.apply(status)
	// Ahead of what the agent knows, also of a PatchRetry that was deleted since.
	if assignment != nil {
		status.Clears = max(status.Clears, assignment.Spec.RetryClears)
	}
	status.Clears++
	if status.Handled == nil {
		status.Handled = &v1alpha1.HandledButtons{}
	}
	status.Handled.Answer = answer
}

// tell makes the agent, which watches nothing but its assignment, read its
// PatchRetry again. A node without one has no agent to tell: the assignment is
// made with the number in it.
func (r *Retries) tell(ctx context.Context, retry *v1alpha1.PatchRetry, assignment *v1alpha1.PatchAssignment) error {
	if assignment == nil || !assignment.DeletionTimestamp.IsZero() || assignment.Spec.RetryClears >= retry.Status.Clears {
		return nil
	}
	changed := assignment.DeepCopy()
	changed.Spec.RetryClears = retry.Status.Clears
	patch := client.MergeFromWithOptions(assignment, client.MergeFromWithOptimisticLock{})
	err := r.Client.Patch(ctx, changed, patch, client.FieldOwner(v1alpha1.ManagerFieldOwner))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("telling the agent of node %s that counts were cleared: %w", retry.Name, outdated(err))
	}
	return nil
}

// answer writes the entry of the patch log.
func (r *Retries) answer(ctx context.Context, retry *v1alpha1.PatchRetry, assignment *v1alpha1.PatchAssignment) error {
	policy := ""
	if assignment != nil {
		policy = assignment.Spec.Policy
	}
	return r.Log.Write(ctx, patchlog.RetriesCleared(r.Clock.Now(), retry.Name, policy, retry.UID, retry.Status.Clears, owed(retry)))
}

// release takes the annotation off, so that the button can be pressed again. If
// it was pressed with another value in the meantime, that stays and is next.
func (r *Retries) release(ctx context.Context, retry *v1alpha1.PatchRetry, _ *v1alpha1.PatchAssignment) error {
	value, pressed := retry.Annotations[v1alpha1.ClearRetriesAnnotation]
	if press := retry.Status.Handled.Press; !pressed || press == nil || handled(value) != press.Value {
		return nil
	}
	before := retry.DeepCopy()
	delete(retry.Annotations, v1alpha1.ClearRetriesAnnotation)
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Patch(ctx, retry, patch, client.FieldOwner(v1alpha1.ManagerFieldOwner)); err != nil {
		return fmt.Errorf("removing %s from the PatchRetry %s: %w", v1alpha1.ClearRetriesAnnotation, retry.Name, outdated(err))
	}
	return nil
}

// forget ends it: nothing is owed any more, and a value without a token may come
// again. It goes by what it ends and not by the resourceVersion: the agent that
// counts now, and the person who presses again, are not in its way.
func (r *Retries) forget(ctx context.Context, retry *v1alpha1.PatchRetry, _ *v1alpha1.PatchAssignment) error {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value,omitempty"`
	}
	operations := []operation{
		{Op: "test", Path: "/status/clears", Value: retry.Status.Clears},
		{Op: "test", Path: "/status/handled/answer", Value: owed(retry)},
		{Op: "remove", Path: "/status/handled/answer"},
	}
	if retry.Status.Handled.Press != nil {
		operations = append(operations, operation{Op: "remove", Path: "/status/handled/press"})
	}
	body, err := json.Marshal(operations)
	if err != nil {
		return fmt.Errorf("encoding what to forget: %w", err)
	}
	patch := client.RawPatch(types.JSONPatchType, body)
	if err := r.Client.Status().Patch(ctx, retry, patch, client.FieldOwner(v1alpha1.ManagerFieldOwner)); err != nil {
		return fmt.Errorf("forgetting a button of the PatchRetry %s: %w", retry.Name, outdated(err))
	}
	return nil
}

// assignment is the node's, nil if it has none.
func (r *Retries) assignment(ctx context.Context, node string) (*v1alpha1.PatchAssignment, error) {
	assignment := &v1alpha1.PatchAssignment{}
	if err := r.Client.Get(ctx, client.ObjectKey{Name: node}, assignment); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("reading the assignment of node %s: %w", node, err)
	}
	return assignment, nil
}

// remembered is the value with a token that was handled last, and owed the answer
// that the patch log does not have yet. Earlier versions noted one without a token
// there while they acted on it: who ended then must not block the button for ever.
func remembered(retry *v1alpha1.PatchRetry) string {
	if retry.Status.Handled == nil || parseClearing(retry.Status.Handled.ClearRetries).token == "" {
		return ""
	}
	return retry.Status.Handled.ClearRetries
}

func owed(retry *v1alpha1.PatchRetry) string {
	if retry.Status.Handled == nil {
		return ""
	}
	return retry.Status.Handled.Answer
}

// errOutdated says that the object is not the one that was read.
var errOutdated = errors.New("somebody else wrote first")

// outdated tells errors of that kind from others. An Invalid is the answer to a
// JSON patch whose test failed; who is gone is found to be at the next look.
func outdated(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsInvalid(err) || apierrors.IsNotFound(err) {
		return fmt.Errorf("%w: %w", errOutdated, err)
	}
	return err
}

// settle looks again soon where somebody else wrote first: that is no error.
func settle(err error) (ctrl.Result, error) {
	if errors.Is(err, errOutdated) {
		return ctrl.Result{RequeueAfter: afterConflict}, nil
	}
	return ctrl.Result{}, err
}
