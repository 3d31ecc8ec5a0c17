// Command agent is nodepatch's node agent: it finds what is missing on its node with the node's own package manager, when
// its node's PatchAssignment asks for it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/host"
	"github.com/nodepatch/nodepatch/nodeagent/kube"
	"github.com/nodepatch/nodepatch/nodeagent/operation"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// version is set by the linker.
var version = "dev"

// The agent is idle for hours and then parses some megabytes. It is small anyway; these keep it from growing for speed
// that nobody would notice.
const (
	softMemoryLimit = 24 << 20
	gcPercent       = 50
)

type options struct {
	node       string
	root       string
	dir        string
	readyAddr  string
	kubeconfig string
	verbose    bool
}

func main() {
	var o options
	flag.StringVar(&o.node, "node", os.Getenv("NODE_NAME"), "name of the Node that the agent runs on (environment: NODE_NAME)")
	flag.StringVar(&o.root, "host-root", "/host", "where the host's root directory is mounted")
	flag.StringVar(&o.dir, "host-dir", host.DefaultDir, "the agent's own directory, as the host sees it")
	flag.StringVar(&o.readyAddr, "health-probe-bind-address", ":8081", "address that serves /readyz and /healthz")
	flag.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file, for an agent that does not run in a pod")
	flag.BoolVar(&o.verbose, "v", false, "log how things are done, not only what was done")
	flag.Parse()

	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	logger := slog.New(slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{Level: level}))
	klog.SetSlogLogger(logger)
	// Each processor that Go uses costs memory, and the agent's work is done by other programs.
	runtime.GOMAXPROCS(min(2, runtime.GOMAXPROCS(0)))
	debug.SetMemoryLimit(softMemoryLimit)
	debug.SetGCPercent(gcPercent)

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, logger); err != nil {
		logger.Error("Agent cannot run", "error", err)
		os.Exit(1)
	}
}

func run(signals context.Context, o options, logger *slog.Logger) error {
	if o.node == "" {
		return errors.New("the node's name is missing: set NODE_NAME from spec.nodeName, or --node")
	}
	config, err := restConfig(o.kubeconfig)
	if err != nil {
		return err
	}
	h, err := host.Detect(o.root, o.dir)
	if err != nil {
		return err
	}
	logger.Info("Agent starts", "node", o.node, "version", version, "backend", h.Backend())

	// A signal ends the agent, but not what it runs on the host.
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	context.AfterFunc(signals, func() { cancel(host.ErrDetach) })

	ready := &readiness{}
	stopServing, err := ready.serve(o.readyAddr)
	if err != nil {
		return err
	}
	defer func() {
		if err := stopServing(); err != nil {
			logger.Error("Probes were not answered", "error", err)
		}
	}()

	ready.wait("another agent of this node has not ended yet")
	unlock, err := h.Lock(ctx, func() { logger.Info("Waiting for another agent of this node to end") })
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer unlock()
	ready.wait("the API server has not been reached yet")
	return work(ctx, o, h, config, ready, logger)
}

// work runs the parts of the agent until ctx ends.
func work(ctx context.Context, o options, h *host.Host, config *rest.Config, ready *readiness, logger *slog.Logger) error {
	client, err := kube.New(config, o.node)
	if err != nil {
		return err
	}
	log, err := patchlog.Open(h.Path("log"), patchlog.NewEvents(client.REST(), patchlog.AgentComponent, o.node, nil), os.Stdout)
	if err != nil {
		return err
	}
	defer func() {
		if err := log.Close(); err != nil {
			logger.Error("Patch log was not closed", "error", err)
		}
	}()
	// Symbolic links in it cannot lead into the agent's own container.
	files, err := os.OpenRoot(h.Root())
	if err != nil {
		return fmt.Errorf("open the host's root directory: %w", err)
	}
	worker, err := operation.New(operation.Options{
		Node: o.node, Version: version, Host: h, API: client, Log: log, Logger: logger,
		Packages: func(r packages.Runner, locks packages.Locks) (packages.Manager, error) {
			return detect(r, files.FS(), locks)
		},
		Idle: release,
	})
	if err != nil {
		return err
	}

	log.OnCleared(worker.Wake)
	var parts sync.WaitGroup
	parts.Go(func() { worker.Run(ctx) })
	// What people had deleted while the agent was away is known before entries of that time are sent.
	seen := sync.OnceFunc(func() { parts.Go(func() { log.Run(ctx) }) })
	parts.Go(func() {
		client.Watch(ctx, logger, func(a *v1alpha1.PatchAssignment) {
			if a != nil {
				log.Clear(a)
			}
			seen()
			worker.Assign(a)
			ready.done()
		})
	})
	<-ctx.Done()
	logger.Info("Agent ends, commands on the host go on")
	parts.Wait()
	return nil
}

func restConfig(kubeconfig string) (*rest.Config, error) {
	var config *rest.Config
	var err error
	if kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	} else {
		config, err = rest.InClusterConfig()
	}
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}
	config.UserAgent = "nodepatch-agent/" + version
	config.Timeout = 0 // a watch lasts; each write has a timeout of its own
	config.QPS, config.Burst = 20, 20
	return config, nil
}
