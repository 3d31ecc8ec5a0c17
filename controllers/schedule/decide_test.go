package schedule

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// newPolicy is a policy with the task "scan" every day at six.
func newPolicy(tasks ...v1alpha1.NamedTask) *v1alpha1.PatchPolicy {
	if len(tasks) == 0 {
		tasks = []v1alpha1.NamedTask{newNamedTask("scan", "0 6 * * *", "UTC")}
	}
	return &v1alpha1.PatchPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "workers", UID: "5f0c"},
		Spec:       v1alpha1.PatchPolicySpec{NodeSelector: &metav1.LabelSelector{}, Tasks: tasks},
	}
}

func newNamedTask(name, schedule, zone string) v1alpha1.NamedTask {
	return v1alpha1.NamedTask{
		Name: name, Schedule: new(v1alpha1.Schedule(schedule)), TimeZone: v1alpha1.TimeZone(zone),
		Template: v1alpha1.TaskTemplate{Action: v1alpha1.ActionScan},
	}
}

// newRun is the task that the policy made for a run.
func newRun(policy *v1alpha1.PatchPolicy, named string, run time.Time, phase v1alpha1.TaskPhase) *v1alpha1.PatchTask {
	task := newTask(policy, runName(policy.Name, named, run))
	task.CreationTimestamp = metav1.NewTime(run)
	task.Spec.Task = named
	task.Status.Phase = phase
	return task
}

