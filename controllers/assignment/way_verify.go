package assignment

import (
	"fmt"
	"strings"
	"time"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/maintenance"
)

// verified waits, after the agent has ended, until the node is as it should be.
func (v *visit) verified() *Decision {
	problem, ask := v.problem()
	switch {
	case ask != AskNothing:
		return &Decision{Ask: ask}
	case problem == "":
		return nil
	}
	deadline := v.verifyingSince().Add(or(v.Template.Verify.Timeout, verifyTimeout))
	if v.past(deadline) {
		message := fmt.Sprintf("Not in order within %s after its packages were installed: %s", or(v.Template.Verify.Timeout, verifyTimeout), problem)
		if v.outcome.Step == v1alpha1.StepFailed {
			message += ". Before that: " + v.outcome.Reason + ": " + v.outcome.Message
		}
		return v.fail(v1alpha1.ReasonVerifyTimeout, message)
	}
	// Only the Node and the agent's pod are watched.
	return wait(v1alpha1.StepVerifying, "", problem, min(soon, v.until(deadline)))
}

// problem is what the node still lacks, or what has to be found out for that.
func (v *visit) problem() (string, Question) {
	if !v.ready() {
		return v.Presence.Message, AskNothing
	}
	if boot := v.Node.Status.NodeInfo.BootID; v.hasRebooted() && v.Record.BootID != "" && v.Record.BootID == boot {
		return "The kubelet has not told of the reboot yet (boot ID " + boot + ")", AskNothing
	}
	if v.Presence.Agent != v1alpha1.AgentReady && v.operation.Stop == "" {
		// An agent that was taken away with its policy does not come back.
		return v.Presence.Message, AskNothing
	}
	if v.Answers.DaemonPods == nil {
		return "", AskDaemonPods
	}
	var rebooted *maintenance.Record
	if v.hasRebooted() {
		rebooted = v.Record
	}
	var missing []string
	for _, daemonSet := range unready(v.Answers.DaemonPods, rebooted) {
		if !v.Record.WasBroken(daemonSet) {
			missing = append(missing, daemonSet)
		}
	}
	if len(missing) > 0 {
		return "Pods of these DaemonSets are not ready on the node: " + strings.Join(capped(missing), ", "), AskNothing
	}
	return "", AskNothing
}

// verifyingSince is since when the manager says that it verifies the node. A node
// that was in order, and is not while its hook runs, has all the time again.
func (v *visit) verifyingSince() time.Time {
	said := v.Assignment.Status.Controller
	if said != nil && said.Reason != v1alpha1.ReasonHookRunning && said.OperationID == v.operation.ID && said.Step == v1alpha1.StepVerifying && said.Since != nil {
		return said.Since.Time
	}
	return v.Now
}

// done puts back the Node of an agent that has ended.
func (v *visit) done() *Decision {
	outcome := &maintenance.Outcome{Step: v.outcome.Step, Reason: v.outcome.Reason, Message: v.outcome.Message}
	switch outcome.Step {
	case v1alpha1.StepDone:
		outcome.Reason = v1alpha1.ReasonVerified
	case v1alpha1.StepFailed:
		if outcome.Reason == "" {
			outcome.Reason = v1alpha1.ReasonInstallFailed
		}
	default:
		if outcome.Reason == "" {
			outcome.Reason = v1alpha1.ReasonAborted
		}
	}
	return &Decision{Move: MoveRestore, Outcome: outcome}
}
