package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// start creates a scan of its own name on the nodes with the names, or on all.
func start(ctx context.Context, timeout time.Duration, nodes ...string) *v1alpha1.PatchTask {
	GinkgoHelper()
	task := &v1alpha1.PatchTask{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "scan-"},
		Spec: v1alpha1.PatchTaskSpec{Policy: policy, Template: &v1alpha1.TaskTemplate{
			Action: v1alpha1.ActionScan, Scan: v1alpha1.ScanOptions{Timeout: metav1.Duration{Duration: timeout}},
		}},
	}
	if len(nodes) > 0 {
		task.Spec.NodeSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: corev1.LabelHostname, Operator: metav1.LabelSelectorOpIn, Values: nodes},
		}}
	}
	Expect(client.Create(ctx, task)).To(Succeed())
	return task
}

// startAPIServer starts the API server again, and waits until it takes tasks: for up to half a minute it does not know the
// kinds that its admission policies look up, and refuses what they are about.
func startAPIServer(ctx context.Context) {
	GinkgoHelper()
	Expect(machines.StartServer(ctx, "kube-apiserver")).To(Succeed())
	probe := &v1alpha1.PatchTask{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "probe-"}, Spec: v1alpha1.PatchTaskSpec{Policy: policy, Task: "scan"},
	}
	Eventually(ctx, func() error { return client.Create(ctx, probe.DeepCopy(), ctrlclient.DryRunAll) }).WithTimeout(90 * time.Second).Should(Succeed())
}

// finish waits for the end of a task, whatever it is, and returns the task.
func finish(ctx context.Context, task *v1alpha1.PatchTask) *v1alpha1.PatchTask {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		g.Expect(client.Get(ctx, ctrlclient.ObjectKeyFromObject(task), task)).To(Succeed())
		g.Expect(task.Finished()).To(BeTrue(), "%s: %s", task.Status.Phase, task.Status.Message)
	}).WithTimeout(5 * time.Minute).Should(Succeed())
	return task
}

func reportOf(ctx context.Context, node string) *v1alpha1.PatchReport {
	GinkgoHelper()
	report := &v1alpha1.PatchReport{}
	Expect(client.Get(ctx, ctrlclient.ObjectKey{Name: node}, report)).To(Succeed())
	return report
}

func assignmentOf(ctx context.Context, node string) *v1alpha1.PatchAssignment {
	GinkgoHelper()
	assignment := &v1alpha1.PatchAssignment{}
	Expect(client.Get(ctx, ctrlclient.ObjectKey{Name: node}, assignment)).To(Succeed())
	return assignment
}

// rawCounts is the last line of apt-get -s dist-upgrade.
type rawCounts struct{ missing, added int32 }

var aptSummary = regexp.MustCompile(`(\d+) upgraded, (\d+) newly installed, \d+ to remove and (\d+) not upgraded`)

// rawApt asks a machine's apt itself how many patches are missing.
func rawApt(ctx context.Context, node string) rawCounts {
	GinkgoHelper()
	out, err := machine(node).Exec(ctx, "apt-get", "-s", "dist-upgrade")
	Expect(err).NotTo(HaveOccurred())
	m := aptSummary.FindStringSubmatch(out)
	Expect(m).NotTo(BeNil(), out)
	number := func(s string) int32 {
		n, err := strconv.ParseInt(s, 10, 32)
		Expect(err).NotTo(HaveOccurred())
		return int32(n)
	}
	return rawCounts{missing: number(m[1]) + number(m[3]), added: number(m[2])}
}

// logOf returns the patch log of a task, in order, as "REGARDING REASON".
func logOf(ctx context.Context, task string) []string {
	GinkgoHelper()
	out := kubectl(ctx, "get", "events", "--sort-by=.eventTime", "-l", v1alpha1.TaskLabel+"="+task,
		"-o", `jsonpath={range .items[*]}{.involvedObject.name} {.reason}{"\n"}{end}`)
	return strings.Split(strings.TrimSpace(out), "\n")
}

// requests returns what the API server logged since the offset, and the new offset.
func requests(offset int64) ([]auditv1.Event, int64) {
	GinkgoHelper()
	content, err := os.ReadFile(machines.AuditLog)
	Expect(err).NotTo(HaveOccurred())
	var events []auditv1.Event
	end := int64(strings.LastIndexByte(string(content), '\n') + 1)
	for line := range strings.Lines(string(content[offset:end])) {
		var event auditv1.Event
		Expect(json.Unmarshal([]byte(line), &event)).To(Succeed())
		events = append(events, event)
	}
	return events, end
}

// agentProcess returns the PID of a machine's agent, as the machine counts.
func agentProcess(ctx context.Context, node string) string {
	GinkgoHelper()
	var pid string
	Eventually(ctx, func(g Gomega) {
		out, err := machine(node).Exec(ctx, "pgrep", "-x", "agent")
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(strings.Fields(out)).To(HaveLen(1), "one agent runs on %s", node)
		pid = strings.TrimSpace(out)
	}).Should(Succeed())
	return pid
}

// waitForStep waits until a machine is in the middle of a task's refresh.
func waitForRefresh(ctx context.Context, node string) {
	GinkgoHelper()
	Eventually(ctx, func() error {
		_, err := machine(node).Exec(ctx, "pgrep", "-f", "apt-get.* update")
		return err
	}).Should(Succeed(), "apt-get update runs on %s", node)
}

func conditionOf(report *v1alpha1.PatchReport, name string) metav1.Condition {
	GinkgoHelper()
	for _, c := range report.Status.Conditions {
		if c.Type == name {
			return c
		}
	}
	Fail(fmt.Sprintf("the report of %s has no condition %s", report.Name, name))
	return metav1.Condition{}
}
