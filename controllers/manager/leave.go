package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	clientconfig "sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/leave"
)

// leavePatience fits into the five minutes that Helm waits.
const leavePatience = 280 * time.Second

// parseLeave reads the command line after "leave".
func parseLeave(args []string, getenv func(string) string) (leave.Options, error) {
	var o leave.Options
	namespace := getenv("POD_NAMESPACE")
	if namespace == "" {
		namespace = "nodepatch-system"
	}
	flags := flag.NewFlagSet("manager leave", flag.ContinueOnError)
	flags.StringVar(&o.Namespace, "namespace", namespace, "namespace of the manager and the agents")
	flags.BoolVar(&o.KeepPolicies, "keep-policies", false, "leave the policies, the reports and the retry counts")
	flags.DurationVar(&o.Patience, "patience", leavePatience, "how long the nodes may take to be put back")
	clientconfig.RegisterFlags(flags)
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: flags begin with --", flags.Arg(0))
	}
	if o.Patience <= 0 {
		return o, fmt.Errorf("--patience is how long to wait, such as 10m, not %s", o.Patience)
	}
	return o, nil
}

// leaveCluster gets the cluster ready to have nodepatch taken away.
func leaveCluster(ctx context.Context, args []string) error {
	o, err := parseLeave(args, os.Getenv)
	if err != nil {
		return err
	}
	logger := zap.New()
	ctrl.SetLogger(logger)
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("finding the API server: run in a cluster, or set KUBECONFIG or --kubeconfig: %w", err)
	}
	config.UserAgent = "nodepatch-leave/" + version
	kinds := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(kinds); err != nil {
			return err
		}
	}
	c, err := client.New(config, client.Options{Scheme: kinds})
	if err != nil {
		return fmt.Errorf("making a client for the API server: %w", err)
	}
	return leave.Run(ctrl.LoggerInto(ctx, logger), c, o)
}
