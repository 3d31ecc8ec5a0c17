package api

import (
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// accepted is the empty refusal.
const accepted = ""

// policyWith is a PatchPolicy whose spec has these lines of YAML in it.
func policyWith(lines string) string {
	return "apiVersion: nodepatch.io/v1alpha1\nkind: PatchPolicy\nmetadata: {name: workers}\nspec:\n  nodeSelector: {}\n" + indent(lines, 2)
}

// policyWithTemplate is a PatchPolicy whose task has these lines in its template.
func policyWithTemplate(lines string) string {
	return policyWith("tasks:\n- name: weekly\n  template:\n    action: Deploy\n" + indent(lines, 4))
}

func taskNamed(name, spec string) string {
	return fmt.Sprintf("apiVersion: nodepatch.io/v1alpha1\nkind: PatchTask\nmetadata: {name: %s}\nspec: %s\n", name, spec)
}

func indent(lines string, by int) string {
	pad := strings.Repeat(" ", by)
	return pad + strings.ReplaceAll(strings.TrimSpace(lines), "\n", "\n"+pad)
}

// The messages are the API: a person reads them.
const (
	minuteMessage   = "a schedule has five fields, and the first is the minute: 0 to 59, such as 30, 0,30 or */15"
	hourMessage     = "the second field of a schedule is the hour: 0 to 23, such as 1, 1-5 or */6"
	dayMessage      = "the third field of a schedule is the day of the month: 1 to 31, such as 1, 1,15 or *"
	monthMessage    = "the fourth field of a schedule is the month: 1 to 12 or JAN to DEC, such as *, 3 or JAN,JUL"
	weekdayMessage  = "the fifth and last field of a schedule is the day of the week: 0 to 6 or SUN to SAT, such as *, SAT or MON-FRI"
	timeZoneMessage = "a time zone is a name of the IANA database, such as UTC or Europe/Berlin"
	numberMessage   = "give a number of nodes of at least 1, or a percentage such as 10%"
	percentPattern  = "should match '^([1-9][0-9]?|100)%$'"
	packageMessage  = "a package pattern has letters, digits, + . _ : ~ @ -, and the wildcards * and ?"
	nameMessage     = "a task's name has lower-case letters, digits and -, and begins and ends with a letter or digit"
	budgetMessage   = "the names of the policy and of each of its tasks have together at most 51 characters"
	eitherMessage   = "give exactly one of task (the name of one of the policy's tasks) and template (options of your own)"
)

var _ = DescribeTable("a schedule",
	func(ctx SpecContext, schedule, refused string) {
		lines := fmt.Sprintf("tasks:\n- name: weekly\n  schedule: %q\n  template: {action: Scan}", schedule)
		verdict(ctx, policyWith(lines), refused)
		lines = fmt.Sprintf("maintenanceWindows:\n- {schedule: %q, duration: 1h}", schedule)
		verdict(ctx, policyWith(lines), refused)
	},
	Entry(nil, "0 6 * * *", accepted),
	Entry(nil, "30 1 * * SAT", accepted),
	Entry(nil, "*/15 * * * *", accepted),
	Entry(nil, "0,30 8-18 * * MON-FRI", accepted),
	Entry(nil, "5-50/5 */6 1,15 JAN,JUL *", accepted),
	Entry(nil, "00 00 01 01 0", accepted),
	Entry(nil, "59 23 31 12 6", accepted),
	Entry(nil, "0 0 ? * sun", accepted),
	Entry(nil, "0 0 1-7 * ?", accepted),
	Entry(nil, "0 0 * jan-mar,oct */2", accepted),
	Entry(nil, "0 22-23,0-4 * * 1-5", accepted),
	Entry(nil, "  0   6  *  *  *  ", accepted),
	Entry("an interval that begins late, for the manager to judge", "0 0 30 2 *", accepted),
	Entry(nil, "60 * * * *", minuteMessage),
	Entry(nil, "-1 * * * *", minuteMessage),
	Entry(nil, "*/0 * * * *", minuteMessage),
	Entry(nil, "0, * * * *", minuteMessage),
	Entry(nil, "0-60 * * * *", minuteMessage),
	Entry(nil, "x * * * * ", minuteMessage),
	Entry("four fields", "0 0 * * ", minuteMessage),
	Entry("six fields", "0 0 0 * * *", minuteMessage),
	Entry("a descriptor", "@daily   ", minuteMessage),
	Entry("a time zone inside", "TZ=UTC 0 6 * * *", minuteMessage),
	Entry(nil, "0 24 * * *", hourMessage),
	Entry(nil, "0 5-24 * * *", hourMessage),
	Entry(nil, "0 1, * * *", hourMessage),
	Entry(nil, "0 */x * * *", hourMessage),
	Entry(nil, "0 0 0 * *", dayMessage),
	Entry(nil, "0 0 32 * *", dayMessage),
	Entry(nil, "0 0 L * *", dayMessage),
	Entry(nil, "0 0 1-32 * *", dayMessage),
	Entry(nil, "0 0 1 0 *", monthMessage),
	Entry(nil, "0 0 1 13 *", monthMessage),
	Entry(nil, "0 0 1 JANUARY *", monthMessage),
	Entry(nil, "0 0 1 FEB-13 *", monthMessage),
	Entry("as the manager's parser, Sunday is 0", "0 0 * * 7", weekdayMessage),
	Entry(nil, "0 0 * * SATURDAY", weekdayMessage),
	Entry(nil, "0 0 * * MON#2", weekdayMessage),
	Entry(nil, "0 0 * * MON-8", weekdayMessage),
	Entry("too short", "* * * *", "should be at least 9 chars long"),
	Entry("too long", strings.Repeat("0,", 64)+"0 * * * *", "may not be more than 128"),
)

var _ = DescribeTable("a time zone",
	func(ctx SpecContext, zone, refused string) {
		verdict(ctx, policyWith(fmt.Sprintf("tasks:\n- {name: weekly, timeZone: %q, template: {action: Scan}}", zone)), refused)
		verdict(ctx, policyWith(fmt.Sprintf("maintenanceWindows:\n- {schedule: 0 0 * * *, duration: 1h, timeZone: %q}", zone)), refused)
	},
	Entry(nil, "UTC", accepted),
	Entry(nil, "Europe/Berlin", accepted),
	Entry(nil, "America/Argentina/Buenos_Aires", accepted),
	Entry(nil, "Etc/GMT+5", accepted),
	Entry(nil, "Local", timeZoneMessage),
	Entry(nil, "Europe/Berlim", timeZoneMessage),
	Entry(nil, "+02:00", timeZoneMessage),
	Entry(nil, "CEST", timeZoneMessage),
	Entry(nil, "", "should be at least 1 chars long"),
	Entry(nil, strings.Repeat("x", 65), "may not be more than 64"),
)

// duration describes a field that takes durations: lowest and highest are accepted, below and above are
// refused with message, and so is what is no duration.
func durations(manifest func(string) string, message string, acceptedOnes, refusedOnes []string) {
	for _, value := range acceptedOnes {
		It("accepts "+value, func(ctx SpecContext) { verdict(ctx, manifest(value), accepted) })
	}
	for _, value := range append(refusedOnes, "7d", "1w", "5", "soon", "1h 30m", "") {
		It(fmt.Sprintf("refuses %q", value), func(ctx SpecContext) { verdict(ctx, manifest(value), message) })
	}
}

var _ = Describe("a duration", func() {
	template := func(lines string) func(string) string {
		return func(value string) string { return policyWithTemplate(fmt.Sprintf(lines, value)) }
	}
	spec := func(lines string) func(string) string {
		return func(value string) string { return policyWith(fmt.Sprintf(lines, value)) }
	}
	Context("maxScanAge", func() {
		durations(spec("maxScanAge: %q"), "maxScanAge is at least 1h; durations are written like 720h (days are not a unit)",
			[]string{"1h", "720h", "90m", "1h30m0.5s"}, []string{"59m", "-1h"})
	})
	Context("of a maintenance window", func() {
		durations(spec("maintenanceWindows: [{schedule: 0 0 * * *, duration: %q}]"), "a maintenance window stays open for 10m to 168h; durations are written like 5h or 90m",
			[]string{"10m", "5h", "168h"}, []string{"9m59s", "168h1s", "-5h"})
	})
	Context("scan.timeout", func() {
		durations(template("scan: {timeout: %q}"), "a scan's timeout is between 10s and 24h; durations are written like 90s or 30m",
			[]string{"10s", "30m", "24h"}, []string{"9s", "24h1s", "-1m"})
	})
	Context("download.timeout", func() {
		durations(template("download: {timeout: %q}"), "a download's timeout is between 10s and 24h; durations are written like 90s or 30m",
			[]string{"10s", "1h", "24h"}, []string{"9s", "24h1s", "-1m"})
	})
	Context("install.timeout", func() {
		durations(template("install: {timeout: %q}"), "an installation's timeout is between 10s and 24h; durations are written like 90s or 30m",
			[]string{"10s", "2h", "24h"}, []string{"9s", "24h1s", "-1m"})
	})
	Context("deadline", func() {
		durations(template("deadline: %q"), "a deadline is at least 1m; durations are written like 90m or 72h (days are not a unit)",
			[]string{"1m", "72h"}, []string{"59s", "-1h"})
	})
	Context("patches.minimumAge", func() {
		durations(template("patches: {minimumAge: %q}"), "minimumAge is a duration such as 72h (days are not a unit)",
			[]string{"0s", "72h"}, []string{"-1s"})
	})
	Context("rollout.soak", func() {
		durations(template("rollout: {soak: %q}"), "soak is a duration such as 10m", []string{"0s", "10m"}, []string{"-1s"})
	})
	Context("of a wave's soak", func() {
		durations(template("rollout: {waves: [{name: one, size: 1, soak: %q}]}"), "soak is a duration such as 24h", []string{"0s", "24h"}, []string{"-1s"})
	})
	Context("drain.timeout", func() {
		durations(template("drain: {timeout: %q}"), "a drain's timeout is at least 10s; durations are written like 15m", []string{"10s", "15m"}, []string{"9s", "-15m"})
	})
	Context("reboot.timeout", func() {
		durations(template("reboot: {timeout: %q}"), "a reboot's timeout is at least 1m; durations are written like 20m", []string{"1m", "20m"}, []string{"59s", "-20m"})
	})
	Context("ttlAfterFinished", func() {
		durations(func(value string) string {
			return taskNamed("now", fmt.Sprintf("{policy: workers, task: weekly, ttlAfterFinished: %q}", value))
		}, "ttlAfterFinished is a duration such as 168h (days are not a unit)", []string{"0s", "168h"}, []string{"-1s"})
	})
})

var _ = DescribeTable("a policy",
	func(ctx SpecContext, lines, refused string) { verdict(ctx, policyWith(lines), refused) },
	Entry("with nothing but its nodes", "", accepted),
	Entry("with the highest priority", "priority: 1000000", accepted),
	Entry("with too high a priority", "priority: 1000001", "should be less than or equal to 1000000"),
	Entry("with the lowest priority", "priority: -1000000", accepted),
	Entry("with too low a priority", "priority: -1000001", "should be greater than or equal to -1000000"),
	Entry("without manual tasks", "manualTasks: Denied", accepted),
	Entry("with a word for manual tasks", "manualTasks: Never", `supported values: "Allowed", "Denied"`),
	Entry("with retry limits", "retryLimits: {download: 1, install: 1000}", accepted),
	Entry("without download retries", "retryLimits: {download: 0}", "should be greater than or equal to 1"),
	Entry("with too many download retries", "retryLimits: {download: 1001}", "should be less than or equal to 1000"),
	Entry("without install retries", "retryLimits: {install: 0}", "should be greater than or equal to 1"),
	Entry("with too many install retries", "retryLimits: {install: 1001}", "should be less than or equal to 1000"),
	Entry("with no history", "history: {succeeded: 0, failed: 0}", accepted),
	Entry("with a long history", "history: {succeeded: 100, failed: 100}", accepted),
	Entry("with too long a history", "history: {succeeded: 101}", "should be less than or equal to 100"),
	Entry("with too long a history of failures", "history: {failed: 101}", "should be less than or equal to 100"),
	Entry("with less than no history", "history: {succeeded: -1}", "should be greater than or equal to 0"),
	Entry("with less than no failures", "history: {failed: -1}", "should be greater than or equal to 0"),
	Entry("with 64 windows", "maintenanceWindows:"+strings.Repeat("\n- {schedule: 0 1 * * SAT, duration: 5h, timeZone: Europe/Berlin}", 64), accepted),
	Entry("with 65 windows", "maintenanceWindows:"+strings.Repeat("\n- {schedule: 0 1 * * SAT, duration: 5h}", 65), "must have at most 64 items"),
	Entry("with a window without end", "maintenanceWindows: [{schedule: 0 1 * * SAT}]", "duration: Required value"),
	Entry("with a window without beginning", "maintenanceWindows: [{duration: 5h}]", "schedule: Required value"),
	Entry("with 64 tasks", "tasks:"+tasks(64), accepted),
	Entry("with 65 tasks", "tasks:"+tasks(65), "must have at most 64 items"),
	Entry("with two tasks of one name", "tasks:"+tasks(1)+tasks(1), "Duplicate value"),
	Entry("with a task of one letter", "tasks: [{name: x, template: {action: Scan}}]", accepted),
	Entry("with a task named with digits and dashes", "tasks: [{name: 2nd--wave-2, template: {action: Scan}}]", accepted),
	Entry("with a task in capitals", "tasks: [{name: Weekly, template: {action: Scan}}]", nameMessage),
	Entry("with a dot in a task's name", "tasks: [{name: week.ly, template: {action: Scan}}]", nameMessage),
	Entry("with a dash at a task name's end", "tasks: [{name: weekly-, template: {action: Scan}}]", nameMessage),
	Entry("with a nameless task", "tasks: [{template: {action: Scan}}]", "name: Required value"),
	Entry("with an empty name of a task", `tasks: [{name: "", template: {action: Scan}}]`, "should be at least 1 chars long"),
	Entry("with too long a name of a task", "tasks: [{name: "+strings.Repeat("x", 51)+", template: {action: Scan}}]", "may not be more than 50"),
	Entry("with a task that does nothing", "tasks: [{name: weekly, template: {}}]", "action: Required value"),
	Entry("with a task without template", "tasks: [{name: weekly}]", "template: Required value"),
	Entry("with names of 51 characters together", "tasks: [{name: "+strings.Repeat("x", 44)+", template: {action: Scan}}]", accepted),
	Entry("with names of 52 characters together", "tasks: [{name: "+strings.Repeat("x", 45)+", template: {action: Scan}}]", budgetMessage),
)

func tasks(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "\n- {name: t%d, schedule: 30 1 * * SAT, template: {action: Deploy, patches: {exclude: ['linux-*']}}}", i)
	}
	return text.String()
}

