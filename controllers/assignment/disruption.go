package assignment

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment/drain"
	"github.com/nodepatch/nodepatch/controllers/assignment/hooks"
	"github.com/nodepatch/nodepatch/controllers/blockers"
	"github.com/nodepatch/nodepatch/controllers/maintenance"
)

// Input is what a pass over a node that was admitted decides on.
type Input struct {
	Now time.Time
	// Assignment has the admitted operation.
	Assignment *v1alpha1.PatchAssignment
	// Template of the task, with the API's defaults; the zero value if the task is
	// gone.
	Template v1alpha1.TaskTemplate
	// Orphaned says why no task waits for the operation, if so.
	Orphaned string
	Node     *corev1.Node
	// Record is the Node's, and RecordErr what is wrong with it: see
	// maintenance.Read.
	Record    *maintenance.Record
	RecordErr error
	// Presence says whether the agent is there.
	Presence v1alpha1.ControllerStatus
	// Evicted is how many pods this manager has evicted from the node.
	Evicted int
	// Answers hold what was found out in this pass.
	Answers Answers
}

// Answers are what is found out only when a decision asks for it, as it costs
// requests or changes something.
type Answers struct {
	// Hooks are how the hooks stand that were run.
	Hooks map[hooks.Point]hooks.State
	// Drain is the outcome of this pass of the drain.
	Drain *drain.Result
	// Coordinated says that the other reboot coordinators were asked; Block is
	// the one that holds the node.
	Coordinated bool
	Block       *blockers.Block
	// DaemonPods are the DaemonSets' pods on the node; nil if they were not looked for.
	DaemonPods []DaemonPod
	// Tidied says that the hooks' pods and the Lease are gone.
	Tidied bool
}

// Question is what a decision needs to know before it can be made.
type Question string

// The questions, by the field of Answers that has the answer.
const (
	AskNothing    Question = ""
	AskHook       Question = "Hooks"
	AskDrain      Question = "Drain"
	AskCoordinate Question = "Coordinated"
	AskDaemonPods Question = "DaemonPods"
	AskTidy       Question = "Tidied"
)

// Move is the next change of what is stored. Each is one write, and after it the
// node is decided about anew.
type Move string

const (
	// Wait changes nothing.
	Wait Move = ""
	// MoveStop asks the agent of an orphan to end.
	MoveStop Move = "Stop"
	// MoveBegin writes the record, and MoveRebuild one that is gone.
	MoveBegin   Move = "Begin"
	MoveRebuild Move = "Rebuild"
	// MoveEnter begins a stage: cordons the node.
	MoveEnter Move = "Enter"
	// MoveRaise raises the operation's step.
	MoveRaise Move = "Raise"
	// MoveRestore puts the Node back and stores the outcome with it.
	MoveRestore Move = "Restore"
	// MoveConclude takes the operation off and gives the verdict.
	MoveConclude Move = "Conclude"
)

// Decision is what is to be done with a node: a question, or a move, or nothing
// but to say what it waits for.
type Decision struct {
	Ask  Question
	Hook hooks.Point
	Move Move
	// Preparation is MoveEnter's, Raise and Deadline are MoveRaise's, Outcome is
	// MoveRestore's, Verdict is MoveConclude's and Stop is MoveStop's.
	Preparation maintenance.Preparation
	Raise       v1alpha1.Step
	Deadline    time.Time
	Outcome     *maintenance.Outcome
	Verdict     *v1alpha1.EndedOperation
	Stop        string
	// Step, Reason and Message are what to say.
	Step    v1alpha1.Step
	Reason  string
	Message string
	// Progress is what the Node's conditions tell.
	Progress maintenance.Progress
	// Entries of the patch log, to be written before the move.
	Entries []patchlog.Entry
	// After is when to look again, if nothing happens before: zero for never.
	After time.Duration
}

// way is a node's way through its disruption. Each step derives from what is
// stored whether the node is past it, and is then silent. The first that is not
// decides.
var way = []func(*visit) *Decision{
	(*visit).recorded,
	(*visit).restored,
	(*visit).orphaned,
	(*visit).stopped,
	(*visit).begun,
	(*visit).preDisrupt,
	(*visit).drainedForInstall,
	(*visit).raisedToInstall,
	(*visit).installed,
	(*visit).postInstall,
	(*visit).drainedForReboot,
	(*visit).coordinated,
	(*visit).raisedToReboot,
	(*visit).rebooted,
	(*visit).verified,
	(*visit).postReboot,
	(*visit).done,
}

