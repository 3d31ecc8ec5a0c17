package buttons

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
	"github.com/nodepatch/nodepatch/test/apiserver/specs"
)

var _ = Describe("The buttons where nodepatch is installed", func() {
	It("are acted on with the manager's own rights", func() {
		// A server of its own: admission would refuse what other specs press in vain.
		installed, err := apiserver.Start()
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func() { Expect(installed.Stop()).To(Succeed()) })
		Expect(installed.Install(ctx)).To(Succeed())
		former, formerEvents := admin, events
		DeferCleanup(func() { admin, events = former, formerEvents })
		admin, err = apiserver.Client(installed.Config)
		Expect(err).NotTo(HaveOccurred())
		config, err := installed.ManagerConfig(ctx)
		Expect(err).NotTo(HaveOccurred())
		requests := &apiserver.Requests{}
		watched := requests.Watch(config)
		apiserver.RunManager(GinkgoTB(), watched, func(mgr ctrl.Manager) error {
			return SetupWithManager(mgr, specs.ManagerLog(GinkgoTB(), watched))
		})

		addNode("a")
		report, task, policy := addReport("a"), addTask("scan-now"), addPolicy("workers")
		for _, pressed := range []struct {
			object  client.Object
			buttons []string
		}{{policy, policyButtons}, {report, reportButtons}, {task, taskButtons}} {
			for _, annotation := range pressed.buttons {
				value := map[bool]string{true: "all", false: ""}[annotation == v1alpha1.ClearRetriesAnnotation]
				pressOn(pressed.object, annotation, value)
			}
			Eventually(func(g Gomega) {
				g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(pressed.object), pressed.object)).To(Succeed())
				g.Expect(pressed.object.GetAnnotations()).To(BeEmpty())
				g.Expect(*handledOf(pressed.object)).To(HaveValue(And(
					HaveField("Press", BeNil()), HaveField("Presses", BeEquivalentTo(len(pressed.buttons))))))
			}).Should(Succeed())
		}
		Expect(requests.Forbidden()).To(BeEmpty())
		Expect(retryNow("a").Status.Patches).To(BeEmpty())
		Expect(assignmentNow("a").Spec.PatchDataRefreshes).To(BeEquivalentTo(2))
	})
})
