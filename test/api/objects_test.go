package api

import (
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// store creates a manifest's object with its status, and deletes it at the end of the spec.
func store(ctx SpecContext, manifest string) *unstructured.Unstructured {
	GinkgoHelper()
	wanted := object(manifest)
	stored := wanted.DeepCopy()
	Expect(admin.Create(ctx, stored)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) { Expect(client.IgnoreNotFound(admin.Delete(ctx, stored))).To(Succeed()) })
	if status, ok := wanted.Object["status"]; ok {
		stored.Object["status"] = status
		Expect(admin.Status().Update(ctx, stored)).To(Succeed())
	}
	return stored
}

func named(kind, name, rest string) string {
	return fmt.Sprintf("apiVersion: nodepatch.io/v1alpha1\nkind: %s\nmetadata: {name: %s}\n%s\n", kind, name, rest)
}

func kubectl(ctx SpecContext, args ...string) string {
	GinkgoHelper()
	out, err := server.Kubectl(ctx, args...)
	Expect(err).NotTo(HaveOccurred())
	return out
}

var _ = Describe("the kinds", func() {
	It("have short names, and a category that lists all of them", func(ctx SpecContext) {
		store(ctx, named("PatchPolicy", "all", "spec: {nodeSelector: {}}"))
		store(ctx, named("PatchTask", "all", "spec: {policy: all, task: scan}"))
		for _, kind := range []string{"PatchReport", "PatchRetry", "PatchAssignment"} {
			store(ctx, named(kind, "all", ""))
		}
		all := []string{
			"patchpolicy.nodepatch.io/all", "patchtask.nodepatch.io/all", "patchreport.nodepatch.io/all",
			"patchretry.nodepatch.io/all", "patchassignment.nodepatch.io/all",
		}
		Expect(strings.Fields(kubectl(ctx, "get", "pp/all", "pt/all", "prep/all", "pr/all", "pa/all", "-o", "name"))).To(Equal(all))
		Expect(strings.Fields(kubectl(ctx, "get", "nodepatch", "-o", "name"))).To(ContainElements(all))
	})

	It("say that nothing was looked at yet", func(ctx SpecContext) {
		generation := func(o *unstructured.Unstructured) int64 {
			value, _, _ := unstructured.NestedInt64(o.Object, "status", "observedGeneration")
			return value
		}
		Expect(generation(store(ctx, named("PatchPolicy", "fresh", "spec: {nodeSelector: {}}")))).To(Equal(int64(-1)))
		Expect(generation(store(ctx, named("PatchTask", "fresh", "spec: {policy: fresh, task: scan}")))).To(Equal(int64(-1)))
		summary, _, _ := unstructured.NestedString(store(ctx, named("PatchReport", "fresh", "")).Object, "status", "summary")
		Expect(summary).To(Equal("Not scanned yet"))
		rows := cells(kubectl(ctx, "get", store(ctx, named("PatchRetry", "fresh", "")).GetKind()+"/fresh"))
		Expect(rows[1]).To(HaveExactElements("fresh", "0", "0", aged, "No failed attempt"))
	})

	It("have the documented defaults", func(ctx SpecContext) {
		policy, err := create(ctx, policyWith("maintenanceWindows: [{schedule: 0 1 * * SAT, duration: 5h}]\ntasks:\n- name: weekly\n  template: {action: Deploy, patches: {}}"))
		Expect(err).NotTo(HaveOccurred())
		Expect(policy.Object["spec"]).To(Equal(map[string]any{
			"nodeSelector":       map[string]any{},
			"priority":           int64(0),
			"suspend":            false,
			"manualTasks":        "Allowed",
			"retryLimits":        map[string]any{"download": int64(11), "install": int64(4)},
			"history":            map[string]any{"succeeded": int64(3), "failed": int64(3)},
			"maintenanceWindows": []any{map[string]any{"schedule": "0 1 * * SAT", "duration": "5h", "timeZone": "UTC"}},
			"tasks": []any{map[string]any{
				"name": "weekly", "timeZone": "UTC",
				"template": map[string]any{
					"action":   "Deploy",
					"scan":     map[string]any{"timeout": "30m"},
					"download": map[string]any{"timeout": "1h"},
					"install":  map[string]any{"timeout": "2h"},
					"patches":  map[string]any{"kubernetesPackages": "Exclude"},
					"rollout":  map[string]any{"maxParallelScans": int64(50), "maxUnavailable": int64(1), "maxFailures": int64(1)},
					"drain": map[string]any{
						"when": "BeforeReboot", "timeout": "15m", "emptyDirData": "Refuse", "unmanagedPods": "Refuse",
					},
					"reboot": map[string]any{"when": "IfRequired", "timeout": "20m"},
					"verify": map[string]any{"timeout": "10m"},
				},
			}},
		}))
	})

	It("can be selected by their fields", func(ctx SpecContext) {
		store(ctx, named("PatchTask", "running", "spec: {policy: a, task: scan}\nstatus: {phase: Running}"))
		store(ctx, named("PatchTask", "complete", "spec: {policy: a, task: scan}\nstatus: {phase: Complete}"))
		store(ctx, named("PatchTask", "other", "spec: {policy: b, task: scan}\nstatus: {phase: Running}"))
		store(ctx, named("PatchAssignment", "one", "spec: {policy: a}"))
		store(ctx, named("PatchAssignment", "two", "spec: {policy: b}"))
		selected := func(kind, selector string) []string {
			return strings.Fields(kubectl(ctx, "get", kind, "--field-selector", selector, "-o", "jsonpath={.items[*].metadata.name}"))
		}
		Expect(selected("patchtasks", "spec.policy=a")).To(ConsistOf("running", "complete"))
		Expect(selected("patchtasks", "spec.policy=a,status.phase=Running")).To(ConsistOf("running"))
		Expect(selected("patchassignments", "spec.policy=b")).To(ConsistOf("two"))
		_, err := server.Kubectl(ctx, "get", "patchtasks", "--field-selector", "spec.task=scan")
		Expect(err).To(MatchError(ContainSubstring("field label not supported")))
	})
})

