package task

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// maxLog is how many entries of the patch log a task's status keeps.
const maxLog = 50

// Entries are the entries of the patch log that the manager itself writes for
// what this plan says: each has to be written before the status that says it.
// Those of earlier plans are among them again, unless the log was cleared since;
// writing them twice does no harm.
func (p *Plan) Entries() []patchlog.Entry {
	run := p.logRun()
	var entries []patchlog.Entry
	if p.Accepts {
		entries = append(entries, patchlog.TaskStarted(p.now, run, p.Template.Action, p.Trigger, len(p.Nodes)))
	}
	if p.Pinned != nil && p.Pinned.Nodes > 0 {
		entries = append(entries, patchlog.PatchesPinned(p.Pinned.Time.Time, run, p.Pinned.Message))
	}
	if p.Stop != nil && !p.Ended() {
		entries = append(entries, patchlog.TaskStopping(p.Stop.Time.Time, run, p.Stop.Reason, p.Stop.Message))
	}
	for i := range p.Nodes {
		node := &p.Nodes[i]
		switch { // Whoever gave another outcome has written it.
		case node.Gone && node.News:
			entries = append(entries, patchlog.NodeFailed(p.at(node.Since), run, node.Name, node.Reason, node.Message))
		case node.Answered, node.Disrupted:
		case node.Place == PlaceWaiting && p.Stop == nil && node.Reason != "" && node.Reason != v1alpha1.ReasonNotAssigned:
			entries = append(entries, patchlog.NodeWaiting(p.now, run, node.Name, node.Reason, node.Message))
		case node.Place == PlaceUnreachable:
			entries = append(entries, patchlog.NodeUnreachable(p.at(node.Since), run, node.Name, node.Reason, node.Message))
		case node.Place == PlaceFailed:
			entries = append(entries, patchlog.NodeTimedOut(p.at(node.Since), run, node.Name,
				node.Step, timeout(ptr.To(withDefaults(*p.task.Status.Template)))))
		}
	}
	if p.Ended() {
		entries = append(entries, p.lastEntry(run))
	}
	return slices.DeleteFunc(entries, p.cleared)
}

// cleared says whether an entry was cleared since: with the task's log, or with its
// node's or its policy's. Plans know whole seconds: what happened in the second in
// which the button was pressed stays.
func (p *Plan) cleared(entry patchlog.Entry) bool {
	handled := p.task.Status.Handled
	if handled != nil && handled.LogClearedAt != nil && entry.Time.Before(handled.LogClearedAt.Truncate(time.Second)) {
		return true
	}
	given := p.assignments[entry.Node]
	if given == nil {
		return false
	}
	entry.Time = entry.Time.Truncate(time.Second).Add(time.Second - 1)
	return patchlog.Cleared(entry, given.Spec.LogClears)
}

// lastEntry is the one with which a task ends.
func (p *Plan) lastEntry(run patchlog.Run) patchlog.Entry {
	started := p.task.Status.StartTime
	// A plan knows whole seconds. In the one in which it ended come the entries of its last node, with their fractions.
	ended := p.now.Add(time.Second - time.Microsecond)
	switch {
	case p.Phase == v1alpha1.TaskStopped:
		return patchlog.TaskStopped(ended, run, p.Message())
	case started == nil:
		return patchlog.TaskRefused(p.now, run, p.Reason, p.Cause)
	case p.Phase == v1alpha1.TaskComplete && p.action() == v1alpha1.ActionScan:
		return patchlog.TaskFinished(ended, run, p.Counts(), p.Patches(), p.now.Sub(started.Time))
	case p.Phase == v1alpha1.TaskComplete:
		return patchlog.RunFinished(ended, run, p.progress(), p.now.Sub(started.Time))
	}
	cause := p.Cause
	if cause == "" {
		cause = p.firstFailure()
	}
	if p.action() == v1alpha1.ActionScan {
		return patchlog.TaskFailed(ended, run, p.Counts(), cause)
	}
	return patchlog.RunFailed(ended, run, p.progress(), cause)
}

func (p *Plan) firstFailure() string {
	failures := p.Failures()
	if len(failures) == 0 {
		return p.Reason
	}
	first := failures[0]
	return fmt.Sprintf("first %s (%s): %s", first.Node, first.Reason, first.Message)
}

// log is the log of the status: what stood there, what the manager writes now
// and which nodes failed or were stopped, oldest first. An entry is known by its reason and
// node, so that deriving it again changes nothing.
func (p *Plan) log(old []v1alpha1.LogEntry) []v1alpha1.LogEntry {
	type key struct{ reason, node string }
	known := make(map[key]bool, len(old))
	log := slices.Clone(old)
	for _, entry := range old {
		known[key{entry.Reason, entry.Node}] = true
	}
	add := func(entry patchlog.Entry) {
		if k := (key{entry.Reason, entry.Node}); !known[k] && !p.cleared(entry) {
			known[k] = true
			log = append(log, entry.LogEntry())
		}
	}
	for _, entry := range p.Entries() {
		// Many nodes wait, and would push out what became of them.
		if entry.Reason != v1alpha1.EventNodeWaiting {
			add(entry)
		}
	}
	for i := range p.Nodes {
		if entry, told := p.told(&p.Nodes[i]); told {
			add(entry)
		}
	}
	// The order leaves nothing to chance, so that the same entries are cut every time.
	slices.SortFunc(log, func(a, b v1alpha1.LogEntry) int {
		return cmp.Or(a.Time.Compare(b.Time.Time), cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Reason, b.Reason))
	})
	return log[max(0, len(log)-maxLog):]
}

// told is what the agent of a node that failed or was stopped has written to the
// patch log about that, or the manager with its verdict.
func (p *Plan) told(node *Node) (entry patchlog.Entry, told bool) {
	at, run, scans := p.at(node.Since), p.logRun(), p.action() == v1alpha1.ActionScan
	switch {
	case node.Gone: // It was told before, and may have been cleared since.
		return entry, false
	case node.Disrupted && node.Place == PlaceFailed:
		return patchlog.NodeFailed(at, run, node.Name, node.Reason, node.Message), true
	case node.Disrupted && node.Place == PlaceSkipped:
		return patchlog.NodeSkipped(at, run, node.Name, node.Message), true
	case node.Disrupted && node.Place == PlaceStopped:
		return patchlog.NodeStopped(at, run, node.Name, node.Message), true
	case !node.Answered:
		return entry, false
	case node.Place == PlaceFailed && scans:
		return patchlog.ScanFailed(at, run, node.Name, node.Reason, node.Message), true
	case node.Place == PlaceFailed:
		return patchlog.DeployFailed(at, run, node.Name, node.Reason, node.Message), true
	case node.Place == PlaceStopped && scans:
		return patchlog.ScanStopped(at, run, node.Name, node.Message), true
	case node.Place == PlaceStopped:
		return patchlog.DeployStopped(at, run, node.Name, node.Message), true
	default:
		return entry, false
	}
}

// rank orders entries of the same second: a task starts before and ends after its nodes.
func rank(entry v1alpha1.LogEntry) int {
	switch {
	case entry.Reason == v1alpha1.EventTaskStarted:
		return 0
	case entry.Node != "", entry.Reason == v1alpha1.EventTaskStopping:
		return 1
	default:
		return 2
	}
}
