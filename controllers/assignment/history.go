package assignment

import (
	"fmt"
	"slices"
	"time"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment/hooks"
	"github.com/nodepatch/nodepatch/controllers/maintenance"
)

// history is what the patch log has to hold by now. Most of it is derived from
// the record, by every pass until the record is gone, so that a manager that is
// killed leaves nothing out; writing an entry again changes nothing. What people had
// deleted since does not come back.
func (v *visit) history() []patchlog.Entry {
	entries := recordEntries(v.Record, v.run, v.Node.Name, v.plan())
	for _, point := range []hooks.Point{hooks.PreDisrupt, hooks.PostInstall, hooks.PostReboot} {
		if state, ran := v.Answers.Hooks[point]; ran && state.Phase == hooks.Succeeded {
			entries = append(entries, patchlog.HookSucceeded(v.Now, v.run, v.Node.Name, string(point), state.Took))
		}
	}
	if result := v.Answers.Drain; result != nil && result.Remaining == 0 && len(result.Refused) == 0 {
		entries = append(entries, patchlog.NodeDrained(v.Now, v.run, v.Node.Name, v.Evicted, v.Now.Sub(v.Record.StageSince.Time)))
	}
	return slices.DeleteFunc(entries, func(entry patchlog.Entry) bool {
		// Records know whole seconds: what happened in the second of the press stays.
		entry.Time = entry.Time.Truncate(time.Second).Add(time.Second - 1)
		return patchlog.Cleared(entry, v.Assignment.Spec.LogClears)
	})
}

// recordEntries are what a record tells.
func recordEntries(record *maintenance.Record, run patchlog.Run, node, plan string) []patchlog.Entry {
	if record == nil {
		return nil
	}
	entries := []patchlog.Entry{patchlog.NodeAdmitted(record.Since.Time, run, node, plan)}
	if record.Cordoned != nil {
		entries = append(entries, patchlog.NodeCordoned(record.Cordoned.Time, run, node))
	}
	if record.Uncordoned {
		entries = append(entries, patchlog.NodeUncordoned(record.Restored.Time, run, node))
	}
	return entries
}

// plan says what is to be done with the node.
func (v *visit) plan() string {
	plan := fmt.Sprintf("Disruption begins for the task %s", v.operation.Task)
	if counts := v.agent.Counts; counts != nil && counts.Downloaded > 0 {
		plan += fmt.Sprintf(": %d to install", counts.Downloaded)
	} else if v.waitsToReboot() {
		plan += ": a reboot is required"
	}
	return plan
}

// ending is the last entry about the node.
func (v *visit) ending(outcome *maintenance.Outcome) patchlog.Entry {
	node := v.Node.Name
	switch {
	case outcome.Step == v1alpha1.StepDone:
		var took time.Duration
		if v.operation.AdmittedAt != nil {
			took = v.Now.Sub(v.operation.AdmittedAt.Time)
		}
		return patchlog.NodeDone(v.Now, v.run, node, took)
	case outcome.Step == v1alpha1.StepFailed:
		return patchlog.NodeFailed(v.Now, v.run, node, outcome.Reason, outcome.Message)
	case outcome.Reason == v1alpha1.ReasonHookFailed:
		return patchlog.NodeSkipped(v.Now, v.run, node, outcome.Message)
	default:
		return patchlog.NodeStopped(v.Now, v.run, node, outcome.Message)
	}
}
