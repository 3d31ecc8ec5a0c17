package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	uberzap "go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	clientconfig "sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

// options are what the command line says.
type options struct {
	leaderElect   bool
	metricsAddr   string
	healthAddr    string
	agentImage    string
	namespace     string
	instance      string
	printVersion  bool
	log           zap.Options
	controllers   config.Controller
	metricsSecure bool
}

// parse reads the command line; getenv gives what the pod's manifest sets.
func parse(args []string, getenv func(string) string) (options, error) {
	o := options{
		metricsSecure: true,
		instance:      getenv("POD_NAME"),
		// The traces of reconcile errors are all the same.
		log: zap.Options{StacktraceLevel: zapcore.PanicLevel},
	}
	flags := flag.NewFlagSet("manager", flag.ContinueOnError)
	flags.BoolVar(&o.leaderElect, "leader-elect", false,
		"wait until no other manager leads; needed as soon as there is more than one")
	flags.StringVar(&o.metricsAddr, "metrics-bind-address", ":8443",
		"address of the metrics, by HTTPS to those whom the API server lets read them; 0 for none")
	flags.StringVar(&o.healthAddr, "health-probe-bind-address", ":8081", "address of /healthz and /readyz; 0 for none")
	flags.StringVar(&o.agentImage, "agent-image", "", "image of the node agents, which is the manager's own; required")
	flags.StringVar(&o.namespace, "namespace", getenv("POD_NAMESPACE"),
		"namespace of the manager and the agents; POD_NAMESPACE if not given")
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
	switch {
	case o.printVersion:
		return o, nil
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q: flags begin with --", flags.Arg(0))
	case o.agentImage == "":
		return o, errors.New("--agent-image is required: the image that this manager runs from")
	case o.namespace == "":
		return o, errors.New("--namespace is required where POD_NAMESPACE is not set")
	}
	return o, nil
}
