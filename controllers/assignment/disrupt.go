package assignment

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment/drain"
	"github.com/nodepatch/nodepatch/controllers/assignment/hooks"
	"github.com/nodepatch/nodepatch/controllers/blockers"
	"github.com/nodepatch/nodepatch/controllers/maintenance"
)

// Drainer drains nodes: see drain.Drainer.
type Drainer interface {
	Pass(ctx context.Context, node string, options *v1alpha1.DrainOptions) (drain.Result, error)
}

// Hooks runs hooks: see hooks.Runner.
type Hooks interface {
	Run(ctx context.Context, hook hooks.Hook) (hooks.State, error)
	Clean(ctx context.Context, node, operationID string) error
}

// Coordinators are the other programs that reboot nodes: see blockers.Checker.
type Coordinators interface {
	Coordinator(ctx context.Context, node string) *blockers.Block
	Acquire(ctx context.Context, node string, d time.Duration) (*blockers.Block, error)
	Release(ctx context.Context, node string) error
}

const (
	// maxMoves bounds what one reconcile does for a node: more than its whole way.
	maxMoves = 16
	// maxQuestions bounds what is found out for one decision: more than there are.
	maxQuestions = 16
	// afterConflict is when to look again after somebody else wrote first.
	afterConflict = 100 * time.Millisecond
)

// disrupt takes a node as far on its way as it goes now. After each move it is
// decided about anew, from what the API server then has: a manager that ends
// between two moves leaves nothing behind that the next does not find.
func (r *Reconciler) disrupt(ctx context.Context, name string) (ctrl.Result, error) {
	for range maxMoves {
		in, err := r.gather(ctx, name)
		if in == nil || err != nil {
			return ctrl.Result{}, err
		}
		decision, err := r.settle(ctx, in)
		if err != nil {
			return ctrl.Result{}, err
		}
		if err := r.record(ctx, name, in.Assignment.Spec.Operation.ID, decision.Entries); err != nil {
			return ctrl.Result{}, err
		}
		if decision.Move == Wait {
			if err := r.tell(ctx, in, &decision); err != nil {
				return ctrl.Result{}, err
			}
			return ctrl.Result{RequeueAfter: decision.After}, nil
		}
		if decision.Move == MoveEnter {
			// With the conditions the API server begins to track who writes the Node: from
			// then on a person's cordon can be told from ours.
			if changed, err := r.applyConditions(ctx, in.Node, decision.Progress, in.Assignment.Spec.Operation.Task); err != nil {
				return ctrl.Result{}, err
			} else if changed {
				continue
			}
		}
		if err := r.move(ctx, in, &decision); err != nil {
			if gone(err) {
				return ctrl.Result{RequeueAfter: afterConflict}, nil
			}
			return ctrl.Result{}, err
		}
		klog.FromContext(ctx).Info("Moved a node on", "node", klog.KRef("", name),
			"task", klog.KRef("", in.Assignment.Spec.Operation.Task), "move", decision.Move, "step", decision.Raise)
		if decision.Raise == v1alpha1.StepRebooting && name == r.Node && r.Resign != nil {
			r.Resign()
			return ctrl.Result{}, nil
		}
		if decision.Move == MoveConclude {
			return ctrl.Result{}, nil
		}
	}
	return ctrl.Result{RequeueAfter: soon}, nil
}

// gather reads what a decision depends on from the API server itself: few nodes
// are disrupted at a time, and none must be on an older view of it. It returns nil
// if there is nothing to decide.
func (r *Reconciler) gather(ctx context.Context, name string) (*Input, error) {
	assignment := &v1alpha1.PatchAssignment{}
	if err := r.Live.Get(ctx, client.ObjectKey{Name: name}, assignment); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if !admitted(assignment) {
		return nil, nil
	}
	node := &corev1.Node{}
	if err := r.Live.Get(ctx, client.ObjectKey{Name: name}, node); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	presence, err := r.presence(ctx, node)
	if err != nil {
		return nil, err
	}
	task, orphaned, err := r.orphaned(ctx, assignment.Spec.Operation)
	if err != nil {
		return nil, err
	}
	in := &Input{
		Now: r.Clock.Now(), Assignment: assignment, Orphaned: orphaned, Node: node, Presence: presence,
		Evicted: r.recall(name, assignment.Spec.Operation.ID).evictions(),
	}
	if task != nil && task.Status.Template != nil {
		in.Template = *task.Status.Template
	}
	in.Record, in.RecordErr = maintenance.Read(node)
	if in.RecordErr != nil {
		klog.FromContext(ctx).Error(in.RecordErr, "The Node's record cannot be relied on", "node", klog.KObj(node))
	}
	return in, nil
}

// settle decides, and finds out what the decision asks for.
func (r *Reconciler) settle(ctx context.Context, in *Input) (Decision, error) {
	for range maxQuestions {
		decision := Decide(*in)
		if decision.Ask == AskNothing {
			return decision, nil
		}
		if err := r.answer(ctx, in, &decision); err != nil {
			return decision, err
		}
	}
	return Decision{}, fmt.Errorf("deciding about node %s: it came to no end", in.Node.Name)
}

