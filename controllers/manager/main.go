// Command manager runs nodepatch's controllers: it decides what happens to
// which node and when, and touches no host itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	// The image has no time zone files, and policies name time zones.
	_ "time/tzdata"

	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

// version is set by the build.
var version = "dev"

func main() {
	if err := program(ctrl.SetupSignalHandler(), os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "nodepatch-manager:", err)
		os.Exit(1)
	}
}

// program is the whole program, until the context is done. "leave" is the only
// other thing that it does.
func program(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "leave" {
		return leaveCluster(ctx, args[1:])
	}
	options, err := parse(args, os.Getenv)
	if err != nil {
		return err
	}
	if options.printVersion {
		fmt.Println("nodepatch-manager", version)
		return nil
	}
	logger := zap.New(zap.UseFlagOptions(&options.log))
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)

	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("finding the API server: run in a cluster, or set KUBECONFIG or --kubeconfig: %w", err)
	}
	config.UserAgent = "nodepatch-manager/" + version
	logger.Info("Starting the manager", "version", version, "namespace", options.namespace, "agentImage", options.agents.Image)
	return run(ctx, config, options)
}
