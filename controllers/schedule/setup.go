package schedule

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	"github.com/nodepatch/nodepatch/controllers/assignment"
	"github.com/nodepatch/nodepatch/controllers/consistent"
	"github.com/nodepatch/nodepatch/controllers/policy"
)

// gather is how long nodes that come back are waited for, so that those of a rack
// share a task.
const gather = 10 * time.Second

// SetupWithManager adds the controllers of this package to a manager; log takes
// the manager's entries of the patch log.
func SetupWithManager(mgr ctrl.Manager, log patchlog.Sink) error {
	return setup(mgr, log, clock.RealClock{}, gather)
}

func setup(mgr ctrl.Manager, log patchlog.Sink, clock clock.PassiveClock, gather time.Duration) error {
	reader, err := consistent.NewClient(mgr)
	if err != nil {
		return fmt.Errorf("setting up the schedule: %w", err)
	}
	if err := mgr.GetFieldIndexer().IndexField(context.Background(), &v1alpha1.PatchTask{}, policyField, policyOf); err != nil {
		return fmt.Errorf("indexing tasks by policy: %w", err)
	}
	err = ctrl.NewControllerManagedBy(mgr).
		Named("schedule").
		For(&v1alpha1.PatchPolicy{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		// A task that ended or went away lets the next one begin.
		Watches(&v1alpha1.PatchTask{}, handler.EnqueueRequestsFromMapFunc(policyOfTask), builder.WithPredicates(assignment.TaskEnded())).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4, ReconciliationTimeout: time.Minute}).
		Complete(&Scheduler{Client: reader, Log: log, Clock: clock})
	if err != nil {
		return err
	}
	return builder.TypedControllerManagedBy[pass](mgr).
		Named("overdue").
		Watches(&v1alpha1.PatchPolicy{}, lookAfter(gather), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.Node{}, lookAfter(gather), builder.WithPredicates(
			predicate.Or[client.Object](predicate.LabelChangedPredicate{}, policy.ReadinessChanged()))).
		Watches(&v1alpha1.PatchReport{}, lookAfter(gather), builder.WithPredicates(scanChanged())).
		Watches(&v1alpha1.PatchAssignment{}, lookAfter(gather), builder.WithPredicates(policy.PresenceChanged())).
		Watches(&v1alpha1.PatchTask{}, lookAfter(gather), builder.WithPredicates(assignment.TaskEnded())).
		WithOptions(controller.TypedOptions[pass]{ReconciliationTimeout: time.Minute}).
		Complete(&Overdue{Client: reader, Clock: clock})
}

func policyOf(object client.Object) []string {
	if task, ok := object.(*v1alpha1.PatchTask); ok {
		return []string{task.Spec.Policy}
	}
	return nil
}

func policyOfTask(_ context.Context, object client.Object) []reconcile.Request {
	var requests []reconcile.Request
	for _, name := range policyOf(object) {
		requests = append(requests, request(name))
	}
	return requests
}

// scanChanged leaves out what reports say about anything but when their node was
// scanned. What becomes overdue later is known when a report is seen first.
func scanChanged() predicate.Funcs {
	scanned := func(object client.Object) *metav1.Time {
		if report, ok := object.(*v1alpha1.PatchReport); ok && report.Status.Scan != nil {
			return report.Status.Scan.Time
		}
		return nil
	}
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool { return !scanned(e.ObjectOld).Equal(scanned(e.ObjectNew)) },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

// lookAfter asks for a pass a while after anything happened. An earlier one
// that is already asked for stays.
func lookAfter(wait time.Duration) handler.TypedEventHandler[client.Object, pass] {
	type queue = workqueue.TypedRateLimitingInterface[pass]
	return handler.TypedFuncs[client.Object, pass]{
		CreateFunc: func(_ context.Context, _ event.TypedCreateEvent[client.Object], q queue) { q.AddAfter(pass{}, wait) },
		UpdateFunc: func(_ context.Context, _ event.TypedUpdateEvent[client.Object], q queue) { q.AddAfter(pass{}, wait) },
		DeleteFunc: func(_ context.Context, _ event.TypedDeleteEvent[client.Object], q queue) { q.AddAfter(pass{}, wait) },
	}
}
