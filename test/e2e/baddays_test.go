package e2e

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

var _ = Describe("On a bad day, a scan", func() {
	AfterEach(func(ctx SpecContext) {
		mirror.open()
		mirror.setDown(false)
		waitForAgents(ctx)
	})

	rightReport := func(ctx SpecContext, task *v1alpha1.PatchTask) {
		GinkgoHelper()
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskComplete), task.Status.Message)
		report := reportOf(ctx, toy)
		Expect(report.Status.Scan.Task).To(Equal(task.Name))
		Expect(report.Status.Counts.Missing).To(Equal(rawApt(ctx, toy).missing))
	}

	It("goes on after the agent was killed in the middle", func(ctx SpecContext) {
		mirror.shut()
		task := start(ctx, 5*time.Minute, toy)
		waitForRefresh(ctx, toy)
		_, err := machine(toy).Exec(ctx, "kill", "-KILL", agentProcess(ctx, toy))
		Expect(err).NotTo(HaveOccurred())
		Eventually(ctx, func(g Gomega) {
			pod, there := agentPod(ctx, toy)
			g.Expect(there).To(BeTrue())
			g.Expect(pod.Status.ContainerStatuses).NotTo(BeEmpty())
			g.Expect(pod.Status.ContainerStatuses[0].RestartCount).To(BeNumerically(">", 0))
			g.Expect(pod.Status.ContainerStatuses[0].Ready).To(BeTrue())
		}).Should(Succeed())
		mirror.open()
		rightReport(ctx, finish(ctx, task))
		Eventually(ctx, func() []string { return logOf(ctx, task.Name) }).Should(ConsistOf(task.Name+" TaskStarted", toy+" ScanStarted",
			toy+" PatchDataRefreshed", toy+" ScanFinished", task.Name+" TaskFinished"), "nothing twice")
	}, SpecTimeout(5*time.Minute))

	It("goes on after the agent's pod was deleted in the middle", func(ctx SpecContext) {
		mirror.shut()
		task := start(ctx, 5*time.Minute, toy)
		waitForRefresh(ctx, toy)
		pod, there := agentPod(ctx, toy)
		Expect(there).To(BeTrue())
		Expect(client.Delete(ctx, pod)).To(Succeed())
		Eventually(ctx, func(g Gomega) {
			next, there := agentPod(ctx, toy)
			g.Expect(there).To(BeTrue())
			g.Expect(next.UID).NotTo(Equal(pod.UID))
		}).Should(Succeed())
		mirror.open()
		rightReport(ctx, finish(ctx, task))
	}, SpecTimeout(5*time.Minute))

	It("goes on after the manager's pod was deleted in the middle", func(ctx SpecContext) {
		mirror.shut()
		task := start(ctx, 5*time.Minute, toy)
		waitForRefresh(ctx, toy)
		kubectl(ctx, "-n", namespace, "delete", "pod", "-l", "app.kubernetes.io/component=manager", "--wait=false")
		kubectl(ctx, "-n", namespace, "rollout", "status", "deployment/nodepatch-manager", "--timeout=90s")
		mirror.open()
		rightReport(ctx, finish(ctx, task))
		Eventually(ctx, func() []string { return logOf(ctx, task.Name) }).Should(ConsistOf(task.Name+" TaskStarted",
			toy+" ScanStarted", toy+" PatchDataRefreshed", toy+" ScanFinished", task.Name+" TaskFinished"), "nothing twice")
	}, SpecTimeout(5*time.Minute))

	It("goes on after the API server was away for a minute", func(ctx SpecContext) {
		mirror.shut()
		task := start(ctx, 5*time.Minute, toy)
		waitForRefresh(ctx, toy)
		Expect(machines.StopServer(ctx, "kube-apiserver")).To(Succeed())
		away := time.Now()
		mirror.open()
		Eventually(ctx, func(g Gomega) {
			log, err := machine(toy).Exec(ctx, "sh", "-c", "cat /var/lib/nodepatch/log/*")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(strings.Split(log, "\n")).To(ContainElement(And(ContainSubstring(task.Name), ContainSubstring("ScanFinished"))),
				"the node scans on alone")
		}).Should(Succeed())
		Eventually(ctx, func() time.Duration { return time.Since(away) }).Should(BeNumerically(">=", time.Minute))
		startAPIServer(ctx)
		rightReport(ctx, finish(ctx, task))
		Eventually(ctx, func() []string { return logOf(ctx, task.Name) }).Should(ConsistOf(task.Name+" TaskStarted",
			toy+" ScanStarted", toy+" PatchDataRefreshed", toy+" ScanFinished", task.Name+" TaskFinished"), "late but whole")
	}, SpecTimeout(6*time.Minute))

	It("runs on old data where the mirror is away, and says how old", func(ctx SpecContext) {
		refreshed := reportOf(ctx, toy).Status.PatchData.Time
		mirror.setDown(true)
		task := finish(ctx, start(ctx, 5*time.Minute, toy))
		rightReport(ctx, task)
		report := reportOf(ctx, toy)
		Expect(report.Status.PatchData.Time).To(Equal(refreshed))
		current := conditionOf(report, v1alpha1.ConditionPatchDataCurrent)
		Expect(current.Status).To(Equal(metav1.ConditionFalse))
		Expect(current.Reason).To(BeElementOf(v1alpha1.ReasonRepositoryUnreachable, v1alpha1.ReasonRefreshFailed))
		Expect(current.Message).To(ContainSubstring(strings.TrimPrefix(mirror.url, "http://")))
		Expect(logOf(ctx, task.Name)).To(ContainElement(toy + " " + v1alpha1.EventPatchDataStale))

		By("being current again after the next one")
		mirror.setDown(false)
		finish(ctx, start(ctx, 5*time.Minute, toy))
		Expect(conditionOf(reportOf(ctx, toy), v1alpha1.ConditionPatchDataCurrent).Status).To(Equal(metav1.ConditionTrue))
	}, SpecTimeout(5*time.Minute))

	It("waits for a lock that somebody else holds, and then goes on", func(ctx SpecContext) {
		mirror.shut()
		by, err := machine(toy).Command(ctx, "apt-get", "update")
		Expect(err).NotTo(HaveOccurred())
		Expect(by.Start()).To(Succeed())
		waitForRefresh(ctx, toy)
		task := start(ctx, 5*time.Minute, toy)
		Eventually(ctx, func(g Gomega) {
			agent := assignmentOf(ctx, toy).Status.Agent
			g.Expect(agent.OperationID).To(BeEquivalentTo(task.UID))
			g.Expect(agent.Step).To(Equal(v1alpha1.StepScanning))
			g.Expect(agent.Reason).To(Equal(v1alpha1.ReasonLocked))
			g.Expect(agent.Message).To(ContainSubstring("apt-get"), "the holder is named")
		}).Should(Succeed())
		mirror.open()
		Expect(by.Wait()).To(Succeed())
		rightReport(ctx, finish(ctx, task))
	}, SpecTimeout(5*time.Minute))

	It("tells a node that cannot be reached from one that failed, and does not wait for ever", func(ctx SpecContext) {
		lead(ctx, real) // the worst case: the manager that leads dies with the node
		Expect(machine(real).Kill(ctx)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) {
			_ = machine(real).Start(ctx) // fails if the spec has started it
		})
		nodeReady := func(g Gomega, want corev1.ConditionStatus) {
			node := &corev1.Node{}
			g.Expect(client.Get(ctx, ctrlclient.ObjectKey{Name: real}, node)).To(Succeed())
			for _, c := range node.Status.Conditions {
				if c.Type == corev1.NodeReady {
					g.Expect(c.Status).To(Equal(want))
				}
			}
		}
		Eventually(ctx, func(g Gomega) { nodeReady(g, corev1.ConditionUnknown) }).Should(Succeed())
		task := finish(ctx, start(ctx, 45*time.Second))
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskFailed))
		Expect(*task.Status.Nodes).To(Equal(v1alpha1.TaskNodeCounts{Total: 3, Done: 2, Unreachable: 1}))
		Expect(task.Status.Failures).To(HaveLen(1))
		Expect(task.Status.Failures[0].Node).To(Equal(real))
		Expect(task.Status.Failures[0].Reason).To(Equal(v1alpha1.ReasonNodeNotReady))
		Expect(logOf(ctx, task.Name)).To(ContainElements(real+" NodeUnreachable", task.Name+" TaskFailed"))

		By("scanning it once it is back")
		Expect(machine(real).Start(ctx)).To(Succeed())
		Eventually(ctx, func(g Gomega) { nodeReady(g, corev1.ConditionTrue) }).Should(Succeed())
		waitForAgents(ctx)
		Expect(finish(ctx, start(ctx, 5*time.Minute)).Status.Phase).To(Equal(v1alpha1.TaskComplete))
	}, SpecTimeout(6*time.Minute))

	It("starts afresh on a node that was deleted and came back", func(ctx SpecContext) {
		before := reportOf(ctx, real).UID
		kubectl(ctx, "delete", "node", real)
		Eventually(ctx, func(g Gomega) {
			err := client.Get(ctx, ctrlclient.ObjectKey{Name: real}, &v1alpha1.PatchReport{})
			g.Expect(apierrors.IsNotFound(err)).To(BeTrue(), "the report goes with its Node: %v", err)
		}).Should(Succeed())
		_, err := machine(real).Exec(ctx, "systemctl", "restart", "kubelet")
		Expect(err).NotTo(HaveOccurred())
		waitForAgents(ctx)
		task := finish(ctx, start(ctx, 5*time.Minute, real))
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskComplete), task.Status.Message)
		Expect(reportOf(ctx, real).UID).NotTo(Equal(before))
		Expect(reportOf(ctx, real).Status.Counts.Missing).To(Equal(rawApt(ctx, real).missing))
	}, SpecTimeout(5*time.Minute))

	It("is refused with a reason that says what to do", func(ctx SpecContext) {
		applyManifest(ctx, `{"apiVersion": "nodepatch.io/v1alpha1", "kind": "PatchTask", "metadata": {"name": "nowhere"},
			"spec": {"policy": "everything", "template": {"action": "Scan"}, "nodeSelector": {"matchLabels": {"pool": "none"}}}}`)
		task := &v1alpha1.PatchTask{}
		task.Name = "nowhere"
		finish(ctx, task)
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskFailed))
		Expect(kubectl(ctx, "get", "patchtask", "nowhere")).To(ContainSubstring("The task's nodeSelector selects none of the 3 nodes"))
		out, err := tryKubectl(ctx, "create", "-f", manifestFile(`{"apiVersion": "nodepatch.io/v1alpha1", "kind": "PatchTask",
			"metadata": {"name": "both"}, "spec": {"policy": "everything", "task": "scan", "template": {"action": "Scan"}}}`))
		Expect(err).To(HaveOccurred())
		Expect(out).To(ContainSubstring("exactly one of task"))
	}, SpecTimeout(2*time.Minute))
})
