package e2e

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

var _ = Describe("On a bad day, a rollout", Ordered, ContinueOnFailure, func() {
	BeforeAll(func(ctx SpecContext) {
		loadWorkload(ctx)
		prepareFleet(ctx)
	}, NodeTimeout(4*time.Minute))
	AfterEach(tidyFleet, NodeTimeout(4*time.Minute))

	It("goes its way although its managers are killed at every step", func(ctx SpecContext) {
		w, managers := beginWalk(ctx, toy), &killer{}
		w.walk(ctx, func(v1alpha1.Step) { managers.kill(ctx) })
		w.arrived(ctx)
	}, SpecTimeout(6*time.Minute))

	It("puts back nodes that cannot be drained or do not come back, says why, and goes on with the others", func(ctx SpecContext) {
		stuck := workload{name: "stuck", node: toy, replicas: 1, minAvailable: 1, grace: 1}
		stuck.run(ctx)
		deaf := workload{name: "deaf", node: spare, replicas: 1, args: []string{"-ignore-sigterm"}, grace: 3}
		deaf.run(ctx)
		before := nodeStates(ctx)
		boots := bootsOf(ctx, toy)
		version := publishFirmware()
		Expect(machine(real).Hang(ctx)).To(Succeed())
		task := rolloutOf(ctx, nil, func(t *v1alpha1.TaskTemplate) {
			t.Drain.Timeout.Duration = 25 * time.Second // deaf takes some 6
			t.Rollout.MaxFailures = ptr.To[int32](2)
		})

		By("waiting for a machine that is gone no longer than it may take")
		Eventually(ctx, func(g Gomega) {
			failure := failureIn(ctx, task, real)
			g.Expect(failure).NotTo(BeNil())
			g.Expect(failure.Reason).To(Equal(v1alpha1.ReasonRebootTimeout), failure.Message)
		}).WithTimeout(3 * time.Minute).Should(Succeed())
		Eventually(ctx, func() bool { return stateOfNode(ctx, real).Unschedulable }).Should(BeFalse(), "it is uncordoned though it is away")
		Expect(machine(real).Start(ctx)).To(Succeed())
		finish(ctx, task)

		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskFailed))
		Expect(*task.Status.Nodes).To(Equal(v1alpha1.TaskNodeCounts{Total: 3, Done: 1, Failed: 2}), task.Status.Message)
		failure := failureIn(ctx, task, toy)
		Expect(failure).NotTo(BeNil())
		Expect(failure.Reason).To(Equal(v1alpha1.ReasonDrainTimeout))
		Expect(failure.Message).To(And(ContainSubstring(workloads+"/stuck-"), ContainSubstring("PodDisruptionBudget")))
		Expect(messages(ctx, task, v1alpha1.EventDrainBlocked)).To(ContainSubstring(workloads + "/stuck-"))
		Expect(bootsOf(ctx, toy)).To(Equal(boots), "a node that cannot be drained is not rebooted")
		Expect(firmwareOf(ctx, spare)).To(Equal("installed " + version))
		expectAsBefore(ctx, before)
	}, SpecTimeout(6*time.Minute))

	It("leaves a node cordoned that a person has cordoned, and its task's end leaves none behind that it cordoned itself", func(ctx SpecContext) {
		before := nodeStates(ctx)
		version := publishFirmware()
		kubectl(ctx, "cordon", spare)
		DeferCleanup(func(ctx SpecContext) { kubectl(ctx, "uncordon", spare) })
		// The cluster answers a cordon with a taint of its own, a moment later.
		var cordoned nodeState
		Eventually(ctx, func() []corev1.Taint {
			cordoned = stateOfNode(ctx, spare)
			return cordoned.Taints
		}).Should(ConsistOf(HaveField("Key", corev1.TaintNodeUnschedulable)))
		task := finish(ctx, rolloutOf(ctx, []string{spare}, nil))
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskComplete), task.Status.Message)
		Expect(firmwareOf(ctx, spare)).To(Equal("installed " + version))
		Eventually(ctx, func() nodeState { return stateOfNode(ctx, spare) }).Should(Equal(cordoned))
		kubectl(ctx, "uncordon", spare)

		By("deleting the task while its node is drained")
		w := beginWalk(ctx, spare)
		w.reach(ctx, v1alpha1.StepInstalling)
		w.leave(ctx, v1alpha1.StepInstalling)
		w.reach(ctx, v1alpha1.StepDraining)
		Expect(stateOfNode(ctx, spare).Unschedulable).To(BeTrue())
		Expect(client.Delete(ctx, w.task)).To(Succeed())
		expectAsBefore(ctx, before)
		Expect(bootsOf(ctx, spare)).To(Equal(w.boots))
		Eventually(ctx, func() *v1alpha1.Operation { return assignmentOf(ctx, spare).Spec.Operation }).Should(BeNil())
	}, SpecTimeout(5*time.Minute))
})
