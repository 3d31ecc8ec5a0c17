package assignment

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// podNodeField is the field by which the agent's pod of a node is found.
const podNodeField = "spec.nodeName"

// Reconciler keeps one node's PatchAssignment, and disrupts the node when its task
// has admitted it.
type Reconciler struct {
	// Client reads from the manager's cache.
	Client client.Client
	// Live reads from the API server: that a task is gone must not be
	// concluded from a cache that has not seen it yet, and a node must not be
	// disrupted on an older view of it.
	Live client.Reader
	// Namespace of the agent's pods.
	Namespace string
	// Node and Resign: see Options.
	Node   string
	Resign func()
	// Log takes the manager's entries of the patch log.
	Log patchlog.Sink
	// Clock tells the time.
	Clock clock.PassiveClock

	Drainer      Drainer
	Hooks        Hooks
	Coordinators Coordinators

	memories
}

// Reconcile looks at the assignment of one node. The two steps of one that is not
// disrupted do not depend on each other.
func (r *Reconciler) Reconcile(ctx context.Context, assignment *v1alpha1.PatchAssignment) (ctrl.Result, error) {
	if !assignment.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	if admitted(assignment) {
		return r.disrupt(ctx, assignment.Name)
	}
	return ctrl.Result{}, errors.Join(
		r.reportPresence(ctx, assignment),
		r.withdrawOrphan(ctx, assignment),
	)
}

// reportPresence writes status.controller if it changes.
func (r *Reconciler) reportPresence(ctx context.Context, assignment *v1alpha1.PatchAssignment) error {
	node := &corev1.Node{}
	if err := r.Client.Get(ctx, client.ObjectKey{Name: assignment.Name}, node); err != nil {
		// The assignment goes with its node.
		return client.IgnoreNotFound(err)
	}
	presence, err := r.presence(ctx, node)
	if err != nil {
		return err
	}
	return r.say(ctx, assignment, presence)
}

// withdrawOrphan takes back an operation that no task waits for any more: its
// task was deleted, or replaced by one of the same name, or has ended. One that
// ended is left as it is, which spares a write for each node and task.
func (r *Reconciler) withdrawOrphan(ctx context.Context, assignment *v1alpha1.PatchAssignment) error {
	operation := assignment.Spec.Operation
	if !assignment.Busy() {
		return nil
	}
	_, why, err := r.orphaned(ctx, operation)
	if err != nil || why == "" {
		return err
	}
	changed := assignment.DeepCopy()
	changed.Spec.Operation = nil
	patch := client.MergeFromWithOptions(assignment.DeepCopy(), client.MergeFromWithOptimisticLock{})
	err = r.Client.Patch(ctx, changed, patch, client.FieldOwner(v1alpha1.ManagerFieldOwner))
	if gone(err) {
		// Whoever wrote it brings it back here.
		return nil
	}
	if err != nil {
		return fmt.Errorf("taking back the operation of node %s: %w", assignment.Name, err)
	}
	klog.FromContext(ctx).Info("Took back an operation", "node", klog.KRef("", assignment.Name),
		"task", klog.KRef("", operation.Task), "reason", why)
	return nil
}

// orphaned says why no task waits for an operation, if so, and else returns the
// task.
func (r *Reconciler) orphaned(ctx context.Context, operation *v1alpha1.Operation) (waiting *v1alpha1.PatchTask, why string, err error) {
	task := &v1alpha1.PatchTask{}
	key := client.ObjectKey{Name: operation.Task}
	err = r.Client.Get(ctx, key, task)
	if err == nil && task.UID == types.UID(operation.ID) && !task.Finished() {
		return task, "", nil
	}
	if client.IgnoreNotFound(err) != nil {
		return nil, "", fmt.Errorf("reading the task %s: %w", operation.Task, err)
	}
	task = &v1alpha1.PatchTask{}
	err = r.Live.Get(ctx, key, task)
	switch {
	case apierrors.IsNotFound(err):
		return nil, "The task was deleted", nil
	case err != nil:
		return nil, "", fmt.Errorf("reading the task %s: %w", operation.Task, err)
	case task.UID != types.UID(operation.ID):
		return nil, "The task was deleted and another has its name", nil
	case task.Finished():
		return nil, "The task ended", nil
	}
	return task, "", nil
}

// gone says that the object is not the one that was read: it was deleted, made
// anew, or written by somebody else. The watch then brings the new one.
func gone(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsConflict(err)
}
