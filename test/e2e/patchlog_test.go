package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

// manyPatches is how many small patches each machine misses.
const manyPatches = 300

// offerMany installs version 1.0 of many packages on all machines, and then offers 2.0.
func offerMany(ctx context.Context) (names []string) {
	GinkgoHelper()
	var old, next []aptrepo.Package
	for i := range manyPatches {
		name := fmt.Sprintf("small-%03d", i)
		names, old, next = append(names, name), append(old, aptrepo.Good(name, "1.0")), append(next, aptrepo.Good(name, "2.0"))
	}
	mirror.rollouts.Add(old...)
	mirror.publish()
	onEach := func(ctx context.Context, script string) {
		onAll(func(node string) {
			_, err := machine(node).Exec(ctx, "sh", "-c", script)
			Expect(err).NotTo(HaveOccurred())
		})
	}
	DeferCleanup(func(ctx SpecContext) {
		mirror.rollouts.Remove(names...)
		mirror.publish()
		onEach(ctx, "DEBIAN_FRONTEND=noninteractive apt-get -q -y purge "+strings.Join(names, " ")+" && apt-get -q update && apt-get clean")
	}, NodeTimeout(4*time.Minute))
	onEach(ctx, "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install "+strings.Join(names, " "))
	mirror.rollouts.Add(next...)
	mirror.publish()
	return names
}

// hostLines are the entries of a machine's own log, oldest first.
func hostLines(ctx context.Context, node string) []patchlog.Entry {
	GinkgoHelper()
	out, err := machine(node).Exec(ctx, "sh", "-c", "cd /var/lib/nodepatch/log && cat $(ls patch-*.log 2>/dev/null) patch.log")
	Expect(err).NotTo(HaveOccurred())
	return linesOf(out)
}

// linesOf are those lines of a text that are entries of the patch log.
func linesOf(text string) []patchlog.Entry {
	var entries []patchlog.Entry
	for line := range strings.Lines(text) {
		var entry patchlog.Entry
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Key != "" && entry.Reason != "" {
			entries = append(entries, entry)
		}
	}
	return entries
}

// told is what an entry says, wherever it stands.
func told(at time.Time, node, reason, message string) string {
	return strings.Join([]string{at.UTC().Format("15:04:05.000000"), node, reason, message}, " ")
}

// toldIn are the entries of a task in a log, in order.
func toldIn(entries []patchlog.Entry, task *v1alpha1.PatchTask) []string {
	var lines []string
	for _, entry := range entries {
		if entry.Task == task.Name {
			lines = append(lines, told(entry.Time, entry.Node, entry.Reason, strings.Join(strings.Fields(entry.Message), " ")))
		}
	}
	slices.Sort(lines)
	return lines
}

// toldBy are the Events that a component wrote of a task, about a node or else about all.
func toldBy(events []corev1.Event, component patchlog.Component, node string) []string {
	var lines []string
	for _, event := range events {
		if event.ReportingController == string(component) && (node == "" || event.InvolvedObject.Name == node) {
			about := event.Labels[v1alpha1.NodeLabel]
			lines = append(lines, told(event.EventTime.Time, about, event.Reason, event.Message))
		}
	}
	slices.Sort(lines)
	return lines
}

// inOrder says whether words stand in a text one after the other.
func inOrder(text string, words ...string) error {
	rest := text
	for _, word := range words {
		_, after, found := strings.Cut(rest, word)
		if !found {
			return fmt.Errorf("%s is missing, or comes too early, in:\n%s", word, text)
		}
		rest = after
	}
	return nil
}

