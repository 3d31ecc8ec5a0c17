package assignment

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/maintenance"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

var _ = Describe("A node's way through its disruption", func() {
	It("goes through install, drain and reboot, and leaves the Node as it was", func() {
		m := newMachine(v1alpha1.TaskTemplate{}, func(node *corev1.Node) {
			node.Annotations = map[string]string{maintenance.DoNotDisruptAnnotation: "false", "mine": "x"}
		})
		before := m.node()
		admittedAt := m.assignment().Spec.Operation.AdmittedAt
		m.until("Installing", m.said(v1alpha1.StepInstalling))
		Expect(m.node().Spec.Unschedulable).To(BeFalse(), "packages are installed on a node in service")
		Expect(m.workload()).To(HaveLen(2))
		Expect(conditions(m.node())).To(ConsistOf("MaintenanceInProgress"))
		Expect(m.node().Annotations).To(And(
			HaveKeyWithValue(maintenance.DoNotDisruptAnnotation, "true"), HaveKeyWithValue(maintenance.ScaleDownDisabledAnnotation, "true")))

		m.until("Draining", m.said(v1alpha1.StepDraining))
		Expect(m.node().Spec.Unschedulable).To(BeTrue())
		Expect(conditions(m.node())).To(ConsistOf("MaintenanceInProgress", "DrainInProgress"))
		Expect(m.assignment().Status.Controller).To(HaveValue(And(
			HaveField("OperationID", string(m.task.UID)), HaveField("Since", Not(BeNil())),
			HaveField("Message", ContainSubstring("default/"+m.name+"-web-1")))))

		m.until("Rebooting", m.said(v1alpha1.StepRebooting))
		Expect(conditions(m.node())).To(ConsistOf("MaintenanceInProgress", "Drained"))
		m.until("the end", m.over)
		m.untouched(before)
		Expect(m.boots).To(Equal(2))
		Expect(m.raises).To(Equal([]v1alpha1.Step{v1alpha1.StepInstalling, v1alpha1.StepRebooting}))
		Expect(m.verdict()).To(And(
			HaveField("OperationID", string(m.task.UID)), HaveField("Step", v1alpha1.StepDone), HaveField("Reason", v1alpha1.ReasonVerified),
			HaveField("Counts", HaveValue(HaveField("Installed", BeEquivalentTo(3)))),
			HaveField("AdmittedAt", HaveValue(WithTransform(func(t metav1.Time) bool { return t.Equal(admittedAt) }, BeTrue()))),
			HaveField("Time", Not(BeNil()))))
		Expect(m.logged()).To(ConsistOf("NodeAdmitted", "NodeCordoned", "NodeDrained", "NodeUncordoned", "NodeDone"))
		Eventually(func(g Gomega) {
			_, err := m.look()
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(m.assignment().Status.Controller).To(HaveValue(Equal(v1alpha1.ControllerStatus{Agent: v1alpha1.AgentReady})))
		}).Should(Succeed())
	})

	It("neither cordons nor drains a node that has no reboot to do", func() {
		m := newMachine(v1alpha1.TaskTemplate{})
		m.reboots = false
		before := m.node()
		m.until("the end", m.over)
		m.untouched(before)
		Expect(m.workload()).To(HaveLen(2))
		Expect(m.verdict().Step).To(Equal(v1alpha1.StepDone))
		Expect(m.logged()).To(ConsistOf("NodeAdmitted", "NodeDone"))
	})

	It("drains before it installs where the task says so, and looks again before the reboot", func() {
		m := newMachine(v1alpha1.TaskTemplate{Drain: v1alpha1.DrainOptions{When: v1alpha1.DrainBeforeInstall}})
		before := m.node()
		m.until("Installing", m.said(v1alpha1.StepInstalling))
		Expect(m.workload()).To(BeEmpty())
		Expect(conditions(m.node())).To(ConsistOf("MaintenanceInProgress", "Drained"))
		m.pod("web-3", metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "web", Controller: new(true)})
		m.until("the end", m.over)
		m.untouched(before)
		Expect(m.boots).To(Equal(2))
	})

	It("reboots without a drain where the task says so", func() {
		m := newMachine(v1alpha1.TaskTemplate{Drain: v1alpha1.DrainOptions{When: v1alpha1.DrainNever}})
		before := m.node()
		m.until("the end", m.over)
		m.untouched(before)
		Expect(m.workload()).To(HaveLen(2))
		Expect(m.boots).To(Equal(2))
		Expect(m.logged()).To(ConsistOf("NodeAdmitted", "NodeDone"))
	})

	It("goes straight to the reboot where that is all that is left to do", func() {
		m := newMachine(v1alpha1.TaskTemplate{Drain: v1alpha1.DrainOptions{When: v1alpha1.DrainBeforeInstall}})
		m.say(v1alpha1.StepWaiting, v1alpha1.ReasonRebootRequired)
		m.until("the end", m.over)
		Expect(m.raises).To(Equal([]v1alpha1.Step{v1alpha1.StepRebooting}))
		Expect(m.verdict().Step).To(Equal(v1alpha1.StepDone))
	})

	It("gives load balancers their time before the first eviction, and takes the label back", func() {
		m := newMachine(v1alpha1.TaskTemplate{LoadBalancer: &v1alpha1.LoadBalancerOptions{Delay: metav1.Duration{Duration: time.Minute}}})
		before := m.node()
		m.until("Draining", m.said(v1alpha1.StepDraining))
		cordoned := m.assignment().Status.Controller.Since.Time
		Expect(m.node().Labels).To(HaveKeyWithValue(corev1.LabelNodeExcludeBalancers, "true"))
		Expect(m.assignment().Status.Controller.Message).To(ContainSubstring("1m0s"))
		m.until("the first eviction", func() bool { return len(m.workload()) < 2 })
		Expect(m.clock.Now()).To(BeTemporally(">=", cordoned.Add(time.Minute)))
		m.until("the end", m.over)
		m.untouched(before)
	})

	It("soaks a node that is in service again", func() {
		m := newMachine(v1alpha1.TaskTemplate{Rollout: v1alpha1.RolloutOptions{Soak: &metav1.Duration{Duration: 10 * time.Minute}}})
		m.until("the Node's restoration", func() bool { return m.boots == 2 && !m.node().Spec.Unschedulable })
		record, err := maintenance.Read(m.node())
		Expect(err).NotTo(HaveOccurred())
		Expect(m.assignment().Spec.Operation).NotTo(BeNil(), "it holds its slot")
		m.until("the end", m.over)
		Expect(m.clock.Now()).To(BeTemporally(">=", record.Restored.Add(10*time.Minute)))
		Expect(m.verdict().Step).To(Equal(v1alpha1.StepDone))
	})

	It("runs hooks at their points, and removes their pods", func() {
		m := newMachine(v1alpha1.TaskTemplate{Hooks: allHooks()})
		before := m.node()
		m.until("the end", m.over)
		m.untouched(before)
		Expect(m.verdict().Step).To(Equal(v1alpha1.StepDone))
		Expect(m.logged()).To(ConsistOf("NodeAdmitted", "HookSucceeded", "HookSucceeded", "NodeCordoned", "NodeDrained", "HookSucceeded", "NodeUncordoned", "NodeDone"))
	})

	It("does not wait for a DaemonSet that was broken before, and for no other longer than it takes", func() {
		m := newMachine(v1alpha1.TaskTemplate{})
		m.daemonSet("broken")
		m.setReady("broken", corev1.ConditionFalse)
		m.until("Rebooting", m.said(v1alpha1.StepRebooting))
		m.setReady("proxy", corev1.ConditionFalse)
		m.until("Verifying", m.said(v1alpha1.StepVerifying))
		Expect(m.assignment().Status.Controller.Message).To(Equal("Pods of these DaemonSets are not ready on the node: default/" + m.name + "-proxy"))
		Expect(m.node().Spec.Unschedulable).To(BeTrue())
		m.setReady("proxy", corev1.ConditionTrue)
		m.until("the end", m.over)
		Expect(m.verdict().Step).To(Equal(v1alpha1.StepDone))
	})

	It("does not take the word of a kubelet that has not looked at its pods since the reboot", func() {
		m := newMachine(v1alpha1.TaskTemplate{})
		m.hangs.Insert("tells")
		m.until("Verifying", m.said(v1alpha1.StepVerifying))
		Expect(m.boots).To(Equal(2))
		pod := &corev1.Pod{}
		Expect(admin.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceDefault, Name: m.name + "-proxy"}, pod)).To(Succeed())
		Expect(ready(pod)).To(BeTrue(), "as the kubelet told of it before the reboot")
		Expect(m.assignment().Status.Controller.Message).To(Equal("Pods of these DaemonSets are not ready on the node: default/" + m.name + "-proxy"))
		Expect(m.node().Spec.Unschedulable).To(BeTrue())
		m.hangs.Delete("tells")
		m.until("the end", m.over)
		Expect(m.verdict().Step).To(Equal(v1alpha1.StepDone))
	})

	It("takes the pods of a node that does not reboot after all as they are", func() {
		m := newMachine(v1alpha1.TaskTemplate{})
		m.at("Draining")
		m.hangs.Clear()
		// The agent finds that there is nothing to reboot for any more.
		m.end()
		m.until("the end", m.over)
		Expect(m.boots).To(Equal(1))
		Expect(m.verdict().Step).To(Equal(v1alpha1.StepDone))
	})

	It("fails a node of which patches failed, after its reboot and with the agent's words", func() {
		m := newMachine(v1alpha1.TaskTemplate{})
		m.outcome = v1alpha1.AgentStatus{Step: v1alpha1.StepFailed, Reason: v1alpha1.ReasonPatchesFailed, Message: "1 of 3 patches failed"}
		before := m.node()
		m.until("the end", m.over)
		m.untouched(before)
		Expect(m.boots).To(Equal(2))
		Expect(m.verdict()).To(And(HaveField("Step", v1alpha1.StepFailed), HaveField("Reason", v1alpha1.ReasonPatchesFailed),
			HaveField("Message", "1 of 3 patches failed")))
		Expect(m.logged()).To(ContainElement("NodeFailed"))
	})
})

