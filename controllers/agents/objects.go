package agents

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/policy"
)

// parallelNodes is how many nodes get their objects at once. A policy that
// selects 5,000 nodes has 15,000 objects made.
const parallelNodes = 10

// Objects keeps the three objects of each governed node, under the node's name:
// PatchAssignment, PatchReport and PatchRetry.
type Objects struct {
	// Client reads from the manager's cache.
	Client client.Client
	// Log takes the manager's entries of the patch log.
	Log patchlog.Sink
	// Clock tells the time.
	Clock clock.PassiveClock
}

func (r *Objects) setup(mgr ctrl.Manager) error {
	toNode := &handler.EnqueueRequestForObject{} // they bear the node's name
	return ctrl.NewControllerManagedBy(mgr).
		Named("agents-objects").
		For(&corev1.Node{}, builder.WithPredicates(relabelled())).
		Watches(&v1alpha1.PatchPolicy{}, handler.EnqueueRequestsFromMapFunc(r.allNodes),
			builder.WithPredicates(selectionChanged())).
		Watches(&v1alpha1.PatchAssignment{}, toNode, builder.WithPredicates(tampered())).
		Watches(&v1alpha1.PatchReport{}, toNode, builder.WithPredicates(tampered())).
		Watches(&v1alpha1.PatchRetry{}, toNode, builder.WithPredicates(tampered())).
		WithOptions(controller.Options{MaxConcurrentReconciles: parallelNodes}).
		Complete(reconcile.AsReconciler(r.Client, r))
}

// allNodes asks for every node: which ones a policy took or gave away is
// cheaper to see for each of them than to tell from the change.
func (r *Objects) allNodes(ctx context.Context, _ client.Object) []reconcile.Request {
	nodes := &corev1.NodeList{}
	if err := r.Client.List(ctx, nodes, client.UnsafeDisableDeepCopy); err != nil {
		klog.FromContext(ctx).Error(err, "Cannot list the nodes that a policy may select")
		return nil
	}
	requests := make([]reconcile.Request, 0, len(nodes.Items))
	for i := range nodes.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKey{Name: nodes.Items[i].Name}})
	}
	return requests
}

// relabelled lets a node through that comes, goes or changes its labels. One
// that was replaced while the watch was interrupted shows as changed, too.
func relabelled() predicate.Predicate {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			return e.ObjectOld.GetUID() != e.ObjectNew.GetUID() ||
				!maps.Equal(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels())
		},
	}
}

// tampered lets an object through that was deleted, or in which something that
// is kept here changed; not the agent's many writes. An assignment is let through
// when its node is no longer at work, too: see retire.
func tampered() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			if !equality.Semantic.DeepEqual(e.ObjectOld.GetOwnerReferences(), e.ObjectNew.GetOwnerReferences()) {
				return true
			}
			before, _ := e.ObjectOld.(*v1alpha1.PatchAssignment)
			after, _ := e.ObjectNew.(*v1alpha1.PatchAssignment)
			return before != nil && after != nil &&
				(before.Spec.Policy != after.Spec.Policy || before.Busy() && !after.Busy())
		},
	}
}

// Reconcile makes or removes one node's objects. A node that is gone takes them
// along: they are garbage collected.
func (r *Objects) Reconcile(ctx context.Context, node *corev1.Node) (reconcile.Result, error) {
	if !node.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, nil
	}
	policies := &v1alpha1.PatchPolicyList{}
	if err := r.Client.List(ctx, policies, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing the policies: %w", err)
	}
	// Over a single node the cost is that of its policies alone.
	governor, governed := policy.Govern(policies.Items, []corev1.Node{*node}).Governor[node.Name]
	work := r.retire
	if governed {
		work = func(ctx context.Context, node *corev1.Node) error { return r.keep(ctx, node, governor) }
	}
	err := work(ctx, node)
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		// The cache lags behind; what it brings may not ask for this node again.
		return reconcile.Result{RequeueAfter: lag}, nil
	}
	return reconcile.Result{}, err
}

// keep makes the objects that are missing and corrects those that are not as
// they should be.
func (r *Objects) keep(ctx context.Context, node *corev1.Node, governor string) error {
	meta := metav1.ObjectMeta{Name: node.Name, OwnerReferences: []metav1.OwnerReference{owner(node)}}
	assignment := &v1alpha1.PatchAssignment{ObjectMeta: meta, Spec: v1alpha1.PatchAssignmentSpec{Policy: governor}}
	for _, wanted := range []client.Object{
		&v1alpha1.PatchReport{ObjectMeta: meta},
		&v1alpha1.PatchRetry{ObjectMeta: meta},
		// The assignment last: once it is there, the agent finds the other two.
		assignment,
	} {
		if err := r.ensure(ctx, node, wanted); err != nil {
			return fmt.Errorf("keeping the %s of node %s: %w", kind(wanted), node.Name, err)
		}
	}
	return nil
}

