package assignment

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/maintenance"
)

// restored soaks a Node that was put back, and gives the verdict.
func (v *visit) restored() *Decision {
	if v.Record == nil || v.Record.Restored == nil {
		return nil
	}
	if !v.Answers.Tidied {
		return &Decision{Ask: AskTidy}
	}
	outcome := v.Record.Outcome
	if outcome == nil {
		// Nobody writes such a record but a person.
		outcome = &maintenance.Outcome{Step: v1alpha1.StepFailed, Reason: v1alpha1.ReasonAborted, Message: "The record on the Node had no outcome"}
	}
	if soak := v.Template.Rollout.Soak; outcome.Step == v1alpha1.StepDone && soak != nil && v.operation.Stop == "" && v.Orphaned == "" {
		end := v.Record.Restored.Add(soak.Duration)
		switch {
		case !v.ready(): // also where nobody could look before its end
			return v.conclude(&maintenance.Outcome{
				Step: v1alpha1.StepFailed, Reason: v1alpha1.ReasonSoakFailed,
				Message: "The node did not stay Ready for " + soak.Duration.String() + " after its disruption. " + v.Presence.Message,
			})
		case !v.past(end):
			return wait(v1alpha1.StepVerifying, "", "The node is in service again and is watched until "+end.UTC().Format(time.RFC3339), v.until(end))
		}
	}
	return v.conclude(outcome)
}

// conclude ends the operation.
func (v *visit) conclude(outcome *maintenance.Outcome) *Decision {
	now := metav1.NewTime(v.Now)
	verdict := &v1alpha1.EndedOperation{
		OperationID: v.operation.ID, Step: outcome.Step, Time: &now, Reason: outcome.Reason,
		Message: cut(outcome.Message), AdmittedAt: v.operation.AdmittedAt, Counts: v.agent.Counts,
	}
	if v.outcome != nil {
		verdict.Counts = v.outcome.Counts
	}
	return &Decision{Move: MoveConclude, Verdict: verdict, Entries: []patchlog.Entry{v.ending(outcome)}}
}

// orphaned tells the agent of an operation that no task waits for to end, as if
// the task had been stopped.
func (v *visit) orphaned() *Decision {
	if v.Orphaned == "" || v.operation.Stop != "" {
		return nil
	}
	return &Decision{Move: MoveStop, Stop: v.Orphaned}
}

// stopped ends a disruption before its time: nothing new is begun, and what the
// agent has begun ends. An agent that was done before it heard of it is verified
// like any other.
func (v *visit) stopped() *Decision {
	if v.operation.Stop == "" || v.outcome != nil && v.outcome.Step == v1alpha1.StepDone && v.raised() {
		return nil
	}
	if v.atWork() {
		return wait(v.operation.Step, v1alpha1.ReasonStopping, "The agent finishes what it has begun, then the node is put back: "+v.operation.Stop,
			v.until(v.operation.Deadline.Time))
	}
	outcome := &maintenance.Outcome{Step: v1alpha1.StepStopped, Reason: v1alpha1.ReasonStopped, Message: v.operation.Stop}
	if v.outcome != nil && v.outcome.Step == v1alpha1.StepFailed {
		outcome = &maintenance.Outcome{Step: v1alpha1.StepFailed, Reason: v.outcome.Reason, Message: v.outcome.Message}
	}
	if v.Record == nil {
		return v.conclude(outcome)
	}
	return &Decision{Move: MoveRestore, Outcome: outcome}
}

// atWork says whether the agent has to be waited for: it was let go on, has not
// ended, does not itself wait, and may still say so. Without an agent on the node nobody would, except
// that a node on its way through a reboot is left alone until it is back.
func (v *visit) atWork() bool {
	switch {
	case !v.raised() || v.outcome != nil || v.waitsToReboot() || v.past(v.operation.Deadline.Time):
		return false
	case v.operation.Step == v1alpha1.StepRebooting && !v.ready():
		return true
	default:
		return v.Presence.Agent != v1alpha1.AgentAbsent
	}
}

// cut keeps a message within what the API takes.
func cut(message string) string {
	const limit = 1024
	if runes := []rune(message); len(runes) > limit {
		return string(runes[:limit-1]) + "…"
	}
	return message
}