func TestStep(t *testing.T) {
	const key = "0 6 * * * UTC"
	day := func(day, hour, minute int) time.Time { return time.Date(2026, 11, day, hour, minute, 0, 0, time.UTC) }
	next := func(at time.Time) *metav1.Time { return &metav1.Time{Time: at} }
	ran := func(at time.Time, phase v1alpha1.TaskPhase) *v1alpha1.ScheduledRun {
		return &v1alpha1.ScheduledRun{Time: metav1.NewTime(at), Task: runName("workers", "scan", at), Phase: phase}
	}
	announced := v1alpha1.ScheduledTask{Name: "scan", Schedule: key, Next: next(day(23, 6, 0)), Last: ran(day(22, 6, 0), v1alpha1.TaskComplete), Missed: 2}
	with := func(change func(*v1alpha1.ScheduledTask)) *v1alpha1.ScheduledTask {
		state := *announced.DeepCopy()
		change(&state)
		return &state
	}
	same := with(func(*v1alpha1.ScheduledTask) {})
	fourHours := func(o *observation) {
		o.policy.Spec.Tasks[0].StartingDeadline = &metav1.Duration{Duration: 4 * time.Hour}
	}
	deploys := func(o *observation) { o.policy.Spec.Tasks[0].Template.Action = v1alpha1.ActionDeploy }
	tests := map[string]struct {
		was        *v1alpha1.ScheduledTask
		now        time.Time
		change     func(*observation)
		wantBegins time.Time
		want       v1alpha1.ScheduledTask
		wantWake   time.Time
	}{
		"a schedule that is new misses nothing": {
			now:  day(23, 7, 0),
			want: v1alpha1.ScheduledTask{Name: "scan", Schedule: key, Next: next(day(24, 6, 0))}, wantWake: day(24, 6, 0),
		},
		"before the time": {was: same, now: day(23, 5, 59), want: *same, wantWake: day(23, 6, 0)},
		"at the time": {
			was: same, now: day(23, 6, 0), wantBegins: day(23, 6, 0), wantWake: day(24, 6, 0),
			want: *with(func(s *v1alpha1.ScheduledTask) { s.Next, s.Last = next(day(24, 6, 0)), ran(day(23, 6, 0), "") }),
		},
		"a run that was missed is made up": {
			was: same, now: day(23, 20, 0), wantBegins: day(23, 6, 0), wantWake: day(24, 6, 0),
			want: *with(func(s *v1alpha1.ScheduledTask) { s.Next, s.Last = next(day(24, 6, 0)), ran(day(23, 6, 0), "") }),
		},
		"of several that were missed the last one is": {
			was: same, now: day(27, 7, 0), wantBegins: day(27, 6, 0), wantWake: day(28, 6, 0),
			want: *with(func(s *v1alpha1.ScheduledTask) {
				s.Next, s.Last, s.Missed = next(day(28, 6, 0)), ran(day(27, 6, 0), ""), 6
			}),
		},
		"within the starting deadline": {
			was: same, now: day(23, 10, 0), change: fourHours, wantBegins: day(23, 6, 0), wantWake: day(24, 6, 0),
			want: *with(func(s *v1alpha1.ScheduledTask) { s.Next, s.Last = next(day(24, 6, 0)), ran(day(23, 6, 0), "") }),
		},
		"after the starting deadline": {
			was: same, now: day(24, 10, 1), change: fourHours, wantWake: day(25, 6, 0),
			want: *with(func(s *v1alpha1.ScheduledTask) {
				s.Next, s.Missed = next(day(25, 6, 0)), 4
				s.Message = "The run of 2026-11-24T06:00:00Z could not begin within its startingDeadline of 4h0m0s"
			}),
		},
		"a deployment that no window holds, four hours late": {
			was: same, now: day(23, 10, 0), change: deploys, wantBegins: day(23, 6, 0), wantWake: day(24, 6, 0),
			want: *with(func(s *v1alpha1.ScheduledTask) { s.Next, s.Last = next(day(24, 6, 0)), ran(day(23, 6, 0), "") }),
		},
		"a deployment that no window holds, later": {
			was: same, now: day(23, 10, 1), change: deploys, wantWake: day(24, 6, 0),
			want: *with(func(s *v1alpha1.ScheduledTask) {
				s.Next, s.Missed = next(day(24, 6, 0)), 3
				s.Message = "The run of 2026-11-23T06:00:00Z could not begin within 4h0m0s, " +
					"which is how late a deployment without maintenance windows may be; set its startingDeadline to allow more"
			}),
		},
		"a deployment that windows hold begins at any time": {
			was: same, now: day(23, 20, 0), wantBegins: day(23, 6, 0), wantWake: day(24, 6, 0),
			change: func(o *observation) {
				deploys(o)
				o.policy.Spec.MaintenanceWindows = []v1alpha1.MaintenanceWindow{{Schedule: "0 1 * * SAT", Duration: metav1.Duration{Duration: time.Hour}}}
			},
			want: *with(func(s *v1alpha1.ScheduledTask) { s.Next, s.Last = next(day(24, 6, 0)), ran(day(23, 6, 0), "") }),
		},
		"a deployment that may be later": {
			was: same, now: day(23, 20, 0), wantBegins: day(23, 6, 0), wantWake: day(24, 6, 0),
			change: func(o *observation) {
				deploys(o)
				o.policy.Spec.Tasks[0].StartingDeadline = &metav1.Duration{Duration: 24 * time.Hour}
			},
			want: *with(func(s *v1alpha1.ScheduledTask) { s.Next, s.Last = next(day(24, 6, 0)), ran(day(23, 6, 0), "") }),
		},
		"a download may always be late": {
			was: same, now: day(23, 20, 0), wantBegins: day(23, 6, 0), wantWake: day(24, 6, 0),
			change: func(o *observation) { o.policy.Spec.Tasks[0].Template.Action = v1alpha1.ActionDownload },
			want:   *with(func(s *v1alpha1.ScheduledTask) { s.Next, s.Last = next(day(24, 6, 0)), ran(day(23, 6, 0), "") }),
		},
		"while the one before goes on": {
			was: same, now: day(23, 6, 0),
			change: func(o *observation) {
				o.tasks = append(o.tasks, newRun(o.policy, "scan", day(22, 6, 0), v1alpha1.TaskRunning))
			},
			want: *with(func(s *v1alpha1.ScheduledTask) {
				s.Last.Phase = v1alpha1.TaskRunning
				s.Message = "The run of 2026-11-23T06:00:00Z waits for the task " + runName("workers", "scan", day(22, 6, 0)) + " to end"
			}),
		},
		"while one that a person started goes on, until the deadline": {
			was: same, now: day(23, 6, 0),
			change: func(o *observation) {
				fourHours(o)
				task := newRun(o.policy, "scan", day(22, 6, 0), "")
				task.Name, task.OwnerReferences = "by-hand", nil
				o.tasks = append(o.tasks, task)
			},
			wantWake: day(23, 10, 0).Add(time.Second),
			want: *with(func(s *v1alpha1.ScheduledTask) {
				s.Message = "The run of 2026-11-23T06:00:00Z waits for the task by-hand to end"
			}),
		},
		"another task of the policy is no hindrance": {
			was: same, now: day(23, 6, 0), wantBegins: day(23, 6, 0), wantWake: day(24, 6, 0),
			change: func(o *observation) {
				o.tasks = append(o.tasks, newRun(o.policy, "other", day(22, 6, 0), v1alpha1.TaskRunning))
			},
			want: *with(func(s *v1alpha1.ScheduledTask) { s.Next, s.Last = next(day(24, 6, 0)), ran(day(23, 6, 0), "") }),
		},
		"suspended": {
			was: same, now: day(23, 6, 0), change: func(o *observation) { o.policy.Spec.Suspend = true },
			want: *with(func(s *v1alpha1.ScheduledTask) { s.Next = nil }),
		},
		"after a suspension nothing is made up": {
			was: with(func(s *v1alpha1.ScheduledTask) { s.Next = nil }), now: day(23, 7, 0), wantWake: day(24, 6, 0),
			want: *with(func(s *v1alpha1.ScheduledTask) { s.Next = next(day(24, 6, 0)) }),
		},
		"nor is a run of a schedule that was changed": {
			was: with(func(s *v1alpha1.ScheduledTask) { s.Schedule = "0 5 * * * UTC" }), now: day(23, 7, 0), wantWake: day(24, 6, 0),
			want: *with(func(s *v1alpha1.ScheduledTask) { s.Next = next(day(24, 6, 0)) }),
		},
		"a policy without nodes runs nothing": {
			was: same, now: day(23, 6, 0), change: func(o *observation) { o.governs = false }, wantWake: day(24, 6, 0),
			want: *with(func(s *v1alpha1.ScheduledTask) {
				s.Next, s.Message = next(day(24, 6, 0)), "The run of 2026-11-23T06:00:00Z was left out, as the policy governs no node"
			}),
		},
		"a day that never comes": {
			was: same, now: day(23, 6, 0),
			change: func(o *observation) { o.policy.Spec.Tasks[0].Schedule = new(v1alpha1.Schedule("0 6 30 2 *")) },
			want:   *with(func(s *v1alpha1.ScheduledTask) { s.Schedule, s.Next = "0 6 30 2 * UTC", nil }),
		},
		"a time zone that is not known": {
			was: same, now: day(23, 6, 0), change: func(o *observation) { o.policy.Spec.Tasks[0].TimeZone = "Mars/Olympus" },
			want: *with(func(s *v1alpha1.ScheduledTask) { s.Schedule, s.Next = "0 6 * * * Mars/Olympus", nil }),
		},
		"a manager that died before it wrote what it began": {
			was: same, now: day(23, 6, 1), wantWake: day(24, 6, 0),
			change: func(o *observation) {
				o.tasks = append(o.tasks, newRun(o.policy, "scan", day(23, 6, 0), v1alpha1.TaskRunning))
			},
			want: *with(func(s *v1alpha1.ScheduledTask) {
				s.Next, s.Last = next(day(24, 6, 0)), ran(day(23, 6, 0), v1alpha1.TaskRunning)
			}),
		},
		"a run that was deleted is not begun again": {
			was: with(func(s *v1alpha1.ScheduledTask) {
				s.Next, s.Last = next(day(24, 6, 0)), ran(day(23, 6, 0), v1alpha1.TaskRunning)
			}),
			now: day(23, 6, 1), wantWake: day(24, 6, 0),
			want: *with(func(s *v1alpha1.ScheduledTask) {
				s.Next, s.Last = next(day(24, 6, 0)), ran(day(23, 6, 0), v1alpha1.TaskRunning)
			}),
		},
		"the clock was set back": {
			was: with(func(s *v1alpha1.ScheduledTask) { s.Next, s.Last = next(day(24, 6, 0)), ran(day(23, 6, 0), "") }),
			now: day(23, 4, 0), wantWake: day(24, 6, 0),
			want: *with(func(s *v1alpha1.ScheduledTask) { s.Next, s.Last = next(day(24, 6, 0)), ran(day(23, 6, 0), "") }),
		},
		"the clock had been years ahead": {
			was: with(func(s *v1alpha1.ScheduledTask) {
				s.Next, s.Last = next(day(24, 6, 0).AddDate(9, 0, 0)), ran(day(23, 6, 0).AddDate(9, 0, 0), "")
			}),
			now: day(23, 4, 0), wantWake: day(23, 6, 0),
			want: *with(func(s *v1alpha1.ScheduledTask) {
				s.Next, s.Last = next(day(23, 6, 0)), ran(day(23, 6, 0).AddDate(9, 0, 0), "")
			}),
		},
		"a jitter that was taken away": {
			was: with(func(s *v1alpha1.ScheduledTask) { s.Next = next(day(23, 6, 40)) }), now: day(23, 6, 20),
			wantBegins: day(23, 6, 0), wantWake: day(24, 6, 0),
			want: *with(func(s *v1alpha1.ScheduledTask) { s.Next, s.Last = next(day(24, 6, 0)), ran(day(23, 6, 0), "") }),
		},
		"two years later": {
			was: same, now: day(23, 7, 0).AddDate(2, 0, 0), wantBegins: day(23, 6, 0).AddDate(2, 0, 0), wantWake: day(24, 6, 0).AddDate(2, 0, 0),
			want: *with(func(s *v1alpha1.ScheduledTask) {
				s.Next, s.Last, s.Missed = next(day(24, 6, 0).AddDate(2, 0, 0)), ran(day(23, 6, 0).AddDate(2, 0, 0), ""), 2+731
			}),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			seen := observation{policy: newPolicy(), governs: true, now: test.now}
			if test.was != nil {
				seen.policy.Status.Tasks = []v1alpha1.ScheduledTask{*test.was.DeepCopy()}
			}
			if test.change != nil {
				test.change(&seen)
			}
			steps := seen.steps()
			if len(steps) != 1 {
				t.Fatalf("%d steps", len(steps))
			}
			if diff := cmp.Diff(test.want, steps[0].state); diff != "" {
				t.Errorf("says (-want +got):\n%s", diff)
			}
			if got := steps[0].begins; !got.Equal(test.wantBegins) {
				t.Errorf("begins the run of %s, want %s", got, test.wantBegins)
			}
			if got := steps[0].wake; !got.Equal(test.wantWake) {
				t.Errorf("looks again at %s, want %s", got, test.wantWake)
			}
			if test.was != nil {
				if diff := cmp.Diff(*test.was, seen.policy.Status.Tasks[0]); diff != "" {
					t.Errorf("changed what it looked at:\n%s", diff)
				}
			}
		})
	}
}

