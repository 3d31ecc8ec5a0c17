// Package openreports shows security patches that nodes miss to dashboards of
// policies, such as Policy Reporter: where the cluster has the kind ClusterReport
// of https://openreports.io, there is one for each node with a PatchReport, and
// it goes with that. Where the cluster has not, nothing happens.
package openreports

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	reportsv1alpha1 "github.com/openreports/reports-api/apis/openreports.io/v1alpha1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// parallelNodes is how many nodes are looked at at once. Most need nothing but
// the cache.
const parallelNodes = 4

// AddToScheme adds the kinds that a manager's scheme needs.
func AddToScheme(scheme *runtime.Scheme) error {
	return errors.Join(apiextensionsv1.AddToScheme(scheme), reportsv1alpha1.Install(scheme))
}

// Kind is the kind that the manager's cache holds for this package, and how: of
// all CustomResourceDefinitions the one that matters, and of that, whether it is
// served.
func Kind() (client.Object, cache.ByObject) {
	return &apiextensionsv1.CustomResourceDefinition{}, cache.ByObject{
		Field: fields.OneTermEqualSelector("metadata.name", definition),
		Transform: func(object any) (any, error) {
			if crd, ok := object.(*apiextensionsv1.CustomResourceDefinition); ok {
				crd.SetManagedFields(nil)
				for i := range crd.Spec.Versions {
					version := &crd.Spec.Versions[i]
					*version = apiextensionsv1.CustomResourceDefinitionVersion{Name: version.Name, Served: version.Served}
				}
			}
			return object, nil
		},
	}
}

// request asks to look at a node's ClusterReport, or without a name whether the
// kind is there.
type request struct {
	node string
}

type queue = workqueue.TypedRateLimitingInterface[request]

// Reconciler keeps ClusterReports.
type Reconciler struct {
	// Client reads from the manager's cache.
	Client client.Client
	// Live reads PatchReports with their patches, which the cache drops.
	Live client.Reader
	// Clock tells the age of scans.
	Clock clock.PassiveClock

	config *rest.Config
	http   *http.Client
	mapper meta.RESTMapper
	// running and queue are there before anything is reconciled.
	running context.Context
	queue   queue

	mutex  sync.Mutex
	copies *copies // nil while the kind is not there
}

// SetupWithManager adds the controller to a manager, whose scheme has what
// AddToScheme adds.
func SetupWithManager(mgr ctrl.Manager) error {
	r := &Reconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Clock: clock.RealClock{},
		config: mgr.GetConfig(), http: mgr.GetHTTPClient(), mapper: mgr.GetRESTMapper(),
	}
	return r.setup(mgr)
}

func (r *Reconciler) setup(mgr ctrl.Manager) error {
	byName := predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetName() == definition })
	err := builder.TypedControllerManagedBy[request](mgr).
		Named("openreports").
		Watches(&apiextensionsv1.CustomResourceDefinition{}, handler.TypedEnqueueRequestsFromMapFunc(
			func(context.Context, client.Object) []request { return []request{{}} }), builder.WithPredicates(byName)).
		Watches(&v1alpha1.PatchReport{}, handler.TypedEnqueueRequestsFromMapFunc(toNode)).
		Watches(&v1alpha1.PatchAssignment{}, handler.TypedEnqueueRequestsFromMapFunc(toNode),
			builder.WithPredicates(governorChanged())).
		Watches(&v1alpha1.PatchPolicy{}, handler.TypedEnqueueRequestsFromMapFunc(r.allNodes),
			builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(source.TypedFunc[request](func(ctx context.Context, q queue) error {
			r.running, r.queue = ctx, q
			return nil
		})).
		WithOptions(controller.TypedOptions[request]{MaxConcurrentReconciles: parallelNodes}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("adding the controller of ClusterReports: %w", err)
	}
	return nil
}

// toNode makes a request of an object that bears the node's name.
func toNode(_ context.Context, object client.Object) []request {
	return []request{{node: object.GetName()}}
}

// allNodes asks for every node that is reported on: the age at which a scan is
// overdue is the policy's.
func (r *Reconciler) allNodes(ctx context.Context, _ client.Object) []request {
	nodes, err := r.nodes(ctx)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot list the reports of a policy's nodes")
	}
	return nodes
}

func (r *Reconciler) nodes(ctx context.Context) ([]request, error) {
	if r.current() == nil {
		return nil, nil
	}
	reports := &v1alpha1.PatchReportList{}
	if err := r.Client.List(ctx, reports, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing the reports: %w", err)
	}
	requests := make([]request, 0, len(reports.Items))
	for i := range reports.Items {
		requests = append(requests, request{node: reports.Items[i].Name})
	}
	return requests, nil
}

// governorChanged lets an assignment through that came, or that says another
// policy than before; not the many writes of the node's steps.
func governorChanged() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok := e.ObjectOld.(*v1alpha1.PatchAssignment)
			after, ok2 := e.ObjectNew.(*v1alpha1.PatchAssignment)
			return !ok || !ok2 || before.Spec.Policy != after.Spec.Policy
		},
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

// Reconcile looks at one node, or whether the kind is there.
func (r *Reconciler) Reconcile(ctx context.Context, request request) (ctrl.Result, error) {
	if request.node == "" {
		return r.follow(ctx)
	}
	copies := r.current()
	if copies == nil {
		return ctrl.Result{}, nil
	}
	result, err := r.keep(ctx, copies, request.node)
	switch {
	case err == nil:
		return result, nil
	case r.current() != copies:
		return ctrl.Result{}, nil // the kind went away meanwhile
	case absent(err):
		// The kind comes or goes, and this API server has not heard of it.
		return ctrl.Result{RequeueAfter: patience}, nil
	}
	return ctrl.Result{}, err
}

// patience is how long the API server, or the cache, is given to catch up.
const patience = 5 * time.Second

// errNoOwner says that a PatchReport has no Node to go with.
var errNoOwner = errors.New("the PatchReport is owned by no Node")
