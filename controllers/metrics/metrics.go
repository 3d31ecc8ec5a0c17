// Package metrics is what Prometheus learns from the manager.
//
// What is so now (which patches a node misses, where it stands, what it waits
// for) is read from the manager's cache at every scrape: no series can outlive
// its object, and a manager that has just started shows the same as the one
// before it. What happened (how runs ended, how long steps took) is counted when
// the cache shows it, once per run and step; those series go with their policy.
//
// Only the manager that leads publishes: the one that waits would count
// everything a second time. A node has at most 22 series.
//
// No label takes a value that an agent could make up at will: steps, reasons and
// conditions are the manager's own words or checked by the API server. What an
// agent says about its operating system stands in one series per node.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// SetupWithManager has a manager of the version publish metrics, in the registry
// of controller-runtime, as long as it leads.
func SetupWithManager(mgr ctrl.Manager, version string) error {
	if err := registerBuildInfo(metrics.Registry, version); err != nil {
		return err
	}
	return mgr.Add(&publisher{
		cache: mgr.GetCache(), reader: mgr.GetClient(), clock: clock.RealClock{}, registry: metrics.Registry,
	})
}

// registerBuildInfo registers the one metric that every manager has.
func registerBuildInfo(registry prometheus.Registerer, version string) error {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "nodepatch_build_info",
		Help:        "The value 1, labelled by the version of this manager and of Go. Managers that wait to lead have it too.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version()},
	})
	info.Set(1)
	if err := registry.Register(info); err != nil && !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
		return fmt.Errorf("registering the metric of the build: %w", err)
	}
	return nil
}

// publisher publishes the metrics of a manager that leads.
type publisher struct {
	cache    cache.Cache
	reader   client.Reader
	clock    clock.PassiveClock
	registry prometheus.Registerer
}

// NeedLeaderElection keeps a manager that waits to lead from publishing.
func (p *publisher) NeedLeaderElection() bool { return true }

// Start publishes until the context is done, which is before the manager gives
// its lease back.
func (p *publisher) Start(ctx context.Context) error {
	recorder := newRecorder()
	// Policies come first: what belongs to none is not counted.
	for _, source := range []struct {
		kind    client.Object
		handler toolscache.ResourceEventHandlerDetailedFuncs
	}{
		{&v1alpha1.PatchPolicy{}, handle(
			func(policy *v1alpha1.PatchPolicy, _ bool) { recorder.begin(policy.Name) },
			func(policy *v1alpha1.PatchPolicy) { recorder.forget(policy.Name) })},
		{&v1alpha1.PatchTask{}, handle(recorder.seeTask, recorder.forgetTask)},
		{&v1alpha1.PatchAssignment{}, handle(
			func(assignment *v1alpha1.PatchAssignment, _ bool) { recorder.seeNode(assignment) }, recorder.forgetNode)},
	} {
		informer, err := p.cache.GetInformer(ctx, source.kind)
		if err != nil {
			return end(ctx, fmt.Errorf("watching %T for the metrics: %w", source.kind, err))
		}
		registration, err := informer.AddEventHandler(source.handler)
		if err != nil {
			return end(ctx, fmt.Errorf("watching %T for the metrics: %w", source.kind, err))
		}
		defer func() { _ = informer.RemoveEventHandler(registration) }() // the manager ends
		if !toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
			return nil
		}
	}
	published := &collector{reader: p.reader, clock: p.clock, recorder: recorder}
	// The first look waits for the rest of the cache; no scrape has to.
	if _, err := published.look(ctx); err != nil {
		return end(ctx, err)
	}
	if err := p.registry.Register(published); err != nil {
		return fmt.Errorf("registering the metrics: %w", err)
	}
	defer p.registry.Unregister(published)
	<-ctx.Done()
	return nil
}

// end is an error, unless the manager was told to end.
func end(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// handle makes a handler of a function for objects as they are now, of which
// initial ones were there before, and one for those that are gone.
func handle[T client.Object](see func(object T, initial bool), gone func(T)) toolscache.ResourceEventHandlerDetailedFuncs {
	return toolscache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(object any, initial bool) {
			if typed, ok := object.(T); ok {
				see(typed, initial)
			}
		},
		UpdateFunc: func(_, object any) {
			if typed, ok := object.(T); ok {
				see(typed, false)
			}
		},
		DeleteFunc: func(object any) {
			if missed, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
				object = missed.Obj
			}
			if typed, ok := object.(T); ok {
				gone(typed)
			}
		},
	}
}

// scrapeTimeout is longer than any look at a cache takes, and shorter than
// Prometheus waits.
const scrapeTimeout = 5 * time.Second
