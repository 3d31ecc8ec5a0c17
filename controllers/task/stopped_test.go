package task

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

var _ = Describe("A task that has to end", func() {
	It("is stopped for good by a person, in their words, once its nodes have ended", func() {
		addPolicy("workers")
		addNodes("a", "b", "c")
		addTask("deploy-now", deploy(2))
		r, clock := newReconciler()
		requests := &apiserver.Requests{}
		watched, err := apiserver.Client(requests.Watch(server.Config))
		Expect(err).NotTo(HaveOccurred())
		r.Client = watched
		step(r, clock, 0, "deploy-now")
		Expect(assignmentNow("c").Spec.Operation).To(BeNil(), "it waits for its turn")
		stop("deploy-now", "wrong cluster")
		step(r, clock, 2*time.Second, "deploy-now")

		stopping := taskNow("deploy-now")
		Expect(stopping.Status.Phase).To(Equal(v1alpha1.TaskRunning))
		Expect(stopping.Status.Message).To(Equal("Stopping (wrong cluster): waiting for a, which ends its scan; b, which ends its scan"))
		for _, name := range []string{"a", "b"} {
			Expect(assignmentNow(name).Spec.Operation.Stop).To(Equal("wrong cluster"))
		}
		stop("deploy-now", "")
		step(r, clock, 2*time.Second, "deploy-now")
		stop("deploy-now", "as I said")
		answer("a", v1alpha1.StepDone, 0)
		step(r, clock, 2*time.Second, "deploy-now")
		Expect(taskNow("deploy-now").Status.Message).To(Equal("Stopping (wrong cluster): waiting for b, which ends its scan"))
		Expect(assignmentNow("c").Spec.Operation).To(BeNil(), "a slot is free, and nobody begins")
		answer("b", v1alpha1.StepStopped, 3)
		step(r, clock, 2*time.Second, "deploy-now")

		stopped := taskNow("deploy-now")
		Expect(stopped.Status.Phase).To(Equal(v1alpha1.TaskStopped))
		Expect(stopped.Status.Message).To(Equal("Stopped (wrong cluster): 1 of 3 nodes patched, 1 stopped after 2 of 5 patches, 1 not begun"))
		Expect(*stopped.Status.Nodes).To(Equal(v1alpha1.TaskNodeCounts{Total: 3, Pending: 1, Done: 1, Stopped: 1}))
		Expect(written()).To(Equal([]string{"TaskStarted", "TaskStopped", "TaskStopping"}))
		Expect(logged(stopped)).To(Equal([]string{"TaskStarted", "DeployStopped b", "TaskStopping", "TaskStopped"}))
		for name, writes := range map[string]int{"a": 2, "b": 2, "c": 0} {
			Expect(requests.To("/patchassignments/"+name)).To(HaveLen(writes), "given, and told to end: %s", name)
		}

		stop("deploy-now", "")
		step(r, clock, time.Minute, "deploy-now")
		Expect(taskNow("deploy-now").Status).To(Equal(stopped.Status))
		Expect(assignmentNow("c").Spec.Operation).To(BeNil())
	})

	It("does not wait for nodes that cannot be reached, nor beyond their deadline", func() {
		addPolicy("workers")
		addNodes("away", "deaf")
		addTask("deploy-now", deploy(2))
		r, clock := newReconciler()
		step(r, clock, 0, "deploy-now")
		stop("deploy-now", "enough")
		notReady("away")
		step(r, clock, 2*time.Second, "deploy-now")
		Expect(assignmentNow("away").Spec.Operation).To(BeNil(), "taken back")
		Expect(assignmentNow("away").Spec.Verdicts).To(ConsistOf(HaveField("Reason", v1alpha1.ReasonNodeNotReady)))
		Expect(taskNow("deploy-now").Status.Message).To(Equal("Stopping (enough): waiting for deaf, which ends its scan"))

		step(r, clock, 3*time.Hour+31*time.Minute, "deploy-now")
		stopped := taskNow("deploy-now")
		Expect(stopped.Status.Phase).To(Equal(v1alpha1.TaskStopped))
		Expect(stopped.Status.Message).To(Equal("Stopped (enough): 0 of 2 nodes patched, 1 failed, 1 could not be reached"))
		Expect(assignmentNow("deaf").Spec.Operation).To(BeNil(), "taken back")
		Expect(written()).To(Equal([]string{"NodeTimedOut deaf", "NodeUnreachable away", "TaskStarted", "TaskStopped", "TaskStopping"}))
	})

	It("ends when its policy is deleted, also if that comes back", func() {
		policy := addPolicy("workers")
		addNodes("a", "b")
		addTask("scan-now", parallel(1))
		r, clock := newReconciler()
		step(r, clock, 0, "scan-now")
		Expect(admin.Delete(ctx, policy)).To(Succeed())
		step(r, clock, 2*time.Second, "scan-now")
		addPolicy("workers")
		const cause = "The policy workers was deleted during the run"
		Expect(assignmentNow("a").Spec.Operation.Stop).To(Equal(cause))
		answer("a", v1alpha1.StepDone, 4)
		step(r, clock, 2*time.Second, "scan-now")
		failed := taskNow("scan-now")
		Expect(failed.Status.Phase).To(Equal(v1alpha1.TaskFailed))
		Expect(failed.Status.Message).To(Equal(cause + ": 1 of 2 nodes scanned, 1 not begun"))
		Expect(failed.Status.Stop).To(HaveValue(HaveField("Reason", v1alpha1.ReasonPolicyDeleted)))
		Expect(assignmentNow("b").Spec.Operation).To(BeNil())
	})
})
