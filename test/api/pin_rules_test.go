package api

import (
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

const (
	pinMessage = "pin: FirstWave needs waves: without them there is no first wave whose packages the others could install"
	// thePinned is what every status.pinned has.
	thePinned = `time: "2026-11-23T06:00:00Z", nodes: 1`
)

var _ = DescribeTable("what a rollout pins",
	func(ctx SpecContext, lines, refused string) {
		verdict(ctx, policyWithTemplate("rollout: "+lines), refused)
		verdict(ctx, taskNamed("now", "{policy: workers, template: {action: Deploy, rollout: "+lines+"}}"), refused)
	},
	Entry("by its first wave", "{pin: FirstWave, waves: [{name: canary, size: 1}]}", accepted),
	Entry("nothing", "{waves: [{name: canary, size: 1}]}", accepted),
	Entry("without waves", "{pin: FirstWave}", pinMessage),
	Entry("with no wave in the list", "{pin: FirstWave, waves: []}", pinMessage),
	Entry("by another word", "{pin: Always, waves: [{name: canary, size: 1}]}", `supported values: "FirstWave"`),
)

// statusOf stores an object with a status, and compares the answer as verdict does.
func statusOf(ctx SpecContext, manifest, status, refused string) {
	GinkgoHelper()
	o := store(ctx, manifest)
	o.Object["status"] = object(status).Object
	err := admin.Status().Update(ctx, o)
	if refused == "" {
		Expect(err).NotTo(HaveOccurred(), status)
		return
	}
	Expect(err).To(MatchError(ContainSubstring(refused)), status)
}

func installedPatches(n int) string {
	var items []string
	for i := range n {
		items = append(items, fmt.Sprintf("{name: p%d, version: %q}", i, "1.0"))
	}
	return "[" + strings.Join(items, ", ") + "]"
}

var _ = DescribeTable("what a task has pinned",
	func(ctx SpecContext, pinned, refused string) {
		statusOf(ctx, taskNamed("pins", "{policy: workers, task: weekly}"), "pinned: {"+pinned+"}", refused)
	},
	Entry("nothing", thePinned, accepted),
	Entry("a thousand patches", thePinned+", patches: "+installedPatches(1000)+", patchesOmitted: 3", accepted),
	Entry("more", thePinned+", patches: "+installedPatches(1001), "must have at most 1000 items"),
	Entry("a package without its version", thePinned+", patches: [{name: ham}]", "version: Required value"),
	Entry("at no time", "nodes: 1", "time: Required value"),
	Entry("with too long a message", thePinned+", message: "+strings.Repeat("x", 1025), "may not be more than 1024"),
)

var _ = DescribeTable("what a report says was installed",
	func(ctx SpecContext, installed, refused string) {
		statusOf(ctx, named("PatchReport", "installs", ""), "installed: {"+installed+"}", refused)
	},
	Entry("nothing", "operationID: a, task: weekly", accepted),
	Entry("a thousand patches", "operationID: a, patches: "+installedPatches(1000), accepted),
	Entry("more", "operationID: a, patches: "+installedPatches(1001), "must have at most 1000 items"),
	Entry("for no operation", "task: weekly", "operationID: Required value"),
	Entry("with too long a version", "operationID: a, patches: [{name: ham, version: \""+strings.Repeat("1", 257)+"\"}]", "may not be more than 256"),
)

var _ = DescribeTable("what an operation is to install",
	func(ctx SpecContext, pin, refused string) {
		verdict(ctx, named("PatchAssignment", "pinned", fmt.Sprintf(
			`spec: {operation: {id: a, task: b, step: Downloading, assignedAt: "2026-11-23T06:00:00Z", deadline: "2026-11-23T07:00:00Z", pin: %s}}`, pin)), refused)
	},
	Entry("what its task has pinned", "Task", accepted),
	Entry("by another word", "FirstWave", `supported values: "Task"`),
)
