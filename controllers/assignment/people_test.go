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
)

func cordon(node *corev1.Node)   { node.Spec.Unschedulable = true }
func uncordon(node *corev1.Node) { node.Spec.Unschedulable = false }

var _ = Describe("A person at the same node", func() {
	It("who cordoned it before finds it cordoned", func() {
		m := newMachine(v1alpha1.TaskTemplate{}, cordon)
		before := m.node()
		m.until("the end", m.over)
		m.untouched(before)
		Expect(m.boots).To(Equal(2))
		Expect(m.logged()).NotTo(ContainElement("NodeCordoned"))
		Expect(m.logged()).NotTo(ContainElement("NodeUncordoned"))
	})

	It("who cordons it before the drain keeps their cordon", func() {
		m := newMachine(v1alpha1.TaskTemplate{})
		m.until("Installing", m.said(v1alpha1.StepInstalling))
		m.kubectl(cordon)
		m.until("the end", m.over)
		Expect(m.node().Spec.Unschedulable).To(BeTrue())
	})

	It("who uncordons it during the drain is not fought, and the drain ends in time", func() {
		m := newMachine(v1alpha1.TaskTemplate{Drain: v1alpha1.DrainOptions{Timeout: metav1.Duration{Duration: time.Minute}}})
		m.hangs.Insert("pods")
		m.until("Draining", m.said(v1alpha1.StepDraining))
		m.kubectl(uncordon)
		m.hangs.Delete("pods")
		m.until("what it says about it", func() bool {
			return m.assignment().Status.Controller != nil && m.node().Spec.Unschedulable == false && len(m.workload()) == 0
		})
		_, err := m.look()
		Expect(err).NotTo(HaveOccurred())
		Expect(m.assignment().Status.Controller.Message).To(ContainSubstring("kubectl cordon " + m.name))
		m.until("the end", m.over)
		Expect(m.boots).To(Equal(1), "a node that takes pods is not rebooted")
		Expect(m.node().Spec.Unschedulable).To(BeFalse())
		Expect(m.verdict().Reason).To(Equal(v1alpha1.ReasonDrainTimeout))
	})

	It("who uncordons and cordons it again keeps their cordon, and the drain goes on", func() {
		m := newMachine(v1alpha1.TaskTemplate{})
		m.hangs.Insert("pods")
		m.until("Draining", m.said(v1alpha1.StepDraining))
		m.kubectl(uncordon)
		m.kubectl(cordon)
		m.hangs.Delete("pods")
		m.until("the end", m.over)
		Expect(m.boots).To(Equal(2))
		Expect(m.verdict().Step).To(Equal(v1alpha1.StepDone))
		Expect(m.node().Spec.Unschedulable).To(BeTrue())
	})

	It("who sets a condition of the same name keeps it", func() {
		m := newMachine(v1alpha1.TaskTemplate{})
		m.changeNode(func(node *corev1.Node) {
			node.Status.Conditions = append(node.Status.Conditions, corev1.NodeCondition{
				Type: corev1.NodeDrained, Status: corev1.ConditionFalse, Reason: "Mine", Message: "mine",
			})
		})
		m.until("the end", m.over)
		conditions := m.node().Status.Conditions
		Expect(conditions).To(HaveLen(2))
		Expect(conditions[1]).To(And(HaveField("Reason", "Mine"), HaveField("Status", corev1.ConditionFalse)))
	})

	deleted := func(node *corev1.Node) { delete(node.Annotations, v1alpha1.MaintenanceAnnotation) }
	DescribeTable("who damages the record changes nothing about what is undone", func(drain v1alpha1.DrainWhen, change func(*corev1.Node)) {
		m := newMachine(v1alpha1.TaskTemplate{Drain: v1alpha1.DrainOptions{When: drain}})
		before := m.node()
		m.hangs.Insert("pods")
		m.until("Draining", m.said(v1alpha1.StepDraining))
		m.kubectl(change)
		m.hangs.Delete("pods")
		m.until("the end", m.over)
		m.untouched(before)
		Expect(m.boots).To(Equal(2))
		Expect(m.verdict().Step).To(Equal(v1alpha1.StepDone))
	},
		Entry("by deleting it", v1alpha1.DrainBeforeReboot, deleted),
		Entry("by deleting it before anything is installed", v1alpha1.DrainBeforeInstall, deleted),
		Entry("by editing it", v1alpha1.DrainBeforeReboot,
			func(node *corev1.Node) { node.Annotations[v1alpha1.MaintenanceAnnotation] = `{"version":1,` }),
	)

	It("who deletes the record and stops the task leaves nothing behind", func() {
		m := newMachine(v1alpha1.TaskTemplate{Drain: v1alpha1.DrainOptions{When: v1alpha1.DrainBeforeInstall}})
		before := m.node()
		m.hangs.Insert("pods")
		m.until("Draining", m.said(v1alpha1.StepDraining))
		m.kubectl(deleted)
		m.stop("not today")
		m.until("the end", m.over)
		m.untouched(before)
		Expect(m.verdict().Step).To(Equal(v1alpha1.StepStopped))
	})

	It("who stops the task does so at each step, and the node is put back", func() {
		for _, at := range []string{"admitted", "Installing", "Draining", "Rebooting", "Verifying", "soak"} {
			m := newMachine(v1alpha1.TaskTemplate{Rollout: v1alpha1.RolloutOptions{Soak: &metav1.Duration{Duration: time.Hour}}})
			before := m.node()
			m.at(at)
			m.stop("not today")
			m.hangs.Clear()
			m.frozen = false
			m.until("the end after a stop: "+at, m.over)
			m.untouched(before)
			wantStep, wantBoots := v1alpha1.StepStopped, 1
			switch at {
			case "Rebooting":
				wantStep, wantBoots = v1alpha1.StepDone, 2 // the agent was through before it could stop
			case "Verifying", "soak":
				wantStep, wantBoots = v1alpha1.StepDone, 2
			}
			Expect(m.verdict()).To(HaveField("Step", wantStep), at)
			if wantStep == v1alpha1.StepStopped {
				Expect(m.verdict().Message).To(Equal("not today"))
				Expect(m.logged()).To(ContainElement("NodeStopped"))
			}
			Expect(m.boots).To(Equal(wantBoots), at)
			removeAll()
		}
	})
})

