package task

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	apply "github.com/nodepatch/nodepatch/api/v1alpha1/applyconfiguration/api/v1alpha1"
)

// turnsShown is how many of a task's waiting nodes say at once for what else they
// wait, when all that changes is whose turn it is.
const turnsShown = 50

// turn are the reasons of nodes that wait for others. In a large rollout they come
// and go with every node that is disrupted anywhere, and for every node behind it.
var turn = sets.New(v1alpha1.ReasonControlPlane, v1alpha1.ReasonTopology, v1alpha1.ReasonBudget, v1alpha1.ReasonClusterBudget)

// explain finds out which assignments have to say something else about why their
// node waits. What a node that nothing was decided about says is left as it is,
// and so is what another task says about a node that waits for it.
func (r *run) explain(plan *Plan) {
	waiting := 0
	for i := range plan.Nodes {
		node := &plan.Nodes[i]
		given := r.in.Assignments[node.Name]
		if given == nil {
			continue
		}
		said := given.Status.Rollout
		if node.Place == PlaceWaiting {
			says := v1alpha1.RolloutStatus{OperationID: r.id, Reason: limit(node.Reason, maxReason), Message: limit(node.Message, maxMessage)}
			waiting++
			behind := waiting > turnsShown && said != nil && said.OperationID == r.id && turn.Has(said.Reason) && turn.Has(says.Reason)
			if node.Reason != "" && !behind && (said == nil || *said != says) {
				node.Says = &says
			}
			continue
		}
		operation := given.Spec.Operation
		if said != nil && (said.OperationID == r.id || operation == nil || operation.ID != said.OperationID) {
			node.Says = &v1alpha1.RolloutStatus{}
		}
	}
}

// say writes what the plan says about why nodes wait, where that changes. Where
// somebody else wrote at the same time, contended is true.
func (r *Reconciler) say(ctx context.Context, plan *Plan, assignments map[string]*v1alpha1.PatchAssignment) (contended bool, err error) {
	results := make([]error, len(plan.Nodes))
	group := errgroup.Group{}
	group.SetLimit(parallelWrites)
	for i := range plan.Nodes {
		if node := &plan.Nodes[i]; node.Says != nil {
			group.Go(func() error {
				results[i] = r.sayOf(ctx, assignments[node.Name], node.Says)
				return nil
			})
		}
	}
	_ = group.Wait() // Each result is looked at below.
	var failures []error
	for _, result := range results {
		switch {
		case result == nil:
			continue
		case apierrors.IsConflict(result):
			contended = true
		default:
			failures = append(failures, result)
		}
		plan.goOn()
	}
	return contended, errors.Join(failures...)
}

// sayOf writes why one node waits, or takes it back if that is empty. An
// assignment that is gone has nothing to say.
func (r *Reconciler) sayOf(ctx context.Context, given *v1alpha1.PatchAssignment, says *v1alpha1.RolloutStatus) error {
	configuration := apply.PatchAssignment(given.Name).WithUID(given.UID)
	if says.OperationID != "" {
		configuration = configuration.WithStatus(apply.PatchAssignmentStatus().WithRollout(apply.RolloutStatus().
			WithOperationID(says.OperationID).WithReason(says.Reason).WithMessage(says.Message)))
	}
	err := r.Client.Status().Apply(ctx, configuration, client.FieldOwner(v1alpha1.RolloutFieldOwner), client.ForceOwnership)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("writing why the node %s waits: %w", given.Name, err)
	}
	return nil
}

// unsay takes back what a task that was deleted said about nodes.
func (r *Reconciler) unsay(ctx context.Context, task string) error {
	var tasks v1alpha1.PatchTaskList
	var assignments v1alpha1.PatchAssignmentList
	for _, list := range []client.ObjectList{&tasks, &assignments} {
		if err := r.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return fmt.Errorf("listing what the task %s left: %w", task, err)
		}
	}
	known := sets.New[string]()
	for i := range tasks.Items {
		known.Insert(string(tasks.Items[i].UID))
	}
	var failures []error
	for i := range assignments.Items {
		if said := assignments.Items[i].Status.Rollout; said != nil && !known.Has(said.OperationID) {
			failures = append(failures, r.sayOf(ctx, &assignments.Items[i], &v1alpha1.RolloutStatus{}))
		}
	}
	return errors.Join(failures...)
}
