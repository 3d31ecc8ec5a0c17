package schedule

import (
	"fmt"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

var six = time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)

var _ = Describe("The schedule of a policy", func() {
	day := func(n int) time.Time { return six.AddDate(0, 0, n) }
	run := func(n int) string { return runName("workers", "scan", day(n)) }
	state := func() v1alpha1.ScheduledTask {
		GinkgoHelper()
		states := policyNow("workers").Status.Tasks
		Expect(states).To(HaveLen(1))
		return states[0]
	}
	patch := func(body string) {
		GinkgoHelper()
		Expect(admin.Patch(ctx, policyNow("workers"), client.RawPatch(types.MergePatchType, []byte(body)))).To(Succeed())
	}

	It("begins runs when they are due, and keeps as many as the history says", func() {
		policy := newPolicy()
		policy.Spec.History = v1alpha1.HistoryLimits{Succeeded: new(int32(1)), Failed: new(int32(0))}
		govern(policy)
		Expect(look(newScheduler(six.Add(-90*time.Minute)), "workers")).To(Equal(90*time.Minute), "exactly at the next run")
		Expect(tasks()).To(BeEmpty())
		Expect(policyNow("workers").Status.NextRun).To(HaveValue(HaveField("Time", BeTemporally("==", six))))

		Expect(look(newScheduler(six), "workers")).To(Equal(24 * time.Hour))
		Expect(tasks()).To(Equal([]string{run(0)}))
		began := &v1alpha1.PatchTask{}
		Expect(admin.Get(ctx, client.ObjectKey{Name: run(0)}, began)).To(Succeed())
		Expect(began.Spec.Task).To(Equal("scan"))
		Expect(began.Labels).To(HaveKeyWithValue(v1alpha1.PolicyLabel, "workers"))
		Expect(began.OwnerReferences).To(HaveExactElements(metav1.OwnerReference{
			APIVersion: "nodepatch.io/v1alpha1", Kind: "PatchPolicy", Name: "workers", UID: policy.UID, Controller: new(true),
		}), "it goes with the policy, and does not hold its deletion up")

		finish(run(0), v1alpha1.TaskComplete)
		look(newScheduler(six.Add(time.Hour)), "workers")
		Expect(state().Last).To(HaveValue(And(HaveField("Task", run(0)), HaveField("Phase", v1alpha1.TaskComplete))))
		for n := 1; n <= 3; n++ {
			look(newScheduler(day(n)), "workers")
			finish(run(n), map[bool]v1alpha1.TaskPhase{true: v1alpha1.TaskComplete, false: v1alpha1.TaskFailed}[n < 3])
		}
		look(newScheduler(day(3).Add(time.Hour)), "workers")
		Expect(tasks()).To(Equal([]string{run(2)}), "one that succeeded, and none that failed")
		Expect(state().Last).To(HaveValue(HaveField("Phase", v1alpha1.TaskFailed)), "it is known though the task is gone")
	})

	It("runs one at a time, and makes up what was missed once", func() {
		policy := govern(newPolicy())
		look(newScheduler(six.Add(-time.Hour)), "workers")
		look(newScheduler(six), "workers")
		Expect(look(newScheduler(day(1)), "workers")).To(BeZero(), "the end of the task asks for the next look")
		Expect(state().Message).To(ContainSubstring("waits for the task " + run(0) + " to end"))
		look(newScheduler(day(2)), "workers")
		Expect(tasks()).To(Equal([]string{run(0)}))

		finish(run(0), v1alpha1.TaskFailed)
		look(newScheduler(day(2).Add(time.Hour)), "workers")
		Expect(tasks()).To(Equal([]string{run(0), run(2)}))
		Expect(state()).To(And(HaveField("Missed", BeEquivalentTo(1)), HaveField("Message", BeEmpty())))
		Expect(told(policy)).To(ConsistOf(
			"Task scan: The run of 2026-11-24T06:00:00Z waits for the task "+run(0)+" to end",
			"Task scan: The run of 2026-11-25T06:00:00Z waits for the task "+run(0)+" to end",
			"Task scan: Runs that did not begin before that of 2026-11-25T06:00:00Z: 1"))
		finish(run(2), v1alpha1.TaskComplete)
		Expect(look(newScheduler(day(2).Add(2*time.Hour)), "workers")).To(Equal(22 * time.Hour))
		Expect(tasks()).To(Equal([]string{run(0), run(2)}))
	})

	It("leaves out what falls due while the policy is suspended or governs nothing", func() {
		govern(newPolicy())
		look(newScheduler(six.Add(-time.Hour)), "workers")
		patch(`{"spec":{"suspend":true}}`)
		Expect(look(newScheduler(six), "workers")).To(BeZero())
		Expect(state().Next).To(BeNil())
		patch(`{"spec":{"suspend":false}}`)
		Expect(look(newScheduler(six.Add(time.Hour)), "workers")).To(Equal(23 * time.Hour))
		patch(`{"spec":{"nodeSelector":{"matchLabels":{"pool":"none"}}}}`)
		look(newScheduler(day(1)), "workers")
		Expect(state()).To(And(HaveField("Message", ContainSubstring("governs no node")), HaveField("Missed", BeZero())))
		Expect(tasks()).To(BeEmpty())
	})

	It("does nothing twice when the clock is set back", func() {
		govern(newPolicy())
		look(newScheduler(six.Add(-time.Hour)), "workers")
		look(newScheduler(six), "workers")
		Expect(admin.Delete(ctx, &v1alpha1.PatchTask{ObjectMeta: metav1.ObjectMeta{Name: run(0)}})).To(Succeed())
		look(newScheduler(six.Add(-3*time.Hour)), "workers")
		look(newScheduler(six), "workers")
		Expect(tasks()).To(BeEmpty())
		look(newScheduler(day(1)), "workers")
		Expect(tasks()).To(Equal([]string{run(1)}))
	})

	It("does nothing for a policy that is being deleted", func() {
		policy := newPolicy()
		policy.Finalizers = []string{"example.com/held"}
		govern(policy)
		look(newScheduler(six.Add(-time.Hour)), "workers")
		Expect(admin.Delete(ctx, policy)).To(Succeed())
		Expect(look(newScheduler(six), "workers")).To(BeZero())
		Expect(tasks()).To(BeEmpty())
		patch(`{"metadata":{"finalizers":null}}`)
		Expect(look(newScheduler(six), "workers")).To(BeZero(), "and none for one that is gone")
	})

	It("begins a run under another name where a person's task, or another policy's, has its own", func() {
		policy := govern(newPolicy())
		look(newScheduler(six.Add(-time.Hour)), "workers")
		Expect(admin.Create(ctx, &v1alpha1.PatchTask{
			ObjectMeta: metav1.ObjectMeta{Name: run(0)}, Spec: v1alpha1.PatchTaskSpec{Policy: "other", Task: "scan"},
		})).To(Succeed())
		second := secondName(policy, "scan", six)
		for range 2 { // the second manager finds nothing left to do, though the status does not say so
			look(newScheduler(six), "workers")
			Expect(tasks()).To(ConsistOf(run(0), second))
			Expect(state()).To(And(HaveField("Missed", BeZero()), HaveField("Last", HaveValue(And(
				HaveField("Task", second), HaveField("Time.Time", BeTemporally("==", six)))))))
			announced := policyNow("workers")
			announced.Status.Tasks[0].Last, announced.Status.Tasks[0].Next = nil, &metav1.Time{Time: six}
			Expect(admin.Status().Update(ctx, announced)).To(Succeed())
		}
	})

	It("begins a run that fell due when its jitter was lowered", func() {
		policy := newPolicy()
		policy.Spec.Tasks[0].Jitter = &metav1.Duration{Duration: 12 * time.Hour}
		govern(policy)
		look(newScheduler(six.Add(-time.Hour)), "workers")
		announced := state().Next.Time
		Expect(announced).To(BeTemporally(">", six.Add(time.Minute)), "the jitter puts it off")
		patch(`{"spec":{"tasks":[{"name":"scan","schedule":"0 6 * * *","timeZone":"UTC","template":{"action":"Scan"}}]}}`)
		look(newScheduler(six.Add(time.Minute)), "workers")
		Expect(tasks()).To(Equal([]string{run(0)}))
		Expect(state().Message).To(BeEmpty())
	})

	It("does not take a person's tasks for a run", func() {
		policy := govern(newPolicy())
		look(newScheduler(six.Add(-time.Hour)), "workers")
		for _, name := range []string{run(0), secondName(policy, "scan", six)} {
			Expect(admin.Create(ctx, &v1alpha1.PatchTask{
				ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.PatchTaskSpec{Policy: "other", Task: "scan"},
			})).To(Succeed())
		}
		look(newScheduler(six), "workers")
		Expect(state()).To(And(HaveField("Message", ContainSubstring("that this policy did not make")),
			HaveField("Missed", BeEquivalentTo(1)), HaveField("Last", BeNil()),
			HaveField("Next", HaveValue(HaveField("Time", BeTemporally("==", day(1)))))))
	})

	It("begins 64 tasks at once, each with one write, and says so with another one", func() {
		policy := newPolicy()
		policy.Spec.Tasks = nil
		for i := range 64 {
			policy.Spec.Tasks = append(policy.Spec.Tasks, newNamedTask(fmt.Sprintf("t%d", i), "0 6 * * *", "UTC"))
		}
		govern(policy)
		look(newScheduler(six.Add(-time.Hour)), "workers")
		before := len(asked.To("/nodepatch.io/"))
		Expect(look(newScheduler(six), "workers")).To(Equal(24 * time.Hour))
		Expect(asked.To("/nodepatch.io/")).To(HaveLen(before + 65))
		Expect(tasks()).To(HaveLen(64))
		look(newScheduler(six.Add(time.Minute)), "workers")
		Expect(asked.To("/nodepatch.io/")).To(HaveLen(before+65), "nothing changes, and nothing is written")
	})

	It("begins a run once, however many managers do", func() {
		govern(newPolicy())
		look(newScheduler(six.Add(-time.Hour)), "workers")
		var managers sync.WaitGroup
		for range 8 {
			managers.Go(func() {
				defer GinkgoRecover()
				r := newScheduler(six)
				Eventually(func() (time.Duration, error) {
					result, err := r.Reconcile(ctx, request("workers"))
					return result.RequeueAfter, err
				}).Should(Equal(24 * time.Hour))
			})
		}
		managers.Wait()
		Expect(tasks()).To(Equal([]string{run(0)}))
		Expect(state()).To(And(HaveField("Missed", BeZero()), HaveField("Last", HaveValue(HaveField("Task", run(0))))))
	})

	It("is kept by a manager, to the second", func() {
		govern(newPolicy(newNamedTask("scan", "* * * * *", "UTC")))
		now := time.Now()
		const early = 15 * time.Second // for the manager to be there by then
		ahead := six.Add(-early).Sub(now)
		runManager(ahead, withTasks)
		Eventually(tasks).WithTimeout(2 * early).Should(Equal([]string{run(0)}))
		Expect(time.Since(now)).To(BeNumerically(">=", early-time.Second/2))
		Eventually(func() (*v1alpha1.PatchTask, error) {
			began := &v1alpha1.PatchTask{}
			return began, admin.Get(ctx, client.ObjectKey{Name: run(0)}, began)
		}).Should(HaveField("Status.Trigger", v1alpha1.TriggerScheduled))
		Eventually(func() *metav1.Time { return state().Next }).Should(HaveValue(HaveField("Time", BeTemporally("==", six.Add(time.Minute)))))
	})
})
