package policy

import (
	"context"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

var (
	ctx    = context.Background()
	server *apiserver.Server
	admin  client.Client
	writes apiserver.Requests
)

func TestPolicy(t *testing.T) {
	apiserver.Require(t)
	RegisterFailHandler(Fail)
	RunSpecs(t, "policy")
}

var _ = BeforeSuite(func() {
	SetDefaultEventuallyTimeout(10 * time.Second)
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	ctrl.SetLogger(GinkgoLogr)
	server, admin = apiserver.Run(GinkgoTB())
	Expect(server.Install(ctx)).To(Succeed())
	apiserver.RunManager(GinkgoTB(), writes.Watch(server.Config), SetupWithManager)
})

var _ = AfterEach(func() {
	for _, kind := range []client.Object{&v1alpha1.PatchPolicy{}, &v1alpha1.PatchReport{}, &corev1.Node{}} {
		Expect(admin.DeleteAllOf(ctx, kind)).To(Succeed())
	}
})
