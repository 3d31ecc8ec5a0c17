package task

import (
	"fmt"
	"strconv"
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
	if p.Ended() {
		status.CompletionTime = &metav1.Time{Time: p.now}
	}
	if status.StartTime != nil {
		counts, patches := p.Counts(), p.Patches()
		status.Nodes, status.Patches = &counts, &patches
		status.Failures = p.Failures()
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

// Counts of the plan's nodes; the places add up to the total.
func (p *Plan) Counts() v1alpha1.TaskNodeCounts {
	counts := v1alpha1.TaskNodeCounts{Total: int32(len(p.Nodes))}
	for i := range p.Nodes {
		switch p.Nodes[i].Place {
		case PlacePending:
			counts.Pending++
		case PlaceScanning:
			counts.Scanning++
		case PlaceDone:
			counts.Done++
		case PlaceFailed:
			counts.Failed++
		case PlaceUnreachable:
			counts.Unreachable++
		}
	}
	return counts
}

// Patches adds up what the nodes that are done found.
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
		sum.Installed += counts.Installed
		sum.Failed += counts.Failed
		sum.Blocked += counts.Blocked
	}
	return sum
}

// Failures are the first nodes by name that failed or could not be reached.
func (p *Plan) Failures() []v1alpha1.NodeFailure {
	var failures []v1alpha1.NodeFailure
	for i := range p.Nodes {
		node := &p.Nodes[i]
		if node.Place != PlaceFailed && node.Place != PlaceUnreachable {
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

// Message says in one sentence how the run goes, such as "2 of 2 nodes
// scanned: 31 patches missing, 12 of them security".
func (p *Plan) Message() string {
	started := p.task.Status.StartTime != nil || p.Accepts
	switch {
	case !started && p.Phase == v1alpha1.TaskStopped:
		return limit("Stopped before it began: "+p.Cause, maxMessage)
	case !started:
		return limit(p.Cause, maxMessage)
	}
	message := p.progress()
	switch {
	case p.Phase == v1alpha1.TaskStopped:
		message = "Stopped (" + p.Cause + "): " + message
	case p.Cause != "":
		message = p.Cause + ": " + message
	}
	return limit(message, maxMessage)
}

// progress is the sentence with the numbers.
func (p *Plan) progress() string {
	counts, patches := p.Counts(), p.Patches()
	var text strings.Builder
	fmt.Fprintf(&text, "%d of %s scanned", counts.Done, plural(int(counts.Total), "node", "nodes"))
	if counts.Done > 0 {
		text.WriteString(": " + missing(patches))
	}
	for _, part := range []struct {
		count int32
		text  string
	}{
		{counts.Failed, "failed"},
		{counts.Unreachable, "could not be reached"},
		{counts.Scanning, "scanning"},
	} {
		if part.count > 0 {
			fmt.Fprintf(&text, "; %d %s", part.count, part.text)
		}
	}
	if counts.Pending > 0 {
		text.WriteString("; " + p.waiting(int(counts.Pending)))
	}
	return text.String()
}

// waiting says which nodes wait, and the first of them for what.
func (p *Plan) waiting(pending int) string {
	if p.Ended() {
		return fmt.Sprintf("%d not scanned", pending)
	}
	if p.Accepts {
		return fmt.Sprintf("%d waiting", pending)
	}
	var named []string
	for i := range p.Nodes {
		node := &p.Nodes[i]
		if node.Place == PlacePending && len(named) < waitersShown {
			named = append(named, node.Name+" "+node.Reason)
		}
	}
	text := fmt.Sprintf("%d waiting (%s", pending, strings.Join(named, ", "))
	if pending > len(named) {
		text += fmt.Sprintf(" and %d more", pending-len(named))
	}
	return text + ")"
}

func missing(patches v1alpha1.PatchCounts) string {
	if patches.Missing == 0 {
		return "no patch is missing"
	}
	security := "none"
	if patches.Security > 0 {
		security = strconv.Itoa(int(patches.Security))
	}
	return fmt.Sprintf("%s missing, %s of them security", plural(int(patches.Missing), "patch", "patches"), security)
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
