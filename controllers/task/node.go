package task

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment"
)

// trace derives where a node stands that was given its part of the task. The
// agent's own word goes before the manager's verdict, also when it comes late.
func (r *run) trace(node *corev1.Node, given *v1alpha1.PatchAssignment) (Node, bool) {
	if given == nil {
		return Node{}, false
	}
	outcome := assignment.Outcome(given, r.id)
	if outcome != nil && outcome.Step != v1alpha1.StepStopped {
		return r.answered(node.Name, outcome), true
	}
	if verdict := assignment.Verdict(given, r.id); verdict != nil {
		return givenUp(node.Name, given, verdict), true
	}
	if outcome != nil {
		return r.answered(node.Name, outcome), true
	}
	operation := given.Spec.Operation
	if operation == nil || operation.ID != r.id {
		return Node{}, false
	}
	if !r.in.Now.Before(operation.Deadline.Time) || r.latched() && lost(node, given) {
		return r.giveUp(node, given), true
	}
	r.wake(operation.Deadline.Time)
	return Node{Name: node.Name, Place: PlaceWorking, Step: shown(given, r.id)}, true
}

// giveUp decides about a node that has not answered by its deadline, or that
// will not.
func (r *run) giveUp(node *corev1.Node, assignment *v1alpha1.PatchAssignment) Node {
	reason, message := unreachable(node, assignment)
	if reason == "" {
		reason = v1alpha1.ReasonTimeout
		message = fmt.Sprintf("No answer within %s; see what the agent on this node logs, or raise the %s",
			duration(timeout(&r.template)), timeouts(r.template.Action))
	}
	now := metav1.NewTime(r.in.Now)
	verdict := &v1alpha1.EndedOperation{OperationID: r.id, Step: v1alpha1.StepFailed, Time: &now, Reason: reason, Message: message}
	state := givenUp(node.Name, assignment, verdict)
	state.Withdraw, state.Verdict = true, verdict
	return state
}

// timeouts are the options that say how long a node may take for an action.
func timeouts(action v1alpha1.Action) string {
	switch action {
	case v1alpha1.ActionDownload:
		return "timeouts of scan and download"
	case v1alpha1.ActionDeploy:
		return "timeouts of scan, download and install"
	default:
		return "scan's timeout"
	}
}

// waiting derives where a node stands that has no part of the task yet. A node
// without a reason to wait can be given it.
func (r *run) waiting(node *corev1.Node, assignment *v1alpha1.PatchAssignment) Node {
	state := Node{Name: node.Name, Place: PlacePending}
	if reason, message := unreachable(node, assignment); reason != "" {
		state.Reason, state.Message = reason, message
		patience := latest(r.started, node.CreationTimestamp.Time).Add(r.template.Scan.Timeout.Duration)
		if r.in.Now.Before(patience) {
			r.wake(patience)
			return state
		}
		state.Place, state.Since = PlaceUnreachable, patience
		return state
	}
	if task := r.occupant(assignment); task != "" {
		state.Reason, state.Message = v1alpha1.ReasonBusy, "The node works on the task "+task
	}
	return state
}

// occupant names another task that the node works on. An operation whose task
// is gone also occupies the node, until the assignment controller, which asks
// the API server itself whether the task is gone, has taken it back.
func (r *run) occupant(given *v1alpha1.PatchAssignment) string {
	operation := given.Spec.Operation
	if operation == nil || assignment.Outcome(given, operation.ID) != nil || r.in.Finished.Has(operation.ID) {
		return ""
	}
	return operation.Task
}

// unreachable says why a node cannot be given work now, if so.
func unreachable(node *corev1.Node, given *v1alpha1.PatchAssignment) (reason, message string) {
	if ready := assignment.NodeReady(node); ready == nil || ready.Status != corev1.ConditionTrue {
		message = "The node is not Ready"
		if ready != nil && ready.Reason != "" {
			message += " (" + ready.Reason + ")"
		}
		return v1alpha1.ReasonNodeNotReady, message + "; see kubectl describe node " + node.Name
	}
	switch {
	case given == nil:
		return v1alpha1.ReasonAgentAbsent, "The node has no PatchAssignment yet; the manager makes it"
	case given.Status.Controller == nil || given.Status.Controller.Agent == v1alpha1.AgentAbsent:
		reason, message = v1alpha1.ReasonAgentAbsent, "No agent runs on the node; see the DaemonSet nodepatch-agent"
	case given.Status.Controller.Agent != v1alpha1.AgentReady:
		reason, message = v1alpha1.ReasonAgentNotReady, "The agent on the node is not ready; see its pod's events and log"
	default:
		return "", ""
	}
	if said := given.Status.Controller; said != nil && said.Reason == reason && said.Message != "" {
		message = said.Message
	}
	return reason, message
}

// answered is the state of a node whose agent gave the outcome.
func (r *run) answered(name string, outcome *v1alpha1.EndedOperation) Node {
	state := Node{
		Name: name, Place: PlaceDone, Since: timeOf(outcome), Answered: true, Counts: outcome.Counts,
		Reason: outcome.Reason, Message: outcome.Message,
	}
	switch {
	case outcome.Step == v1alpha1.StepDone:
		state.Reason, state.Message = "", ""
	case outcome.Step == v1alpha1.StepStopped && r.stop != nil:
		state.Place = PlaceStopped
	default:
		// A node that says it was stopped while nobody stops the task failed.
		state.Place = PlaceFailed
		if state.Reason == "" {
			state.Reason = failure(r.template.Action, outcome.Step)
		}
	}
	return state
}

// failure is the reason of an agent that gives none.
func failure(action v1alpha1.Action, step v1alpha1.Step) string {
	switch {
	case step == v1alpha1.StepStopped:
		return v1alpha1.ReasonAborted
	case action == v1alpha1.ActionDownload:
		return v1alpha1.ReasonDownloadFailed
	case action == v1alpha1.ActionDeploy:
		return v1alpha1.ReasonInstallFailed
	default:
		return v1alpha1.ReasonScanFailed
	}
}

// givenUp is the state of a node that the manager gave up.
func givenUp(name string, assignment *v1alpha1.PatchAssignment, verdict *v1alpha1.EndedOperation) Node {
	place := PlaceUnreachable
	if verdict.Reason == v1alpha1.ReasonTimeout {
		place = PlaceFailed
	}
	return Node{
		Name: name, Place: place, Step: shown(assignment, verdict.OperationID),
		Reason: verdict.Reason, Message: verdict.Message, Since: timeOf(verdict),
	}
}

// shown is the step that the agent has shown of an operation, Pending if none.
func shown(assignment *v1alpha1.PatchAssignment, id string) v1alpha1.Step {
	if agent := assignment.Status.Agent; agent != nil && agent.OperationID == id && agent.Step != "" {
		return agent.Step
	}
	return v1alpha1.StepPending
}

func timeOf(ended *v1alpha1.EndedOperation) time.Time {
	if ended.Time == nil {
		return time.Time{}
	}
	return ended.Time.UTC()
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
