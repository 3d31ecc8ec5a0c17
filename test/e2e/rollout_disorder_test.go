package e2e

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

var _ = chaos && Describe("Where others do as they like, a rollout", Label("chaos"), Ordered, ContinueOnFailure, func() {
	BeforeAll(func(ctx SpecContext) {
		loadWorkload(ctx)
		prepareFleet(ctx)
	}, NodeTimeout(4*time.Minute))
	AfterEach(tidyFleet, NodeTimeout(4*time.Minute))

	It("does not reboot a machine once more that somebody rebooted in the middle of its installation", func(ctx SpecContext) {
		w := beginWalk(ctx, toy)
		w.reach(ctx, v1alpha1.StepInstalling)
		_, err := machine(w.node).Exec(ctx, "systemctl", "--no-block", "reboot") // which hangs, as the walker has seen to that
		Expect(err).NotTo(HaveOccurred())
		w.leave(ctx, v1alpha1.StepInstalling)
		Eventually(ctx, func(g Gomega) {
			status, err := machine(w.node).Status(ctx)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(status.Leader).To(BeZero(), "the machine goes down when the packages are installed")
		}).Should(Succeed())
		w.anchor.allow(ctx)
		Expect(machine(w.node).Start(ctx)).To(Succeed())
		Expect(finish(ctx, w.task).Status.Phase).To(Equal(v1alpha1.TaskComplete), w.task.Status.Message)
		Expect(w.task.Status.Patches.Installed).To(BeEquivalentTo(1))
		Expect(bootsOf(ctx, w.node)).To(Equal(w.boots + 1))
		expectAsBefore(ctx, w.from)
	}, SpecTimeout(6*time.Minute))

	It("repairs and reboots a machine that lost its power in the middle of its installation", func(ctx SpecContext) {
		before, boots, version := nodeStates(ctx), bootsOf(ctx, toy), publishFirmware()
		holdInstall(ctx, toy)
		task := rolloutOf(ctx, []string{toy}, nil)
		waitForStage(ctx, task, toy, v1alpha1.StepInstalling)
		Eventually(ctx, func() error {
			_, err := machine(toy).Exec(ctx, "pgrep", "-f", firmware+".postinst")
			return err
		}).Should(Succeed())
		Expect(machine(toy).Kill(ctx)).To(Succeed())
		Expect(machine(toy).Start(ctx)).To(Succeed())
		Expect(finish(ctx, task).Status.Phase).To(Equal(v1alpha1.TaskComplete), task.Status.Message)
		Expect(firmwareOf(ctx, toy)).To(Equal("installed " + version))
		Expect(bootsOf(ctx, toy)).To(Equal(boots+2), "the power cut, and the reboot that the repaired package asks for")
		expectAsBefore(ctx, before)
	}, SpecTimeout(6*time.Minute))

	It("gives way to a person who uncordons its node, and leaves the node so", func(ctx SpecContext) {
		w := beginWalk(ctx, toy)
		w.reach(ctx, v1alpha1.StepInstalling)
		w.leave(ctx, v1alpha1.StepInstalling)
		w.reach(ctx, v1alpha1.StepDraining)
		kubectl(ctx, "uncordon", toy)
		Eventually(ctx, func() string { return kubectl(ctx, "get", "patchassignment", toy) }).Should(ContainSubstring("uncordoned"))
		Consistently(ctx, func() bool { return stateOfNode(ctx, toy).Unschedulable }).WithTimeout(10 * time.Second).Should(BeFalse())
		kubectl(ctx, "annotate", "patchtask", w.task.Name, v1alpha1.StopAnnotation+"=somebody needs the node")
		Expect(finish(ctx, w.task).Status.Phase).To(Equal(v1alpha1.TaskStopped))
		expectAsBefore(ctx, w.from)
	}, SpecTimeout(5*time.Minute))

	It("halts at more failures than it may have, and leaves the nodes alone that it has not begun", func(ctx SpecContext) {
		shop := workload{name: "shop", replicas: 3, minAvailable: 3, grace: 1}
		shop.run(ctx)
		before := nodeStates(ctx)
		publishFirmware()
		task := rolloutOf(ctx, nil, func(t *v1alpha1.TaskTemplate) {
			t.Rollout.MaxFailures, t.Drain.Timeout.Duration = new(int32(0)), 10*time.Second
		})
		first := waitForAdmission(ctx, task)
		finish(ctx, task)
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskFailed))
		Expect(task.Status.Stop.Reason).To(Equal(v1alpha1.ReasonTooManyFailures))
		Expect(task.Status.Message).To(And(ContainSubstring(first), ContainSubstring(v1alpha1.ReasonDrainTimeout)))
		AddReportEntry("the message of a task that halted", task.Status.Message)
		for _, node := range everyNode {
			if node != first {
				Expect(nodeLog(ctx, task, node)).NotTo(ContainElement(v1alpha1.EventNodeAdmitted), node)
			}
		}
		expectAsBefore(ctx, before)
	}, SpecTimeout(5*time.Minute))

	It("shares the cluster's budget with another policy's", func(ctx SpecContext) {
		setManagerArgument(ctx, "--cluster-max-unavailable=1")
		deleteRollouts(ctx)
		createRolloutPolicy(ctx, "left", metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelHostname: toy}})
		createRolloutPolicy(ctx, "right", metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelHostname: spare}})
		before := nodeStates(ctx)
		publishFirmware()
		for _, node := range []string{toy, spare} {
			holdInstall(ctx, node)
		}
		tasks := []*v1alpha1.PatchTask{rolloutUnder(ctx, "left", nil, nil), rolloutUnder(ctx, "right", nil, nil)}
		nodes := []string{toy, spare}
		at, waits := 0, 1
		Eventually(ctx, func(g Gomega) {
			operations := []*v1alpha1.Operation{assignmentOf(ctx, toy).Spec.Operation, assignmentOf(ctx, spare).Spec.Operation}
			g.Expect(operations).NotTo(ContainElement(BeNil()))
			if operations[1].AdmittedAt != nil {
				at, waits = 1, 0
			}
			g.Expect(operations[at].AdmittedAt).NotTo(BeNil())
			g.Expect(operations[waits].AdmittedAt).To(BeNil())
			why := assignmentOf(ctx, nodes[waits]).Status.Rollout
			g.Expect(why).NotTo(BeNil())
			g.Expect(why.Reason).To(Equal(v1alpha1.ReasonClusterBudget))
		}).Should(Succeed())
		Consistently(ctx, func() *metav1.Time { return assignmentOf(ctx, nodes[waits]).Spec.Operation.AdmittedAt }).WithTimeout(5 * time.Second).Should(BeNil())
		for _, node := range nodes {
			letInstall(ctx, node)
		}
		for _, task := range tasks {
			Expect(finish(ctx, task).Status.Phase).To(Equal(v1alpha1.TaskComplete), task.Status.Message)
		}
		first, second := journalOf(ctx, tasks[at])[nodes[at]], journalOf(ctx, tasks[waits])[nodes[waits]]
		Expect(second[v1alpha1.EventNodeAdmitted]).To(BeTemporally(">=", first[v1alpha1.EventNodeDone]))
		expectAsBefore(ctx, before)
	}, SpecTimeout(8*time.Minute))

	It("is not held up by a node that is deleted in its middle", func(ctx SpecContext) {
		w := beginWalk(ctx, toy)
		w.reach(ctx, v1alpha1.StepInstalling)
		w.leave(ctx, v1alpha1.StepInstalling)
		w.reach(ctx, v1alpha1.StepDraining)
		Expect(client.Delete(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: toy}})).To(Succeed())
		finish(ctx, w.task)
		AddReportEntry("a task whose only node was deleted", w.task.Status.Message)
		w.anchor.allow(ctx)
		_, err := machine(toy).Exec(ctx, "systemctl", "restart", "kubelet")
		Expect(err).NotTo(HaveOccurred())
		Eventually(ctx, func() error { return client.Get(ctx, ctrlclient.ObjectKey{Name: toy}, &corev1.Node{}) }).Should(Succeed())
		waitForAgents(ctx)
		Expect(stateOfNode(ctx, toy).Unschedulable).To(BeFalse())
		again := rolloutOf(ctx, []string{toy}, nil)
		Eventually(ctx, func() int {
			status, err := machine(toy).Status(ctx)
			Expect(err).NotTo(HaveOccurred())
			return status.Leader
		}).Should(BeZero(), "it reboots, and hangs")
		Expect(machine(toy).Start(ctx)).To(Succeed())
		Expect(finish(ctx, again).Status.Phase).To(Equal(v1alpha1.TaskComplete), again.Status.Message)
	}, SpecTimeout(6*time.Minute))

	It("leaves nothing on its nodes when the operator is taken away", func(ctx SpecContext) {
		w := beginWalk(ctx, toy)
		w.reach(ctx, v1alpha1.StepInstalling)
		w.leave(ctx, v1alpha1.StepInstalling)
		w.reach(ctx, v1alpha1.StepDraining)
		undeploy(ctx)
		expectAsBefore(ctx, w.from)
		w.anchor.allow(ctx)
		installOperator(ctx)
	}, SpecTimeout(6*time.Minute))
})

// setManagerArgument starts the managers with one more argument until the end of the spec.
func setManagerArgument(ctx context.Context, argument string) {
	GinkgoHelper()
	restart := func(ctx context.Context, patch string) {
		kubectl(ctx, "-n", namespace, "patch", "deployment", "nodepatch-manager", "--type=json", "-p", patch)
		kubectl(ctx, "-n", namespace, "rollout", "status", "deployment/nodepatch-manager", "--timeout=90s")
	}
	restart(ctx, `[{"op": "add", "path": "/spec/template/spec/containers/0/args/0", "value": "`+argument+`"}]`)
	DeferCleanup(func(ctx SpecContext) {
		restart(ctx, `[{"op": "remove", "path": "/spec/template/spec/containers/0/args/0"}]`)
	}, NodeTimeout(2*time.Minute))
}