// The bounds of what the programs write keep an object below etcd's limit whatever a host comes up with.
var _ = DescribeTable("a status",
	func(ctx SpecContext, kind, spec, status, refused string) {
		stored := store(ctx, named(kind, "bounds", spec))
		stored.Object["status"] = object("status: " + status).Object["status"]
		err := admin.Status().Update(ctx, stored, client.DryRunAll)
		if refused == accepted {
			Expect(err).NotTo(HaveOccurred())
		} else {
			Expect(err).To(MatchError(ContainSubstring(refused)))
		}
	},
	Entry("of 1,000 patches", "PatchReport", "", "{patches: ["+patches(1000)+"]}", accepted),
	Entry("of 1,001 patches", "PatchReport", "", "{patches: ["+patches(1001)+"]}", "must have at most 1000 items"),
	Entry("of 17 CVEs", "PatchReport", "", "{patches: [{name: a, available: '1', classification: Security, state: Missing, cves: ["+list("CVE-2026-1000", 17)+"]}]}", "must have at most 16 items"),
	Entry("of an unknown patch state", "PatchReport", "", "{patches: [{name: a, available: '1', classification: Security, state: Gone}]}", `supported values: "Missing"`),
	Entry("of an unknown reboot state", "PatchReport", "", "{reboot: {state: Perhaps}}", `supported values: "NotRequired", "Required", "Unknown"`),
	Entry("of 101 new packages", "PatchReport", "", "{newPackages: ["+strings.Repeat("{name: a, version: '1'}, ", 101)+"]}", "must have at most 100 items"),
	Entry("of too long a summary", "PatchReport", "", "{summary: "+strings.Repeat("x", 1025)+"}", "may not be more than 1024"),
	Entry("of 20 failures", "PatchTask", "spec: {policy: a, task: b}", "{failures: ["+failures(20)+"]}", accepted),
	Entry("of 21 failures", "PatchTask", "spec: {policy: a, task: b}", "{failures: ["+failures(21)+"]}", "must have at most 20 items"),
	Entry("of 50 log entries", "PatchTask", "spec: {policy: a, task: b}", "{log: ["+strings.Repeat(`{time: "2026-11-22T05:30:00.123456Z", reason: ScanStarted}, `, 50)+"]}", accepted),
	Entry("of 51 log entries", "PatchTask", "spec: {policy: a, task: b}", "{log: ["+strings.Repeat(`{time: "2026-11-22T05:30:00.123456Z", reason: ScanStarted}, `, 51)+"]}", "must have at most 50 items"),
	Entry("of an unknown phase", "PatchTask", "spec: {policy: a, task: b}", "{phase: Sleeping}", `supported values: "Pending", "Running", "Complete", "Failed", "Stopped"`),
	Entry("of a stop", "PatchTask", "spec: {policy: a, task: b}", `{stop: {time: "2026-11-22T05:30:00Z", reason: Stopped, message: "`+strings.Repeat("x", 1024)+`"}}`, accepted),
	Entry("of a stop in too many words", "PatchTask", "spec: {policy: a, task: b}", `{stop: {time: "2026-11-22T05:30:00Z", reason: Stopped, message: "`+strings.Repeat("x", 1025)+`"}}`, "may not be more than 1024"),
	Entry("of a stop without a reason", "PatchTask", "spec: {policy: a, task: b}", `{stop: {time: "2026-11-22T05:30:00Z"}}`, "reason: Required value"),
	Entry("of a stop at no time", "PatchTask", "spec: {policy: a, task: b}", "{stop: {reason: Stopped}}", "time: Required value"),
	Entry("of an unknown trigger", "PatchTask", "spec: {policy: a, task: b}", "{trigger: Boredom}", `supported values: "Manual", "Scheduled", "Overdue"`),
	Entry("of an unknown step", "PatchAssignment", "", "{agent: {step: Sleeping}}", `supported values: "Pending", "Scanning"`),
	Entry("of an unknown presence", "PatchAssignment", "", "{controller: {agent: Sleeping}}", `supported values: "Ready", "NotReady", "Absent"`),
	Entry("of 9 earlier operations", "PatchAssignment", "", "{agent: {earlier: ["+strings.Repeat("{operationID: a, step: Done}, ", 9)+"]}}", "must have at most 8 items"),
	Entry("of one patch in two versions", "PatchRetry", "", "{patches: [{name: a, version: '1'}, {name: a, version: '2'}]}", accepted),
	Entry("of a patch counted twice", "PatchRetry", "", "{patches: [{name: a, version: '1'}, {name: a, version: '1'}]}", "Duplicate value"),
	Entry("of less than no failures", "PatchRetry", "", "{patches: [{name: a, version: '1', installFailures: -1}]}", "should be greater than or equal to 0"),
	Entry("of the task that failed last", "PatchRetry", "", "{patches: [{name: a, version: '1', lastTask: "+strings.Repeat("x", 63)+"}]}", accepted),
	Entry("of a task with too long a name", "PatchRetry", "", "{patches: [{name: a, version: '1', lastTask: "+strings.Repeat("x", 64)+"}]}", "may not be more than 63"),
	Entry("of a nameless patch", "PatchRetry", "", "{patches: [{version: '1'}]}", "name: Required value"),
	Entry("of a patch without version", "PatchRetry", "", "{patches: [{name: a}]}", "version: Required value"),
	Entry("of 1,001 counted patches", "PatchRetry", "", "{patches: ["+attempts(1001)+"]}", "must have at most 1000 items"),
	Entry("of failures and clears", "PatchRetry", "", "{sequence: 17, clears: 3}", accepted),
	Entry("of less than no clears", "PatchRetry", "", "{clears: -1}", "should be greater than or equal to 0"),
	Entry("of a failure before the first", "PatchRetry", "", "{sequence: -1}", "should be greater than or equal to 0"),
	Entry("of a button that was handled", "PatchRetry", "", "{handled: {clearRetries: "+strings.Repeat("x", 4096)+", answer: "+strings.Repeat("x", 1024)+"}}", accepted),
	Entry("of too long a button", "PatchRetry", "", "{handled: {clearRetries: "+strings.Repeat("x", 4097)+"}}", "may not be more than 4096"),
	Entry("of too long an answer", "PatchRetry", "", "{handled: {answer: "+strings.Repeat("x", 1025)+"}}", "may not be more than 1024"),
	Entry("of a block elsewhere", "PatchRetry", "", "{patches: [{name: a, version: '1', blocked: Scan}]}", `supported values: "Download", "Install"`),
)