var _ = DescribeTable("a template",
	func(ctx SpecContext, lines, refused string) {
		verdict(ctx, policyWithTemplate(lines), refused)
		// The same schema stands in a task.
		manifest := object(policyWithTemplate(lines)).Object
		tasks := manifest["spec"].(map[string]any)["tasks"].([]any)
		task := object(taskNamed("now", "{policy: workers}"))
		task.Object["spec"].(map[string]any)["template"] = tasks[0].(map[string]any)["template"]
		err := admin.Create(ctx, task, client.DryRunAll)
		if refused == accepted {
			Expect(err).NotTo(HaveOccurred())
		} else {
			Expect(err).To(MatchError(ContainSubstring(refused)))
		}
	},
	Entry("with defaults", "", accepted),
	Entry("with every selection", `patches: {classifications: [Security, Bugfix, Enhancement, Other], severities: [Critical, Important, Moderate, Low, Unknown],
  include: ["linux-image-*", "lib?.so+x_1:i386~a@b"], exclude: ["kube*"], advisories: [DSA-5925-1], cves: [CVE-2026-12345], kubernetesPackages: Include}`, accepted),
	Entry("with an unknown classification", "patches: {classifications: [Feature]}", `supported values: "Security", "Bugfix", "Enhancement", "Other"`),
	Entry("with a classification twice", "patches: {classifications: [Other, Other]}", "Duplicate value"),
	Entry("with too many classifications", "patches: {classifications: [Security, Bugfix, Enhancement, Other, Other]}", "must have at most 4 items"),
	Entry("with an unknown severity", "patches: {severities: [High]}", `supported values: "Critical", "Important", "Moderate", "Low", "Unknown"`),
	Entry("with a severity twice", "patches: {severities: [Low, Low]}", "Duplicate value"),
	Entry("with too many severities", "patches: {severities: [Critical, Important, Moderate, Low, Unknown, Low]}", "must have at most 5 items"),
	Entry("with a shell in a pattern", `patches: {include: ["a; rm -rf /"]}`, packageMessage),
	Entry("with a variable in a pattern", `patches: {exclude: ["$HOME"]}`, packageMessage),
	Entry("with an empty pattern", `patches: {exclude: [""]}`, "should be at least 1 chars long"),
	Entry("with too long a pattern", "patches: {include: ["+strings.Repeat("x", 129)+"]}", "may not be more than 128"),
	Entry("with a pattern twice", "patches: {include: [a, a]}", "Duplicate value"),
	Entry("with 256 patterns", "patches: {include: ["+list("p", 256)+"], exclude: ["+list("p", 256)+"]}", accepted),
	Entry("with 257 patterns", "patches: {include: ["+list("p", 257)+"]}", "must have at most 256 items"),
	Entry("with 257 excluded patterns", "patches: {exclude: ["+list("p", 257)+"]}", "must have at most 256 items"),
	Entry("with 257 advisories", "patches: {advisories: ["+list("DSA-", 257)+"]}", "must have at most 256 items"),
	Entry("with an empty advisory", `patches: {advisories: [""]}`, "should be at least 1 chars long"),
	Entry("with too long an advisory", "patches: {advisories: ["+strings.Repeat("x", 129)+"]}", "may not be more than 128"),
	Entry("with a CVE by its number", "patches: {cves: [2026-1234]}", "should match '^CVE-[0-9]{4}-[0-9]{4,}$'"),
	Entry("with 257 CVEs", "patches: {cves: ["+list("CVE-2026-1000", 257)+"]}", "must have at most 256 items"),
	Entry("with too long a CVE", "patches: {cves: [CVE-2026-"+strings.Repeat("1", 32)+"]}", "may not be more than 32"),
	Entry("with a word for Kubernetes packages", "patches: {kubernetesPackages: Maybe}", `supported values: "Exclude", "Include"`),
	Entry("with one node at a time", "rollout: {maxUnavailable: 1}", accepted),
	Entry("with 1%", `rollout: {maxUnavailable: "1%"}`, accepted),
	Entry("with 10%", `rollout: {maxUnavailable: "10%"}`, accepted),
	Entry("with 100%", `rollout: {maxUnavailable: "100%"}`, accepted),
	Entry("with no node", "rollout: {maxUnavailable: 0}", numberMessage),
	Entry("with less than no node", "rollout: {maxUnavailable: -1}", numberMessage),
	Entry("with 0%", `rollout: {maxUnavailable: "0%"}`, percentPattern),
	Entry("with 200%", `rollout: {maxUnavailable: "200%"}`, percentPattern),
	Entry("with 101%", `rollout: {maxUnavailable: "101%"}`, percentPattern),
	Entry("with a number in quotes", `rollout: {maxUnavailable: "5"}`, percentPattern),
	Entry("with the most scans", "rollout: {maxParallelScans: 5000}", accepted),
	Entry("with no scans", "rollout: {maxParallelScans: 0}", "should be greater than or equal to 1"),
	Entry("with too many scans", "rollout: {maxParallelScans: 5001}", "should be less than or equal to 5000"),
	Entry("with no failures", "rollout: {maxFailures: 0}", accepted),
	Entry("with less than no failures", "rollout: {maxFailures: -1}", "should be greater than or equal to 0"),
	Entry("with too many failures", "rollout: {maxFailures: 5001}", "should be less than or equal to 5000"),
	Entry("with a topology", "rollout: {topologyKey: topology.kubernetes.io/zone}", accepted),
	Entry("with an empty topology", `rollout: {topologyKey: ""}`, "should be at least 1 chars long"),
	Entry("with too long a topology", "rollout: {topologyKey: "+strings.Repeat("x", 318)+"}", "may not be more than 317"),
	Entry("with waves", `rollout: {waves: [{name: canary, nodeSelector: {matchLabels: {canary: "true"}}, maxFailures: 0}, {name: tenth, size: "10%"}, {name: rest, size: 100}]}`, accepted),
	Entry("with a wave by both", "rollout: {waves: [{name: canary, nodeSelector: {}, size: 1}]}", "a wave has either a nodeSelector or a size"),
	Entry("with a wave by neither", "rollout: {waves: [{name: canary}]}", "a wave has either a nodeSelector or a size"),
	Entry("with a wave of no node", "rollout: {waves: [{name: canary, size: 0}]}", numberMessage),
	Entry("with a wave of 0%", `rollout: {waves: [{name: canary, size: "0%"}]}`, percentPattern),
	Entry("with a nameless wave", "rollout: {waves: [{size: 1}]}", "name: Required value"),
	Entry("with an empty name of a wave", `rollout: {waves: [{name: "", size: 1}]}`, "should be at least 1 chars long"),
	Entry("with too long a name of a wave", "rollout: {waves: [{name: "+strings.Repeat("x", 64)+", size: 1}]}", "may not be more than 63"),
	Entry("with a wave twice", "rollout: {waves: [{name: one, size: 1}, {name: one, size: 1}]}", "Duplicate value"),
	Entry("with 16 waves", "rollout: {waves: ["+waves(16)+"]}", accepted),
	Entry("with 17 waves", "rollout: {waves: ["+waves(17)+"]}", "must have at most 16 items"),
	Entry("with a wave's failures below none", "rollout: {waves: [{name: one, size: 1, maxFailures: -1}]}", "should be greater than or equal to 0"),
	Entry("with too many of a wave's failures", "rollout: {waves: [{name: one, size: 1, maxFailures: 5001}]}", "should be less than or equal to 5000"),
	Entry("that drains before it installs", "drain: {when: BeforeInstall}", accepted),
	Entry("that drains never", "drain: {when: Never}", accepted),
	Entry("that drains at noon", "drain: {when: Noon}", `supported values: "Never", "BeforeReboot", "BeforeInstall"`),
	Entry("that reboots always", "reboot: {when: Always}", accepted),
	Entry("that reboots never", "reboot: {when: Never}", accepted),
	Entry("that reboots at noon", "reboot: {when: Noon}", `supported values: "Never", "IfRequired", "Always"`),
)

