package api

import (
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// What the manager remembers of buttons.
var _ = DescribeTable("a press",
	func(ctx SpecContext, handled, refused string) {
		for _, kind := range []string{"PatchReport", "PatchRetry"} {
			stored := store(ctx, named(kind, "presses", ""))
			stored.Object["status"] = object("status: {handled: {" + handled + "}}").Object["status"]
			err := admin.Status().Update(ctx, stored, client.DryRunAll)
			if refused == accepted {
				Expect(err).NotTo(HaveOccurred())
			} else {
				Expect(err).To(MatchError(ContainSubstring(refused)))
			}
		}
	},
	Entry("that is being acted on", pressWith(""), accepted),
	Entry("of another button", pressWith("button: nodepatch.io/stop"), `supported values: "nodepatch.io/clear-retries", "nodepatch.io/clear-log", "nodepatch.io/update-patch-data"`),
	Entry("without a number", pressWith("number: 0"), "should be greater than or equal to 1"),
	Entry("with the longest value", pressWith("value: "+strings.Repeat("x", 4096)), accepted),
	Entry("with too long a value", pressWith("value: "+strings.Repeat("x", 4097)), "may not be more than 4096"),
	Entry("with too long a version", pressWith("logVersion: '"+strings.Repeat("1", 65)+"'"), "may not be more than 64"),
	Entry("that asks for less than no refresh", pressWith("refreshes: -1"), "should be greater than or equal to 0"),
	Entry("without a time", "press: {button: nodepatch.io/clear-log, number: 1}", "time: Required value"),
	Entry("of many", "presses: 9007199254740993", accepted),
	Entry("of less than none", "presses: -1", "should be greater than or equal to 0"),
	Entry("of a policy", "policyPress: 11111111-2222-3333-4444-555555555555/17", accepted),
	Entry("of too long a policy", "policyPress: "+strings.Repeat("x", 129), "may not be more than 128"),
	Entry("that cleared a log", `logClearedAt: "2026-11-22T10:00:00.123456Z"`, accepted),
	Entry("that cleared a log at no time", "logClearedAt: yesterday", "must be of type date-time"),
)

var _ = DescribeTable("a request for patch data",
	func(ctx SpecContext, number, refused string) {
		verdict(ctx, named("PatchAssignment", "bounds", "spec: {patchDataRefreshes: "+number+"}"), refused)
	},
	Entry("as often as you like", "9007199254740993", accepted),
	Entry("less than never", "-1", "should be greater than or equal to 0"),
)

// pressWith is a press with one field that differs.
func pressWith(field string) string {
	fields := []string{"button: nodepatch.io/clear-log", "number: 1", `time: "2026-11-22T10:00:00.123456Z"`}
	key, _, _ := strings.Cut(field, ":")
	for i := range fields {
		if key != "" && strings.HasPrefix(fields[i], key+":") {
			fields[i], field = field, ""
		}
	}
	if field != "" {
		fields = append(fields, field)
	}
	return "press: {" + strings.Join(fields, ", ") + "}"
}
