package metrics

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

func TestStepsAreTimedOnce(t *testing.T) {
	r := newRecorder()
	r.begin("workers")
	given := &v1alpha1.PatchAssignment{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: v1alpha1.PatchAssignmentSpec{Policy: "workers"}}
	// Everything is shown twice, as a watch that begins anew would.
	see := func(change func()) {
		change()
		r.seeNode(given.DeepCopy())
		r.seeNode(given.DeepCopy())
	}
	at := func(d time.Duration) *metav1.Time { return new(metav1.NewTime(now.Add(d))) }
	says := func(step v1alpha1.Step, d time.Duration) func() {
		return func() { given.Status.Agent = &v1alpha1.AgentStatus{OperationID: "u", Step: step, Time: at(d)} }
	}
	manager := func(step v1alpha1.Step, d time.Duration) func() {
		return func() {
			given.Status.Controller = &v1alpha1.ControllerStatus{OperationID: "u", Step: step, Since: at(d)}
		}
	}
	see(func() {})
	see(func() {
		given.Spec.Operation = &v1alpha1.Operation{ID: "u", Step: v1alpha1.StepDownloading, AssignedAt: *at(0)}
	})
	see(says(v1alpha1.StepScanning, 15*time.Second)) // it says so late, and again
	see(says(v1alpha1.StepScanning, 18*time.Second))
	see(says(v1alpha1.StepDownloading, 20*time.Second))
	see(says(v1alpha1.StepWaiting, 50*time.Second))
	see(func() { given.Spec.Operation.AdmittedAt = at(3000 * time.Second) })
	see(manager(v1alpha1.StepInstalling, 3001*time.Second))
	see(manager(v1alpha1.StepDraining, 3101*time.Second))
	see(manager(v1alpha1.StepRebooting, 3111*time.Second))
	see(manager(v1alpha1.StepVerifying, 3171*time.Second))
	see(says(v1alpha1.StepDone, 3172*time.Second))
	see(func() {
		given.Spec.Operation = nil
		given.Spec.Verdicts = []v1alpha1.EndedOperation{{OperationID: "u", Step: v1alpha1.StepDone, Time: at(3175 * time.Second)}}
	})
	// A scan, whose agent says nothing before it is done.
	see(func() {
		given.Spec.Operation = &v1alpha1.Operation{ID: "v", Step: v1alpha1.StepScanning, AssignedAt: *at(4000 * time.Second)}
	})
	see(func() {
		given.Status.Agent = &v1alpha1.AgentStatus{OperationID: "v", Step: v1alpha1.StepDone, Time: at(4003 * time.Second)}
	})
	// One that is taken back tells nothing.
	see(func() {
		given.Spec.Operation = &v1alpha1.Operation{ID: "w", Step: v1alpha1.StepScanning, AssignedAt: *at(5000 * time.Second)}
	})
	see(func() { given.Spec.Operation = nil })

	want := map[string]string{
		"Scanning": "23 2", "Downloading": "30 1", "Waiting": "2950 1", "Installing": "100 1", "Draining": "10 1", "Rebooting": "60 1", "Verifying": "4 1",
	}
	got := text(t, still{&snapshot{}, r}, "step_duration_seconds")
	for step, sums := range want {
		sum, count, _ := strings.Cut(sums, " ")
		for _, line := range []string{
			`nodepatch_step_duration_seconds_sum{policy="workers",step="` + step + `"} ` + sum,
			`nodepatch_step_duration_seconds_count{policy="workers",step="` + step + `"} ` + count,
		} {
			if !strings.Contains(got+"\n", line+"\n") {
				t.Errorf("There is no %q in\n%s", line, got)
			}
		}
	}
}

func TestRunsAreCountedOnce(t *testing.T) {
	r := newRecorder()
	r.begin("workers")
	task := func(uid string, phase v1alpha1.TaskPhase) *v1alpha1.PatchTask {
		made := run(uid, phase, "", 0)
		made.UID = "uid-" + made.UID
		made.Status.Patches = &v1alpha1.PatchCounts{Installed: 5}
		return &made
	}
	before := task("before", v1alpha1.TaskComplete)
	before.UID = "before"
	r.seeTask(before, true) // counted by the manager that led before
	r.seeTask(before, false)

	for range 2 {
		r.seeTask(task("u", v1alpha1.TaskRunning), false)
	}
	for range 3 {
		r.seeTask(task("u", v1alpha1.TaskComplete), false)
	}
	// One that began and ended while nobody watched.
	missed := task("missed", v1alpha1.TaskStopped)
	missed.UID = "missed"
	r.seeTask(missed, false)
	refused := task("refused", v1alpha1.TaskFailed)
	refused.UID, refused.Status.StartTime, refused.Status.Patches = "refused", nil, nil
	r.seeTask(refused, false)
	foreign := task("foreign", v1alpha1.TaskFailed)
	foreign.UID, foreign.Spec.Policy = "foreign", "unknown"
	r.seeTask(foreign, false)

	want := `nodepatch_patches_installed_total{policy="workers"} 10
nodepatch_task_results_total{policy="workers",result="Complete"} 1
nodepatch_task_results_total{policy="workers",result="Failed"} 0
nodepatch_task_results_total{policy="workers",result="Refused"} 1
nodepatch_task_results_total{policy="workers",result="Stopped"} 1`
	if got := text(t, still{&snapshot{}, r}, "patches_installed_total", "task_results_total"); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestWhatWasCountedGoesWithItsPolicy(t *testing.T) {
	r := newRecorder()
	r.begin("workers")
	r.begin("others")
	given := &v1alpha1.PatchAssignment{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: v1alpha1.PatchAssignmentSpec{Policy: "workers"}}
	given.Spec.Operation = &v1alpha1.Operation{ID: "u", AssignedAt: ago(time.Hour)}
	r.seeNode(given)
	ended := run("late", v1alpha1.TaskFailed, v1alpha1.ReasonPolicyDeleted, 0)

	r.forget("workers")
	// What ends because the policy is gone does not bring its series back.
	given.Status.Agent = &v1alpha1.AgentStatus{OperationID: "u", Step: v1alpha1.StepStopped, Time: new(ago(0))}
	r.seeNode(given)
	r.seeTask(&ended, false)

	got := text(t, still{&snapshot{}, r})
	if strings.Contains(got, "workers") || !strings.Contains(got, "others") {
		t.Errorf("Only the series of the policy others should be left:\n%s", got)
	}
	r.forgetNode(given)
	r.forgetTask(&ended)
	if len(r.positions)+len(r.finished) > 0 {
		t.Errorf("The recorder still remembers %d nodes and %d tasks", len(r.positions), len(r.finished))
	}
}
