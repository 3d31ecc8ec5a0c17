package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/agents"
	"github.com/nodepatch/nodepatch/controllers/assignment"
	"github.com/nodepatch/nodepatch/controllers/assignment/drain"
	"github.com/nodepatch/nodepatch/controllers/assignment/hooks"
	"github.com/nodepatch/nodepatch/controllers/blockers"
	"github.com/nodepatch/nodepatch/controllers/buttons"
	"github.com/nodepatch/nodepatch/controllers/metrics"
	"github.com/nodepatch/nodepatch/controllers/openreports"
	"github.com/nodepatch/nodepatch/controllers/policy"
	"github.com/nodepatch/nodepatch/controllers/schedule"
	"github.com/nodepatch/nodepatch/controllers/task"
)

const (
	// lease is the name of the Lease that the leading manager holds.
	lease = "nodepatch-manager"
	// shutdown is how long controllers may take to end; the pod is given 10s.
	shutdown = 8 * time.Second
	// kindsPatience is how long to wait for CustomResourceDefinitions that are
	// applied together with the manager.
	kindsPatience = 30 * time.Second
)

// run runs the controllers until the context is done.
func run(ctx context.Context, config *rest.Config, o options) error {
	if err := awaitKinds(ctx, config, kindsPatience); err != nil {
		return err
	}
	ctx, resign := context.WithCancel(ctx)
	defer resign()
	mgr, err := newManager(config, o, resign)
	if err != nil {
		return err
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("running the manager: %w", err)
	}
	return nil
}

func newManager(config *rest.Config, o options, resign func()) (ctrl.Manager, error) {
	kinds := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(kinds), v1alpha1.AddToScheme(kinds), openreports.AddToScheme(kinds)); err != nil {
		return nil, err
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        kinds,
		Cache:                         cacheOptions(o.namespace),
		Controller:                    o.controllers,
		HealthProbeBindAddress:        o.healthAddr,
		Metrics:                       metricsOptions(o),
		LeaderElection:                o.leaderElect,
		LeaderElectionID:              lease,
		LeaderElectionNamespace:       o.namespace,
		LeaderElectionReleaseOnCancel: true, // the program ends with the manager
		GracefulShutdownTimeout:       new(shutdown),
	})
	if err != nil {
		return nil, fmt.Errorf("making the manager: %w", err)
	}
	events, err := patchlog.NewRESTClient(config)
	if err != nil {
		return nil, fmt.Errorf("making the client of the patch log: %w", err)
	}
	log := patchlog.NewEvents(events, patchlog.ManagerComponent, o.instance, os.Stdout)
	pods, err := kubernetes.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return nil, fmt.Errorf("making the client of drains: %w", err)
	}
	checker := blockers.New(mgr.GetAPIReader(), mgr.GetClient(), blockers.Options{Kured: o.kured, LeaseNamespace: o.leaseNamespace})

	for _, controller := range []struct {
		name  string
		setup func() error
	}{
		{"agents", func() error {
			return agents.SetupWithManager(mgr, log, o.agents)
		}},
		{"policy", func() error { return policy.SetupWithManager(mgr, log) }},
		{"schedule", func() error { return schedule.SetupWithManager(mgr, log) }},
		{"task", func() error {
			return task.SetupWithManager(mgr, log, task.Options{Node: o.node, ClusterMaxUnavailable: o.clusterMaxUnavailable, Blockers: checker})
		}},
		{"assignment", func() error {
			return assignment.SetupWithManager(mgr, assignment.Options{
				Namespace: o.namespace, Node: o.node, Resign: resign, Log: log, Drainer: drain.New(pods, o.namespace),
				Hooks: hooks.New(mgr.GetClient(), mgr.GetAPIReader(), o.namespace), Coordinators: checker,
			})
		}},
		{"buttons", func() error { return buttons.SetupWithManager(mgr, log) }},
		{"metrics", func() error { return metrics.SetupWithManager(mgr, version) }},
		{"openreports", func() error { return openreports.SetupWithManager(mgr) }},
	} {
		if err := controller.setup(); err != nil {
			return nil, fmt.Errorf("setting up the controller %s: %w", controller.name, err)
		}
	}
	if err := errors.Join(
		mgr.AddHealthzCheck("ping", healthz.Ping),
		mgr.AddReadyzCheck("cache", synced(mgr.GetCache())),
	); err != nil {
		return nil, fmt.Errorf("setting up the health checks: %w", err)
	}
	return mgr, nil
}

func metricsOptions(o options) metricsserver.Options {
	options := metricsserver.Options{BindAddress: o.metricsAddr, SecureServing: o.metricsSecure}
	if o.metricsSecure {
		options.FilterProvider = filters.WithAuthenticationAndAuthorization
		// HTTP/2 lets a stranger open and reset streams at the server's cost.
		options.TLSOpts = []func(*tls.Config){func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }}
	}
	return options
}

// synced says whether the manager has seen the cluster. One that waits to lead
// watches nothing yet, and is ready to.
func synced(c cache.Cache) healthz.Checker {
	return func(request *http.Request) error {
		ctx, cancel := context.WithTimeout(request.Context(), time.Second)
		defer cancel()
		if !c.WaitForCacheSync(ctx) {
			return errors.New("the caches are not filled yet")
		}
		return nil
	}
}
