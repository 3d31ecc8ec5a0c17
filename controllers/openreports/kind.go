package openreports

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	reportsv1alpha1 "github.com/openreports/reports-api/apis/openreports.io/v1alpha1"
)

// definition is the CustomResourceDefinition of ClusterReports.
const definition = "clusterreports." + reportsv1alpha1.GroupName

// clusterReport is the kind, in the version that is written.
var clusterReport = reportsv1alpha1.SchemeGroupVersion.WithKind("ClusterReport")

// follow begins and ends with the kind: while the API server serves it,
// ClusterReports are watched and kept. A kind that was deleted and made anew
// between two looks is another one.
func (r *Reconciler) follow(ctx context.Context) (ctrl.Result, error) {
	served, err := r.served(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	log := klog.FromContext(ctx)
	copies := r.current()
	if copies != nil && copies.of != served {
		r.become(nil)
		copies.end()
		log.Info("Keeps no ClusterReports any more, as the API server does not serve them", "definition", definition)
		copies = nil
	}
	if copies != nil || served == "" {
		return ctrl.Result{}, nil
	}
	if copies, err = r.watch(served); absent(err) {
		return ctrl.Result{RequeueAfter: time.Second}, nil // discovery lags behind the definition
	} else if err != nil {
		return ctrl.Result{}, fmt.Errorf("watching the ClusterReports of OpenReports: %w", err)
	}
	r.become(copies)
	nodes, err := r.nodes(ctx)
	left, err2 := copies.nodes(ctx) // some of nodes that nobody reports on any more
	if err := errors.Join(err, err2); err != nil {
		r.become(nil)
		copies.end()
		return ctrl.Result{}, err
	}
	for _, node := range slices.Concat(nodes, left) {
		r.queue.Add(node)
	}
	log.Info("Keeps a ClusterReport of each node, as the API server serves them", "definition", definition, "nodes", len(nodes))
	return ctrl.Result{}, nil
}

// served is the UID of the kind's definition; empty if it is not served.
func (r *Reconciler) served(ctx context.Context) (types.UID, error) {
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := r.Client.Get(ctx, client.ObjectKey{Name: definition}, crd); err != nil {
		if apierrors.IsNotFound(err) {
			return "", nil
		}
		return "", fmt.Errorf("reading the definition of ClusterReports: %w", err)
	}
	established := slices.ContainsFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
	})
	if !established || !crd.DeletionTimestamp.IsZero() {
		return "", nil
	}
	for _, version := range crd.Spec.Versions {
		if version.Name == clusterReport.Version && version.Served {
			return crd.UID, nil
		}
	}
	klog.FromContext(ctx).Info("Keeps no ClusterReports, as the API server serves them in other versions only",
		"definition", definition, "wanted", clusterReport.Version)
	return "", nil
}

// current is what is known of the ClusterReports; nil while the kind is not there.
func (r *Reconciler) current() *copies {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.copies
}

func (r *Reconciler) become(copies *copies) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.copies = copies
}

// absent says that the API server does not know the kind.
func absent(err error) bool { return apierrors.IsNotFound(err) || meta.IsNoMatchError(err) }
