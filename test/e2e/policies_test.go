package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment"
)

// A policy of one machine, in place of the suite's own.
const nightly = "nightly"

var _ = Describe("A policy", Ordered, func() {
	BeforeAll(func(ctx SpecContext) {
		Expect(client.Create(ctx, &v1alpha1.PatchPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: nightly},
			Spec: v1alpha1.PatchPolicySpec{
				NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelHostname: spare}},
				Priority:     20,
				ManualTasks:  v1alpha1.ManualTasksDenied,
			},
		})).To(Succeed())
		Eventually(ctx, func() string { return assignmentOf(ctx, spare).Spec.Policy }).Should(Equal(nightly))
	}, NodeTimeout(2*time.Minute))
	AfterAll(func(ctx SpecContext) {
		Expect(client.Delete(ctx, &v1alpha1.PatchPolicy{ObjectMeta: metav1.ObjectMeta{Name: nightly}})).To(Succeed())
		Eventually(ctx, func() string { return assignmentOf(ctx, spare).Spec.Policy }).Should(Equal(policy))
		// The agents are rolled out for other nodes again.
		Eventually(ctx, func() string {
			return kubectl(ctx, "-n", namespace, "get", "daemonset", "nodepatch-agent", "-o",
				"jsonpath={.spec.template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms}")
		}).ShouldNot(ContainSubstring(spare))
		kubectl(ctx, "-n", namespace, "rollout", "status", "daemonset/nodepatch-agent", "--timeout=60s")
		waitForAgents(ctx)
	}, NodeTimeout(3*time.Minute))

	It("runs its task when the schedule says, and lets nobody else", func(ctx SpecContext) {
		amend(ctx, nightly, `{"spec":{"tasks":[{"name":"scan","schedule":"* * * * *","template":{"action":"Scan"}}]}}`)
		run := taskOf(ctx, nightly, v1alpha1.TriggerScheduled)
		Expect(run.Name).To(HavePrefix(nightly + "-scan-"))
		Expect(run.Status.Phase).To(Equal(v1alpha1.TaskComplete), run.Status.Message)
		Eventually(ctx, func() string {
			return kubectl(ctx, "get", "patchpolicy", nightly, "-o", "jsonpath={.status.tasks[0].last.phase} {.status.tasks[0].next}")
		}).Should(MatchRegexp(`^Complete 20\d\d-`))

		_, err := tryKubectl(ctx, "create", "-f", manifest(`{"apiVersion": "nodepatch.io/v1alpha1", "kind": "PatchTask", "metadata": {"name": "by-hand"},
			"spec": {"policy": "`+nightly+`", "task": "scan"}}`))
		Expect(err).To(MatchError(ContainSubstring("the policy nightly lets only its schedule start tasks (manualTasks: Denied)")))
		amend(ctx, nightly, `{"spec":{"tasks":null}}`)
	}, SpecTimeout(4*time.Minute))

	It("scans a machine at once that comes back after 31 days", func(ctx SpecContext) {
		Expect(machine(spare).PowerOff(ctx)).To(Succeed())
		Eventually(ctx, func(g Gomega) {
			node := &corev1.Node{}
			g.Expect(client.Get(ctx, ctrlclient.ObjectKey{Name: spare}, node)).To(Succeed())
			g.Expect(assignment.NodeReady(node).Status).NotTo(Equal(corev1.ConditionTrue))
		}).WithTimeout(2 * time.Minute).Should(Succeed())
		long := metav1.NewTime(time.Now().Add(-31 * 24 * time.Hour))
		report := reportOf(ctx, spare)
		report.Status.Scan.Time = &long
		Expect(client.Status().Update(ctx, report)).To(Succeed())
		amend(ctx, nightly, `{"spec":{"maxScanAge":"720h"}}`)
		Eventually(ctx, func() string {
			return kubectl(ctx, "get", "patchpolicy", nightly, "-o", "jsonpath={.status.nodes.overdue} {.status.nodes.unreachable}")
		}).Should(Equal("1 1"))

		Expect(machine(spare).Start(ctx)).To(Succeed())
		run := taskOf(ctx, nightly, v1alpha1.TriggerOverdue)
		Expect(run.Status.Phase).To(Equal(v1alpha1.TaskComplete), run.Status.Message)
		Expect(reportOf(ctx, spare).Status.Scan.Time.Time).To(BeTemporally("~", time.Now(), 2*time.Minute))
		Eventually(ctx, func() string {
			return kubectl(ctx, "get", "patchpolicy", nightly, "-o", "jsonpath={.status.nodes.overdue} {.status.nodes.unreachable}")
		}).Should(Equal("0 0"))
	}, SpecTimeout(6*time.Minute))
})

