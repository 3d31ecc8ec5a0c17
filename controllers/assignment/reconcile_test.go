package assignment

import (
	"context"
	"errors"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

// quiet is how long nothing must be written where nothing is to be done.
const quiet = 300 * time.Millisecond

var _ = Describe("What the manager says about a node's agent", func() {
	BeforeEach(runManager)

	It("follows the agent's pod", func() {
		addNode("presence")
		setReady("agent-presence", corev1.ConditionFalse)
		Eventually(presence("presence")).Should(Equal(v1alpha1.ControllerStatus{
			Agent: v1alpha1.AgentNotReady, Reason: v1alpha1.ReasonAgentNotReady,
			Message: "The agent's pod nodepatch-system/agent-presence is not ready",
		}))
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: apiserver.Namespace, Name: "agent-presence"}}
		Expect(admin.Delete(ctx, pod, client.GracePeriodSeconds(0))).To(Succeed())
		Eventually(presence("presence")).Should(HaveField("Agent", v1alpha1.AgentAbsent))
		addPod("agent-again", "presence")
		Eventually(presence("presence")).Should(Equal(v1alpha1.ControllerStatus{Agent: v1alpha1.AgentReady}))
	})

	It("follows the Node", func() {
		addNode("unready")
		setNode("unready", corev1.ConditionUnknown, "NodeStatusUnknown")
		Eventually(presence("unready")).Should(HaveField("Reason", v1alpha1.ReasonNodeNotReady))
		setNode("unready", corev1.ConditionTrue, "KubeletReady")
		Eventually(presence("unready")).Should(Equal(v1alpha1.ControllerStatus{Agent: v1alpha1.AgentReady}))
	})

	It("is written only when it changes, and nothing is in a scan", func() {
		addNode("still")
		task := addTask("still-scan")
		before := len(writes.To("/patchassignments/still"))
		assign("still", task)
		say("still", v1alpha1.StepScanning)
		say("still", v1alpha1.StepDone)
		// As in a cluster, where the task ends because the manager has seen the answer: its watches of tasks and of
		// assignments know no common order.
		Eventually(func(g Gomega) {
			seen := &v1alpha1.PatchAssignment{}
			g.Expect(cached.Get(ctx, client.ObjectKey{Name: "still"}, seen)).To(Succeed())
			g.Expect(seen.Busy()).To(BeFalse())
		}).Should(Succeed())
		setPhase(task, v1alpha1.TaskComplete)
		Expect(admin.Delete(ctx, task)).To(Succeed())
		node := &corev1.Node{}
		Expect(admin.Get(ctx, client.ObjectKey{Name: "still"}, node)).To(Succeed())
		node.Status.Conditions[0].LastHeartbeatTime = metav1.NewTime(time.Now().Add(time.Minute))
		Expect(admin.Status().Update(ctx, node)).To(Succeed())
		setReady("agent-still", corev1.ConditionTrue)
		Consistently(func() int { return len(writes.To("/patchassignments/still")) - before }).WithTimeout(quiet).
			Should(BeZero(), "an operation that ended costs no further write, even if its task goes")
		Expect(operationOf("still")()).NotTo(BeNil())
	})

	It("leaves the agent's half and the task controller's alone", func() {
		addNode("halves")
		task := addTask("halves-scan")
		assign("halves", task)
		say("halves", v1alpha1.StepScanning)
		setReady("agent-halves", corev1.ConditionFalse)
		Eventually(presence("halves")).Should(HaveField("Agent", v1alpha1.AgentNotReady))
		assignment := assignmentNow("halves")
		Expect(assignment.Status.Agent.Step).To(Equal(v1alpha1.StepScanning))
		Expect(assignment.Spec.Policy).To(Equal("workers"))
		Expect(assignment.Spec.Operation.ID).To(BeEquivalentTo(task.UID))
	})
})

var _ = Describe("An operation that no task waits for", func() {
	BeforeEach(runManager)

	It("is taken back when its task is deleted", func() {
		addNode("orphan")
		task := addTask("orphan-scan")
		assign("orphan", task)
		say("orphan", v1alpha1.StepScanning)
		Consistently(operationOf("orphan")).WithTimeout(quiet).ShouldNot(BeNil(), "its task still waits for it")
		Expect(admin.Delete(ctx, task)).To(Succeed())
		Eventually(operationOf("orphan")).Should(BeNil())
		Expect(assignmentNow("orphan").Spec.Policy).To(Equal("workers"))
	})

	It("is taken back when its task has ended", func() {
		addNode("over")
		task := addTask("over-scan")
		assign("over", task)
		setPhase(task, v1alpha1.TaskStopped)
		Eventually(operationOf("over")).Should(BeNil())
	})

	It("is taken back when it comes after its task ended", func() {
		addNode("late")
		task := addTask("late-scan")
		setPhase(task, v1alpha1.TaskFailed)
		assign("late", task)
		Eventually(operationOf("late")).Should(BeNil())
	})

	It("is taken back when another task has its task's name", func() {
		addNode("twin")
		old := addTask("twin-scan")
		Expect(admin.Delete(ctx, old)).To(Succeed())
		addTask("twin-scan")
		assign("twin", old)
		Eventually(operationOf("twin")).Should(BeNil())
	})
})

