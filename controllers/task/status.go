package task

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// Bounds of a PatchTask's status.
const (
	maxFailures = 20
	maxMessage  = 1024
	maxReason   = 128
	// waitersShown is how many waiting nodes a message names.
	waitersShown = 3
)

// Status is the status of the plan's task, given the one it has.
func (p *Plan) Status(old v1alpha1.PatchTaskStatus) v1alpha1.PatchTaskStatus {
	status := *old.DeepCopy()
	status.ObservedGeneration = p.task.Generation
	status.Phase = p.Phase
	status.Message = p.Message()
	if status.Trigger == "" || status.StartTime == nil {
		status.Trigger = p.Trigger
	}
	if p.Accepts {
		status.Template = p.Template
		status.StartTime = &metav1.Time{Time: p.now}
	}
	status.Stop = p.Stop
	if p.Pinned != nil {
		status.Pinned = p.Pinned
	}
	if p.Ended() {
		status.CompletionTime = &metav1.Time{Time: p.now}
	}
	if status.StartTime != nil {
		counts, patches := p.Counts(), p.Patches()
		status.Nodes, status.Patches = &counts, &patches
		status.Failures = p.Failures()
		status.Disrupted, status.DisruptedOmitted = p.disrupted()
	}
	status.Log = p.log(old.Log)
	p.setConditions(&status.Conditions)
	return status
}

// setConditions keeps the conditions of a task. Complete, Failed and Stopped
// are there once they are true, as with a Job; Reconciling and Stalled, which
// kstatus reads, only as long as they are.
func (p *Plan) setConditions(conditions *[]metav1.Condition) {
	set := func(kind string, status metav1.ConditionStatus, message string) {
		meta.SetStatusCondition(conditions, metav1.Condition{
			Type: kind, Status: status, Reason: p.Reason, Message: message,
			ObservedGeneration: p.task.Generation, LastTransitionTime: metav1.NewTime(p.now),
		})
	}
	message := p.Message()
	switch {
	case p.Accepts:
		meta.SetStatusCondition(conditions, metav1.Condition{
			Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionTrue,
			Reason: v1alpha1.ReasonAccepted, Message: p.acceptance(),
			ObservedGeneration: p.task.Generation, LastTransitionTime: metav1.NewTime(p.now),
		})
	case !meta.IsStatusConditionTrue(*conditions, v1alpha1.ConditionAccepted):
		set(v1alpha1.ConditionAccepted, metav1.ConditionFalse, message)
	}
	if !p.Ended() {
		set(v1alpha1.ConditionReconciling, metav1.ConditionTrue, message)
		return
	}
	meta.RemoveStatusCondition(conditions, v1alpha1.ConditionReconciling)
	switch p.Phase {
	case v1alpha1.TaskComplete:
		set(v1alpha1.ConditionComplete, metav1.ConditionTrue, message)
		return
	case v1alpha1.TaskStopped:
		set(v1alpha1.ConditionStopped, metav1.ConditionTrue, message)
	default:
		set(v1alpha1.ConditionFailed, metav1.ConditionTrue, message)
	}
	// Whoever applied the task waits for what did not happen.
	set(v1alpha1.ConditionStalled, metav1.ConditionTrue, message)
}

func (p *Plan) acceptance() string {
	return fmt.Sprintf("%s on %s of the policy %s",
		p.Template.Action, plural(len(p.Nodes), "node", "nodes"), p.task.Spec.Policy)
}

// Counts of the plan's nodes; the steps add up to the total.
func (p *Plan) Counts() v1alpha1.TaskNodeCounts {
	counts := v1alpha1.TaskNodeCounts{Total: int32(len(p.Nodes)) + p.omitted, Failed: p.omitted}
	for i := range p.Nodes {
		switch node := &p.Nodes[i]; node.Place {
		case PlacePending:
			counts.Pending++
		case PlaceWorking, PlaceDisrupted:
			*working(&counts, node.Step)++
		case PlaceWaiting:
			counts.Waiting++
		case PlaceDone:
			counts.Done++
		case PlaceStopped:
			counts.Stopped++
		case PlaceSkipped:
			counts.Skipped++
		case PlaceFailed:
			counts.Failed++
		case PlaceUnreachable:
			counts.Unreachable++
		}
	}
	return counts
}

// working is the count that a node at work belongs to: one whose agent has shown
// nothing yet is about to scan.
func working(counts *v1alpha1.TaskNodeCounts, step v1alpha1.Step) *int32 {
	switch step {
	case v1alpha1.StepDownloading:
		return &counts.Downloading
	case v1alpha1.StepDraining:
		return &counts.Draining
	case v1alpha1.StepInstalling:
		return &counts.Installing
	case v1alpha1.StepRebooting:
		return &counts.Rebooting
	case v1alpha1.StepVerifying:
		return &counts.Verifying
	default:
		return &counts.Scanning
	}
}

// Patches adds up what the nodes said that answered, also those that failed or
// were stopped: a deployment that failed for one patch has installed the others.
func (p *Plan) Patches() v1alpha1.PatchCounts {
	var sum v1alpha1.PatchCounts
	for i := range p.Nodes {
		counts := p.Nodes[i].Counts
		if counts == nil {
			continue
		}
		sum.Missing += counts.Missing
		sum.Security += counts.Security
		sum.Bugfix += counts.Bugfix
		sum.Enhancement += counts.Enhancement
		sum.Other += counts.Other
		sum.Held += counts.Held
		sum.KeptBack += counts.KeptBack
		sum.Phased += counts.Phased
		sum.Excluded += counts.Excluded
		sum.Downloaded += counts.Downloaded
		sum.Installed += counts.Installed
		sum.Failed += counts.Failed
		sum.Blocked += counts.Blocked
	}
	return sum
}

// Failures are the first nodes by name that failed, were skipped or could not be reached.
func (p *Plan) Failures() []v1alpha1.NodeFailure {
	var failures []v1alpha1.NodeFailure
	for i := range p.Nodes {
		node := &p.Nodes[i]
		if node.Place != PlaceFailed && node.Place != PlaceSkipped && node.Place != PlaceUnreachable {
			continue
		}
		failures = append(failures, v1alpha1.NodeFailure{
			Node: node.Name, Reason: limit(node.Reason, maxReason), Message: limit(node.Message, maxMessage),
		})
		if len(failures) == maxFailures {
			break
		}
	}
	return failures
}

// limit cuts a text to a number of characters and marks the cut.
func limit(text string, most int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most-1]) + "…"
}

// at is a time for the log. What has none is put at the start of the run,
// which is the same at every look.
func (p *Plan) at(t time.Time) time.Time {
	switch {
	case !t.IsZero():
		return t
	case p.task.Status.StartTime != nil:
		return p.task.Status.StartTime.Time
	default:
		return p.now
	}
}