func (r *Objects) ensure(ctx context.Context, node *corev1.Node, wanted client.Object) error {
	existing := wanted.DeepCopyObject().(client.Object)
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(wanted), existing)
	switch {
	case apierrors.IsNotFound(err):
		return r.create(ctx, wanted)
	case err != nil:
		return err
	case !existing.GetDeletionTimestamp().IsZero():
		return nil
	case ofAnotherNode(existing, node):
		// The node was deleted and came back under its name: what was found
		// on the old one is not true of the new one. The garbage collector
		// would get here too, later.
		if err := r.delete(ctx, existing, client.Preconditions{UID: new(existing.GetUID())}); err != nil {
			return err
		}
		return r.create(ctx, wanted)
	}
	return r.correct(ctx, existing, wanted)
}

func (r *Objects) create(ctx context.Context, wanted client.Object) error {
	if assignment, ok := wanted.(*v1alpha1.PatchAssignment); ok {
		// An agent may have lived on without it, and not know that counts were cleared.
		retry := &v1alpha1.PatchRetry{}
		if err := r.Client.Get(ctx, client.ObjectKeyFromObject(wanted), retry); client.IgnoreNotFound(err) != nil {
			return err
		}
		assignment.Spec.RetryClears = retry.Status.Clears
	}
	if err := r.Client.Create(ctx, wanted, client.FieldOwner(v1alpha1.ManagerFieldOwner)); err != nil {
		return err
	}
	klog.FromContext(ctx).V(4).Info("Made an object of a node", "kind", kind(wanted), "node", klog.KRef("", wanted.GetName()))
	return nil
}

// correct gives the object back its owner and, if it is an assignment, the
// policy. The operation in it is the task controller's and stays.
func (r *Objects) correct(ctx context.Context, existing, wanted client.Object) error {
	corrected := existing.DeepCopyObject().(client.Object)
	if !owned(existing, wanted.GetOwnerReferences()[0]) {
		corrected.SetOwnerReferences(append(corrected.GetOwnerReferences(), wanted.GetOwnerReferences()...))
	}
	if assignment, ok := corrected.(*v1alpha1.PatchAssignment); ok {
		governor := wanted.(*v1alpha1.PatchAssignment).Spec.Policy
		if assignment.Spec.Policy != governor {
			// Before the change, from which on it is no news any more.
			if err := r.Log.Write(ctx, patchlog.NodeTakenOver(r.Clock.Now(), assignment, governor)); err != nil {
				return err
			}
		}
		assignment.Spec.Policy = governor
	}
	if equality.Semantic.DeepEqual(existing, corrected) {
		return nil
	}
	patch := client.MergeFromWithOptions(existing, client.MergeFromWithOptimisticLock{})
	return r.Client.Patch(ctx, corrected, patch, client.FieldOwner(v1alpha1.ManagerFieldOwner))
}

// retire removes the objects of a node that no policy selects any more, once the
// node is not at work: a run whose policy is gone tells its nodes to end, and
// waits for their answers. Counts of failed attempts stay: a failure is never
// forgotten. So does a PatchRetry that had some: to the agent that comes back to
// the node with the counts it knew, one that was made anew would not say that they
// were cleared since.
func (r *Objects) retire(ctx context.Context, node *corev1.Node) error {
	key := client.ObjectKeyFromObject(node)
	for _, object := range []client.Object{
		&v1alpha1.PatchAssignment{}, &v1alpha1.PatchReport{}, &v1alpha1.PatchRetry{},
	} {
		if err := r.Client.Get(ctx, key, object); err != nil {
			if apierrors.IsNotFound(err) {
				continue
			}
			return fmt.Errorf("reading the %s of node %s: %w", kind(object), node.Name, err)
		}
		if assignment, ok := object.(*v1alpha1.PatchAssignment); ok && assignment.Busy() {
			return nil
		}
		// The agent may count a failure at this very moment.
		condition := client.Preconditions{
			UID: new(object.GetUID()), ResourceVersion: new(object.GetResourceVersion()),
		}
		if retry, ok := object.(*v1alpha1.PatchRetry); ok {
			if had := retry.Status; len(had.Patches) > 0 || had.Counted > 0 || had.Sequence > 0 || had.Clears > 0 {
				continue
			}
		} else {
			condition.ResourceVersion = nil
		}
		if err := r.delete(ctx, object, condition); err != nil {
			return fmt.Errorf("deleting the %s of node %s: %w", kind(object), node.Name, err)
		}
	}
	return nil
}

func (r *Objects) delete(ctx context.Context, object client.Object, condition client.Preconditions) error {
	if !object.GetDeletionTimestamp().IsZero() {
		return nil
	}
	if err := client.IgnoreNotFound(r.Client.Delete(ctx, object, condition)); err != nil {
		return err
	}
	klog.FromContext(ctx).V(4).Info("Deleted an object of a node", "kind", kind(object), "node", klog.KRef("", object.GetName()))
	return nil
}