var _ = Describe("A person who holds one button", func() {
	It("can press it, and do nothing else", func(ctx SpecContext) {
		const role = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: clearer}
rules:
- {apiGroups: [nodepatch.io], resources: [patchretries], verbs: [get, patch, clear-retries]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: clearer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: clearer}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: carla}]
`
		file := manifest(role)
		kubectl(ctx, "apply", "-f", file)
		DeferCleanup(func(ctx SpecContext) { kubectl(ctx, "delete", "-f", file) }, NodeTimeout(time.Minute))
		counted := &v1alpha1.PatchRetry{}
		Expect(client.Get(ctx, ctrlclient.ObjectKey{Name: toy}, counted)).To(Succeed())
		counted.Status.Patches = []v1alpha1.PatchAttempts{{Name: "ham", Version: "9.0", DownloadFailures: 3}}
		counted.Status.Summarize()
		Expect(client.Status().Update(ctx, counted)).To(Succeed())

		as := func(args ...string) error {
			_, err := tryKubectl(ctx, append([]string{"--as", "carla"}, args...)...)
			return err
		}
		retry := "patchretry/" + toy
		Eventually(ctx, func() error { return as("get", retry) }).Should(Succeed(), "her role is known")
		Expect(as("label", retry, "a=b")).To(MatchError(ContainSubstring("forbidden")))
		Expect(as("annotate", retry, "a=b")).To(MatchError(ContainSubstring("forbidden")))
		Expect(as("annotate", "patchreport/"+toy, "nodepatch.io/update-patch-data=")).To(MatchError(ContainSubstring("forbidden")))
		Expect(as("delete", retry)).To(MatchError(ContainSubstring("forbidden")))

		Expect(as("annotate", retry, "nodepatch.io/clear-retries=ham")).To(Succeed())
		Eventually(ctx, func() string {
			return kubectl(ctx, "get", retry, "-o", "jsonpath={.status.summary} {.metadata.annotations}")
		}).Should(Equal("No failed attempt "))
		Expect(as("annotate", retry, "nodepatch.io/clear-retries=ham")).To(MatchError(ContainSubstring("nothing to clear")))
	}, SpecTimeout(2*time.Minute))

	It("can have a node look what is missing without a task", func(ctx SpecContext) {
		before := reportOf(ctx, toy).Status.PatchData.Time.Time
		Eventually(ctx, time.Now).Should(BeTemporally(">", before.Add(time.Second)), "the times of reports are whole seconds")
		kubectl(ctx, "annotate", "patchreport", toy, "nodepatch.io/update-patch-data=")
		Eventually(ctx, func() time.Time { return reportOf(ctx, toy).Status.PatchData.Time.Time }).Should(BeTemporally(">", before))
		Eventually(ctx, func() string {
			return kubectl(ctx, "get", "patchreport", toy, "-o", "jsonpath={.metadata.annotations}")
		}).Should(BeEmpty(), "the button is gone")
	}, SpecTimeout(2*time.Minute))
})

// amend changes a policy, as kubectl patch does.
func amend(ctx context.Context, name, patch string) {
	GinkgoHelper()
	object := &v1alpha1.PatchPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
	Expect(client.Patch(ctx, object, ctrlclient.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}

// taskOf waits until a task that the policy started for a cause has ended.
func taskOf(ctx context.Context, policy string, trigger v1alpha1.Trigger) *v1alpha1.PatchTask {
	GinkgoHelper()
	var found *v1alpha1.PatchTask
	Eventually(ctx, func(g Gomega) {
		var tasks v1alpha1.PatchTaskList
		g.Expect(client.List(ctx, &tasks, ctrlclient.MatchingFields{"spec.policy": policy})).To(Succeed())
		var seen []string
		for i := range tasks.Items {
			if task := &tasks.Items[i]; task.Status.Trigger == trigger && task.Finished() {
				found = ptr.To(*task)
				return
			}
			seen = append(seen, fmt.Sprintf("%s (%s, %s)", tasks.Items[i].Name, tasks.Items[i].Status.Trigger, tasks.Items[i].Status.Phase))
		}
		g.Expect(found).NotTo(BeNil(), "a task with trigger %s among %s", trigger, strings.Join(seen, ", "))
	}).WithTimeout(3 * time.Minute).Should(Succeed())
	return found
}

// manifest writes YAML to a file that kubectl can read.
func manifest(text string) string {
	GinkgoHelper()
	path := filepath.Join(GinkgoT().TempDir(), "manifest.yaml")
	Expect(os.WriteFile(path, []byte(text), 0o600)).To(Succeed())
	return path
}
