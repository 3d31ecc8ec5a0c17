package api

import (
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var _ = DescribeTable("the disruption of a template",
	func(ctx SpecContext, lines, refused string) { verdict(ctx, policyWithTemplate(lines), refused) },
	Entry("with all drain options", `drain: {when: BeforeInstall, timeout: 30m, gracePeriodSeconds: 0, skipPods: {matchLabels: {keep: "true"}},
  waitForPods: {matchExpressions: [{key: job-name, operator: Exists}]}, emptyDirData: Evict, unmanagedPods: Evict}`, accepted),
	Entry("with a grace period below none", "drain: {gracePeriodSeconds: -1}", "should be greater than or equal to 0"),
	Entry("with too long a grace period", "drain: {gracePeriodSeconds: 86401}", "should be less than or equal to 86400"),
	Entry("with a word for emptyDir data", "drain: {emptyDirData: Delete}", `supported values: "Refuse", "Evict"`),
	Entry("with a word for unmanaged pods", "drain: {unmanagedPods: Force}", `supported values: "Refuse", "Evict"`),
	Entry("with all blockers", `blockers:
  pods: [{namespace: batch, selector: {matchLabels: {app: backup}}}, {selector: {}}]
  nodeConditions: [{type: MemoryPressure}, {type: Ready, status: Unknown}]
  prometheus: {url: "https://prometheus.example.com:9090/sub/path", alerts: '{severity="critical",alertname!="Watchdog"}'}`, accepted),
	Entry("with a pod blocker that selects nothing", "blockers: {pods: [{namespace: batch}]}", "selector: Required value"),
	Entry("with 17 pod blockers", "blockers: {pods: ["+strings.Repeat("{selector: {}}, ", 17)+"]}", "must have at most 16 items"),
	Entry("with a condition twice", "blockers: {nodeConditions: [{type: A}, {type: A}]}", "Duplicate value"),
	Entry("with a nameless condition", "blockers: {nodeConditions: [{status: \"True\"}]}", "type: Required value"),
	Entry("with a word for a condition's status", "blockers: {nodeConditions: [{type: A, status: Bad}]}", `supported values: "True", "False", "Unknown"`),
	Entry("with 17 conditions", "blockers: {nodeConditions: ["+conditions(17)+"]}", "must have at most 16 items"),
	Entry("with alerts from nowhere", "blockers: {prometheus: {alerts: \"{}\"}}", "url: Required value"),
	Entry("with alerts from a file", "blockers: {prometheus: {url: \"file:///etc/passwd\"}}", "should match '^https?://[^ ]+$'"),
	Entry("with too long a URL", "blockers: {prometheus: {url: \"http://"+strings.Repeat("x", 512)+"\"}}", "may not be more than 512"),
	Entry("with too long a list of alerts", "blockers: {prometheus: {url: \"http://prometheus\", alerts: \""+strings.Repeat("x", 1025)+"\"}}", "may not be more than 1024"),
	Entry("with all hooks", "hooks: {preDisrupt: {podTemplate: a}, postInstall: {podTemplate: b, timeout: 1s}, postReboot: {podTemplate: c, timeout: 24h}}", accepted),
	Entry("with a hook that runs nothing", "hooks: {preDisrupt: {timeout: 5m}}", "podTemplate: Required value"),
	Entry("with an empty hook", "hooks: {preDisrupt: {podTemplate: \"\"}}", "should be at least 1 chars long"),
	Entry("with too long a hook's name", "hooks: {preDisrupt: {podTemplate: "+strings.Repeat("x", 254)+"}}", "may not be more than 253"),
)

func conditions(n int) string {
	var items []string
	for i := range n {
		items = append(items, fmt.Sprintf("{type: C%d}", i))
	}
	return strings.Join(items, ", ")
}

var _ = Describe("a duration of a disruption", func() {
	template := func(lines string) func(string) string {
		return func(value string) string { return policyWithTemplate(fmt.Sprintf(lines, value)) }
	}
	Context("verify.timeout", func() {
		durations(template("verify: {timeout: %q}"), "a verification's timeout is at least 10s; durations are written like 10m", []string{"10s", "10m"}, []string{"9s", "-1m"})
	})
	Context("a hook's timeout", func() {
		durations(template("hooks: {postReboot: {podTemplate: a, timeout: %q}}"), "a hook's timeout is between 1s and 24h; durations are written like 90s or 5m",
			[]string{"1s", "5m", "24h"}, []string{"0s", "24h1s", "-1m"})
	})
	Context("loadBalancer.delay", func() {
		durations(template("loadBalancer: {delay: %q}"), "a load balancer's delay is between 0s and 1h; durations are written like 90s",
			[]string{"0s", "90s", "1h"}, []string{"1h1s", "-1s"})
	})
})

var _ = It("fills in what its parts leave out", func(ctx SpecContext) {
	policy := object(policyWithTemplate("loadBalancer: {}\nhooks: {preDisrupt: {podTemplate: a}}\nblockers: {nodeConditions: [{type: A}]}"))
	Expect(admin.Create(ctx, policy, client.DryRunAll)).To(Succeed())
	task := policy.Object["spec"].(map[string]any)["tasks"].([]any)[0].(map[string]any)
	template := task["template"].(map[string]any)
	Expect(template["loadBalancer"]).To(Equal(map[string]any{"delay": "30s"}))
	Expect(template["hooks"].(map[string]any)["preDisrupt"]).To(HaveKeyWithValue("timeout", "5m"))
	Expect(template["blockers"].(map[string]any)["nodeConditions"]).To(ConsistOf(map[string]any{"type": "A", "status": "True"}))
})
