package apiserver

import (
	"context"
	"testing"

	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// Controllers is how controllers run in tests: a panic ends the program, and more than one controller may
// have the same name, as managers come and go in one program.
func Controllers() config.Controller {
	return config.Controller{RecoverPanic: new(false), SkipNameValidation: new(true)}
}

// RunManager runs a manager until t ends: a test, or with GinkgoTB() in BeforeSuite a suite. The setup adds
// the controllers. It serves no metrics and elects no leader; t fails if it ends with an error.
func RunManager(t testing.TB, config *rest.Config, setup func(ctrl.Manager) error) {
	t.Helper()
	scheme, err := kinds()
	if err != nil {
		t.Fatal(err)
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:     scheme,
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: Controllers(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := setup(mgr); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error)
	go func() { stopped <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Errorf("Running the manager: %v", err)
		}
	})
}
