package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// The figure that the project promises: how much of a rollout may be spent in waiting of our own.
const maxOwnWaiting = 0.10

var _ = Describe("A rollout", Ordered, ContinueOnFailure, func() {
	BeforeAll(func(ctx SpecContext) {
		loadWorkload(ctx)
		prepareFleet(ctx)
	}, NodeTimeout(4*time.Minute))
	AfterEach(tidyFleet, NodeTimeout(4*time.Minute))

	It("updates and reboots three machines under a workload of which two of three are always there", func(ctx SpecContext) {
		shop := workload{name: "shop", replicas: 3, minAvailable: 2, args: []string{"-ready-after=2s", "-linger=2s"}, grace: 10}
		shop.run(ctx)
		before, boots := nodeStates(ctx), bootIDs(ctx)
		version := publishFirmware()

		watching, stop := context.WithCancel(ctx)
		defer stop()
		customer := shop.watch(watching)
		task := rolloutOf(ctx, nil, func(t *v1alpha1.TaskTemplate) { t.Drain.Timeout.Duration = 2 * time.Minute })
		seen := keepDiary(watching, task.UID)

		By("telling a stranger what goes on while it does")
		Eventually(ctx, func() string { return kubectl(ctx, "get", "patchtask", task.Name) }).Should(
			MatchRegexp(rolloutPolicy + ` +Deploy +Running +\S+ +0 of 3 nodes patched; .*2 waiting`))
		var tables string
		Eventually(ctx, func() string { // a drain is over in seconds, but there are three
			tables = kubectl(ctx, "get", "patchtasks,patchassignments")
			return tables
		}).Should(And(ContainSubstring(v1alpha1.ReasonBudget), ContainSubstring(string(v1alpha1.StepDraining))))
		AddReportEntry("kubectl get pt,pa while a node is drained", tables)
		finish(ctx, task)
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskComplete), "%s\n%s", task.Status.Message, seen)

		By("never taking a second server away")
		Eventually(ctx, func() []string { return logOf(ctx, task.Name) }).Should(ContainElement(task.Name + " TaskFinished"))
		stop()
		AddReportEntry("the workload", customer.report())
		Expect(customer.fewest).To(Equal(2), customer.report())
		Expect(customer.answered).To(Equal(2), customer.report())
		Expect(customer.failed).To(BeZero(), customer.report())
		Expect(customer.requests).To(BeNumerically(">", 200), customer.report())

		By("doing all there is to do on each machine, once, one after the other")
		now := bootIDs(ctx)
		for _, node := range everyNode {
			Expect(firmwareOf(ctx, node)).To(Equal("installed "+version), node)
			Expect(now[node]).NotTo(Equal(boots[node]), "the boot ID of %s", node)
			Expect(assignmentOf(ctx, node).Status.Agent.Reboots).To(BeEquivalentTo(1), node)
			Expect(seen.stages(node)).To(ContainElements(v1alpha1.StepWaiting, v1alpha1.StepInstalling, v1alpha1.StepDraining,
				v1alpha1.StepRebooting, v1alpha1.StepDone), "%s\n%s", node, seen)
			Expect(seen.silent(node)).To(BeNumerically("<", 2*time.Second), "how long %s waited without a reason\n%s", node, seen)
		}
		Expect(seen.mostAdmitted()).To(Equal(1), "nodes that were disrupted at the same time\n%s", seen)
		expectAsBefore(ctx, before)

		By("wasting no time")
		whole, gaps := journalOf(ctx, task).waiting(seen)
		var own time.Duration
		var parts []string
		for _, gap := range gaps {
			own += gap.took
			parts = append(parts, fmt.Sprintf("%s %s", gap.what, gap.took.Round(time.Millisecond)))
		}
		share := own.Seconds() / whole.Seconds()
		AddReportEntry("waiting of our own", fmt.Sprintf("%.1f%% of %s:\n%s", 100*share, whole.Round(time.Millisecond), strings.Join(parts, "\n")))
		Expect(share).To(BeNumerically("<", maxOwnWaiting), "%s of %s\n%s\n%s", own, whole, strings.Join(parts, "\n"), seen)

		By("telling it in order")
		for _, node := range everyNode {
			// The workload's budget may hold a drain up until the server of the node before is ready again.
			log := slices.DeleteFunc(nodeLog(ctx, task, node), func(reason string) bool {
				return reason == v1alpha1.EventDrainBlocked || reason == v1alpha1.EventNodeWaiting
			})
			Expect(log).To(Equal([]string{"ScanStarted", "PatchDataRefreshed", "ScanFinished", "PatchesDownloaded",
				"NodeAdmitted", "PatchesInstalled", "RebootRequired", "NodeCordoned", "NodeDrained", "NodeRebooting", "NodeRebooted",
				"DeployFinished", "NodeUncordoned", "NodeDone"}), node)
		}
	}, SpecTimeout(6*time.Minute))

	It("costs nothing on nodes on which nothing is missing", func(ctx SpecContext) {
		before := bootIDs(ctx)
		task := finish(ctx, rolloutOf(ctx, nil, func(t *v1alpha1.TaskTemplate) { t.Reboot.When = v1alpha1.RebootAlways }))
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskComplete), task.Status.Message)
		Expect(bootIDs(ctx)).To(Equal(before))
		for _, node := range everyNode {
			Expect(nodeLog(ctx, task, node)).NotTo(ContainElement(v1alpha1.EventNodeAdmitted), node)
		}
	}, SpecTimeout(3*time.Minute))
})

// nodeLog are the reasons of a task's entries about a node, in order, each once.
func nodeLog(ctx context.Context, task *v1alpha1.PatchTask, node string) []string {
	GinkgoHelper()
	var reasons []string
	for _, entry := range entriesOf(ctx, task) {
		if entry.InvolvedObject.Kind == "Node" && entry.InvolvedObject.Name == node && (len(reasons) == 0 || reasons[len(reasons)-1] != entry.Reason) {
			reasons = append(reasons, entry.Reason)
		}
	}
	return reasons
}

// failureIn is why a task's node failed, nil if the task does not say that it did.
func failureIn(ctx context.Context, task *v1alpha1.PatchTask, node string) *v1alpha1.NodeFailure {
	GinkgoHelper()
	Expect(client.Get(ctx, ctrlclient.ObjectKeyFromObject(task), task)).To(Succeed())
	for i := range task.Status.Failures {
		if task.Status.Failures[i].Node == node {
			return &task.Status.Failures[i]
		}
	}
	return nil
}
