package policy

import (
	"context"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
	"github.com/nodepatch/nodepatch/test/apiserver/specs"
)

var (
	ctx    = context.Background()
	server *apiserver.Server
	admin  client.Client
	cached client.Client // reads what the manager has seen
	writes apiserver.Requests
	// log writes with the manager's own rights.
	log patchlog.Sink
)

func TestPolicy(t *testing.T) { specs.Run(t, "policy") }

var _ = BeforeSuite(func() {
	server, admin = apiserver.Run(GinkgoTB())
	Expect(server.Install(ctx)).To(Succeed())
	account, err := server.ManagerConfig(ctx)
	Expect(err).NotTo(HaveOccurred())
	log = specs.ManagerLog(GinkgoTB(), account)
	apiserver.RunManager(GinkgoTB(), writes.Watch(server.Config), func(mgr ctrl.Manager) error {
		cached = mgr.GetClient()
		return SetupWithManager(mgr, log)
	})
})

var _ = AfterEach(func() {
	for _, kind := range []client.Object{&v1alpha1.PatchPolicy{}, &v1alpha1.PatchReport{}, &corev1.Node{}} {
		Expect(admin.DeleteAllOf(ctx, kind)).To(Succeed())
	}
	Expect(admin.DeleteAllOf(ctx, &corev1.Event{}, client.InNamespace(patchlog.Namespace))).To(Succeed())
})
