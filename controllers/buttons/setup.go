package buttons

import (
	"fmt"
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
	retries := &Retries{Client: reader, Log: log, Clock: clock.RealClock{}}
	return ctrl.NewControllerManagedBy(mgr).
		Named("buttons-retries").
		For(&v1alpha1.PatchRetry{}, builder.WithPredicates(pressed())).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4, ReconciliationTimeout: time.Minute}).
		Complete(reconcile.AsReconciler(reader, retries))
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
