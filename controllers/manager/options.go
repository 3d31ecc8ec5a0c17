package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	uberzap "go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	clientconfig "sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/yaml"

	"github.com/nodepatch/nodepatch/controllers/agents"
)

// options are what the command line says.
type options struct {
	leaderElect   bool
	metricsAddr   string
	healthAddr    string
	agents        agents.Options
	namespace     string
	instance      string
	printVersion  bool
	log           zap.Options
	controllers   config.Controller
	metricsSecure bool
	// node that this manager runs on.
	node string
	// clusterMaxUnavailable bounds disruption over all policies; nil for no bound.
	clusterMaxUnavailable *intstr.IntOrString
	kured                 types.NamespacedName
	leaseNamespace        string
}

// parse reads the command line; getenv gives what the pod's manifest sets.
func parse(args []string, getenv func(string) string) (options, error) {
	o := options{
		metricsSecure: true,
		instance:      getenv("POD_NAME"),
		node:          getenv("NODE_NAME"),
		// The traces of reconcile errors are all the same.
		log: zap.Options{StacktraceLevel: zapcore.PanicLevel},
	}
	flags := flag.NewFlagSet("manager", flag.ContinueOnError)
	flags.BoolVar(&o.leaderElect, "leader-elect", false,
		"wait until no other manager leads; needed as soon as there is more than one")
	flags.StringVar(&o.metricsAddr, "metrics-bind-address", ":8443",
		"address of the metrics, by HTTPS to those whom the API server lets read them; 0 for none")
	flags.StringVar(&o.healthAddr, "health-probe-bind-address", ":8081", "address of /healthz and /readyz; 0 for none")
	flags.StringVar(&o.agents.Image, "agent-image", "", "image of the node agents, which is the manager's own; required")
	flags.StringVar(&o.namespace, "namespace", getenv("POD_NAMESPACE"),
		"namespace of the manager and the agents; POD_NAMESPACE if not given")
	budget := flags.String("cluster-max-unavailable", "",
		"how many nodes of the whole cluster may be unavailable at once, for any cause, before no more are disrupted: a number, or a percentage such as 5%; no bound if not given")
	flags.StringVar(&o.agents.PriorityClass, "agent-priority-class", agents.DefaultPriorityClass,
		"PriorityClass of the node agents; empty for the cluster's default")
	resources := flags.String("agent-resources", "",
		`requests and limits of a node agent as JSON, such as {"limits":{"memory":"128Mi"}}; those that were measured if not given`)
	kured := flags.String("kured", "kube-system/kured",
		"namespace and name of kured's DaemonSet, whose lock on a node is respected; empty for none")
	flags.StringVar(&o.leaseNamespace, "maintenance-lease-namespace", "",
		"namespace of the Leases node-NAME by which tools agree who maintains a node; no Leases if not given. See config/rbac/maintenance-lease.yaml")
	flags.BoolVar(&o.printVersion, "version", false, "print the version and end")
	verbosity := flags.Int("v", 0, "how much to log: 0 says what happened, 4 how")
	o.log.BindFlags(flags)
	clientconfig.RegisterFlags(flags)
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if *verbosity > 0 {
		o.log.Level = uberzap.NewAtomicLevelAt(zapcore.Level(-min(*verbosity, 127)))
	}
	if o.instance == "" {
		o.instance, _ = os.Hostname()
	}
	var err error
	if o.clusterMaxUnavailable, err = parseBudget(*budget); err != nil {
		return o, err
	}
	if o.agents.Resources, err = parseResources(*resources); err != nil {
		return o, err
	}
	if o.kured, err = parseName(*kured); err != nil {
		return o, err
	}
	switch {
	case o.printVersion:
		return o, nil
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q: flags begin with --", flags.Arg(0))
	case o.agents.Image == "":
		return o, errors.New("--agent-image is required: the image that this manager runs from")
	case o.namespace == "":
		return o, errors.New("--namespace is required where POD_NAMESPACE is not set")
	}
	o.agents.Namespace = o.namespace
	return o, nil
}

// parseBudget reads a number of nodes, or a percentage.
func parseBudget(text string) (*intstr.IntOrString, error) {
	if text == "" {
		return nil, nil
	}
	value := intstr.Parse(text)
	number, err := intstr.GetScaledValueFromIntOrPercent(&value, 100, false)
	if err != nil || number < 1 || strings.HasSuffix(text, "%") && number > 100 {
		return nil, fmt.Errorf("--cluster-max-unavailable is a number of nodes of at least 1, or a percentage from 1%% to 100%%, not %q", text)
	}
	return &value, nil
}

// parseResources reads requests and limits; what was measured if there are none.
func parseResources(text string) (corev1.ResourceRequirements, error) {
	if text == "" {
		return agents.DefaultResources(), nil
	}
	var resources corev1.ResourceRequirements
	if err := yaml.UnmarshalStrict([]byte(text), &resources); err != nil {
		return resources, fmt.Errorf(`--agent-resources is JSON such as {"requests":{"cpu":"10m"},"limits":{"memory":"128Mi"}}: %w`, err)
	}
	return resources, nil
}

// parseName reads NAMESPACE/NAME, or nothing.
func parseName(text string) (types.NamespacedName, error) {
	if text == "" {
		return types.NamespacedName{}, nil
	}
	namespace, name, found := strings.Cut(text, "/")
	if !found || namespace == "" || name == "" {
		return types.NamespacedName{}, fmt.Errorf("--kured is NAMESPACE/NAME of kured's DaemonSet, or empty, not %q", text)
	}
	return types.NamespacedName{Namespace: namespace, Name: name}, nil
}