var _ = Describe("The patch log of a large deployment", Ordered, func() {
	var task *v1alpha1.PatchTask
	var names []string

	BeforeAll(prepareFleet, NodeTimeout(3*time.Minute))
	BeforeAll(func(ctx SpecContext) { names = offerMany(ctx) }, NodeTimeout(4*time.Minute))
	AfterEach(describeFailure)

	It("has every line that the machines have, although the API server is away in the middle", func(ctx SpecContext) {
		task = rolloutOf(ctx, nil, func(template *v1alpha1.TaskTemplate) {
			template.Rollout.MaxUnavailable = ptr.To(intstr.FromInt32(3))
			template.Reboot.When = v1alpha1.RebootNever
			template.Patches = &v1alpha1.PatchSelection{Include: []v1alpha1.PackagePattern{"small-*"}}
		})
		waitForStage(ctx, task, toy, v1alpha1.StepInstalling)
		Expect(machines.StopServer(ctx, "kube-apiserver")).To(Succeed())
		away := time.Now()
		Eventually(ctx, func() time.Duration { return time.Since(away) }).Should(BeNumerically(">=", 15*time.Second))
		startAPIServer(ctx)
		Eventually(ctx, func() error { _, err := tryKubectl(ctx, "get", "--raw", "/readyz"); return err }).Should(Succeed())
		Expect(finish(ctx, task).Status.Phase).To(Equal(v1alpha1.TaskComplete), task.Status.Message)

		lost := 0
		for _, node := range everyNode {
			var events []corev1.Event
			var onHost []string
			Eventually(ctx, func(g Gomega) {
				onHost = toldIn(hostLines(ctx, node), task)
				events = entriesOf(ctx, task)
				g.Expect(toldBy(events, patchlog.AgentComponent, node)).To(Equal(onHost))
			}).WithTimeout(2 * time.Minute).Should(Succeed())
			all := strings.Join(onHost, "\n")
			for _, name := range names {
				if !strings.Contains(all, name+" 1.0 -> 2.0") {
					lost++
				}
			}
			managers := len(toldBy(events, patchlog.ManagerComponent, node))
			AddReportEntry("events", fmt.Sprintf("%s: %d of the agent and %d of the manager for %d patches; %d lines on the host",
				node, len(onHost), managers, manyPatches, len(onHost)))
			Expect(len(onHost) + managers).To(BeNumerically("<", 40))
		}
		Expect(lost).To(BeZero(), "patches that no line names")

		printed := kubectl(ctx, "-n", namespace, "logs", "-l", "app.kubernetes.io/component=manager", "--tail=-1")
		Expect(toldBy(entriesOf(ctx, task), patchlog.ManagerComponent, "")).To(ContainElements(toldIn(linesOf(printed), task)))
		Expect(toldIn(linesOf(printed), task)).NotTo(BeEmpty())
	}, SpecTimeout(8*time.Minute))

	It("is told in order by whatever people ask", func(ctx SpecContext) {
		way := []string{
			v1alpha1.EventScanStarted, v1alpha1.EventScanFinished, v1alpha1.EventPatchesDownloaded, v1alpha1.EventNodeAdmitted,
			v1alpha1.EventPatchesInstalled, v1alpha1.EventDeployFinished, v1alpha1.EventNodeDone,
		}
		label := v1alpha1.TaskLabel + "=" + task.Name
		// These two sort by whole seconds, and of a long list those of one second in no order.
		for _, told := range []string{kubectl(ctx, "describe", "node", toy), kubectl(ctx, "events", "--for", "node/"+toy)} {
			for _, entry := range way {
				Expect(told).To(ContainSubstring(entry))
			}
			Expect(inOrder(told, v1alpha1.EventScanStarted, v1alpha1.EventPatchesInstalled, v1alpha1.EventNodeDone)).To(Succeed())
		}
		Expect(inOrder(kubectl(ctx, "describe", "patchreport", toy), "Log:", v1alpha1.EventPatchesInstalled, v1alpha1.EventDeployFinished)).To(Succeed())
		Expect(inOrder(kubectl(ctx, "describe", "patchtask", task.Name), "Events:", v1alpha1.EventTaskStarted, v1alpha1.EventTaskFinished)).To(Succeed())
		whole := kubectl(ctx, "get", "events", "-l", label, "--sort-by=.eventTime")
		Expect(inOrder(whole, slices.Concat([]string{v1alpha1.EventTaskStarted}, way, []string{v1alpha1.EventTaskFinished})...)).To(Succeed())
	}, SpecTimeout(time.Minute))

	It("is gone when it was cleared, also from the machines, and nothing else is", func(ctx SpecContext) {
		const foreign = "a line that nodepatch did not write"
		others := map[string][]patchlog.Entry{}
		for _, node := range everyNode {
			_, err := machine(node).Exec(ctx, "sh", "-c", "echo '"+foreign+"' >>/var/lib/nodepatch/log/patch.log")
			Expect(err).NotTo(HaveOccurred())
			others[node] = slices.DeleteFunc(hostLines(ctx, node), func(entry patchlog.Entry) bool { return entry.Task == task.Name })
		}
		event := &corev1.Event{}
		event.Name, event.Namespace, event.Labels = "foreign", patchlog.Namespace, map[string]string{v1alpha1.TaskLabel: task.Name}
		event.InvolvedObject = corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: toy, UID: toy}
		Expect(client.Create(ctx, event)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(client.Delete(ctx, event)).To(Succeed()) })

		// The agent of one machine is killed as soon as it may have begun.
		kubectl(ctx, "annotate", "patchtask", task.Name, v1alpha1.ClearLogAnnotation+"=")
		_, err := machine(toy).Exec(ctx, "kill", "-KILL", agentProcess(ctx, toy))
		Expect(err).NotTo(HaveOccurred())
		for _, node := range everyNode {
			Eventually(ctx, func(g Gomega) {
				left := hostLines(ctx, node)
				g.Expect(toldIn(left, task)).To(BeEmpty())
				g.Expect(left).To(ContainElement(HaveField("Message", HavePrefix("Deleted from the log on the host: the entries of the task "+task.Name))))
				for _, entry := range others[node] {
					g.Expect(left).To(ContainElement(HaveField("Key", entry.Key)), "of another task")
				}
			}).WithTimeout(time.Minute).Should(Succeed())
			out, err := machine(node).Exec(ctx, "cat", "/var/lib/nodepatch/log/patch.log")
			Expect(err).NotTo(HaveOccurred())
			Expect(out).To(ContainSubstring(foreign))
		}
		Eventually(ctx, func() []string {
			var reasons []string
			for _, event := range entriesOf(ctx, task) {
				reasons = append(reasons, event.Name[:7]+event.Reason)
			}
			return reasons
		}).Should(ConsistOf("foreign", HaveSuffix(v1alpha1.EventLogCleared)))
		Expect(finish(ctx, task).Status.Log).To(BeEmpty())
	}, SpecTimeout(3*time.Minute))
})