var _ = Describe("Taking leave", func() {
	everywhere := []string{"admitted", "Installing", "Draining", "Rebooting", "Verifying", "soak"}
	leaves := func(what string, steps []string, leave func(*machine)) {
		for _, at := range steps {
			m := newMachine(v1alpha1.TaskTemplate{Rollout: v1alpha1.RolloutOptions{Soak: &metav1.Duration{Duration: time.Hour}}})
			before := m.node()
			m.at(at)
			leave(m)
			m.boot() // a manager that has just started
			m.hangs.Clear()
			m.frozen = false
			m.until(what+": "+at, func() bool {
				assignment := &v1alpha1.PatchAssignment{}
				err := admin.Get(ctx, client.ObjectKey{Name: m.name}, assignment)
				return !carriesRecord(m.node()) && (err != nil || assignment.Spec.Operation == nil)
			})
			m.untouched(before)
			removeAll()
		}
	}

	It("after the task was deleted", func() {
		leaves("after the task was deleted", everywhere, func(m *machine) { Expect(admin.Delete(ctx, m.task)).To(Succeed()) })
	})

	It("after the assignment was deleted", func() {
		leaves("after the assignment was deleted", everywhere, func(m *machine) { Expect(admin.Delete(ctx, m.assignment())).To(Succeed()) })
	})

	It("after the operation was taken away by somebody else", func() {
		leaves("after the operation was taken away", []string{"Draining", "Rebooting"}, func(m *machine) {
			assignment := m.assignment()
			assignment.Spec.Operation = nil
			Expect(admin.Update(ctx, assignment)).To(Succeed())
		})
	})

	It("after the policy was deleted, with all agents", func() {
		leaves("after the agents were deleted", []string{"Installing", "Draining", "Rebooting", "Verifying"}, func(m *machine) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "nodepatch-system", Name: "agent-" + m.name}}
			Expect(admin.Delete(ctx, pod, client.GracePeriodSeconds(0))).To(Succeed())
			m.stop("the policy was deleted")
			m.hangs.Insert("agent")
			if m.node().Status.Conditions[0].Status != corev1.ConditionTrue {
				m.changeNode(func(node *corev1.Node) { node.Status.Conditions[0].Status = corev1.ConditionTrue })
			}
		})
	})

	It("after another task was given the node in between, before that one begins", func() {
		m := newMachine(v1alpha1.TaskTemplate{})
		before := m.node()
		m.at("Draining")
		first := m.task
		m.task = addTask("next-" + m.name)
		m.task.Status.Template = first.Status.Template
		Expect(admin.Status().Update(ctx, m.task)).To(Succeed())
		assignment := m.assignment()
		assignment.Spec.Operation.ID, assignment.Spec.Operation.Task = string(m.task.UID), m.task.Name
		assignment.Spec.Operation.Step = v1alpha1.StepDownloading
		Expect(admin.Update(ctx, assignment)).To(Succeed())
		m.say(v1alpha1.StepWaiting, v1alpha1.ReasonReadyToInstall)
		m.until("the Node's restoration", func() bool { return !m.node().Spec.Unschedulable })
		m.hangs.Clear()
		m.until("the end", m.over)
		m.untouched(before)
		Expect(m.verdict()).To(And(HaveField("OperationID", string(m.task.UID)), HaveField("Step", v1alpha1.StepDone)))
	})

	It("removes the pods of hooks without an assignment", func() {
		m := newMachine(v1alpha1.TaskTemplate{Hooks: allHooks()})
		before := m.node()
		m.hangs.Insert("hooks")
		m.until("the hook", func() bool { return len(m.pods()) == 5 })
		Expect(admin.Delete(ctx, m.assignment())).To(Succeed())
		for range 5 {
			_, err := m.round()
			Expect(err).NotTo(HaveOccurred())
		}
		m.untouched(before)
	})

	It("undoes a damaged record without any operation", func() {
		m := newMachine(v1alpha1.TaskTemplate{})
		before := m.node()
		m.at("Draining")
		m.kubectl(func(node *corev1.Node) { node.Annotations[v1alpha1.MaintenanceAnnotation] = "?" })
		Expect(admin.Delete(ctx, m.assignment())).To(Succeed())
		for range 5 {
			_, err := m.look()
			Expect(err).NotTo(HaveOccurred())
		}
		m.untouched(before)
		Expect(m.node().Annotations).NotTo(HaveKey(maintenance.ScaleDownDisabledAnnotation))
	})
})