// What the manager asks an agent for.
var _ = DescribeTable("an assignment",
	func(ctx SpecContext, lines, refused string) {
		verdict(ctx, named("PatchAssignment", "bounds", "spec: {"+lines+"}"), refused)
	},
	Entry("of a deployment", operation(`step: Installing, patches: {classifications: [Security]}, retryLimits: {download: 1, install: 1000}`), accepted),
	Entry("with a stop", operation("step: Scanning, stop: "+strings.Repeat("x", 1024)), accepted),
	Entry("with a stop in too many words", operation("step: Scanning, stop: "+strings.Repeat("x", 1025)), "may not be more than 1024"),
	Entry("without a step", operation("stop: enough"), "step: Required value"),
	Entry("with patches of a kind that there is not", operation("step: Installing, patches: {classifications: [Feature]}"), `supported values: "Security"`),
	Entry("without downloads", operation("step: Installing, retryLimits: {download: 0}"), "should be greater than or equal to 1"),
	Entry("with too many installs", operation("step: Installing, retryLimits: {install: 1001}"), "should be less than or equal to 1000"),
	Entry("with cleared counts", "retryClears: 9007199254740993", accepted),
	Entry("with counts cleared less than never", "retryClears: -1", "should be greater than or equal to 0"),
)

func operation(rest string) string {
	return `operation: {id: "1", task: weekly, assignedAt: "2020-01-01T00:00:00Z", deadline: "2020-01-01T00:30:00Z", ` + rest + "}"
}

func attempts(n int) string {
	var items []string
	for i := range n {
		items = append(items, fmt.Sprintf("{name: p%d, version: '1'}", i))
	}
	return strings.Join(items, ", ")
}

func patches(n int) string {
	return strings.TrimSuffix(strings.Repeat("{name: linux-image-amd64, installed: 6.1.1-1, available: 6.1.2-1, classification: Security, state: Missing}, ", n), ", ")
}

func failures(n int) string {
	var items []string
	for i := range n {
		items = append(items, fmt.Sprintf("{node: node-%d, reason: Timeout}", i))
	}
	return strings.Join(items, ", ")
}