// conditions are the ones of a Node that Kubernetes reserves for maintenance and
// that are True.
func conditions(node *corev1.Node) []string {
	var types []string
	for _, condition := range node.Status.Conditions[1:] {
		if condition.Status == corev1.ConditionTrue && condition.Reason != "" && condition.Message != "" {
			types = append(types, string(condition.Type))
		}
	}
	return types
}

// setReady changes a pod of the node.
func (m *machine) setReady(name string, status corev1.ConditionStatus) {
	GinkgoHelper()
	pod := &corev1.Pod{}
	Expect(admin.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceDefault, Name: m.name + "-" + name}, pod)).To(Succeed())
	m.setPod(pod, corev1.PodRunning, status)
}

// allHooks makes a template for hooks, and a task's hooks of it.
func allHooks() *v1alpha1.Hooks {
	GinkgoHelper()
	template := &corev1.PodTemplate{
		ObjectMeta: metav1.ObjectMeta{Namespace: apiserver.Namespace, Name: "hook"},
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "hook", Image: "hook"}}, AutomountServiceAccountToken: new(false),
		}},
	}
	Expect(client.IgnoreAlreadyExists(admin.Create(ctx, template))).To(Succeed())
	hook := &v1alpha1.Hook{PodTemplate: "hook"}
	return &v1alpha1.Hooks{PreDisrupt: hook, PostInstall: hook, PostReboot: hook}
}