// at takes a node to a step and holds it there.
func (m *machine) at(step string) {
	GinkgoHelper()
	switch step {
	case "admitted":
	case "Installing":
		m.hangs.Insert("install")
		m.until(step, func() bool { return m.assignment().Status.Agent.Step == v1alpha1.StepInstalling })
	case "Draining":
		m.hangs.Insert("pods")
		m.until(step, m.said(v1alpha1.StepDraining))
	case "Rebooting":
		m.hangs.Insert("reboot")
		m.until(step, func() bool { return m.node().Status.Conditions[0].Status != corev1.ConditionTrue })
	case "Verifying":
		m.until("Rebooting", m.said(v1alpha1.StepRebooting))
		m.setReady("proxy", corev1.ConditionFalse)
		m.until(step, m.said(v1alpha1.StepVerifying))
		m.setReady("proxy", corev1.ConditionTrue)
	case "soak":
		m.until("Rebooting", m.said(v1alpha1.StepRebooting))
		m.frozen = true
		m.until(step, func() bool { return m.boots == 2 && !m.node().Spec.Unschedulable })
	}
}

// stop asks the node to stop, as the task controller does.
func (m *machine) stop(why string) {
	GinkgoHelper()
	assignment := m.assignment()
	assignment.Spec.Operation.Stop = why
	Expect(admin.Update(ctx, assignment)).To(Succeed())
}