var _ = Describe("One look at an assignment", func() {
	BeforeEach(runManager)

	It("does not take a task for gone that the cache has not seen", func() {
		addNode("fresh")
		task := addTask("fresh-scan")
		assign("fresh", task)
		r := reconcilerOn(interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
				if _, ok := object.(*v1alpha1.PatchTask); ok {
					return apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource("patchtasks").GroupResource(), key.Name)
				}
				return c.Get(ctx, key, object, options...)
			},
		})
		_, err := r.Reconcile(ctx, assignmentNow("fresh"))
		Expect(err).NotTo(HaveOccurred())
		Expect(operationOf("fresh")()).NotTo(BeNil())
	})

	It("does both its steps, and says what went wrong in each", func() {
		addNode("both")
		assignment := assignmentNow("both")
		assignment.Spec.Operation = &v1alpha1.Operation{
			ID: "gone", Task: "gone", Step: v1alpha1.StepScanning, AssignedAt: metav1.Now(), Deadline: metav1.Now(),
		}
		assignment.Status.Controller = nil
		refuse := errors.New("the API server refuses")
		r := reconcilerOn(interceptor.Funcs{
			SubResourceApply: func(context.Context, client.Client, string, runtime.ApplyConfiguration, ...client.SubResourceApplyOption) error {
				return refuse
			},
			Patch: func(context.Context, client.WithWatch, client.Object, client.Patch, ...client.PatchOption) error {
				return apierrors.NewInternalError(errors.New("no leader"))
			},
		})
		_, err := r.Reconcile(ctx, assignment)
		Expect(err).To(MatchError(refuse))
		Expect(err).To(MatchError(ContainSubstring("taking back the operation of node both")))
	})

	It("leaves an assignment alone that was made anew or written by somebody else", func() {
		addNode("anew")
		old := assignmentNow("anew")
		Expect(admin.Delete(ctx, old)).To(Succeed())
		Expect(admin.Create(ctx, &v1alpha1.PatchAssignment{ObjectMeta: metav1.ObjectMeta{Name: "anew"}})).To(Succeed())
		Eventually(presence("anew")).Should(HaveField("Agent", v1alpha1.AgentReady))
		old.Spec.Operation = &v1alpha1.Operation{ID: "gone", Task: "gone"}
		old.Status.Controller = &v1alpha1.ControllerStatus{Agent: v1alpha1.AgentAbsent}
		before := assignmentNow("anew").ResourceVersion
		_, err := reconcilerOn(interceptor.Funcs{}).Reconcile(ctx, old)
		Expect(err).NotTo(HaveOccurred())
		Expect(assignmentNow("anew").ResourceVersion).To(Equal(before))
	})

	It("is content without the Node, whose assignment goes with it", func() {
		assignment := &v1alpha1.PatchAssignment{ObjectMeta: metav1.ObjectMeta{Name: "nowhere", UID: types.UID("u")}}
		_, err := reconcilerOn(interceptor.Funcs{}).Reconcile(ctx, assignment)
		Expect(err).NotTo(HaveOccurred())
	})
})

// reconcilerOn makes one that reads from the API server itself, with some of
// its requests changed.
func reconcilerOn(funcs interceptor.Funcs) *Reconciler {
	GinkgoHelper()
	base, err := client.NewWithWatch(server.Config, client.Options{Scheme: admin.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	return &Reconciler{Client: interceptor.NewClient(base, funcs), Live: admin, Namespace: apiserver.Namespace, Log: events, Clock: clock.RealClock{}}
}

func setNode(name string, status corev1.ConditionStatus, reason string) {
	GinkgoHelper()
	node := &corev1.Node{}
	Expect(admin.Get(ctx, client.ObjectKey{Name: name}, node)).To(Succeed())
	node.Status.Conditions[0].Status = status
	node.Status.Conditions[0].Reason = reason
	Expect(admin.Status().Update(ctx, node)).To(Succeed())
}
