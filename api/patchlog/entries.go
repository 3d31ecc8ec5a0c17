package patchlog

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// Run is the task that an entry belongs to.
type Run struct {
	// Task is the PatchTask's name and UID its UID, which is also the ID of its operations.
	Task string
	UID  types.UID
	// Policy is the name of the PatchPolicy that governs it.
	Policy string
}

// RunOf is the run of a task.
func RunOf(task *v1alpha1.PatchTask) Run {
	return Run{Task: task.Name, UID: task.UID, Policy: task.Spec.Policy}
}

// RunOfAssignment is the run that an assignment's operation belongs to, the zero value without one.
func RunOfAssignment(assignment *v1alpha1.PatchAssignment) Run {
	operation := assignment.Spec.Operation
	if operation == nil {
		return Run{Policy: assignment.Spec.Policy}
	}
	return Run{Task: operation.Task, UID: types.UID(operation.ID), Policy: assignment.Spec.Policy}
}

// TaskStarted says that a task was accepted and begins on a number of nodes, and what started it.
func TaskStarted(at time.Time, run Run, action v1alpha1.Action, trigger v1alpha1.Trigger, nodes int) Entry {
	by := "started by hand"
	switch trigger {
	case v1alpha1.TriggerScheduled:
		by = "started by its schedule"
	case v1alpha1.TriggerOverdue:
		by = "started for nodes that are overdue"
	}
	return regardingTask(at, run, v1alpha1.EventTaskStarted, false,
		fmt.Sprintf("%s begins on %s of policy %s, %s", action, count(nodes, "node", "nodes"), run.Policy, by))
}

// TaskStopping says that a task has to end, and waits for its nodes; reason is one of the reasons of v1alpha1.
func TaskStopping(at time.Time, run Run, reason, message string) Entry {
	return regardingTask(at, run, v1alpha1.EventTaskStopping, false, "Waits for its nodes to finish what they have begun, and ends ("+reason+"): "+message)
}

// TaskRefused says that a task was not accepted; reason is one of the reasons of v1alpha1 and message
// says in a sentence what to do.
func TaskRefused(at time.Time, run Run, reason, message string) Entry {
	return regardingTask(at, run, v1alpha1.EventTaskRefused, true, reason+": "+message)
}

// TaskFinished says that a task was done on all its nodes.
func TaskFinished(at time.Time, run Run, nodes v1alpha1.TaskNodeCounts, patches v1alpha1.PatchCounts, took time.Duration) Entry {
	return regardingTask(at, run, v1alpha1.EventTaskFinished, false,
		fmt.Sprintf("Done on %s in %s: %s", count(int(nodes.Done), "node", "nodes"), round(took), missing(patches)))
}

// TaskFailed says that a task ended with nodes that failed or stayed away; cause is the sentence of the
// task's status.
func TaskFailed(at time.Time, run Run, nodes v1alpha1.TaskNodeCounts, cause string) Entry {
	return regardingTask(at, run, v1alpha1.EventTaskFailed, true,
		fmt.Sprintf("%d of %s done, %d failed, %d unreachable: %s",
			nodes.Done, count(int(nodes.Total), "node", "nodes"), nodes.Failed, nodes.Unreachable, cause))
}

// TaskStopped says that a person stopped a task; message has their words.
func TaskStopped(at time.Time, run Run, message string) Entry {
	return regardingTask(at, run, v1alpha1.EventTaskStopped, false, message)
}

// NodeUnreachable says that a task went on without a node that it could not reach; reason is
// NodeNotReady, AgentAbsent or AgentNotReady.
func NodeUnreachable(at time.Time, run Run, node, reason, message string) Entry {
	return regardingNode(at, run, node, v1alpha1.EventNodeUnreachable, true,
		fmt.Sprintf("Task %s went on without this node (%s): %s", run.Task, reason, message))
}

// NodeTimedOut says that a node did not answer a task in time.
func NodeTimedOut(at time.Time, run Run, node string, step v1alpha1.Step, timeout time.Duration) Entry {
	return regardingNode(at, run, node, v1alpha1.EventNodeTimedOut, true,
		fmt.Sprintf("No answer to task %s within %s, last seen at step %s", run.Task, round(timeout), step))
}

// ScanStarted says that a node's scan begins, with which package manager.
func ScanStarted(at time.Time, run Run, node, packageManager string) Entry {
	return regardingNode(at, run, node, v1alpha1.EventScanStarted, false,
		fmt.Sprintf("%s begins with %s", scanOf(run), packageManager))
}

// scanOf names a scan: without a task, a person pressed nodepatch.io/update-patch-data.
func scanOf(run Run) string {
	if run.Task == "" {
		return "Scan on request"
	}
	return "Scan for task " + run.Task
}

