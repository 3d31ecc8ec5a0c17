package api

import (
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var _ = Describe("a scheduled task's", func() {
	task := func(field string) func(string) string {
		return func(value string) string {
			return policyWith(fmt.Sprintf("tasks: [{name: weekly, schedule: 30 1 * * SAT, %s: %q, template: {action: Scan}}]", field, value))
		}
	}
	Context("jitter", func() {
		durations(task("jitter"), "jitter is between 0s and 24h; durations are written like 90s or 30m",
			[]string{"0s", "90s", "24h"}, []string{"-1s", "24h1s"})
	})
	Context("startingDeadline", func() {
		durations(task("startingDeadline"), "startingDeadline is at least 1m; durations are written like 90m or 4h (days are not a unit)",
			[]string{"1m", "4h", "720h"}, []string{"59s", "-1h"})
	})
})

var _ = DescribeTable("the name of a task",
	func(ctx SpecContext, name, refused string) {
		verdict(ctx, policyWith("tasks: [{name: "+name+", template: {action: Scan}}]"), refused)
	},
	Entry("that scans of overdue nodes have", "overdue", "overdue is what the scans of overdue nodes are named; give the task another name"),
	Entry("that is like it", "overdue-scan", accepted),
)

// names are n names of nodes of a length, as a list in YAML.
func names(n, length int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = strings.Repeat("n", length-5) + fmt.Sprintf("%05d", i)
	}
	return "[" + strings.Join(list, ", ") + "]"
}

var _ = Describe("the nodes of a task", func() {
	spec := func(nodes string) string {
		return taskNamed("some", "{policy: workers, template: {action: Scan}, nodes: "+nodes+"}")
	}
	It("may be named", func(ctx SpecContext) { verdict(ctx, spec("[one, two]"), accepted) })
	It("have names", func(ctx SpecContext) { verdict(ctx, spec(`[""]`), "should be at least 1 chars long") })
	It("have names as nodes do", func(ctx SpecContext) { verdict(ctx, spec(names(1, 254)), "may not be more than 253") })
	It("are at most 5,000", func(ctx SpecContext) { verdict(ctx, spec(names(5001, 10)), "must have at most 5000 items") })

	It("never change", func(ctx SpecContext) {
		task := store(ctx, named("PatchTask", "some-nodes", "spec: {policy: workers, template: {action: Scan}, nodes: [one]}"))
		Expect(admin.Patch(ctx, task, mergePatch(`{"spec":{"nodes":["two"]}}`))).
			To(MatchError(ContainSubstring("a task's spec never changes")))
	})

	It("fit into etcd, all 5,000 of them with the longest names, and their status too", func(ctx SpecContext) {
		task := object(spec(names(5000, 253)))
		task.SetName("all-nodes")
		Expect(admin.Create(ctx, task)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, task)).To(Succeed()) })
		Expect(admin.Status().Patch(ctx, task, mergePatch(`{"status":{"phase":"Running"}}`), client.FieldOwner("nodepatch-manager"))).To(Succeed())
	})
})

var _ = Describe("a policy's schedule", func() {
	It("has no age at which nodes are overdue, unless it is set", func(ctx SpecContext) {
		policy, err := create(ctx, policyWith(""))
		Expect(err).NotTo(HaveOccurred())
		Expect(policy.Object["spec"]).NotTo(HaveKey("maxScanAge"))
	})

	It("says when tasks run, and ran", func(ctx SpecContext) {
		policy := store(ctx, named("PatchPolicy", "scheduled", "spec: {nodeSelector: {}}"))
		status := func(tasks string) error {
			return admin.Status().Patch(ctx, policy, mergePatch(`{"status":{"tasks":`+tasks+`}}`))
		}
		Expect(status(`[{"name":"weekly","schedule":"30 1 * * SAT UTC","next":"2026-11-28T01:30:00Z","missed":2,"message":"waits",
			"last":{"time":"2026-11-21T01:30:00Z","task":"scheduled-weekly-29920410","phase":"Complete"}}]`)).To(Succeed())
		Expect(status(`[{"name":"weekly"},{"name":"weekly"}]`)).To(MatchError(ContainSubstring("Duplicate value")))
		Expect(status(`[{"next":"2026-11-28T01:30:00Z"}]`)).To(MatchError(ContainSubstring("name: Required value")))
		Expect(status(`[{"name":"weekly","missed":-1}]`)).To(MatchError(ContainSubstring("should be greater than or equal to 0")))
		Expect(status(`[{"name":"weekly","last":{"task":"x"}}]`)).To(MatchError(ContainSubstring("time: Required value")))
		Expect(status(`[{"name":"weekly","last":{"time":"2026-11-21T01:30:00Z","task":"x","phase":"Lost"}}]`)).To(MatchError(ContainSubstring("Unsupported value")))
	})
})
