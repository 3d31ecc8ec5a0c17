package assignment

import (
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

var _ = Describe("A disruption that fails", func() {
	minute := metav1.Duration{Duration: time.Minute}
	type failure struct {
		template v1alpha1.TaskTemplate
		happens  func(*machine)
		// within is when it is over, counted from the admission.
		within      time.Duration
		wantStep    v1alpha1.Step
		wantReason  string
		wantMessage string
		wantLogged  string
		wantBoots   int
	}
	DescribeTable("is undone, then the verdict is given", func(f failure) {
		if f.wantStep == "" {
			f.wantStep, f.wantLogged = v1alpha1.StepFailed, "NodeFailed"
		}
		if f.template.Hooks != nil {
			f.template.Hooks = allHooks()
		}
		m := newMachine(f.template)
		before := m.node()
		f.happens(m)
		started := m.clock.Now()
		m.until("the end", m.over)
		node := m.node()
		node.Status.Conditions[0] = before.Status.Conditions[0]
		m.untouched(before)
		Expect(m.verdict()).To(And(HaveField("Step", f.wantStep), HaveField("Reason", f.wantReason),
			HaveField("Message", ContainSubstring(f.wantMessage)), HaveField("AdmittedAt", Not(BeNil()))))
		Expect(m.boots).To(Equal(max(f.wantBoots, 1)))
		Expect(m.clock.Since(started)).To(BeNumerically("<=", f.within))
		Expect(m.logged()).To(ContainElement(f.wantLogged))
		Expect(m.logged()).NotTo(ContainElement("NodeDone"))
	},
		Entry("a PodDisruptionBudget that never allows", failure{
			template: v1alpha1.TaskTemplate{Drain: v1alpha1.DrainOptions{Timeout: minute}}, happens: forbidEvictions, within: 2 * time.Minute,
			wantReason: v1alpha1.ReasonDrainTimeout, wantMessage: "PodDisruptionBudget",
		}),
		Entry("a pod that does not end", failure{
			template: v1alpha1.TaskTemplate{Drain: v1alpha1.DrainOptions{Timeout: minute}},
			happens:  func(m *machine) { m.hangs.Insert("pods") }, within: 2 * time.Minute,
			wantReason: v1alpha1.ReasonDrainTimeout, wantMessage: "-web-1",
		}),
		Entry("a pod that would not be made anew", failure{
			happens: func(m *machine) {
				m.pod("bare", metav1.OwnerReference{APIVersion: "v1", Kind: "Config", Name: "x", UID: "x"})
			},
			within: time.Minute, wantReason: v1alpha1.ReasonDrainRefused, wantMessage: "drain.unmanagedPods=Evict",
		}),
		Entry("an install that does not end", failure{
			template: v1alpha1.TaskTemplate{Install: v1alpha1.InstallOptions{Timeout: minute}},
			happens:  func(m *machine) { m.hangs.Insert("install") }, within: 2 * time.Minute,
			wantReason: v1alpha1.ReasonInstallTimeout, wantMessage: "install.timeout",
		}),
		Entry("an agent that says nothing any more", failure{
			template: v1alpha1.TaskTemplate{Install: v1alpha1.InstallOptions{Timeout: minute}},
			happens:  func(m *machine) { m.hangs.Insert("agent") }, within: 2 * time.Minute,
			wantReason: v1alpha1.ReasonInstallTimeout, wantMessage: "install.timeout",
		}),
		Entry("a host that does not come back", failure{
			template: v1alpha1.TaskTemplate{Reboot: v1alpha1.RebootOptions{Timeout: minute}},
			happens:  func(m *machine) { m.hangs.Insert("reboot") }, within: 2 * time.Minute,
			wantReason: v1alpha1.ReasonRebootTimeout, wantMessage: "reboot.timeout",
		}),
		Entry("a DaemonSet whose pod does not come back", failure{
			template: v1alpha1.TaskTemplate{Verify: v1alpha1.VerifyOptions{Timeout: minute}},
			happens: func(m *machine) {
				m.until("Rebooting", m.said(v1alpha1.StepRebooting))
				m.setReady("proxy", corev1.ConditionFalse)
			},
			within: 2 * time.Minute, wantReason: v1alpha1.ReasonVerifyTimeout, wantMessage: "-proxy", wantBoots: 2,
		}),
		Entry("a preDisrupt hook: the node is left alone", failure{
			template: v1alpha1.TaskTemplate{Hooks: &v1alpha1.Hooks{}},
			happens:  func(m *machine) { m.hooksFail.Insert("preDisrupt") }, within: time.Minute,
			wantStep: v1alpha1.StepStopped, wantReason: v1alpha1.ReasonHookFailed, wantMessage: "preDisrupt", wantLogged: "NodeSkipped",
		}),
		Entry("a postInstall hook", failure{
			template: v1alpha1.TaskTemplate{Hooks: &v1alpha1.Hooks{}},
			happens:  func(m *machine) { m.hooksFail.Insert("postInstall") }, within: time.Minute,
			wantReason: v1alpha1.ReasonHookFailed, wantMessage: "postInstall",
		}),
		Entry("a postReboot hook", failure{
			template: v1alpha1.TaskTemplate{Hooks: &v1alpha1.Hooks{}},
			happens:  func(m *machine) { m.hooksFail.Insert("postReboot") }, within: time.Minute,
			wantReason: v1alpha1.ReasonHookFailed, wantMessage: "postReboot", wantBoots: 2,
		}),
	)

	DescribeTable("of a node that does not stay Ready while it soaks", func(seen time.Duration) {
		m := newMachine(v1alpha1.TaskTemplate{Rollout: v1alpha1.RolloutOptions{Soak: &metav1.Duration{Duration: 10 * time.Minute}}})
		m.at("soak")
		m.changeNode(func(node *corev1.Node) { node.Status.Conditions[0].Status = corev1.ConditionFalse })
		m.clock.Step(seen)
		m.frozen = false
		m.until("the end", m.over)
		Expect(m.verdict()).To(And(HaveField("Step", v1alpha1.StepFailed), HaveField("Reason", v1alpha1.ReasonSoakFailed)))
	},
		Entry("as it is seen", time.Minute), Entry("by a manager that comes later", time.Hour),
	)

	It("is not that of a node that was in order, and for a moment is not while a long hook runs", func() {
		m := newMachine(v1alpha1.TaskTemplate{Hooks: &v1alpha1.Hooks{PostReboot: &v1alpha1.Hook{
			PodTemplate: allHooks().PostReboot.PodTemplate, Timeout: metav1.Duration{Duration: time.Hour}}}})
		m.hangs.Insert("hooks")
		m.until("the hook", func() bool {
			said := m.assignment().Status.Controller
			return m.boots == 2 && said != nil && said.Reason == v1alpha1.ReasonHookRunning
		})
		m.clock.Step(verifyTimeout + time.Minute)
		m.setReady("proxy", corev1.ConditionFalse)
		for range 2 {
			_, err := m.look()
			Expect(err).NotTo(HaveOccurred())
			Expect(m.assignment().Status.Controller).To(HaveValue(And(
				HaveField("Step", v1alpha1.StepVerifying), HaveField("Message", ContainSubstring("-proxy")))))
			m.clock.Step(verifyTimeout - time.Minute)
		}
		m.setReady("proxy", corev1.ConditionTrue)
		m.hangs.Delete("hooks")
		m.until("the end", m.over)
		Expect(m.verdict()).To(HaveField("Step", v1alpha1.StepDone))
	})

	It("names the pods that block a drain, in the assignment and in the log", func() {
		m := newMachine(v1alpha1.TaskTemplate{})
		forbidEvictions(m)
		m.until("a drain that waits", func() bool {
			controller := m.assignment().Status.Controller
			return controller != nil && controller.Step == v1alpha1.StepDraining
		})
		message := m.assignment().Status.Controller.Message
		Expect(message).To(And(ContainSubstring("default/%s-web-1 (PodDisruptionBudget", m.name), ContainSubstring("default/%s-web-2", m.name)))
		writesBefore, versionsBefore, waited := m.process.Writes(), m.versions(), m.clock.Now()
		for range 5 {
			_, err := m.round()
			Expect(err).NotTo(HaveOccurred())
		}
		Expect(m.clock.Since(waited)).To(Equal(5*blocked), "each look tries the evictions again")
		Expect(m.process.Writes()).To(Equal(writesBefore), "a drain that waits writes nothing but what changes")
		Expect(m.versions()).To(Equal(versionsBefore), "nor do its evictions, which are refused")
		Expect(m.logged()).To(ConsistOf("NodeAdmitted", "NodeCordoned", "DrainBlocked"))
		Expect(admin.DeleteAllOf(ctx, &policyv1.PodDisruptionBudget{}, client.InNamespace(metav1.NamespaceDefault))).To(Succeed())
		m.until("the end", m.over)
		Expect(m.verdict().Step).To(Equal(v1alpha1.StepDone))
	})
})

// versions are the resourceVersions of all that a drain may write.
func (m *machine) versions() map[string]string {
	GinkgoHelper()
	versions := map[string]string{"node": m.node().ResourceVersion, "assignment": m.assignment().ResourceVersion}
	for _, pod := range m.pods() {
		versions[pod.Name] = pod.ResourceVersion
	}
	return versions
}

// forbidEvictions makes a PodDisruptionBudget that allows none.
func forbidEvictions(m *machine) {
	GinkgoHelper()
	budget := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: fmt.Sprint(m.name, "-web")},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: new(intstr.FromInt32(2)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": m.name + "-web"}},
		},
	}
	Expect(admin.Create(ctx, budget)).To(Succeed())
	budget.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: budget.Generation, CurrentHealthy: 2, DesiredHealthy: 2, ExpectedPods: 2}
	Expect(admin.Status().Update(ctx, budget)).To(Succeed())
}
