package e2e

import (
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

var _ = Describe("A scan", func() {
	It("reports on every node what the node's own apt misses, and why", func(ctx SpecContext) {
		mirror.onlyRollouts(ctx, machine(spare)) // with the newest firmware: it misses nothing
		task := finish(ctx, start(ctx, 5*time.Minute))
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskComplete), task.Status.Message)
		Expect(*task.Status.Nodes).To(Equal(v1alpha1.TaskNodeCounts{Total: 3, Done: 3}))

		var missing int32
		for _, node := range everyNode {
			report, raw := reportOf(ctx, node), rawApt(ctx, node)
			Expect(report.Status.Counts.Missing).To(Equal(raw.missing), "missing patches of %s", node)
			Expect(report.Status.Counts.NewPackages).To(Equal(raw.added), "packages that the patches of %s need", node)
			Expect(report.Status.Patches).To(HaveLen(int(raw.missing)))
			Expect(report.Status.Scan.Task).To(Equal(task.Name))
			missing += raw.missing
		}
		Expect(task.Status.Patches.Missing).To(Equal(missing))
		Expect(reportOf(ctx, real).Status.Counts.Missing).To(BeNumerically(">", 0),
			"the machine with the host's sources is behind on real patches")

		By("telling apart why each patch is not installed")
		got := map[string]v1alpha1.Patch{}
		for _, patch := range reportOf(ctx, toy).Status.Patches {
			Expect(patch.FirstSeen).NotTo(BeNil(), patch.Name)
			patch.FirstSeen, patch.DownloadBytes, patch.Reason, patch.Severity = nil, 0, "", ""
			got[patch.Name] = patch
		}
		Expect(got).To(Equal(map[string]v1alpha1.Patch{
			"ham":   {Name: "ham", Installed: "1.0", Available: "1.2", Classification: v1alpha1.ClassificationSecurity, State: v1alpha1.PatchMissing},
			"egg":   {Name: "egg", Installed: "1.0", Available: "2.0", Classification: v1alpha1.ClassificationBugfix, State: v1alpha1.PatchMissing},
			"spam":  {Name: "spam", Installed: "1.0", Available: "2.0", Classification: v1alpha1.ClassificationBugfix, State: v1alpha1.PatchHeld},
			"bacon": {Name: "bacon", Installed: "1.0", Available: "2.0", Classification: v1alpha1.ClassificationBugfix, State: v1alpha1.PatchMissing},
			"toast": {Name: "toast", Installed: "1.0", Available: "2.0", Classification: v1alpha1.ClassificationBugfix, State: v1alpha1.PatchKeptBack},
		}))
		Expect(reportOf(ctx, toy).Status.NewPackages).To(HaveLen(1))
		Expect(reportOf(ctx, toy).Status.NewPackages[0].Name).To(Equal("rasher"))

		By("telling the story without -o yaml")
		table := kubectl(ctx, "get", "patchreports")
		Expect(table).To(MatchRegexp(`machine-1 +5 +1 +0 +NotRequired`))
		Expect(kubectl(ctx, "get", "patchreports", "-o", "wide")).To(MatchRegexp(`machine-1 .* Debian GNU/Linux `))
		Expect(kubectl(ctx, "get", "patchtask", task.Name)).To(MatchRegexp(`everything +Scan +Complete +[\dms]+ +3 of 3 nodes scanned`))
		Expect(kubectl(ctx, "get", "patchpolicy", policy)).To(MatchRegexp(`everything +3 +3 +1`))
	}, SpecTimeout(5*time.Minute))

	It("is logged from its start to its end, for the run and for each node", func(ctx SpecContext) {
		task := finish(ctx, start(ctx, 5*time.Minute))
		var log []string
		Eventually(ctx, func() []string {
			log = logOf(ctx, task.Name)
			return log
		}).Should(ConsistOf(
			task.Name+" TaskStarted",
			toy+" ScanStarted", toy+" PatchDataRefreshed", toy+" ScanFinished",
			real+" ScanStarted", real+" PatchDataRefreshed", real+" ScanFinished",
			spare+" ScanStarted", spare+" PatchDataRefreshed", spare+" ScanFinished",
			task.Name+" TaskFinished"))
		for _, node := range everyNode {
			entries := slices.DeleteFunc(slices.Clone(log), func(s string) bool { return !strings.HasPrefix(s, node+" ") })
			Expect(entries).To(Equal([]string{node + " ScanStarted", node + " PatchDataRefreshed", node + " ScanFinished"}), "in order")
			Expect(kubectl(ctx, "describe", "node", node)).To(ContainSubstring("ScanFinished"))
			hostLog, err := machine(node).Exec(ctx, "sh", "-c", "cat /var/lib/nodepatch/log/*")
			Expect(err).NotTo(HaveOccurred())
			Expect(strings.Count(hostLog, task.Name)).To(BeNumerically(">=", 3), "the node's own log of record has the task")
		}
		Expect(kubectl(ctx, "describe", "patchtask", task.Name)).To(ContainSubstring("TaskFinished"))
	}, SpecTimeout(5*time.Minute))

	It("runs a policy's named task, and only on the nodes that the task selects", func(ctx SpecContext) {
		manifest := `{"apiVersion": "nodepatch.io/v1alpha1", "kind": "PatchTask", "metadata": {"name": "named"},
			"spec": {"policy": "everything", "task": "scan", "nodeSelector": {"matchLabels": {"kubernetes.io/hostname": "machine-1"}}}}`
		before := reportOf(ctx, real).Status.Scan.Time
		applyManifest(ctx, manifest)
		task := &v1alpha1.PatchTask{}
		task.Name = "named"
		finish(ctx, task)
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskComplete), task.Status.Message)
		Expect(task.Status.Nodes.Total).To(BeEquivalentTo(1))
		Expect(reportOf(ctx, real).Status.Scan.Time).To(Equal(before))
	}, SpecTimeout(5*time.Minute))

	It("is stopped by the annotation, and the node ends it at once", func(ctx SpecContext) {
		mirror.shut()
		DeferCleanup(mirror.open)
		task := start(ctx, 5*time.Minute, toy)
		waitForRefresh(ctx, toy)
		kubectl(ctx, "annotate", "patchtask", task.Name, v1alpha1.StopAnnotation+"=not today")
		finish(ctx, task)
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskStopped))
		Expect(task.Status.Message).To(ContainSubstring("not today"))
		Eventually(ctx, func() error {
			_, err := machine(toy).Exec(ctx, "pgrep", "-f", "apt-get.* update")
			return err
		}).ShouldNot(Succeed(), "the refresh has ended on the machine")
	}, SpecTimeout(5*time.Minute))

	It("of a node that no policy selects any more leaves neither agent nor report", func(ctx SpecContext) {
		select1 := `[{"op": "replace", "path": "/spec/nodeSelector", "value": {"matchLabels": {"kubernetes.io/hostname": "machine-1"}}}]`
		kubectl(ctx, "patch", "patchpolicy", policy, "--type=json", "-p", select1)
		DeferCleanup(func(ctx SpecContext) {
			kubectl(ctx, "patch", "patchpolicy", policy, "--type=json", "-p", `[{"op": "replace", "path": "/spec/nodeSelector", "value": {}}]`)
			waitForAgents(ctx)
		})
		Eventually(ctx, func(g Gomega) {
			_, there := agentPod(ctx, real)
			g.Expect(there).To(BeFalse(), "the agent of %s is gone", real)
			err := client.Get(ctx, ctrlclient.ObjectKey{Name: real}, &v1alpha1.PatchReport{})
			g.Expect(ctrlclient.IgnoreNotFound(err)).NotTo(HaveOccurred())
			g.Expect(err).To(HaveOccurred(), "the report of %s is gone", real)
		}).Should(Succeed())
		_, there := agentPod(ctx, toy)
		Expect(there).To(BeTrue())
	}, SpecTimeout(5*time.Minute))
})
