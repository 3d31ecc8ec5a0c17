package schedule

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/policy"
)

var noon = time.Date(2026, 11, 23, 12, 0, 30, 0, time.UTC)

const month = 30 * 24 * time.Hour

// newFleet is nodes that can be reached and were scanned as long ago as ages say,
// all of one policy whose maxScanAge is 30 days.
func newFleet(ages map[string]time.Duration) *fleet {
	f := &fleet{
		policies:    []v1alpha1.PatchPolicy{*newPolicy()},
		nodes:       map[string]*corev1.Node{},
		reports:     map[string]*v1alpha1.PatchReport{},
		assignments: map[string]*v1alpha1.PatchAssignment{},
		now:         noon,
	}
	f.policies[0].Spec.MaxScanAge = &metav1.Duration{Duration: month}
	for name, age := range ages {
		f.nodes[name] = &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
		}
		f.reports[name] = &v1alpha1.PatchReport{Status: v1alpha1.PatchReportStatus{
			Scan: &v1alpha1.ScanRun{Time: &metav1.Time{Time: noon.Add(-age)}},
		}}
		f.assignments[name] = &v1alpha1.PatchAssignment{Status: v1alpha1.PatchAssignmentStatus{
			Controller: &v1alpha1.ControllerStatus{Agent: v1alpha1.AgentReady},
		}}
	}
	return f
}

// asks makes the decision, and notes who is governed by whom.
func (f *fleet) asks() ([]scan, time.Time) {
	var nodes []corev1.Node
	for _, node := range f.nodes {
		nodes = append(nodes, *node)
	}
	f.membership = policy.Govern(f.policies, nodes)
	return f.scans()
}

// add adds a scan of overdue nodes that was made some time ago.
func (f *fleet) add(ago time.Duration, phase v1alpha1.TaskPhase, nodes ...string) *v1alpha1.PatchTask {
	task := newScan(scan{policy: &f.policies[0], name: scanName("workers", f.now.Add(-ago)), nodes: nodes})
	task.UID = types.UID(task.Name)
	task.Status.Phase = phase
	f.tasks = append(f.tasks, *task)
	return &f.tasks[len(f.tasks)-1]
}

