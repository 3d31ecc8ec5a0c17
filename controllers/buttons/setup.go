package buttons

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/consistent"
)

// SetupWithManager adds the controllers of this package to a manager; log takes
// the manager's entries of the patch log.
func SetupWithManager(mgr ctrl.Manager, log patchlog.Sink) error {
	reader, err := consistent.NewClient(mgr)
	if err != nil {
		return fmt.Errorf("setting up the buttons: %w", err)
	}
	// Without a cache: nobody wants to hold all Events of a cluster.
	entries, err := client.New(mgr.GetConfig(), client.Options{
		HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
	})
	if err != nil {
		return fmt.Errorf("setting up the buttons: %w", err)
	}
	presses := Presses{Client: reader, Entries: entries, Log: log, Clock: clock.RealClock{}}
	add := func(kind client.Object, name string, wanted predicate.Predicate, reconciler reconcile.Reconciler) error {
		return ctrl.NewControllerManagedBy(mgr).
			Named("buttons-"+name).
			For(kind, builder.WithPredicates(wanted)).
			WithOptions(controller.Options{MaxConcurrentReconciles: 8, ReconciliationTimeout: time.Minute}).
			Complete(reconciler)
	}
	return errors.Join(
		add(&v1alpha1.PatchRetry{}, "retries", pressed(),
			reconcile.AsReconciler(reader, &Retries{Client: reader, Log: log, Clock: clock.RealClock{}})),
		add(&v1alpha1.PatchPolicy{}, "policies", pressedAny(policyButtons), reconcile.AsReconciler(reader, &Policies{presses})),
		add(&v1alpha1.PatchReport{}, "reports", pressedAny(reportButtons), reconcile.AsReconciler(reader, &Reports{presses})),
		add(&v1alpha1.PatchTask{}, "tasks", pressedAny(taskButtons), reconcile.AsReconciler(reader, &Tasks{presses})),
	)
}

// pressed leaves out what agents count: it concerns no button.
func pressed() predicate.Predicate {
	return predicate.NewPredicateFuncs(func(object client.Object) bool {
		retry, ok := object.(*v1alpha1.PatchRetry)
		if !ok {
			return false
		}
		_, has := retry.Annotations[v1alpha1.ClearRetriesAnnotation]
		return has || owed(retry) != ""
	})
}

// pressedAny leaves out objects none of whose buttons is to be acted on.
func pressedAny(buttons []string) predicate.Predicate {
	return predicate.NewPredicateFuncs(func(object client.Object) bool {
		return pressOf(object) != nil ||
			slices.ContainsFunc(buttons, func(annotation string) bool { return waits(object, annotation) })
	})
}
