// Package specs runs a package's Ginkgo specs against an API server, the same way for all of them. A suite_test.go
// begins:
//
//	var (
//		ctx    = context.Background()
//		server *apiserver.Server
//		admin  client.Client
//	)
//
//	func TestPolicy(t *testing.T) { specs.Run(t, "policy") }
//
//	var _ = BeforeSuite(func() {
//		server, admin = apiserver.Run(GinkgoTB())
//	})
//
// It is no part of package apiserver, which plain Go tests use too: those know nothing of Ginkgo's flags, and the
// patch log's own tests could not import a package that imports the patch log.
package specs

import (
	"testing"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

// Run runs the specs of the package of t as the named suite, or skips t where there cannot be an API server. Eventually
// looks fifty times a second, for 20 seconds: controllers answer in milliseconds, on a machine that has nothing
// else to do. What controllers log is shown with a spec that fails.
func Run(t *testing.T, name string) {
	t.Helper()
	apiserver.Require(t)
	gomega.RegisterFailHandler(ginkgo.Fail)
	gomega.SetDefaultEventuallyTimeout(20 * time.Second)
	gomega.SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	ctrl.SetLogger(ginkgo.GinkgoLogr)
	ginkgo.RunSpecs(t, name)
}

// ManagerLog is the patch log as a manager with this configuration writes it: every entry is an Event at once, and
// nothing is printed.
func ManagerLog(t testing.TB, config *rest.Config) patchlog.Sink {
	t.Helper()
	events, err := patchlog.NewRESTClient(config)
	if err != nil {
		t.Fatal(err)
	}
	return patchlog.NewEvents(events, patchlog.ManagerComponent, "nodepatch-manager-0", nil)
}