// Decide decides what comes next for a node that was admitted.
func Decide(in Input) Decision {
	v := newVisit(in)
	for _, step := range way {
		if decision := step(v); decision != nil {
			decision.Entries = append(v.history(), decision.Entries...)
			decision.Progress = v.progress(decision)
			return *decision
		}
	}
	// The last step always decides.
	return Decision{}
}

// visit is one look at a node.
type visit struct {
	Input
	operation *v1alpha1.Operation
	// outcome is the agent's, nil until it has ended.
	outcome *v1alpha1.EndedOperation
	// agent is what it says about the operation, the zero value if it says nothing.
	agent v1alpha1.AgentStatus
	run   patchlog.Run
}

func newVisit(in Input) *visit {
	operation := in.Assignment.Spec.Operation
	v := &visit{
		Input: in, operation: operation, outcome: Outcome(in.Assignment, operation.ID),
		run: patchlog.RunOfAssignment(in.Assignment),
	}
	if agent := in.Assignment.Status.Agent; agent != nil && agent.OperationID == operation.ID {
		v.agent = *agent
	}
	return v
}

// raised says whether the agent was let go on, at least so far as to install.
func (v *visit) raised() bool {
	return v.operation.Step == v1alpha1.StepInstalling || v.operation.Step == v1alpha1.StepRebooting
}

// waitsToReboot says whether the agent waits for leave to reboot the node.
func (v *visit) waitsToReboot() bool {
	return v.outcome == nil && v.operation.Step != v1alpha1.StepRebooting &&
		v.agent.Step == v1alpha1.StepWaiting && v.agent.Reason == v1alpha1.ReasonRebootRequired
}

// hasRebooted says whether the agent rebooted the node. If the agent went on to
// another operation since, the boot ID tells.
func (v *visit) hasRebooted() bool {
	if v.agent.OperationID != "" {
		return v.agent.Reboots > 0
	}
	return v.operation.Step == v1alpha1.StepRebooting && v.Record != nil &&
		v.Record.BootID != "" && v.Record.BootID != v.Node.Status.NodeInfo.BootID
}

// ready says whether the Node is Ready.
func (v *visit) ready() bool {
	condition := NodeReady(v.Node)
	return condition != nil && condition.Status == corev1.ConditionTrue
}

// progress is what the conditions tell along with a decision.
func (v *visit) progress(decision *Decision) maintenance.Progress {
	record := v.Record
	switch {
	case record == nil || record.Restored != nil || record.OperationID != v.operation.ID:
		return maintenance.Idle
	case record.Stage == "" || v.Template.Drain.When == v1alpha1.DrainNever:
		return maintenance.Maintained
	case decision.Step == v1alpha1.StepDraining:
		return maintenance.Draining
	default:
		return maintenance.Drained
	}
}

// wait says what the node waits for.
func wait(step v1alpha1.Step, reason, message string, after time.Duration) *Decision {
	return &Decision{Step: step, Reason: reason, Message: message, After: after}
}

// fail ends the disruption.
func (*visit) fail(reason, message string) *Decision {
	return &Decision{Move: MoveRestore, Outcome: &maintenance.Outcome{Step: v1alpha1.StepFailed, Reason: reason, Message: message}}
}

// until is how long it is to a time, and never nothing: stored times know whole
// seconds only.
func (v *visit) until(at time.Time) time.Duration {
	return max(at.Sub(v.Now), time.Millisecond)
}

// past says whether a time has come.
func (v *visit) past(at time.Time) bool {
	return !v.Now.Before(at)
}

// or is a duration of a template, or its default where a template has none: one
// that is gone, or that an older API server stored.
func or(given metav1.Duration, otherwise time.Duration) time.Duration {
	if given.Duration > 0 {
		return given.Duration
	}
	return otherwise
}

// The defaults of the API.
const (
	drainTimeout   = 15 * time.Minute
	installTimeout = 2 * time.Hour
	rebootTimeout  = 20 * time.Minute
	verifyTimeout  = 10 * time.Minute
)