func list(prefix string, n int) string {
	var items []string
	for i := range n {
		items = append(items, fmt.Sprintf("%s%d", prefix, i))
	}
	return strings.Join(items, ", ")
}

func waves(n int) string {
	var items []string
	for i := range n {
		items = append(items, fmt.Sprintf("{name: w%d, size: 1}", i))
	}
	return strings.Join(items, ", ")
}

var _ = DescribeTable("a task",
	func(ctx SpecContext, name, spec, refused string) { verdict(ctx, taskNamed(name, spec), refused) },
	Entry("of the policy", "now", "{policy: workers, task: weekly}", accepted),
	Entry("of its own", "now", "{policy: workers, template: {action: Scan}}", accepted),
	Entry("that downloads", "now", "{policy: workers, template: {action: Download}}", accepted),
	Entry("that deploys", "now", "{policy: workers, template: {action: Deploy}}", accepted),
	Entry("that removes", "now", "{policy: workers, template: {action: Remove}}", `supported values: "Scan", "Download", "Deploy"`),
	Entry("of both kinds", "now", "{policy: workers, task: weekly, template: {action: Scan}}", eitherMessage),
	Entry("of neither kind", "now", "{policy: workers}", eitherMessage),
	Entry("without policy", "now", "{task: weekly}", "policy: Required value"),
	Entry("of an empty policy", "now", `{policy: "", task: weekly}`, "should be at least 1 chars long"),
	Entry("of too long a policy", "now", "{policy: "+strings.Repeat("x", 64)+", task: weekly}", "may not be more than 63"),
	Entry("of an empty task", "now", `{policy: workers, task: ""}`, "should be at least 1 chars long"),
	Entry("of too long a task", "now", "{policy: workers, task: "+strings.Repeat("x", 64)+"}", "may not be more than 63"),
	Entry("with a name of 63 characters", strings.Repeat("x", 63), "{policy: workers, task: weekly}", accepted),
	Entry("with a name of 64 characters", strings.Repeat("x", 64), "{policy: workers, task: weekly}", "a task's name has at most 63 characters, as it is used as a label"),
	Entry("on some nodes", "now", "{policy: workers, task: weekly, nodeSelector: {matchExpressions: [{key: pool, operator: In, values: [a]}]}}", accepted),
)

