package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// asAgent returns a client with the token that the agent of a node really holds.
func asAgent(ctx context.Context, node string) ctrlclient.Client {
	GinkgoHelper()
	token, err := machine(node).Exec(ctx, "cat",
		"/proc/"+agentProcess(ctx, node)+"/root/var/run/secrets/kubernetes.io/serviceaccount/token")
	Expect(err).NotTo(HaveOccurred())
	agent := rest.AnonymousClientConfig(config)
	agent.BearerToken = strings.TrimSpace(token)
	c, err := ctrlclient.New(agent, ctrlclient.Options{Scheme: client.Scheme(), Mapper: client.RESTMapper()})
	Expect(err).NotTo(HaveOccurred())
	return c
}

func manifestFile(manifest string) string {
	GinkgoHelper()
	file := filepath.Join(GinkgoT().TempDir(), "manifest.json")
	Expect(os.WriteFile(file, []byte(manifest), 0o600)).To(Succeed())
	return file
}

func applyManifest(ctx context.Context, manifest string) {
	GinkgoHelper()
	kubectl(ctx, "apply", "-f", manifestFile(manifest))
}

var _ = Describe("The agent's own token", func() {
	emptyPatch := ctrlclient.RawPatch("application/merge-patch+json", []byte(`{"status": {"summary": "written by a test"}}`))
	report := func(node string) *v1alpha1.PatchReport {
		return &v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: node}}
	}

	It("writes its own node's report and no other's", func(ctx SpecContext) {
		agent := asAgent(ctx, toy)
		Expect(agent.Status().Patch(ctx, report(toy), emptyPatch)).To(Succeed())
		err := agent.Status().Patch(ctx, report(real), emptyPatch)
		Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%v", err)
		Expect(err.Error()).To(ContainSubstring(toy), "the refusal names whose agent it was")
		Expect(reportOf(ctx, real).Status.Summary).NotTo(Equal("written by a test"))
		finish(ctx, start(ctx, 5*time.Minute, toy)) // puts the right summary back
	}, SpecTimeout(3*time.Minute))

	It("reads no report, deletes nothing and touches no node", func(ctx SpecContext) {
		agent := asAgent(ctx, toy)
		for what, err := range map[string]error{
			"read its report":       agent.Get(ctx, ctrlclient.ObjectKey{Name: toy}, report(toy)),
			"read another's report": agent.Get(ctx, ctrlclient.ObjectKey{Name: real}, report(real)),
			"delete its report":     agent.Delete(ctx, report(toy)),
			"change its spec":       agent.Patch(ctx, report(toy), ctrlclient.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"a":"b"}}}`))),
		} {
			Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%s: %v", what, err)
		}
	}, SpecTimeout(time.Minute))

	It("is not made while nothing binds it to its node", func(ctx SpecContext) {
		kubectl(ctx, "delete", "validatingadmissionpolicybinding", "nodepatch-agent-own-node")
		DeferCleanup(func(ctx SpecContext) {
			kubectl(ctx, "apply", "--server-side", "-k", filepath.Join(checkout, "config", "default"))
			waitForAgents(ctx)
		}, NodeTimeout(3*time.Minute))
		Eventually(ctx, func(g Gomega) {
			_, there := agentPod(ctx, toy)
			g.Expect(there).To(BeFalse(), "the agents are taken away")
			g.Expect(tryKubectl(ctx, "get", "patchpolicy", policy)).To(ContainSubstring("nodepatch-agent-own-node"), "the policy says why")
		}).Should(Succeed())
	}, SpecTimeout(3*time.Minute))
})
