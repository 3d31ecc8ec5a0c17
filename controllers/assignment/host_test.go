package assignment

import (
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// kubelet ends pods that are deleted, and runs those of hooks.
func (m *machine) kubelet() (moved bool) {
	GinkgoHelper()
	for _, pod := range m.pods() {
		switch {
		case pod.DeletionTimestamp != nil && !m.hangs.Has("pods"):
			Expect(admin.Delete(ctx, &pod, client.GracePeriodSeconds(0))).To(Succeed())
			moved = true
		case pod.Labels["app.kubernetes.io/component"] == "hook" && pod.Status.Phase == corev1.PodPending && !m.hangs.Has("hooks"):
			phase, code := corev1.PodSucceeded, int32(0)
			if m.hooksFail.Has(pod.Labels["nodepatch.io/hook"]) {
				phase, code = corev1.PodFailed, 3
			}
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "hook", State: corev1.ContainerState{
				Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.Now()},
			}}}
			m.setPod(&pod, phase, corev1.ConditionFalse)
			moved = true
		}
	}
	return !m.hangs.Has("tells") && m.tellOfPods() || moved
}

// tellOfPods tells of the containers that were made anew in a boot.
func (m *machine) tellOfPods() (moved bool) {
	GinkgoHelper()
	for _, pod := range m.pods() {
		was := pod.DeepCopy()
		if pod.Status.Phase != corev1.PodRunning || len(pod.Status.ContainerStatuses) == 0 {
			continue
		}
		m.run(&pod)
		if pod.Status.ContainerStatuses[0].ContainerID != was.Status.ContainerStatuses[0].ContainerID {
			Expect(admin.Status().Patch(ctx, &pod, client.MergeFrom(was))).To(Succeed())
			moved = true
		}
	}
	return moved
}

// agent does the next thing that the node's agent and its host do.
func (m *machine) agent() (moved bool) {
	GinkgoHelper()
	assignment := &v1alpha1.PatchAssignment{}
	err := admin.Get(ctx, client.ObjectKey{Name: m.name}, assignment)
	Expect(client.IgnoreNotFound(err)).To(Succeed())
	operation, said := assignment.Spec.Operation, assignment.Status.Agent
	if err != nil || operation == nil || operation.ID != string(m.task.UID) || said.Step.Ended() || m.hangs.Has("agent") {
		return false
	}
	waits := said.Step == v1alpha1.StepWaiting
	switch {
	case operation.Stop != "" && said.Step != v1alpha1.StepRebooting:
		m.say(v1alpha1.StepStopped, v1alpha1.ReasonAborted)
	case waits && said.Reason == v1alpha1.ReasonReadyToInstall && operation.Step == v1alpha1.StepInstalling:
		m.raises = append(m.raises, operation.Step)
		m.say(v1alpha1.StepInstalling, "")
	case said.Step == v1alpha1.StepInstalling && !m.hangs.Has("install"):
		if m.reboots {
			m.say(v1alpha1.StepWaiting, v1alpha1.ReasonRebootRequired)
		} else {
			m.end()
		}
	case waits && said.Reason == v1alpha1.ReasonRebootRequired && operation.Step == v1alpha1.StepRebooting:
		m.raises = append(m.raises, operation.Step)
		m.mayReboot()
		m.say(v1alpha1.StepRebooting, "")
	case said.Step == v1alpha1.StepRebooting:
		return m.host()
	default:
		return false
	}
	return true
}

// mayReboot checks what must be so whenever a node reboots.
func (m *machine) mayReboot() {
	GinkgoHelper()
	if m.task.Status.Template.Drain.When == v1alpha1.DrainNever {
		return
	}
	Expect(m.node().Spec.Unschedulable).To(BeTrue(), "a node that reboots is cordoned")
	Expect(m.workload()).To(BeEmpty(), "a node that reboots is drained")
}

// host goes down, comes up, and has its agent say so.
func (m *machine) host() (moved bool) {
	GinkgoHelper()
	ready := m.node().Status.Conditions[0].Status == corev1.ConditionTrue
	switch back := m.node().Status.NodeInfo.BootID != "boot-1"; {
	case back:
		m.end()
	case ready:
		m.changeNode(func(node *corev1.Node) { node.Status.Conditions[0].Status = corev1.ConditionUnknown })
	case m.hangs.Has("reboot"):
		return false
	default:
		m.boots++
		m.changeNode(func(node *corev1.Node) {
			node.Status.Conditions[0].Status = corev1.ConditionTrue
			node.Status.NodeInfo.BootID = fmt.Sprint("boot-", m.boots)
		})
	}
	return true
}

// end is the agent's last word.
func (m *machine) end() {
	GinkgoHelper()
	step := m.outcome.Step
	if step == "" {
		step = v1alpha1.StepDone
	}
	m.tell(v1alpha1.AgentStatus{
		OperationID: string(m.task.UID), Task: m.task.Name, Step: step, Reason: m.outcome.Reason, Message: m.outcome.Message,
		Counts: &v1alpha1.PatchCounts{Installed: 3}, Reboots: int32(m.boots - 1),
	})
}

// say is what the agent says on its way.
func (m *machine) say(step v1alpha1.Step, reason string) {
	GinkgoHelper()
	m.tell(v1alpha1.AgentStatus{
		OperationID: string(m.task.UID), Task: m.task.Name, Step: step, Reason: reason,
		Counts: &v1alpha1.PatchCounts{Missing: 3, Downloaded: 3}, Reboots: int32(m.boots - 1),
	})
}

// tell writes the agent's half of the status, whoever else writes at the time.
func (m *machine) tell(agent v1alpha1.AgentStatus) {
	GinkgoHelper()
	assignment := m.assignment()
	patch := client.MergeFrom(assignment.DeepCopy())
	assignment.Status.Agent = &agent
	Expect(admin.Status().Patch(ctx, assignment, patch)).To(Succeed())
}
