package openreports

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// managedBy is the label by which nodepatch knows its own ClusterReports among
// those of others.
var managedBy = map[string]string{"app.kubernetes.io/managed-by": "nodepatch"}

// markerAnnotation on a ClusterReport says which findings it was made of: see
// facts.marker.
const markerAnnotation = "nodepatch.io/marker"

// copies knows the metadata of nodepatch's ClusterReports, as long as their kind
// is there. It is a cache of its own, which ends with the kind: an informer of the
// manager's would go on asking for what is no more.
type copies struct {
	// of is the UID of the kind's definition.
	of    types.UID
	cache cache.Cache
	end   context.CancelFunc

	mutex sync.Mutex
	wrote map[string]write
}

// write is what the cache may not have seen yet.
type write struct {
	version string
	at      time.Time
}

// watch begins to watch. It returns once all ClusterReports are known.
func (r *Reconciler) watch(of types.UID) (*copies, error) {
	options := cache.Options{
		HTTPClient: r.http, Scheme: r.Client.Scheme(), Mapper: r.mapper,
		DefaultLabelSelector: labels.SelectorFromSet(managedBy),
		DefaultTransform:     cache.TransformStripManagedFields(),
		DefaultWatchErrorHandler: func(ctx context.Context, reflector *toolscache.Reflector, err error) {
			if !apierrors.IsNotFound(err) { // as it is between the end of the kind and that of the watch
				toolscache.DefaultWatchErrorHandler(ctx, reflector, err)
			}
		},
	}
	held, err := cache.New(r.config, options)
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(r.running)
	c := &copies{of: of, cache: held, end: end, wrote: map[string]write{}}
	if err := c.begin(ctx, r.queue); err != nil {
		end()
		return nil, err
	}
	return c, nil
}

func (c *copies) begin(ctx context.Context, q queue) error {
	go func() {
		if err := c.cache.Start(ctx); err != nil {
			klog.FromContext(ctx).Error(err, "Cannot watch ClusterReports")
		}
	}()
	bounded, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	informer, err := c.cache.GetInformer(bounded, metadata(""), cache.BlockUntilSynced(false))
	if err != nil {
		return err
	}
	seen := func(object any) {
		if final, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
			object = final.Obj
		}
		if report, ok := object.(*metav1.PartialObjectMetadata); ok {
			q.Add(request{node: nodeOf(report)})
		}
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    seen,
		UpdateFunc: func(_, after any) { seen(after) },
		DeleteFunc: func(object any) {
			c.forget(object)
			seen(object)
		},
	})
	if err != nil {
		return err
	}
	if !toolscache.WaitForCacheSync(bounded.Done(), registration.HasSynced) {
		return errors.New("the API server did not list them in time")
	}
	return nil
}

// get is the metadata of the ClusterReport of a node; nil if there is none. It is
// not current if it lacks what was written last: then the watch asks for the node
// again once it is there.
func (c *copies) get(ctx context.Context, node string, now time.Time) (report *metav1.PartialObjectMetadata, current bool, err error) {
	name := reportName(node)
	report = metadata(name)
	if err := c.cache.Get(ctx, client.ObjectKey{Name: name}, report); apierrors.IsNotFound(err) {
		report = nil
	} else if err != nil {
		return nil, false, fmt.Errorf("reading the ClusterReport of node %s: %w", node, err)
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	last, ok := c.wrote[name]
	if !ok {
		return report, true, nil
	}
	if report != nil {
		order, err := resourceversion.CompareResourceVersion(report.ResourceVersion, last.version)
		if err != nil || order >= 0 {
			delete(c.wrote, name)
			return report, true, nil
		}
	}
	// Of a report that came and went between two looks the watch may say nothing.
	return report, now.Sub(last.at) > 2*patience, nil
}

// nodes asks for the node of each ClusterReport.
func (c *copies) nodes(ctx context.Context) ([]request, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(clusterReport.GroupVersion().WithKind(clusterReport.Kind + "List"))
	if err := c.cache.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing the ClusterReports: %w", err)
	}
	requests := make([]request, 0, len(list.Items))
	for i := range list.Items {
		requests = append(requests, request{node: nodeOf(&list.Items[i])})
	}
	return requests, nil
}

func (c *copies) remember(name, version string, now time.Time) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.wrote[name] = write{version: version, at: now}
}

// forget what was written of a ClusterReport that was deleted.
func (c *copies) forget(object any) {
	if final, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
		object = final.Obj
	}
	report, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	last, ok := c.wrote[report.Name]
	if order, err := resourceversion.CompareResourceVersion(report.ResourceVersion, last.version); ok && (err != nil || order >= 0) {
		delete(c.wrote, report.Name)
	}
}

// metadata is that of a ClusterReport with a name.
func metadata(name string) *metav1.PartialObjectMetadata {
	report := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name}}
	report.SetGroupVersionKind(clusterReport)
	return report
}

// nodeOf is the name of the node that a ClusterReport is about.
func nodeOf(report *metav1.PartialObjectMetadata) string {
	for _, owner := range report.OwnerReferences {
		if owner.Kind == "Node" {
			return owner.Name
		}
	}
	return strings.TrimPrefix(report.Name, namePrefix)
}

// owned says whether a ClusterReport goes with the node.
func owned(report *metav1.PartialObjectMetadata, by types.UID) bool {
	return slices.ContainsFunc(report.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == by })
}