// TestMonthsOfRuns goes through three months with 64 tasks, one of which often runs for
// days, with looks at odd times, managers that stand still, and a clock that is
// set back: every run begins once or is counted as missed.
func TestMonthsOfRuns(t *testing.T) {
	zones := []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"}
	var named []v1alpha1.NamedTask
	for i := range 64 {
		task := newNamedTask(fmt.Sprintf("t%d", i), fmt.Sprintf("%d %d * * %d", i*7%60, i%24, i%7), zones[i%4])
		task.Jitter = &metav1.Duration{Duration: time.Duration(i) * time.Minute}
		named = append(named, task)
	}
	policy := newPolicy(named...)
	random := rand.New(rand.NewPCG(5, 5))
	start := time.Date(2026, 2, 20, 0, 0, 0, 0, time.UTC)
	now, furthest := start, start
	begun := map[string]time.Time{}
	running := map[string]*v1alpha1.PatchTask{}
	for now.Before(start.AddDate(0, 3, 0)) {
		seen := observation{policy: policy, tasks: slices.Collect(maps.Values(running)), governs: true, now: now}
		wake := now.Add(24 * time.Hour)
		var states []v1alpha1.ScheduledTask
		for _, s := range seen.steps() {
			if s.was == nil && now.After(start) {
				t.Fatalf("%s is not known any more", s.task.Name)
			}
			states = append(states, s.state)
			wake = earlier(wake, s.wake)
			if s.begins.IsZero() {
				continue
			}
			name := s.state.Last.Task
			if before, twice := begun[name]; twice {
				t.Fatalf("the run %s begins at %s, and at %s again", name, before, now)
			}
			begun[name] = now
			delete(running, s.task.Name)
			if s.task.Name == "t3" && random.IntN(3) == 0 {
				running[s.task.Name] = newRun(policy, s.task.Name, s.begins, v1alpha1.TaskRunning)
			}
		}
		policy.Status.Tasks = states
		if !wake.After(now) {
			t.Fatalf("at %s it looks again at %s", now, wake)
		}
		switch random.IntN(40) {
		case 0:
			now = wake.Add(time.Duration(random.IntN(20*24)) * time.Hour)
		case 1:
			now = now.Add(-time.Duration(random.IntN(8*3600)) * time.Second)
		case 2:
			now = now.Add(time.Duration(random.Int64N(int64(wake.Sub(now)))))
		case 3:
			clear(running)
		default:
			now = wake
		}
		furthest = latest(furthest, now)
	}
	ends := observation{policy: policy, governs: true, now: furthest}
	for _, s := range ends.steps() {
		if !s.begins.IsZero() {
			begun[s.state.Last.Task] = furthest
		}
		timetable, err := newTimetable(policy.UID, s.task)
		if err != nil {
			t.Fatal(err)
		}
		began := 0
		for name := range begun {
			if strings.HasPrefix(name, "workers-"+s.task.Name+"-") {
				began++
			}
		}
		due := int(timetable.count(timetable.begun(start.Add(-30*24*time.Hour), start), timetable.begun(start, furthest).Add(time.Second)))
		if missed := int(s.state.Missed); began+missed != due || began < due/4 {
			t.Errorf("%s: %d runs began and %d were missed, of %d", s.task.Name, began, missed, due)
		}
	}
}

func TestTakenName(t *testing.T) {
	seen := observation{policy: newPolicy(), governs: true, now: time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)}
	seen.policy.Status.Tasks = []v1alpha1.ScheduledTask{{Name: "scan", Schedule: "0 6 * * * UTC", Next: &metav1.Time{Time: seen.now}}}
	s := seen.steps()[0]
	s.refuse()
	want := "The run of 2026-11-23T06:00:00Z could not begin, as there is a PatchTask workers-scan-29923560 already that this policy did not make"
	if s.state.Message != want || s.state.Missed != 1 || s.state.Last != nil || s.state.Next == nil {
		t.Errorf("says %+v", s.state)
	}
}