// PatchDataRefreshed says that a node's package metadata was fetched anew.
func PatchDataRefreshed(at time.Time, run Run, node, packageManager string, took time.Duration) Entry {
	return regardingNode(at, run, node, v1alpha1.EventPatchDataRefreshed, false,
		fmt.Sprintf("Patch data of %s refreshed in %s", packageManager, round(took)))
}

// PatchDataStale says that a node's package metadata could not be refreshed. The cause is the package
// manager's own; age is how old the data is that the scan goes on with, negative if that is unknown.
func PatchDataStale(at time.Time, run Run, node, reason, cause string, age time.Duration) Entry {
	old := "of unknown age"
	if age >= 0 {
		old = round(age) + " old"
	}
	return regardingNode(at, run, node, v1alpha1.EventPatchDataStale, true,
		fmt.Sprintf("Patch data is not fresh, what there is is %s (%s): %s", old, reason, cause))
}

// ScanFinished says what a node's scan found.
func ScanFinished(at time.Time, run Run, node string, counts v1alpha1.ReportCounts, reboot v1alpha1.RebootState, took time.Duration) Entry {
	message := fmt.Sprintf("%s took %s: %s", scanOf(run), round(took), missing(counts.PatchCounts))
	if counts.Missing > 0 {
		message += ", " + size(counts.DownloadBytes) + " to download"
	}
	if counts.NewPackages > 0 {
		message += ", " + count(int(counts.NewPackages), "new package", "new packages")
	}
	switch reboot {
	case v1alpha1.RebootRequired:
		message += "; a reboot is required"
	case v1alpha1.RebootUnknown:
		message += "; whether a reboot is required is unknown"
	}
	return regardingNode(at, run, node, v1alpha1.EventScanFinished, false, message)
}

// ScanFailed says that a node's scan failed; reason is one of the reasons of v1alpha1 and cause the
// package manager's own words, empty if there are none.
func ScanFailed(at time.Time, run Run, node, reason, cause string) Entry {
	return regardingNode(at, run, node, v1alpha1.EventScanFailed, true, because(reason, cause))
}

// ScanStopped says that the manager ended a node's scan, and why.
func ScanStopped(at time.Time, run Run, node, why string) Entry {
	return regardingNode(at, run, node, v1alpha1.EventScanStopped, false, why)
}

func regardingTask(at time.Time, run Run, reason string, warning bool, message string) Entry {
	return Entry{
		Time: at, Reason: reason, Warning: warning, Message: message,
		Task: run.Task, TaskUID: run.UID, Policy: run.Policy, Key: reason,
	}
}

func regardingNode(at time.Time, run Run, node, reason string, warning bool, message string) Entry {
	entry := regardingTask(at, run, reason, warning, message)
	entry.Node = node
	return entry
}

// missing lists the counts that are not zero, such as "12 patches missing (5 security, 7 bugfix, 2 of them held)".
func missing(counts v1alpha1.PatchCounts) string {
	if counts.Missing == 0 {
		return "no patch is missing"
	}
	var kinds []string
	for _, kind := range []struct {
		count int32
		name  string
	}{
		{counts.Security, "security"}, {counts.Bugfix, "bugfix"}, {counts.Enhancement, "enhancement"}, {counts.Other, "other"},
		{counts.Held, "on hold"}, {counts.KeptBack, "kept back"}, {counts.Phased, "phased"}, {counts.Excluded, "excluded"}, {counts.Blocked, "blocked"},
	} {
		if kind.count > 0 {
			kinds = append(kinds, fmt.Sprintf("%d %s", kind.count, kind.name))
		}
	}
	text := count(int(counts.Missing), "patch", "patches") + " missing"
	if len(kinds) > 0 {
		text += " (" + strings.Join(kinds, ", ") + ")"
	}
	return text
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// round makes a duration readable: milliseconds below ten seconds, else seconds.
func round(d time.Duration) string {
	unit := time.Second
	if d < 10*time.Second {
		unit = time.Millisecond
	}
	return d.Round(unit).String()
}

// size prints a size in powers of 1,000, as apt does.
func size(n int64) string {
	for _, unit := range []struct {
		bytes int64
		name  string
	}{{1_000_000_000, "GB"}, {1_000_000, "MB"}, {1_000, "kB"}} {
		if n >= unit.bytes {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(unit.bytes), unit.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

// NoCause stands in for the cause of a failure that nobody gave one for.
const NoCause = "No cause was given; the log of the node's agent may have one"

// because is a reason and its cause. An agent that gives none leaves no half of a sentence.
func because(reason, cause string) string {
	if strings.TrimSpace(cause) == "" {
		cause = NoCause
	}
	return reason + ": " + cause
}