// answer finds out one thing.
func (r *Reconciler) answer(ctx context.Context, in *Input, decision *Decision) error {
	node, operation, answers := in.Node.Name, in.Assignment.Spec.Operation, &in.Answers
	switch decision.Ask {
	case AskHook:
		state, err := r.Hooks.Run(ctx, hooks.Hook{
			Point: decision.Hook, Hook: hookOf(in.Template.Hooks, decision.Hook),
			Node: node, OperationID: operation.ID, Task: operation.Task,
		})
		if err != nil {
			return fmt.Errorf("running the hook %s on node %s: %w", decision.Hook, node, err)
		}
		if answers.Hooks == nil {
			answers.Hooks = map[hooks.Point]hooks.State{}
		}
		answers.Hooks[decision.Hook] = state
	case AskDrain:
		result, err := r.Drainer.Pass(ctx, node, &in.Template.Drain)
		in.Evicted = r.recall(node, operation.ID).evict(len(result.Evicted))
		switch {
		case err != nil && result.Remaining == 0:
			return err
		case err != nil:
			// The drain's timeout goes on, whatever keeps pods from being evicted.
			klog.FromContext(ctx).Error(err, "Unable to evict pods", "node", klog.KObj(in.Node))
		}
		answers.Drain = &result
	case AskCoordinate:
		block := r.Coordinators.Coordinator(ctx, node)
		if block == nil {
			held := or(in.Template.Reboot.Timeout, rebootTimeout) + or(in.Template.Verify.Timeout, verifyTimeout)
			var err error
			if block, err = r.Coordinators.Acquire(ctx, node, held); err != nil {
				return fmt.Errorf("taking the lease of node %s: %w", node, err)
			}
		}
		answers.Coordinated, answers.Block = true, block
	case AskDaemonPods:
		pods, err := r.daemonPods(ctx, node)
		if err != nil {
			return err
		}
		answers.DaemonPods = pods
	case AskTidy:
		if err := r.tidy(ctx, node, operation.ID); err != nil {
			return err
		}
		answers.Tidied = true
	}
	return nil
}

// move does one move.
func (r *Reconciler) move(ctx context.Context, in *Input, decision *Decision) error {
	switch decision.Move {
	case MoveStop:
		return r.patchAssignment(ctx, in.Assignment, func(spec *v1alpha1.PatchAssignmentSpec) { spec.Operation.Stop = decision.Stop })
	case MoveBegin:
		return r.patchNode(ctx, in.Node, func(node *corev1.Node) {
			maintenance.Begin(node, subject(in.Assignment), in.Now, unready(in.Answers.DaemonPods, nil))
		})
	case MoveRebuild:
		return r.patchNode(ctx, in.Node, func(node *corev1.Node) { maintenance.Rebuild(node, subject(in.Assignment), in.Now) })
	case MoveEnter:
		return r.patchNode(ctx, in.Node, func(node *corev1.Node) { in.Record.Enter(node, decision.Preparation, in.Now) })
	case MoveRaise:
		return r.patchAssignment(ctx, in.Assignment, func(spec *v1alpha1.PatchAssignmentSpec) {
			spec.Operation.Step = decision.Raise
			spec.Operation.Deadline.Time = decision.Deadline
		})
	case MoveRestore:
		return r.patchNode(ctx, in.Node, func(node *corev1.Node) { in.Record.Restore(node, in.Now, decision.Outcome) })
	case MoveConclude:
		return r.patchAssignment(ctx, in.Assignment, func(spec *v1alpha1.PatchAssignmentSpec) { Conclude(spec, decision.Verdict) })
	}
	return fmt.Errorf("no such move: %s", decision.Move)
}

// patchNode changes a Node that was read from the API server, if it still is as
// it was then.
func (r *Reconciler) patchNode(ctx context.Context, node *corev1.Node, change func(*corev1.Node)) error {
	changed := node.DeepCopy()
	change(changed)
	patch := client.MergeFromWithOptions(node, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Patch(ctx, changed, patch, client.FieldOwner(v1alpha1.ManagerFieldOwner)); err != nil {
		return fmt.Errorf("writing the node %s: %w", node.Name, err)
	}
	return nil
}

// patchAssignment changes an assignment's spec, if the assignment still is as it
// was read.
func (r *Reconciler) patchAssignment(ctx context.Context, assignment *v1alpha1.PatchAssignment, change func(*v1alpha1.PatchAssignmentSpec)) error {
	changed := assignment.DeepCopy()
	change(&changed.Spec)
	patch := client.MergeFromWithOptions(assignment, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Patch(ctx, changed, patch, client.FieldOwner(v1alpha1.ManagerFieldOwner)); err != nil {
		return fmt.Errorf("writing the assignment of node %s: %w", assignment.Name, err)
	}
	return nil
}

// tidy removes what a disruption left besides the Node.
func (r *Reconciler) tidy(ctx context.Context, node, operationID string) error {
	if err := r.Hooks.Clean(ctx, node, operationID); err != nil {
		return fmt.Errorf("removing the hooks' pods on node %s: %w", node, err)
	}
	if err := r.Coordinators.Release(ctx, node); err != nil {
		return fmt.Errorf("giving back the lease of node %s: %w", node, err)
	}
	return nil
}

func subject(assignment *v1alpha1.PatchAssignment) maintenance.Subject {
	operation := assignment.Spec.Operation
	return maintenance.Subject{OperationID: operation.ID, Task: operation.Task, Policy: assignment.Spec.Policy}
}

// admitted says whether the operation of an assignment that stays may disrupt its node.
func admitted(assignment *v1alpha1.PatchAssignment) bool {
	operation := assignment.Spec.Operation
	return assignment.DeletionTimestamp.IsZero() && operation != nil && operation.AdmittedAt != nil
}