var _ = Describe("a policy's name", func() {
	named := func(length int) string {
		return strings.Replace(policyWith(""), "name: workers", "name: "+strings.Repeat("x", length), 1)
	}
	It("has up to 63 characters", func(ctx SpecContext) { verdict(ctx, named(63), accepted) })
	It("has no more", func(ctx SpecContext) {
		verdict(ctx, named(64), "a policy's name has at most 63 characters, as it is used as a label")
	})
	It("selects nodes", func(ctx SpecContext) {
		verdict(ctx, "apiVersion: nodepatch.io/v1alpha1\nkind: PatchPolicy\nmetadata: {name: workers}\nspec: {}\n", "nodeSelector: Required value")
	})
})

var _ = Describe("a task's spec", func() {
	It("never changes", func(ctx SpecContext) {
		task := object(taskNamed("immutable", "{policy: workers, task: weekly}"))
		Expect(admin.Create(ctx, task)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, task)).To(Succeed()) })
		const message = "a task's spec never changes; create another PatchTask instead"
		for _, patch := range []string{
			`{"spec":{"task":"daily"}}`, `{"spec":{"policy":"others"}}`, `{"spec":{"nodeSelector":{}}}`,
			`{"spec":{"task":null,"template":{"action":"Scan"}}}`, `{"spec":{"ttlAfterFinished":"1h"}}`,
		} {
			Expect(admin.Patch(ctx, task.DeepCopy(), mergePatch(patch))).To(MatchError(ContainSubstring(message)), patch)
		}
		Expect(admin.Patch(ctx, task, mergePatch(`{"metadata":{"annotations":{"nodepatch.io/stop":"enough"}}}`))).To(Succeed())
	})
})
