package assignment

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
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
)

// operationTaskIndex finds the assignments whose operation belongs to a task.
const operationTaskIndex = "spec.operation.task"

// maxBackoff bounds how long to wait after errors: a node must not stay cordoned
// for long after the API server is back.
const maxBackoff = 10 * time.Second

// Options of the controllers.
type Options struct {
	// Namespace of the agent's pods.
	Namespace string
	// Node is the name of the node that the manager runs on, if it is known. Resign
	// has the manager end in good order once that node reboots: another one leads
	// at once, and not only when the lease of the one that went down runs out.
	Node   string
	Resign func()
	// Log takes the manager's entries of the patch log.
	Log patchlog.Sink
	// Drainer, Hooks and Coordinators do a disruption's errands.
	Drainer      Drainer
	Hooks        Hooks
	Coordinators Coordinators
}

// SetupWithManager adds the controllers to a manager: the one of assignments, and
// the one that takes leave of Nodes.
func SetupWithManager(mgr ctrl.Manager, o Options) error {
	ctx := context.Background()
	indexer := mgr.GetFieldIndexer()
	if err := indexer.IndexField(ctx, &corev1.Pod{}, podNodeField, indexPod); err != nil {
		return fmt.Errorf("indexing pods: %w", err)
	}
	if err := indexer.IndexField(ctx, &v1alpha1.PatchAssignment{}, operationTaskIndex, indexAssignment); err != nil {
		return fmt.Errorf("indexing assignments: %w", err)
	}
	r := &Reconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Namespace: o.Namespace, Node: o.Node, Resign: o.Resign, Log: o.Log, Clock: clock.RealClock{},
		Drainer: o.Drainer, Hooks: o.Hooks, Coordinators: o.Coordinators,
	}
	taskGone := TaskEnded()
	// A task that has the name of a deleted one leaves that one's operations orphans.
	taskGone.CreateFunc = nil
	err := ctrl.NewControllerManagedBy(mgr).
		Named("assignment").
		For(&v1alpha1.PatchAssignment{}).
		Watches(&corev1.Node{}, handler.EnqueueRequestsFromMapFunc(sameName), builder.WithPredicates(disruptionMatters())).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(podNode(o.Namespace))).
		Watches(&v1alpha1.PatchTask{}, handler.EnqueueRequestsFromMapFunc(taskAssignments(mgr.GetCache())), builder.WithPredicates(taskGone)).
		WithOptions(options()).
		Complete(reconcile.AsReconciler(mgr.GetClient(), r))
	if err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("leave").
		For(&corev1.Node{}, builder.WithPredicates(predicate.NewPredicateFuncs(carriesRecord))).
		Watches(&v1alpha1.PatchAssignment{}, handler.EnqueueRequestsFromMapFunc(sameName), builder.WithPredicates(operationGone())).
		WithOptions(options()).
		Complete(Leaver{Reconciler: r})
}

func options() controller.Options {
	return controller.Options{
		// A pass of a drain takes up to some seconds where evictions are answered late.
		MaxConcurrentReconciles: 16,
		ReconciliationTimeout:   time.Minute,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](5*time.Millisecond, maxBackoff),
	}
}

// operationGone lets through assignments that are deleted, and those that no
// admitted operation holds any more.
func operationGone() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc:  func(event.CreateEvent) bool { return false },
		GenericFunc: func(event.GenericEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok := e.ObjectOld.(*v1alpha1.PatchAssignment)
			after, ok2 := e.ObjectNew.(*v1alpha1.PatchAssignment)
			return !ok || !ok2 || admittedID(before) != admittedID(after)
		},
	}
}

func admittedID(assignment *v1alpha1.PatchAssignment) string {
	if !admitted(assignment) {
		return ""
	}
	return assignment.Spec.Operation.ID
}

func indexPod(object client.Object) []string {
	if pod, ok := object.(*corev1.Pod); ok && pod.Spec.NodeName != "" {
		return []string{pod.Spec.NodeName}
	}
	return nil
}

func indexAssignment(object client.Object) []string {
	if assignment, ok := object.(*v1alpha1.PatchAssignment); ok && assignment.Spec.Operation != nil {
		return []string{assignment.Spec.Operation.Task}
	}
	return nil
}

func sameName(_ context.Context, object client.Object) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: object.GetName()}}}
}

// podNode maps an agent's pod to the node that it was scheduled to.
func podNode(namespace string) handler.MapFunc {
	return func(_ context.Context, object client.Object) []reconcile.Request {
		pod, ok := object.(*corev1.Pod)
		if !ok || pod.Namespace != namespace || pod.Spec.NodeName == "" {
			return nil
		}
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: pod.Spec.NodeName}}}
	}
}

// taskAssignments maps a task to the assignments whose operation is its part.
func taskAssignments(reader client.Reader) handler.MapFunc {
	return func(ctx context.Context, object client.Object) []reconcile.Request {
		var assignments v1alpha1.PatchAssignmentList
		err := reader.List(ctx, &assignments, client.MatchingFields{operationTaskIndex: object.GetName()}, client.UnsafeDisableDeepCopy)
		if err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Unable to list the assignments of a task")
			return nil
		}
		var requests []reconcile.Request
		for i := range assignments.Items {
			if assignment := &assignments.Items[i]; assignment.Busy() {
				requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Name: assignments.Items[i].Name}})
			}
		}
		return requests
	}
}

// TaskEnded lets through tasks when they end and when they are deleted. One that
// the watch shows for the first time is held back, also if it has ended.
func TaskEnded() predicate.Funcs {
	finished := func(object client.Object) bool {
		task, ok := object.(*v1alpha1.PatchTask)
		return ok && task.Finished()
	}
	return predicate.Funcs{
		CreateFunc:  func(event.CreateEvent) bool { return false },
		UpdateFunc:  func(e event.UpdateEvent) bool { return !finished(e.ObjectOld) && finished(e.ObjectNew) },
		GenericFunc: func(event.GenericEvent) bool { return false },
	}
}

// ReadinessChanged leaves out the updates of a node in which neither the status
// nor the reason of its Ready condition changed, as in its heartbeats. A node
// that was made anew under its name comes through.
func ReadinessChanged() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok := e.ObjectOld.(*corev1.Node)
			after, ok2 := e.ObjectNew.(*corev1.Node)
			return !ok || !ok2 || before.UID != after.UID || readiness(before) != readiness(after)
		},
	}
}

// disruptionMatters lets through what a node's disruption looks at, besides what
// its readiness is.
func disruptionMatters() predicate.Predicate {
	return predicate.Or[client.Object](ReadinessChanged(), predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok := e.ObjectOld.(*corev1.Node)
			after, ok2 := e.ObjectNew.(*corev1.Node)
			return !ok || !ok2 ||
				before.Spec.Unschedulable != after.Spec.Unschedulable ||
				before.Status.NodeInfo.BootID != after.Status.NodeInfo.BootID ||
				before.Annotations[v1alpha1.MaintenanceAnnotation] != after.Annotations[v1alpha1.MaintenanceAnnotation]
		},
	})
}

// readiness is all of a node's condition that messages repeat.
func readiness(node *corev1.Node) [2]string {
	if condition := NodeReady(node); condition != nil {
		return [2]string{string(condition.Status), condition.Reason}
	}
	return [2]string{}
}