func TestScansOfOverdueNodes(t *testing.T) {
	tests := map[string]struct {
		ages     map[string]time.Duration
		change   func(*fleet)
		want     []string // the nodes of the one task, or none
		wantWake time.Time
	}{
		"none is overdue":                    {ages: map[string]time.Duration{"a": time.Hour, "b": 2 * time.Hour}, wantWake: noon.Add(month - 2*time.Hour)},
		"all that are overdue share a task":  {ages: map[string]time.Duration{"c": 2 * month, "a": month, "b": time.Hour}, want: []string{"a", "c"}, wantWake: noon.Add(month - time.Hour)},
		"a second before it is not":          {ages: map[string]time.Duration{"a": month - time.Second}, wantWake: noon.Add(time.Second)},
		"without maxScanAge none ever is":    {ages: map[string]time.Duration{"a": 2 * month}, change: func(f *fleet) { f.policies[0].Spec.MaxScanAge = nil }},
		"a policy that is suspended":         {ages: map[string]time.Duration{"a": 2 * month}, change: func(f *fleet) { f.policies[0].Spec.Suspend = true }},
		"a policy that is being deleted":     {ages: map[string]time.Duration{"a": 2 * month}, change: func(f *fleet) { f.policies[0].DeletionTimestamp = &metav1.Time{Time: noon} }},
		"a node that is not Ready":           {ages: map[string]time.Duration{"a": 2 * month}, change: func(f *fleet) { f.nodes["a"].Status.Conditions[0].Status = corev1.ConditionUnknown }},
		"a node whose agent is not there":    {ages: map[string]time.Duration{"a": 2 * month}, change: func(f *fleet) { f.assignments["a"].Status.Controller.Agent = v1alpha1.AgentAbsent }},
		"a node that has no assignment yet":  {ages: map[string]time.Duration{"a": 2 * month}, change: func(f *fleet) { delete(f.assignments, "a") }},
		"a node that has no report":          {ages: map[string]time.Duration{"a": 2 * month}, change: func(f *fleet) { delete(f.reports, "a") }},
		"a node that another policy governs": {ages: map[string]time.Duration{"a": 2 * month}, change: func(f *fleet) { f.addPolicy("stronger") }},
		"a node that was never scanned, for a month": {
			ages: map[string]time.Duration{"a": 0},
			change: func(f *fleet) {
				f.reports["a"].Status.Scan, f.reports["a"].CreationTimestamp = nil, metav1.NewTime(noon.Add(-month))
			},
			want: []string{"a"},
		},
		"a node that was never scanned, for a day": {
			ages: map[string]time.Duration{"a": 0},
			change: func(f *fleet) {
				f.reports["a"].Status.Scan, f.reports["a"].CreationTimestamp = nil, metav1.NewTime(noon.Add(-24*time.Hour))
			},
			wantWake: noon.Add(month - 24*time.Hour),
		},
		"a node whose scan goes on": {
			ages:   map[string]time.Duration{"a": 2 * month, "b": 2 * month},
			change: func(f *fleet) { f.add(2*time.Hour, v1alpha1.TaskRunning, "a") }, want: []string{"b"},
		},
		"a node whose scan failed is left alone for an hour": {
			ages:     map[string]time.Duration{"a": 2 * month, "b": 2 * month},
			change:   func(f *fleet) { f.add(10*time.Minute+30*time.Second, v1alpha1.TaskFailed, "a") },
			want:     []string{"b"},
			wantWake: noon.Truncate(time.Minute).Add(50 * time.Minute),
		},
		"and scanned again after that": {
			ages:   map[string]time.Duration{"a": 2 * month},
			change: func(f *fleet) { f.add(time.Hour, v1alpha1.TaskFailed, "a") }, want: []string{"a"},
		},
		"a clock that had been ahead does not hold a scan back": {
			ages:   map[string]time.Duration{"a": 2 * month},
			change: func(f *fleet) { f.add(-9*month, v1alpha1.TaskFailed, "a") }, want: []string{"a"},
		},
		"a person's task about the node does not hold it back when it ended": {
			ages: map[string]time.Duration{"a": 2 * month},
			change: func(f *fleet) {
				f.add(10*time.Minute, v1alpha1.TaskComplete, "a").OwnerReferences = nil
			},
			want: []string{"a"},
		},
		"a node that works on another task is scanned by that": {
			ages: map[string]time.Duration{"a": 2 * month, "b": 2 * month},
			change: func(f *fleet) {
				for i, phase := range []v1alpha1.TaskPhase{v1alpha1.TaskRunning, v1alpha1.TaskComplete} {
					f.tasks = append(f.tasks, v1alpha1.PatchTask{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(i), UID: types.UID(fmt.Sprint(i))}})
					f.tasks[i].Status.Phase = phase
				}
				f.assignments["a"].Spec.Operation = &v1alpha1.Operation{ID: "0"}
				f.assignments["b"].Spec.Operation = &v1alpha1.Operation{ID: "1"}
			},
			want: []string{"b"},
		},
		"one task a minute": {
			ages:   map[string]time.Duration{"a": 2 * month, "b": 2 * month},
			change: func(f *fleet) { f.add(10*time.Second, v1alpha1.TaskRunning, "a") }, wantWake: noon.Add(30 * time.Second),
		},
		"and five at once": {
			ages: map[string]time.Duration{"a": 2 * month},
			change: func(f *fleet) {
				for i := range maxScans {
					f.add(time.Duration(i+1)*time.Minute, v1alpha1.TaskRunning, fmt.Sprint(i))
				}
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFleet(test.ages)
			if test.change != nil {
				test.change(f)
			}
			scans, wake := f.asks()
			var got []string
			for _, s := range scans {
				if s.policy.Name != "workers" || s.name != scanName("workers", noon) {
					t.Errorf("a task %s of the policy %s", s.name, s.policy.Name)
				}
				got = append(got, s.nodes...)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("scans (-want +got):\n%s", diff)
			}
			if len(scans) > 1 {
				t.Errorf("%d tasks, want one", len(scans))
			}
			if !wake.Equal(test.wantWake) {
				t.Errorf("looks again at %s, want %s", wake, test.wantWake)
			}
		})
	}
}

// addPolicy adds a policy that governs all nodes.
func (f *fleet) addPolicy(name string) {
	stronger := newPolicy()
	stronger.Name, stronger.Spec.Priority = name, 1
	f.policies = append(f.policies, *stronger)
}

