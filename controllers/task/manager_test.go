package task

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

var _ = Describe("A task in a running manager", func() {
	BeforeEach(func() {
		apiserver.RunManager(GinkgoTB(), server.Config, func(mgr ctrl.Manager) error {
			return SetupWithManager(mgr, events, Options{})
		})
	})

	It("never has more nodes scan than allowed, though its cache lags, and comes to all of them", func() {
		const nodes, limit = 24, 3
		addPolicy("workers")
		for i := range nodes {
			addNodes(fmt.Sprintf("node-%02d", i))
		}
		most, stop := answerAll(30 * time.Millisecond)
		defer stop()
		addTask("scan-now", parallel(limit))
		Eventually(func(g Gomega) {
			g.Expect(taskNow("scan-now").Status.Phase).To(Equal(v1alpha1.TaskComplete), taskNow("scan-now").Status.Message)
		}).WithTimeout(60 * time.Second).Should(Succeed())
		Expect(most()).To(Equal(limit))
		Expect(taskNow("scan-now").Status.Nodes.Done).To(BeEquivalentTo(nodes))
	})

	It("begins when its policy, its task and its nodes come after it", func() {
		addTask("scan-now")
		Eventually(func() v1alpha1.TaskPhase { return taskNow("scan-now").Status.Phase }).
			Should(Equal(v1alpha1.TaskPending), "it waits for its policy")
		addNodes("a")
		addPolicy("workers")
		Eventually(func() *v1alpha1.Operation { return assignmentNow("a").Spec.Operation }).ShouldNot(BeNil())
	})

	It("goes on when a policy is no longer suspended", func() {
		policy := addPolicy("workers", func(policy *v1alpha1.PatchPolicy) { policy.Spec.Suspend = true })
		addNodes("a")
		addTask("scan-now")
		Eventually(func() string { return taskNow("scan-now").Status.Message }).
			Should(Equal("The policy workers is suspended; the task begins when it no longer is"))
		resume := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"suspend":false}}`))
		Expect(admin.Patch(ctx, policy, resume)).To(Succeed())
		Eventually(func() *v1alpha1.Operation { return assignmentNow("a").Spec.Operation }).ShouldNot(BeNil())
	})

	It("gives a node its part as soon as its agent is there, or another task is over", func() {
		addPolicy("workers")
		addNodes("a", "b")
		setAgent("a", v1alpha1.AgentAbsent)
		addTask("first")
		Eventually(func() *v1alpha1.Operation { return assignmentNow("b").Spec.Operation }).ShouldNot(BeNil())
		Expect(assignmentNow("a").Spec.Operation).To(BeNil())
		setAgent("a", v1alpha1.AgentReady)
		Eventually(func() *v1alpha1.Operation { return assignmentNow("a").Spec.Operation }).ShouldNot(BeNil())

		addTask("second")
		Eventually(func() string { return taskNow("second").Status.Message }).
			Should(Equal("0 of 2 nodes scanned; 2 waiting (a Busy, b Busy)"))
		stop("first", "enough")
		Eventually(func(g Gomega) {
			for _, name := range []string{"a", "b"} {
				g.Expect(assignmentNow(name).Spec.Operation.Stop).To(Equal("enough"))
			}
		}).Should(Succeed(), "its nodes are told")
		for _, name := range []string{"a", "b"} {
			answer(name, v1alpha1.StepStopped, 0)
		}
		Eventually(func(g Gomega) {
			for _, name := range []string{"a", "b"} {
				operation := assignmentNow(name).Spec.Operation
				g.Expect(operation).NotTo(BeNil())
				g.Expect(operation.Task).To(Equal("second"))
			}
		}).Should(Succeed(), "a task that was stopped leaves its nodes")
	})

	It("looks again when a time is over, though nothing happens", func() {
		addPolicy("workers")
		addNodes("a")
		addTask("scan-now", func(task *v1alpha1.PatchTask) {
			task.Spec.Task = ""
			task.Spec.Template = &v1alpha1.TaskTemplate{
				Action: v1alpha1.ActionScan,
				Scan:   v1alpha1.ScanOptions{Timeout: metav1.Duration{Duration: 10 * time.Second}},
			}
			task.Spec.TTLAfterFinished = &metav1.Duration{Duration: 2 * time.Second}
		})
		Eventually(func() v1alpha1.TaskPhase { return taskNow("scan-now").Status.Phase }).Should(Equal(v1alpha1.TaskRunning))
		Eventually(func() string { return taskNow("scan-now").Status.Message }).WithTimeout(15 * time.Second).
			Should(Equal("0 of 1 node scanned; 1 failed"))
		Eventually(func() error {
			return admin.Get(ctx, client.ObjectKey{Name: "scan-now"}, &v1alpha1.PatchTask{})
		}).Should(MatchError(ContainSubstring("not found")), "its ttlAfterFinished is over")
	})
})

// answerAll plays all nodes' agents: each answers its operation after a while.
// It returns the most operations it saw at once, as the API server has them.
func answerAll(after time.Duration) (most func() int, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	var peak atomic.Int64
	tick := time.NewTicker(5 * time.Millisecond)
	group.Go(func() {
		defer GinkgoRecover()
		seen := map[string]time.Time{}
		for ctx.Err() == nil {
			var list v1alpha1.PatchAssignmentList
			Expect(client.IgnoreNotFound(admin.List(context.WithoutCancel(ctx), &list))).To(Succeed())
			open := int64(0)
			for i := range list.Items {
				given := &list.Items[i]
				operation := given.Spec.Operation
				if operation == nil || assignment.Outcome(given, operation.ID) != nil {
					continue
				}
				open++
				if seen[given.Name].IsZero() {
					seen[given.Name] = time.Now()
				}
				if time.Since(seen[given.Name]) >= after {
					answer(given.Name, v1alpha1.StepDone, 1)
				}
			}
			peak.Store(max(peak.Load(), open))
			<-tick.C
		}
	})
	return func() int { return int(peak.Load()) }, func() { cancel(); group.Wait(); tick.Stop() }
}

// rolloutAll plays all nodes' agents and the part of the manager that disrupts
// nodes: each node is ready at once, and is done a while after it was admitted.
// It returns the most nodes that it saw disrupted at once.
func rolloutAll(after time.Duration) (most func() int, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	var peak atomic.Int64
	group.Go(func() {
		defer GinkgoRecover()
		seen := map[string]time.Time{}
		for ctx.Err() == nil {
			var list v1alpha1.PatchAssignmentList
			Expect(client.IgnoreNotFound(admin.List(context.WithoutCancel(ctx), &list))).To(Succeed())
			disrupted := int64(0)
			for i := range list.Items {
				given := &list.Items[i]
				operation, agent := given.Spec.Operation, given.Status.Agent
				switch {
				case operation == nil:
				case operation.AdmittedAt == nil && (agent == nil || agent.OperationID != operation.ID):
					wait(given.Name, 3)
				case operation.AdmittedAt != nil:
					disrupted++
					key := given.Name + operation.ID
					if seen[key].IsZero() {
						seen[key] = time.Now()
					}
					if time.Since(seen[key]) >= after {
						judge(given.Name, v1alpha1.StepDone, v1alpha1.ReasonVerified)
					}
				}
			}
			peak.Store(max(peak.Load(), disrupted))
			time.Sleep(5 * time.Millisecond)
		}
	})
	return func() int { return int(peak.Load()) }, func() { cancel(); group.Wait() }
}

func setAgent(node string, presence v1alpha1.AgentPresence) {
	GinkgoHelper()
	assignment := assignmentNow(node)
	assignment.Status.Controller = &v1alpha1.ControllerStatus{Agent: presence}
	Expect(admin.Status().Update(ctx, assignment)).To(Succeed())
}
