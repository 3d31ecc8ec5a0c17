package assignment

import (
	"errors"
	"fmt"
	"time"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment/hooks"
	"github.com/nodepatch/nodepatch/controllers/maintenance"
)

// soon is when to look again at what no watch brings.
const soon = time.Second

// recorded sees to it that the Node's record is this operation's, and readable.
// One of an operation before it is undone by the controller of the Nodes.
func (v *visit) recorded() *Decision {
	switch {
	case v.Record != nil && v.Record.OperationID != v.operation.ID:
		return wait(v1alpha1.StepInstalling, "", "The Node is put back to what it was before the task "+v.Record.Task, soon)
	case v.Record == nil && (v.RecordErr != nil || v.raised() || maintenance.Changed(v.Node)):
		return &Decision{Move: MoveRebuild}
	case v.RecordErr != nil && !errors.Is(v.RecordErr, maintenance.ErrNewer):
		return &Decision{Move: MoveRebuild}
	}
	return nil
}

// begun writes the record, which names the DaemonSets whose pods were not ready
// before.
func (v *visit) begun() *Decision {
	switch {
	case v.Record != nil:
		return nil
	case v.Answers.DaemonPods == nil:
		return &Decision{Ask: AskDaemonPods}
	default:
		return &Decision{Move: MoveBegin}
	}
}

// preDisrupt runs the hook that may keep the node out.
func (v *visit) preDisrupt() *Decision {
	if v.raised() || v.outcome != nil || v.Record.Stage != "" {
		return nil
	}
	decision := v.hook(hooks.PreDisrupt, v1alpha1.StepInstalling)
	if decision != nil && decision.Move == MoveRestore {
		decision.Outcome.Step = v1alpha1.StepStopped
	}
	return decision
}

// postInstall runs a hook after the packages were installed. A node that failed,
// or that had nothing to install, has no use for it.
func (v *visit) postInstall() *Decision {
	if v.operation.Step != v1alpha1.StepInstalling || v.Record.Stage == maintenance.StageReboot || v.outcome != nil && v.outcome.Step != v1alpha1.StepDone {
		return nil
	}
	return v.hook(hooks.PostInstall, v1alpha1.StepInstalling)
}

// postReboot runs a hook before pods are let in again.
func (v *visit) postReboot() *Decision {
	if v.outcome.Step != v1alpha1.StepDone || !v.hasRebooted() {
		return nil
	}
	return v.hook(hooks.PostReboot, v1alpha1.StepVerifying)
}

// hook runs a hook, if the task has it, and waits for its end. No hook begins
// when the node has to stop.
func (v *visit) hook(point hooks.Point, step v1alpha1.Step) *Decision {
	if hookOf(v.Template.Hooks, point) == nil || v.operation.Stop != "" {
		return nil
	}
	state, asked := v.Answers.Hooks[point]
	if !asked {
		return &Decision{Ask: AskHook, Hook: point}
	}
	switch state.Phase {
	case hooks.Succeeded:
		return nil
	case hooks.Failed:
		decision := v.fail(v1alpha1.ReasonHookFailed, fmt.Sprintf("The hook %s failed: %s", point, state.Message))
		decision.Entries = []patchlog.Entry{patchlog.HookFailed(v.Now, v.run, v.Node.Name, string(point), state.Message)}
		return decision
	default:
		message := fmt.Sprintf("The hook %s runs", point)
		if state.Message != "" {
			message += ": " + state.Message
		}
		return wait(step, v1alpha1.ReasonHookRunning, message, soon)
	}
}

// hookOf is a task's hook at a point, nil if it has none.
func hookOf(all *v1alpha1.Hooks, point hooks.Point) *v1alpha1.Hook {
	switch {
	case all == nil:
		return nil
	case point == hooks.PreDisrupt:
		return all.PreDisrupt
	case point == hooks.PostInstall:
		return all.PostInstall
	default:
		return all.PostReboot
	}
}
