package task

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
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
	"github.com/nodepatch/nodepatch/controllers/assignment"
	"github.com/nodepatch/nodepatch/controllers/consistent"
)

// unfinishedIndex finds the tasks that have not ended.
const unfinishedIndex = "nodepatch.io/unfinished"

// Options of the controller.
type Options struct {
	// Node is the name of the node that the manager runs on, if it is known: it
	// goes last of its wave.
	Node string
	// ClusterMaxUnavailable is how many nodes of the cluster may be unavailable at
	// once before no more are disrupted, a number or a percentage; nil for no bound.
	ClusterMaxUnavailable *intstr.IntOrString
	// Blockers are asked before a node is disrupted; nil if there are none.
	Blockers Blockers
}

// SetupWithManager adds the controller to a manager; log takes the manager's
// entries of the patch log. The controller reads through a client of its own
// that waits until the manager's cache has seen what this client wrote: with
// an older view it would count too few busy nodes and hand out too many slots.
func SetupWithManager(mgr ctrl.Manager, log patchlog.Sink, options Options) error {
	reader, err := consistent.NewClient(mgr)
	if err != nil {
		return fmt.Errorf("setting up the task controller: %w", err)
	}
	if err := mgr.GetFieldIndexer().IndexField(context.Background(), &v1alpha1.PatchTask{}, unfinishedIndex, indexUnfinished); err != nil {
		return fmt.Errorf("indexing tasks: %w", err)
	}
	r := &Reconciler{
		Client: reader, Reports: mgr.GetAPIReader(), Log: log, Clock: clock.RealClock{},
		Node: options.Node, ClusterMaxUnavailable: options.ClusterMaxUnavailable, Blockers: options.Blockers,
	}
	unfinished := handler.EnqueueRequestsFromMapFunc(unfinishedTasks(mgr.GetCache()))
	return ctrl.NewControllerManagedBy(mgr).
		Named("task").
		For(&v1alpha1.PatchTask{}, builder.WithPredicates(asked())).
		// A task that ended or went away leaves nodes free.
		Watches(&v1alpha1.PatchTask{}, unfinished, builder.WithPredicates(assignment.TaskEnded())).
		Watches(&v1alpha1.PatchAssignment{}, unfinished).
		Watches(&v1alpha1.PatchPolicy{}, unfinished, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.Node{}, unfinished, builder.WithPredicates(nodeMatters())).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4, ReconciliationTimeout: 2 * time.Minute}).
		Complete(r)
}

func indexUnfinished(object client.Object) []string {
	if task, ok := object.(*v1alpha1.PatchTask); ok && !task.Finished() {
		return []string{"true"}
	}
	return nil
}

// unfinishedTasks maps any object to the tasks that have not ended: what
// happens to a node may concern each of them, and they are few.
func unfinishedTasks(reader client.Reader) handler.MapFunc {
	return func(ctx context.Context, _ client.Object) []reconcile.Request {
		var tasks v1alpha1.PatchTaskList
		err := reader.List(ctx, &tasks, client.MatchingFields{unfinishedIndex: "true"}, client.UnsafeDisableDeepCopy)
		if err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Unable to list the tasks that an event concerns")
			return nil
		}
		requests := make([]reconcile.Request, 0, len(tasks.Items))
		for i := range tasks.Items {
			requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Name: tasks.Items[i].Name}})
		}
		return requests
	}
}

// asked lets through what a person or GitOps changed on a task, not what the
// controller itself wrote to its status.
func asked() predicate.Predicate {
	return predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{})
}

// nodeMatters leaves out the heartbeats of nodes.
func nodeMatters() predicate.Predicate {
	return predicate.Or[client.Object](assignment.ReadinessChanged(), predicate.LabelChangedPredicate{}, availabilityChanged())
}

// availabilityChanged lets through nodes that were cordoned or uncordoned, and
// those that nodepatch begins or ceases to disrupt.
func availabilityChanged() predicate.Funcs {
	return predicate.Funcs{
		CreateFunc:  func(event.CreateEvent) bool { return false },
		DeleteFunc:  func(event.DeleteEvent) bool { return false },
		GenericFunc: func(event.GenericEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok := e.ObjectOld.(*corev1.Node)
			after, ok2 := e.ObjectNew.(*corev1.Node)
			_, maintained := e.ObjectOld.GetAnnotations()[v1alpha1.MaintenanceAnnotation]
			_, maintains := e.ObjectNew.GetAnnotations()[v1alpha1.MaintenanceAnnotation]
			return maintained != maintains || ok && ok2 && before.Spec.Unschedulable != after.Spec.Unschedulable
		},
	}
}
