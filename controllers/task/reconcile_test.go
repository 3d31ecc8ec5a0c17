package task

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

var _ = Describe("A task, at a time that the test sets", func() {
	It("scans the policy's nodes with one write for each of them", func() {
		addPolicy("workers")
		addNodes("a", "b")
		addTask("scan-now")
		r, clock := newReconciler()

		step(r, clock, 0, "scan-now")
		running := taskNow("scan-now")
		Expect(running.Status.Phase).To(Equal(v1alpha1.TaskRunning))
		Expect(running.Status.Message).To(Equal("0 of 2 nodes scanned; 2 scanning"))
		Expect(running.Status.Template.Scan.Timeout.Duration).To(Equal(30 * time.Minute))
		Expect(running.Status.ObservedGeneration).To(BeEquivalentTo(1))
		operation := assignmentNow("a").Spec.Operation
		Expect(operation.ID).To(BeEquivalentTo(running.UID))
		Expect(operation.Task).To(Equal("scan-now"))
		Expect(operation.Deadline.Sub(operation.AssignedAt.Time)).To(Equal(30 * time.Minute))
		Expect(assignmentNow("a").Generation).To(BeEquivalentTo(2))

		answer("a", v1alpha1.StepDone, 3)
		step(r, clock, 2*time.Second, "scan-now")
		Expect(taskNow("scan-now").Status.Nodes.Done).To(BeEquivalentTo(1))
		answer("b", v1alpha1.StepDone, 4)
		step(r, clock, 2*time.Second, "scan-now")

		complete := taskNow("scan-now")
		Expect(complete.Status.Phase).To(Equal(v1alpha1.TaskComplete))
		Expect(complete.Status.Message).To(Equal("2 of 2 nodes scanned: 7 patches missing, none of them security"))
		Expect(complete.Status.CompletionTime).NotTo(BeNil())
		Expect(written()).To(Equal([]string{"TaskFinished", "TaskStarted"}))
		Expect(logged(complete)).To(Equal([]string{"TaskStarted", "TaskFinished"}))
		for _, name := range []string{"a", "b"} {
			Expect(assignmentNow(name).Generation).To(BeEquivalentTo(2), "an operation that ended is left as it is")
			Expect(assignmentNow(name).Spec.Policy).To(Equal("workers"))
		}
	})

	It("does not look at a task again at once, and at one of many nodes once a second", func() {
		Expect(breather(3)).To(Equal(shortInterval))
		Expect(breather(500)).To(Equal(interval / 2))
		Expect(breather(5000)).To(Equal(interval))
		addPolicy("workers")
		addNodes("a")
		addTask("scan-now")
		r, clock := newReconciler()
		step(r, clock, 0, "scan-now")
		answer("a", v1alpha1.StepDone, 0)

		clock.SetTime(clock.Now().Add(40 * time.Millisecond))
		result, err := r.Reconcile(ctx, requestFor("scan-now"))
		Expect(err).NotTo(HaveOccurred())
		Expect(result.RequeueAfter).To(BeNumerically("~", 60*time.Millisecond, 5*time.Millisecond))
		Expect(taskNow("scan-now").Status.Phase).To(Equal(v1alpha1.TaskRunning))
		step(r, clock, 60*time.Millisecond, "scan-now")
		Expect(taskNow("scan-now").Status.Phase).To(Equal(v1alpha1.TaskComplete))
	})

	It("writes nothing when nothing happened", func() {
		addPolicy("workers")
		addNodes("a")
		addTask("scan-now")
		r, clock := newReconciler()
		step(r, clock, 0, "scan-now")
		task, assignment := taskNow("scan-now"), assignmentNow("a")
		step(r, clock, 2*time.Second, "scan-now")
		fresh, _ := newReconciler()
		fresh.Clock = clock
		step(fresh, clock, 2*time.Second, "scan-now")
		Expect(taskNow("scan-now").ResourceVersion).To(Equal(task.ResourceVersion))
		Expect(assignmentNow("a").ResourceVersion).To(Equal(assignment.ResourceVersion))
	})

	It("waits a minute for its policy, then is refused", func() {
		addNodes("a")
		addTask("scan-now")
		r, clock := newReconciler()
		step(r, clock, 0, "scan-now")
		waiting := taskNow("scan-now")
		Expect(waiting.Status.Phase).To(Equal(v1alpha1.TaskPending))
		Expect(waiting.Status.Message).To(HavePrefix("There is no PatchPolicy workers; the task waits for it until"))
		Expect(written()).To(BeEmpty())

		step(r, clock, time.Minute+time.Second, "scan-now")
		refused := taskNow("scan-now")
		Expect(refused.Status.Phase).To(Equal(v1alpha1.TaskFailed))
		Expect(written()).To(Equal([]string{"TaskRefused"}))
		addPolicy("workers")
		step(r, clock, time.Minute, "scan-now")
		Expect(taskNow("scan-now").ResourceVersion).To(Equal(refused.ResourceVersion), "a task that ended stays as it is")
	})

	It("begins when its policy comes in time", func() {
		addNodes("a")
		addTask("scan-now")
		r, clock := newReconciler()
		step(r, clock, 0, "scan-now")
		addPolicy("workers")
		step(r, clock, 30*time.Second, "scan-now")
		Expect(taskNow("scan-now").Status.Phase).To(Equal(v1alpha1.TaskRunning))
		Expect(assignmentNow("a").Spec.Operation).NotTo(BeNil())
	})

	It("tells nodes that failed, did not answer and were away apart", func() {
		addPolicy("workers")
		addNodes("done", "failed", "silent", "gone", "away")
		notReady("away")
		addTask("scan-now")
		r, clock := newReconciler()
		step(r, clock, 0, "scan-now")
		answer("done", v1alpha1.StepDone, 1)
		answer("failed", v1alpha1.StepFailed, 0)
		notReady("gone")
		step(r, clock, 2*time.Second, "scan-now")
		Expect(taskNow("scan-now").Status.Phase).To(Equal(v1alpha1.TaskRunning))
		Expect(assignmentNow("away").Spec.Operation).To(BeNil(), "a node that cannot be reached is given nothing")

		step(r, clock, 30*time.Minute, "scan-now")
		failed := taskNow("scan-now")
		Expect(failed.Status.Phase).To(Equal(v1alpha1.TaskFailed))
		Expect(*failed.Status.Nodes).To(Equal(v1alpha1.TaskNodeCounts{Total: 5, Done: 1, Failed: 2, Unreachable: 2}))
		reasons := map[string]string{}
		for _, failure := range failed.Status.Failures {
			reasons[failure.Node] = failure.Reason
		}
		Expect(reasons).To(Equal(map[string]string{
			"failed": v1alpha1.ReasonScanFailed, "silent": v1alpha1.ReasonTimeout,
			"gone": v1alpha1.ReasonNodeNotReady, "away": v1alpha1.ReasonNodeNotReady,
		}))
		Expect(written()).To(Equal([]string{
			"NodeTimedOut silent", "NodeUnreachable away", "NodeUnreachable gone", "TaskFailed", "TaskStarted",
		}))
		Expect(logged(failed)).To(Equal([]string{
			"TaskStarted", "ScanFailed failed", "NodeUnreachable away", "NodeUnreachable gone", "NodeTimedOut silent", "TaskFailed",
		}))
		for name, taken := range map[string]bool{"silent": true, "gone": true, "done": false, "failed": false} {
			Expect(assignmentNow(name).Spec.Operation == nil).To(Equal(taken), "operation of %s", name)
		}
	})

	It("waits for a node that works on another task, and finds its outcome later", func() {
		addPolicy("workers")
		addNodes("a", "b")
		addTask("first")
		r, clock := newReconciler()
		step(r, clock, 0, "first")
		addTask("second")
		step(r, clock, 2*time.Second, "second")
		Expect(taskNow("second").Status.Message).To(Equal("0 of 2 nodes scanned; 2 waiting (a Busy, b Busy)"))

		answer("a", v1alpha1.StepDone, 1)
		step(r, clock, 2*time.Second, "second")
		Expect(assignmentNow("a").Spec.Operation.Task).To(Equal("second"))
		Expect(assignmentNow("b").Spec.Operation.Task).To(Equal("first"))
		answer("a", v1alpha1.StepDone, 2)
		answer("b", v1alpha1.StepDone, 3)
		step(r, clock, 2*time.Second, "first", "second")
		Expect(taskNow("first").Status.Message).To(Equal("2 of 2 nodes scanned: 4 patches missing, none of them security"))
		answer("b", v1alpha1.StepDone, 5)
		step(r, clock, 2*time.Second, "second")
		Expect(taskNow("second").Status.Message).To(Equal("2 of 2 nodes scanned: 7 patches missing, none of them security"))
	})

	It("goes on without a node that is deleted", func() {
		addPolicy("workers")
		addNodes("a", "b")
		addTask("scan-now")
		r, clock := newReconciler()
		step(r, clock, 0, "scan-now")
		answer("a", v1alpha1.StepDone, 0)
		Expect(admin.Delete(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b"}})).To(Succeed())
		step(r, clock, 2*time.Second, "scan-now")
		Expect(taskNow("scan-now").Status.Phase).To(Equal(v1alpha1.TaskComplete))
	})

	It("is deleted when its ttlAfterFinished is over, and not before", func() {
		addPolicy("workers")
		addNodes("a")
		addTask("scan-now", func(task *v1alpha1.PatchTask) {
			task.Spec.TTLAfterFinished = &metav1.Duration{Duration: time.Hour}
		})
		r, clock := newReconciler()
		step(r, clock, 0, "scan-now")
		answer("a", v1alpha1.StepDone, 0)
		step(r, clock, 2*time.Second, "scan-now")
		Expect(taskNow("scan-now").Status.Phase).To(Equal(v1alpha1.TaskComplete))

		clock.SetTime(clock.Now().Add(59 * time.Minute))
		result, err := r.Reconcile(ctx, requestFor("scan-now"))
		Expect(err).NotTo(HaveOccurred())
		Expect(result.RequeueAfter).To(BeNumerically("~", time.Minute, 2*time.Second))
		taskNow("scan-now")
		step(r, clock, 2*time.Minute, "scan-now")
		err = admin.Get(ctx, client.ObjectKey{Name: "scan-now"}, &v1alpha1.PatchTask{})
		Expect(apierrors.IsNotFound(err)).To(BeTrue(), "%v", err)
	})
})
