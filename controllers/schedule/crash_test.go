package schedule

import (
	"fmt"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver/specs"
)

// ending is what there is to see after two days.
type ending struct {
	Tasks  []string
	Runs   map[string]int
	Told   []string
	Status v1alpha1.PatchPolicyStatus
}

// takeThrough has two days of a policy with two tasks kept by managers, of which
// the first one has a mishap at one of its writes.
func takeThrough(victim *specs.Process) ending {
	GinkgoHelper()
	policy := newPolicy(newNamedTask("scan", "0 6 * * *", "UTC"), newNamedTask("deploy", "0 6 * * MON", "UTC"))
	policy.Spec.History = v1alpha1.HistoryLimits{Succeeded: new(int32(1)), Failed: new(int32(1))}
	govern(policy)
	end := ending{Runs: map[string]int{}}
	existing := map[string]bool{}
	current := victim
	clock := testingclock.NewFakePassiveClock(six)
	for _, after := range []time.Duration{-time.Hour, 0, 48 * time.Hour, 48*time.Hour + time.Minute} {
		clock.SetTime(six.Add(after))
		Eventually(func() error {
			if current.Killed() {
				current = &specs.Process{At: -1}
			}
			current.Log = events
			r := &Scheduler{Client: current.Client(manager, nil), Log: current, Clock: clock}
			result, err := r.Reconcile(ctx, request("workers"))
			for _, name := range tasks() {
				if !existing[name] {
					existing[name] = true
					end.Runs[name]++
				}
			}
			if err == nil && result.RequeueAfter == afterConflict {
				err = fmt.Errorf("somebody else wrote first")
			}
			return err
		}).Should(Succeed())
		remaining := tasks()
		for name := range existing {
			// A name that comes back after it was pruned is a run that began twice.
			existing[name] = existing[name] && slices.Contains(remaining, name)
		}
		for _, name := range remaining {
			finish(name, v1alpha1.TaskComplete)
		}
	}
	end.Tasks, end.Told, end.Status = tasks(), told(policy), policyNow("workers").Status
	removeAll()
	return end
}

var _ = Describe("A manager that dies, or whose API server does", func() {
	It("begins every run once, and keeps the history, whichever write it happens to", func() {
		undisturbed := &specs.Process{At: -1}
		want := takeThrough(undisturbed)
		monday, wednesday := runName("workers", "scan", six), runName("workers", "scan", six.AddDate(0, 0, 2))
		deploy := runName("workers", "deploy", six)
		Expect(want.Runs).To(Equal(map[string]int{monday: 1, wednesday: 1, deploy: 1}))
		Expect(want.Tasks).To(Equal([]string{deploy, wednesday}))
		for _, task := range want.Status.Tasks {
			Expect(task.Missed).To(BeEquivalentTo(map[string]int{"scan": 1, "deploy": 0}[task.Name]))
			Expect(task.Last).To(HaveValue(HaveField("Phase", v1alpha1.TaskComplete)))
		}
		Expect(want.Told).To(ConsistOf("Task scan: Runs that did not begin before that of 2026-11-25T06:00:00Z: 1"))
		writes := undisturbed.Writes()
		Expect(writes).To(BeNumerically(">=", 7))
		for number := range writes {
			for _, mishap := range specs.Mishaps {
				got := takeThrough(&specs.Process{At: number, Mishap: mishap})
				Expect(got).To(Equal(want), fmt.Sprintf("write %d: %s", number, mishap))
			}
		}
	})

	It("scans overdue nodes once", func() {
		for _, mishap := range specs.Mishaps {
			victim := &specs.Process{At: 0, Mishap: mishap}
			comeBack("one", "two")
			policy := newPolicy()
			policy.UID, policy.Spec.MaxScanAge = "", &metav1.Duration{Duration: month}
			Expect(admin.Create(ctx, policy)).To(Succeed())
			current, clock := victim, testingclock.NewFakePassiveClock(time.Now().Add(month+24*time.Hour))
			for range 4 {
				if current.Killed() {
					current = &specs.Process{At: -1}
				}
				r := &Overdue{Client: current.Client(manager, nil), Clock: clock}
				_, _ = r.Reconcile(ctx, pass{}) // What matters is what it comes to.
				clock.SetTime(clock.Now().Add(2 * time.Minute))
			}
			Expect(victim.Struck()).NotTo(BeEmpty())
			Expect(tasks()).To(HaveLen(1), string(mishap))
			removeAll()
		}
	})
})

var _ = Describe("Overdue nodes", func() {
	It("are scanned when they are back, by one task of the policy's own", func() {
		comeBack("one", "two", "three")
		policy := newPolicy()
		policy.UID, policy.Spec.MaxScanAge = "", &metav1.Duration{Duration: month}
		policy.Spec.ManualTasks = v1alpha1.ManualTasksDenied
		Expect(admin.Create(ctx, policy)).To(Succeed())
		setReady("three", false)

		// 31 days later by the manager's clock, and soon the next minute.
		later := time.Now().Add(month + 24*time.Hour).Truncate(time.Minute).Add(50 * time.Second)
		runManager(time.Until(later), withTasks)
		Eventually(tasks).Should(HaveLen(1))
		first := taskNow(tasks()[0])
		Expect(first.Spec.Nodes).To(Equal([]string{"one", "two"}))
		Expect(metav1.IsControlledBy(first, policy)).To(BeTrue())
		Eventually(func() v1alpha1.PatchTaskStatus { return taskNow(first.Name).Status }).Should(And(
			HaveField("Trigger", v1alpha1.TriggerOverdue), HaveField("Phase", v1alpha1.TaskRunning),
			HaveField("Nodes", HaveValue(HaveField("Total", BeEquivalentTo(2))))))

		// Another one comes back: it gets a task of its own.
		setReady("three", true)
		Eventually(tasks).WithTimeout(80 * time.Second).Should(HaveLen(2))
		for _, name := range tasks() {
			if name != first.Name {
				Expect(taskNow(name).Spec.Nodes).To(Equal([]string{"three"}))
			}
		}
		Consistently(tasks, "3s").Should(HaveLen(2), "nothing is scanned twice")
	})
})

func taskNow(name string) *v1alpha1.PatchTask {
	GinkgoHelper()
	task := &v1alpha1.PatchTask{}
	Expect(admin.Get(ctx, client.ObjectKey{Name: name}, task)).To(Succeed())
	return task
}
