package policy

import (
	"context"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
	"github.com/nodepatch/nodepatch/test/apiserver/specs"
)

var (
	ctx    = context.Background()
	server *apiserver.Server
	admin  client.Client
	writes apiserver.Requests
)

func TestPolicy(t *testing.T) { specs.Run(t, "policy") }

var _ = BeforeSuite(func() {
	server, admin = apiserver.Run(GinkgoTB())
	Expect(server.Install(ctx)).To(Succeed())
	apiserver.RunManager(GinkgoTB(), writes.Watch(server.Config), SetupWithManager)
})

var _ = AfterEach(func() {
	for _, kind := range []client.Object{&v1alpha1.PatchPolicy{}, &v1alpha1.PatchReport{}, &corev1.Node{}} {
		Expect(admin.DeleteAllOf(ctx, kind)).To(Succeed())
	}
})
