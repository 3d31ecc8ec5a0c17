package task

import (
	"context"
	"fmt"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment"
	"github.com/nodepatch/nodepatch/controllers/blockers"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

// wait has the node's agent be ready to install.
func wait(node string, patches int32) {
	GinkgoHelper()
	given := assignmentNow(node)
	now := metav1.Now()
	given.Status.Agent = &v1alpha1.AgentStatus{
		OperationID: given.Spec.Operation.ID, Task: given.Spec.Operation.Task, Step: v1alpha1.StepWaiting, Time: &now,
		Reason: v1alpha1.ReasonReadyToInstall, Counts: &v1alpha1.PatchCounts{Missing: patches, Downloaded: patches},
	}
	Expect(client.IgnoreNotFound(retried(func() error { return admin.Status().Patch(ctx, given, agentPatch(given)) }))).To(Succeed())
}

// agentPatch writes the agent's half of an assignment's status and no more.
func agentPatch(given *v1alpha1.PatchAssignment) client.Patch {
	base := given.DeepCopy()
	base.Status.Agent = nil
	return client.MergeFrom(base)
}

// judge ends a node's disruption with a verdict, as the assignment controller does.
func judge(node string, step v1alpha1.Step, reason string) {
	GinkgoHelper()
	Expect(retried(func() error {
		given := assignmentNow(node)
		operation, now := given.Spec.Operation, metav1.Now()
		Expect(operation).NotTo(BeNil(), node)
		assignment.Conclude(&given.Spec, &v1alpha1.EndedOperation{
			OperationID: operation.ID, Step: step, Time: &now, Reason: reason, Message: "because",
			Counts: &v1alpha1.PatchCounts{Installed: 3}, AdmittedAt: operation.AdmittedAt,
		})
		return admin.Update(ctx, given)
	})).To(Succeed())
}

// retried does something again that somebody else may have come before.
func retried(do func() error) (err error) {
	for range 5 {
		if err = do(); err == nil {
			return nil
		}
	}
	return err
}

// saysWait is what an assignment says about why its node waits.
func saysWait(node string) string {
	GinkgoHelper()
	if said := assignmentNow(node).Status.Rollout; said != nil {
		return said.Reason
	}
	return ""
}

// guard blocks the nodes named, and counts how often each is asked about.
type guard struct {
	mutex   sync.Mutex
	blocked map[string]bool
	asked   map[string]int
}

func (g *guard) Check(_ context.Context, node *corev1.Node, _ *v1alpha1.Blockers) *blockers.Block {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.asked[node.Name]++
	if g.blocked[node.Name] {
		return &blockers.Block{Reason: v1alpha1.ReasonBlockedByPod, Message: "A pod holds it back"}
	}
	return nil
}

var _ = Describe("A rollout, at a time that the test sets", func() {
	It("says of every node why it waits, and no longer once it goes on", func() {
		addPolicy("workers")
		addNodes("a", "b")
		addTask("deploy-now", deploy(2), func(task *v1alpha1.PatchTask) {
			task.Spec.Template.Rollout.MaxUnavailable = ptr.To(intstr.FromInt(1))
		})
		r, clock := newReconciler()
		step(r, clock, 0, "deploy-now")
		Expect(assignmentNow("a").Spec.Operation).To(And(
			HaveField("Step", v1alpha1.StepDownloading), HaveField("Action", v1alpha1.ActionDeploy),
			HaveField("Reboot", v1alpha1.RebootIfRequired), HaveField("AdmittedAt", BeNil())))
		wait("a", 3)
		wait("b", 3)
		step(r, clock, 2*time.Second, "deploy-now")

		Expect(assignmentNow("a").Spec.Operation.AdmittedAt).NotTo(BeNil())
		Expect(assignmentNow("a").Spec.Operation.Step).To(Equal(v1alpha1.StepDownloading), "raising it is not this controller's")
		Expect(saysWait("a")).To(BeEmpty())
		Expect(saysWait("b")).To(Equal(v1alpha1.ReasonBudget))
		Expect(taskNow("deploy-now").Status.Message).To(Equal("0 of 2 nodes patched; 1 installing; 1 waiting (b Budget)"))
		Expect(*taskNow("deploy-now").Status.Nodes).To(Equal(v1alpha1.TaskNodeCounts{Total: 2, Waiting: 1, Installing: 1}))
		version := assignmentNow("b").ResourceVersion
		step(r, clock, 2*time.Second, "deploy-now")
		Expect(assignmentNow("b").ResourceVersion).To(Equal(version), "nothing happened, and nothing is written")

		judge("a", v1alpha1.StepDone, v1alpha1.ReasonVerified)
		step(r, clock, 2*time.Second, "deploy-now")
		Expect(saysWait("b")).To(BeEmpty())
		Expect(assignmentNow("b").Spec.Operation.AdmittedAt).NotTo(BeNil())
		judge("b", v1alpha1.StepStopped, v1alpha1.ReasonHookFailed)
		step(r, clock, 2*time.Second, "deploy-now")
		failed := taskNow("deploy-now")
		Expect(failed.Status.Phase).To(Equal(v1alpha1.TaskFailed))
		Expect(failed.Status.Message).To(Equal("1 of 2 nodes patched: 6 patches installed, none missing; 1 skipped"))
		Expect(failed.Status.Conditions).To(ContainElement(And(HaveField("Type", "Failed"), HaveField("Reason", v1alpha1.ReasonNodesSkipped))))
		Expect(logged(failed)).To(Equal([]string{"TaskStarted", "NodeSkipped b", "TaskFailed"}))
	})

	It("visits no node again that did other tasks in the meantime, however many", func() {
		addPolicy("workers")
		addNodes("done", "failed", "waits")
		addTask("deploy-now", deploy(3), func(task *v1alpha1.PatchTask) { task.Spec.Template.Rollout.MaxFailures = ptr.To[int32](3) })
		r, clock := newReconciler()
		r.Blockers = &guard{blocked: map[string]bool{"waits": true}, asked: map[string]int{}}
		step(r, clock, 0, "deploy-now")
		answer("done", v1alpha1.StepDone, 0)
		answer("failed", v1alpha1.StepFailed, 0)
		wait("waits", 3)
		step(r, clock, 2*time.Second, "deploy-now")
		before := taskNow("deploy-now").Status
		Expect(*before.Nodes).To(Equal(v1alpha1.TaskNodeCounts{Total: 3, Done: 1, Failed: 1, Waiting: 1}))

		for day := range 12 {
			scan := fmt.Sprint("scan-", day)
			addTask(scan, func(task *v1alpha1.PatchTask) { task.Spec.Nodes = []string{"done", "failed"} })
			step(r, clock, 24*time.Hour, scan)
			answer("done", v1alpha1.StepDone, 0)
			answer("failed", v1alpha1.StepDone, 0)
			step(r, clock, 2*time.Second, scan, "deploy-now")
			Expect(taskNow(scan).Status.Phase).To(Equal(v1alpha1.TaskComplete))
			Expect(assignmentNow("failed").Spec.Operation.Task).To(Equal(scan), "it had its part of the deployment")
		}
		for _, name := range []string{"done", "failed"} {
			given := assignmentNow(name)
			Expect(given.Status.Agent.Earlier).NotTo(ContainElement(HaveField("OperationID", string(taskNow("deploy-now").UID))))
			Expect(given.Spec.Outcomes).To(ConsistOf(HaveField("OperationID", string(taskNow("deploy-now").UID))), "it goes on, and the scans do not")
		}
		after := taskNow("deploy-now").Status
		Expect(after.Nodes).To(Equal(before.Nodes))
		Expect(after.Patches).To(Equal(before.Patches))
		Expect(after.Failures).To(Equal(before.Failures))
	})

	It("asks about blockers only where they decide, and again after a while", func() {
		addPolicy("workers")
		addNodes("a", "b", "c")
		addTask("deploy-now", deploy(3), func(task *v1alpha1.PatchTask) {
			task.Spec.Template.Rollout.MaxUnavailable = ptr.To(intstr.FromInt(1))
		})
		r, clock := newReconciler()
		guard := &guard{blocked: map[string]bool{"a": true}, asked: map[string]int{}}
		r.Blockers = guard
		step(r, clock, 0, "deploy-now")
		for _, name := range []string{"a", "b", "c"} {
			wait(name, 3)
		}
		step(r, clock, 2*time.Second, "deploy-now")
		Expect(assignmentNow("b").Spec.Operation.AdmittedAt).NotTo(BeNil(), "the place of a goes to b")
		Expect(saysWait("a")).To(Equal(v1alpha1.ReasonBlockedByPod))
		Expect(saysWait("c")).To(Equal(v1alpha1.ReasonBudget))
		Expect(guard.asked).To(Equal(map[string]int{"a": 1, "b": 1}))

		judge("b", v1alpha1.StepDone, v1alpha1.ReasonVerified)
		step(r, clock, 2*time.Second, "deploy-now")
		Expect(guard.asked).To(Equal(map[string]int{"a": 1, "b": 1, "c": 1}), "a was asked about a short time ago")
		judge("c", v1alpha1.StepDone, v1alpha1.ReasonVerified)
		clock.SetTime(clock.Now().Add(2 * time.Second))
		result, err := r.Reconcile(ctx, requestFor("deploy-now"))
		Expect(err).NotTo(HaveOccurred())
		Expect(result.RequeueAfter).To(BeNumerically("~", blockedAgain, 2*time.Second))
		guard.blocked["a"] = false
		step(r, clock, blockedAgain, "deploy-now")
		Expect(assignmentNow("a").Spec.Operation.AdmittedAt).NotTo(BeNil())
	})

	It("comes to all nodes that are blocked, though it may not ask about all at once", func() {
		addPolicy("workers")
		names := make([]string, 0, 50)
		guard := &guard{blocked: map[string]bool{}, asked: map[string]int{}}
		for i := range cap(names) {
			names = append(names, fmt.Sprintf("node-%02d", i))
			guard.blocked[names[i]] = i != 49
		}
		addNodes(names...)
		addTask("deploy-now", deploy(50))
		r, clock := newReconciler()
		r.Blockers = guard
		step(r, clock, 0, "deploy-now")
		for _, name := range names {
			wait(name, 1)
		}
		for range 4 {
			step(r, clock, 2*time.Second, "deploy-now")
		}
		Expect(assignmentNow("node-49").Spec.Operation.AdmittedAt).NotTo(BeNil())
		asked := 0
		for _, times := range guard.asked {
			asked += times
		}
		Expect(asked).To(BeNumerically("<=", 50+4))
	})

	It("takes back why nodes wait when it is stopped, and when it is deleted", func() {
		addPolicy("workers", func(policy *v1alpha1.PatchPolicy) {
			policy.Spec.MaintenanceWindows = []v1alpha1.MaintenanceWindow{windowAt("0 0 29 2 *", "UTC", time.Hour)}
		})
		addNodes("a")
		r, clock := newReconciler()
		for _, name := range []string{"first", "second"} {
			addTask(name, deploy(1))
			step(r, clock, 2*time.Second, name)
			wait("a", 3)
			step(r, clock, 2*time.Second, name)
			Expect(saysWait("a")).To(Equal(v1alpha1.ReasonWindowClosed))
			if name == "first" {
				stop(name, "enough")
				step(r, clock, 2*time.Second, name)
				answer("a", v1alpha1.StepStopped, 0)
			} else {
				Expect(admin.Delete(ctx, taskNow(name))).To(Succeed())
			}
			step(r, clock, 2*time.Second, name)
			Expect(saysWait("a")).To(BeEmpty(), name)
		}
	})
})

var _ = Describe("Two rollouts in a running manager", func() {
	It("never disrupt more nodes than the cluster may miss, though their policies know nothing of each other", func() {
		const nodes, most = 6, 2
		apiserver.RunManager(GinkgoTB(), server.Config, func(mgr ctrl.Manager) error {
			return SetupWithManager(mgr, events, Options{ClusterMaxUnavailable: ptr.To(intstr.FromInt(most))})
		})
		addPolicy("workers")
		addPolicy("databases")
		for i := range nodes {
			addNodes(fmt.Sprintf("worker-%02d", i))
			addNodes(fmt.Sprintf("zdata-%02d", i))
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("zdata-%02d", i)}}
			pool := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"pool":"databases"}}}`))
			Expect(admin.Patch(ctx, node, pool)).To(Succeed())
		}
		peak, stop := rolloutAll(100 * time.Millisecond)
		defer stop()
		addTask("first", deploy(nodes))
		addTask("second", deploy(nodes), func(task *v1alpha1.PatchTask) { task.Spec.Policy = "databases" })
		addTask("third", deploy(nodes))
		Eventually(func(g Gomega) {
			for _, name := range []string{"first", "second", "third"} {
				g.Expect(taskNow(name).Status.Phase).To(Equal(v1alpha1.TaskComplete), taskNow(name).Status.Message)
			}
		}).WithTimeout(90 * time.Second).Should(Succeed())
		Expect(peak()).To(Equal(most))
		Expect(taskNow("third").Status.Nodes.Done).To(BeEquivalentTo(nodes))
	})

	It("go on as soon as a person uncordons a node, or nodepatch has restored one", func() {
		apiserver.RunManager(GinkgoTB(), server.Config, func(mgr ctrl.Manager) error {
			return SetupWithManager(mgr, events, Options{})
		})
		addPolicy("workers")
		addNodes("a", "b")
		selected := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
		Expect(admin.Patch(ctx, selected, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"first":"yes"}}}`)))).To(Succeed())
		change := func(patch string) {
			cordoned := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b"}}
			Expect(admin.Patch(ctx, cordoned, client.RawPatch("application/merge-patch+json", []byte(patch)))).To(Succeed())
		}
		change(`{"spec":{"unschedulable":true},"metadata":{"annotations":{"nodepatch.io/maintenance":"{}"}}}`)
		addTask("deploy-now", deploy(1), func(task *v1alpha1.PatchTask) {
			task.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"first": "yes"}}
		})
		Eventually(func() *v1alpha1.Operation { return assignmentNow("a").Spec.Operation }).ShouldNot(BeNil())
		wait("a", 3)
		Eventually(func() string { return saysWait("a") }).Should(Equal(v1alpha1.ReasonBudget))
		change(`{"spec":{"unschedulable":null}}`)
		Consistently(func() *metav1.Time { return assignmentNow("a").Spec.Operation.AdmittedAt }, "2s").Should(BeNil(), "it is not yet restored")
		change(`{"metadata":{"annotations":null}}`)
		Eventually(func() *metav1.Time { return assignmentNow("a").Spec.Operation.AdmittedAt }).ShouldNot(BeNil())
	})
})