// A whole fleet of 12,000 comes back: in three tasks, each a minute after the other.
func TestScansOfManyOverdueNodes(t *testing.T) {
	ages := map[string]time.Duration{}
	for i := range 12000 {
		ages[fmt.Sprintf("node-%05d", i)] = 2 * month
	}
	f := newFleet(ages)
	seen := map[string]int{}
	for _, want := range []int{maxTogether, maxTogether, 2000} {
		scans, wake := f.asks()
		if len(scans) != 1 || len(scans[0].nodes) != want {
			t.Fatalf("%d tasks, want one of %d nodes", len(scans), want)
		}
		for _, name := range scans[0].nodes {
			seen[name]++
		}
		if want == maxTogether && !wake.Equal(nextMinute(f.now)) {
			t.Errorf("looks again at %s", wake)
		}
		f.add(0, v1alpha1.TaskRunning, scans[0].nodes...)
		f.now = nextMinute(f.now)
	}
	if scans, _ := f.asks(); len(scans) > 0 || len(seen) != 12000 {
		t.Errorf("%d nodes were scanned, and %d tasks are to come", len(seen), len(scans))
	}
}

func TestScanName(t *testing.T) {
	if got := scanName("workers", noon); got != "workers-overdue-29923920" {
		t.Errorf("the name is %s", got)
	}
	first, second := strings.Repeat("x", 62)+"a", strings.Repeat("x", 62)+"b"
	for _, policy := range []string{first, second, strings.Repeat("a.", 31) + "b", strings.Repeat("x", 46), strings.Repeat("x", 47)} {
		name := scanName(policy, noon)
		if len(name) > maxName || !strings.HasSuffix(name, "-overdue-29923920") {
			t.Errorf("the name for %s is %s", policy, name)
		}
		task := &v1alpha1.PatchTask{ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: newTask(newPolicy(), "").OwnerReferences}}
		task.Spec.Template = &v1alpha1.TaskTemplate{}
		if made, ours := scanTime(task); !ours || !made.Equal(noon.Truncate(time.Minute)) {
			t.Errorf("%s was made at %s", name, made)
		}
	}
	if scanName(first, noon) == scanName(second, noon) {
		t.Error("two policies have a name in common")
	}
}

func TestSurplus(t *testing.T) {
	owner := newPolicy()
	owner.Spec.History = v1alpha1.HistoryLimits{Succeeded: new(int32(2)), Failed: new(int32(1))}
	run := func(named string, hour int, phase v1alpha1.TaskPhase) *v1alpha1.PatchTask {
		return newRun(owner, named, noon.Truncate(time.Hour).Add(time.Duration(hour-24)*time.Hour), phase)
	}
	overdue := func(ago time.Duration) *v1alpha1.PatchTask {
		task := newScan(scan{policy: owner, name: scanName(owner.Name, noon.Add(-ago))})
		task.CreationTimestamp = metav1.NewTime(noon.Add(-ago))
		task.Status.Phase = v1alpha1.TaskFailed
		return task
	}
	byHand := run("scan", 0, v1alpha1.TaskComplete)
	byHand.Name, byHand.OwnerReferences = "by-hand", nil
	going := run("scan", 8, v1alpha1.TaskComplete)
	going.DeletionTimestamp = &metav1.Time{Time: noon}
	seen := observation{policy: owner, now: noon, tasks: []*v1alpha1.PatchTask{
		run("scan", 3, v1alpha1.TaskComplete), run("scan", 1, v1alpha1.TaskComplete), run("scan", 4, v1alpha1.TaskComplete), run("scan", 2, v1alpha1.TaskComplete),
		run("scan", 5, v1alpha1.TaskFailed), run("scan", 6, v1alpha1.TaskStopped), run("scan", 7, v1alpha1.TaskRunning),
		run("deploy", 1, v1alpha1.TaskComplete), run("deploy", 2, v1alpha1.TaskComplete), run("deploy", 3, v1alpha1.TaskFailed),
		byHand, going, overdue(2 * time.Hour), overdue(30 * time.Minute), overdue(10 * time.Minute),
	}}
	surplus, wake := seen.surplus()
	var got []string
	for _, task := range surplus {
		got = append(got, task.Name)
	}
	want := []string{
		run("scan", 1, "").Name, run("scan", 2, "").Name, run("scan", 5, "").Name, overdue(2 * time.Hour).Name,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("deletes (-want +got):\n%s", diff)
	}
	if until := noon.Truncate(time.Minute).Add(30 * time.Minute); !wake.Equal(until) {
		t.Errorf("looks again at %s, want %s: until then a scan says that its nodes are to be left alone", wake, until)
	}
	owner.Spec.History = v1alpha1.HistoryLimits{Succeeded: new(int32(0)), Failed: new(int32(0))}
	if surplus, _ := seen.surplus(); len(surplus) != 10 || slices.Contains(surplus, byHand) {
		t.Errorf("without history %d tasks go, want all but four of those that ended, and none that a person started", len(surplus))
	}
}
