package buttons

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

const (
	// part is how many objects one look at a press changes at most, so that other
	// presses have their turn.
	part = 500
	// parallel is how many requests one press makes at a time.
	parallel = 8
	// afterPart is when to go on with a press of which a part was done.
	afterPart = time.Millisecond
)

// nodes are the assignments of the nodes that an object with buttons is about:
// those that a policy governs, the one of a report, or those that a task ran on, as
// far as that is known, and all that its policy governs. None may be changed.
func (p *Presses) nodes(ctx context.Context, object client.Object) ([]*v1alpha1.PatchAssignment, error) {
	var mine func(*v1alpha1.PatchAssignment) bool
	switch o := object.(type) {
	case *v1alpha1.PatchPolicy:
		mine = func(node *v1alpha1.PatchAssignment) bool { return node.Spec.Policy == o.Name }
	case *v1alpha1.PatchTask:
		mine = func(node *v1alpha1.PatchAssignment) bool {
			return node.Spec.Policy == o.Spec.Policy || ranOn(node, string(o.UID))
		}
	default:
		return p.node(ctx, object)
	}
	list := &v1alpha1.PatchAssignmentList{}
	if err := p.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing the nodes of %s: %w", object.GetName(), err)
	}
	var nodes []*v1alpha1.PatchAssignment
	for i := range list.Items {
		if node := &list.Items[i]; mine(node) && node.DeletionTimestamp.IsZero() {
			nodes = append(nodes, node)
		}
	}
	return nodes, nil
}

// node is the assignment of the node whose name an object bears, if it has one.
func (p *Presses) node(ctx context.Context, object client.Object) ([]*v1alpha1.PatchAssignment, error) {
	assignment := &v1alpha1.PatchAssignment{}
	err := p.Client.Get(ctx, client.ObjectKeyFromObject(object), assignment)
	switch {
	case apierrors.IsNotFound(err), err == nil && !assignment.DeletionTimestamp.IsZero():
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading the assignment of node %s: %w", object.GetName(), err)
	}
	return []*v1alpha1.PatchAssignment{assignment}, nil
}

// ranOn says whether an operation was one of the last that a node was given,
// whatever policy governs it now.
func ranOn(node *v1alpha1.PatchAssignment, operation string) bool {
	is := func(ended v1alpha1.EndedOperation) bool { return ended.OperationID == operation }
	agent := node.Status.Agent
	return node.Spec.Operation != nil && node.Spec.Operation.ID == operation ||
		slices.ContainsFunc(node.Spec.Verdicts, is) || slices.ContainsFunc(node.Spec.Outcomes, is) ||
		agent != nil && (agent.OperationID == operation || slices.ContainsFunc(agent.Earlier, is))
}

// each does something to the first items, many at a time, and says when to look
// at them again: zero if there were no more, and nobody else wrote one first.
func each[T any](ctx context.Context, items []T, do func(context.Context, T) error) (again time.Duration, err error) {
	if len(items) > part {
		items, again = items[:part], afterPart
	}
	contended := atomic.Bool{}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, item := range items {
		group.Go(func() error {
			err := do(ctx, item)
			if errors.Is(err, errOutdated) {
				contended.Store(true)
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	if contended.Load() {
		again = afterConflict
	}
	return again, nil
}

func nodesOf(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}
