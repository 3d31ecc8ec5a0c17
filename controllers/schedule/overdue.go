package schedule

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/policy"
)

const (
	// again is how long a node is left alone after it was to be scanned, when that
	// did not help.
	again = time.Hour
	// maxTogether is how many nodes one task scans: with names of 253 characters
	// it stays below the size that etcd takes.
	maxTogether = 5000
	// maxScans is how many such tasks of a policy are under way at once. Nodes that
	// come back meanwhile gather.
	maxScans = 5
)

// fleet is everything that the scans of overdue nodes follow from.
type fleet struct {
	policies   []v1alpha1.PatchPolicy
	membership policy.Membership
	// The nodes, and what is known of them, by name.
	nodes       map[string]*corev1.Node
	reports     map[string]*v1alpha1.PatchReport
	assignments map[string]*v1alpha1.PatchAssignment
	tasks       []v1alpha1.PatchTask
	now         time.Time
}

// scan is a task to be made.
type scan struct {
	policy *v1alpha1.PatchPolicy
	name   string
	nodes  []string
}

// scans are the tasks that overdue nodes need now, at most one for each policy,
// and when to look again if nothing happens; zero for never.
//
// An overdue node needs one if it can be reached, works on no task, and was in
// none of these tasks lately.
func (f *fleet) scans() (scans []scan, wake time.Time) {
	quiet, busy := f.asked()
	for i := range f.policies {
		policy := &f.policies[i]
		if policy.Spec.MaxScanAge == nil || policy.Spec.Suspend || !policy.DeletionTimestamp.IsZero() {
			continue
		}
		var nodes []string
		for _, name := range f.membership.Policies[policy.Name].Governed {
			need, at := f.needs(policy, name, quiet[name])
			switch {
			case need && !busy.nodes[name]:
				nodes = append(nodes, name)
			case !need:
				wake = earlier(wake, at)
			}
		}
		if len(nodes) == 0 || busy.scans[policy.Name] >= maxScans {
			continue
		}
		name := scanName(policy.Name, f.now)
		if busy.names[name] {
			wake = earlier(wake, nextMinute(f.now))
			continue
		}
		if len(nodes) > maxTogether {
			nodes = nodes[:maxTogether]
			wake = earlier(wake, nextMinute(f.now))
		}
		scans = append(scans, scan{policy: policy, name: name, nodes: nodes})
	}
	return scans, wake
}

// needs says whether a node is to be scanned now, or else from when on it may be
// for which time alone is the cause.
func (f *fleet) needs(governor *v1alpha1.PatchPolicy, name string, quiet time.Time) (bool, time.Time) {
	due := policy.OverdueAt(governor, f.reports[name])
	if due.IsZero() {
		return false, time.Time{}
	}
	if at := latest(due, quiet); at.After(f.now) {
		return false, at
	}
	return policy.Reachable(f.nodes[name], f.assignments[name]), time.Time{}
}

// occupied is what goes on.
type occupied struct {
	// nodes have a part in a task that has not ended: that scans them first.
	nodes map[string]bool
	// scans counts the scans of overdue nodes that have not ended, by policy.
	scans map[string]int
	// names are those of all tasks.
	names map[string]bool
}

// asked finds until when nodes that were to be scanned are left alone, and what
// goes on.
func (f *fleet) asked() (map[string]time.Time, occupied) {
	quiet := map[string]time.Time{}
	busy := occupied{nodes: map[string]bool{}, scans: map[string]int{}, names: map[string]bool{}}
	working := map[string]bool{}
	for i := range f.tasks {
		task := &f.tasks[i]
		busy.names[task.Name] = true
		if !task.Finished() {
			working[string(task.UID)] = true
		}
		if _, ours := scanTime(task); !ours {
			continue
		}
		until := quietUntil(task, f.now)
		if !task.Finished() {
			busy.scans[task.Spec.Policy]++
		}
		for _, name := range task.Spec.Nodes {
			quiet[name] = latest(quiet[name], until)
			busy.nodes[name] = busy.nodes[name] || !task.Finished()
		}
	}
	for name, given := range f.assignments {
		if operation := given.Spec.Operation; operation != nil && working[operation.ID] {
			busy.nodes[name] = true
		}
	}
	return quiet, busy
}

// quietUntil is until when the nodes of a scan of overdue nodes are left alone; zero
// for other tasks, and for one from the future, which a wrong clock made.
func quietUntil(task *v1alpha1.PatchTask, now time.Time) time.Time {
	at, ours := scanTime(task)
	if !ours || at.Sub(now) > again {
		return time.Time{}
	}
	return at.Add(again)
}

// scanTime is when a task was made, if it is a scan of overdue nodes, by the clock
// of the manager that made it.
func scanTime(task *v1alpha1.PatchTask) (time.Time, bool) {
	owner := metav1.GetControllerOfNoCopy(task)
	if owner == nil || owner.Kind != "PatchPolicy" || task.Spec.Template == nil {
		return time.Time{}, false
	}
	return minute(task.Name[strings.LastIndexByte(task.Name, '-')+1:], 10)
}

// scanName is the name of the task that scans a policy's overdue nodes: of the
// policy, and of the minute since 1970. Of a name that is too long for
// that the first part stands there with a hash.
func scanName(policy string, now time.Time) string {
	suffix := fmt.Sprintf("-overdue-%d", now.Unix()/60)
	if len(policy)+len(suffix) > maxName {
		hash := fnv.New32a()
		_, _ = hash.Write([]byte(policy)) // A hash takes everything.
		mark := fmt.Sprintf("-%08x", hash.Sum32())
		policy = strings.TrimRight(policy[:maxName-len(suffix)-len(mark)], "-.") + mark
	}
	return policy + suffix
}

func nextMinute(now time.Time) time.Time { return now.Truncate(time.Minute).Add(time.Minute) }

func latest(a, b time.Time) time.Time {
	return slices.MaxFunc([]time.Time{a, b}, time.Time.Compare)
}

// newScan is the task of a scan.
func newScan(s scan) *v1alpha1.PatchTask {
	task := newTask(s.policy, s.name)
	task.Spec.Template = &v1alpha1.TaskTemplate{Action: v1alpha1.ActionScan}
	task.Spec.Nodes = s.nodes
	return task
}
