package api

import (
	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// What Flux and others who use its library make of each kind before a program has
// written to it, and of the conditions that the programs may write. The suite of
// controllers/manager computes it for objects as the real manager leaves them.
var _ = DescribeTable("kstatus",
	func(ctx SpecContext, kind, name, rest string, wanted status.Status) {
		stored := store(ctx, named(kind, name, rest))
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(stored), stored)).To(Succeed())
		result, err := status.Compute(stored)
		Expect(err).NotTo(HaveOccurred())
		Expect(result.Status).To(Equal(wanted), result.Message)
	},
	Entry("waits for a policy that no manager has looked at", "PatchPolicy", "fresh", policySpec, status.InProgressStatus),
	Entry("waits for a policy that changed since", "PatchPolicy", "changed", policySpec+ready("0", "True", "False"), status.InProgressStatus),
	Entry("is content with a policy that is ready", "PatchPolicy", "ready", policySpec+ready("1", "True", "False"), status.CurrentStatus),
	Entry("gives up on a policy that a person has to mend", "PatchPolicy", "stalled", policySpec+ready("1", "False", "True"), status.FailedStatus),
	Entry("waits for a task that no manager has looked at", "PatchTask", "fresh", taskSpec, status.InProgressStatus),
	Entry("waits for a task that runs", "PatchTask", "running", taskSpec+task("Accepted", "Reconciling"), status.InProgressStatus),
	Entry("is content with a task that is complete", "PatchTask", "complete", taskSpec+task("Accepted", "Complete"), status.CurrentStatus),
	Entry("gives up on a task that failed", "PatchTask", "failed", taskSpec+task("Accepted", "Failed", "Stalled"), status.FailedStatus),
	Entry("gives up on a task that was stopped", "PatchTask", "stopped", taskSpec+task("Accepted", "Stopped", "Stalled"), status.FailedStatus),
	Entry("does not wait for a report without a scan", "PatchReport", "fresh", "", status.CurrentStatus),
	Entry("does not wait for a report whose scan failed", "PatchReport", "failed", `status:
  summary: The last scan failed
  conditions: [{type: Scanned, status: "False", reason: ScanFailed, message: E, lastTransitionTime: "2020-01-01T00:00:00Z"}]
`, status.CurrentStatus),
	Entry("does not wait for retry counts", "PatchRetry", "fresh", "", status.CurrentStatus),
	Entry("does not wait for counts that block a patch", "PatchRetry", "blocked", "status: {counted: 1, blocked: 1, summary: ham}\n", status.CurrentStatus),
	Entry("does not wait for a node's assignment", "PatchAssignment", "fresh", "spec: {policy: workers}\n", status.CurrentStatus),
	Entry("does not wait for a node that failed", "PatchAssignment", "failed", `spec: {policy: workers}
status: {agent: {operationID: "1", task: weekly, step: Failed, reason: ScanFailed}}
`, status.CurrentStatus),
)

const (
	policySpec = "spec: {nodeSelector: {}}\n"
	taskSpec   = "spec: {policy: workers, task: weekly}\n"
)

func ready(generation, ready, stalled string) string {
	return "status:\n  observedGeneration: " + generation + "\n  conditions:\n" +
		condition("Ready", ready) + condition("Stalled", stalled) + condition("Reconciling", "False")
}

// task is the status of one that was looked at, with these conditions True.
func task(conditions ...string) string {
	text := "status:\n  observedGeneration: 1\n  conditions:\n"
	for _, kind := range conditions {
		text += condition(kind, "True")
	}
	return text
}

func condition(kind, is string) string {
	return "  - {type: " + kind + ", status: \"" + is + "\", reason: Because, message: M, lastTransitionTime: \"2020-01-01T00:00:00Z\"}\n"
}
