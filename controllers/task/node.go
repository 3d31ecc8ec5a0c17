package task

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment"
)

// trace derives where a node stands that was given its part of the task. The
// verdict on a node that was admitted is the last word on it. Of others, the
// agent's own word goes before the manager's verdict, also when it comes late.
func (r *run) trace(node *corev1.Node, given *v1alpha1.PatchAssignment) (Node, bool) {
	if given == nil {
		return Node{}, false
	}
	verdict := assignment.Verdict(given, r.id)
	if verdict != nil && verdict.AdmittedAt != nil {
		return r.concluded(node.Name, verdict), true
	}
	operation := given.Spec.Operation
	ours := operation != nil && operation.ID == r.id
	if ours && operation.AdmittedAt != nil {
		return Node{Name: node.Name, Place: PlaceDisrupted, Step: disruption(given)}, true
	}
	outcome := assignment.Outcome(given, r.id)
	switch {
	case outcome != nil && outcome.Step != v1alpha1.StepStopped:
		return r.answered(node.Name, outcome), true
	case verdict != nil:
		return givenUp(node.Name, given, verdict), true
	case outcome != nil:
		return r.answered(node.Name, outcome), true
	case !ours:
		return Node{}, false
	case shown(given, r.id) == v1alpha1.StepWaiting:
		return r.waiting(node, given), true
	case !r.in.Now.Before(operation.Deadline.Time) || r.latched() && lost(node, given):
		return r.giveUp(node, given), true
	}
	r.wake(operation.Deadline.Time)
	return Node{Name: node.Name, Place: PlaceWorking, Step: shown(given, r.id)}, true
}

// waiting derives where a node stands that is ready to be disrupted. It may wait
// as long as it likes, but not stay away for longer than the task would have
// waited for it at the start.
func (r *run) waiting(node *corev1.Node, given *v1alpha1.PatchAssignment) Node {
	state := Node{Name: node.Name, Place: PlaceWaiting, Step: v1alpha1.StepWaiting}
	patience := r.template.Scan.Timeout.Duration
	reason, message := unreachable(node, given)
	state.Reason, state.Message = reason, message
	switch {
	case (r.latched() || r.left(node)) && lost(node, given):
		return r.giveUp(node, given)
	case r.latched() && given.Spec.Operation.Stop != "":
		// It was told to end, and has had time to.
		until := latest(given.Spec.Operation.Deadline.Time, r.stop.Time.Add(patience))
		if !r.in.Now.Before(until) {
			return r.giveUp(node, given)
		}
		r.wake(until)
	case reason == v1alpha1.ReasonNodeNotReady:
		ready := assignment.NodeReady(node)
		if ready == nil || ready.LastTransitionTime.IsZero() {
			break
		}
		until := ready.LastTransitionTime.Add(patience)
		if !r.in.Now.Before(until) {
			return r.giveUp(node, given)
		}
		r.wake(until)
	case r.left(node):
		state.Stop = "The node left the policy " + r.in.Task.Spec.Policy + " while it waited"
		if given.Spec.Operation.Stop != "" {
			state.Stop = ""
		}
		state.Reason, state.Message = v1alpha1.ReasonAborted, "The node left the policy "+r.in.Task.Spec.Policy
	}
	return state
}

// left says that another policy governs a node, or none: the task must not
// disrupt it any more. That a policy was deleted ends the task itself.
func (r *run) left(node *corev1.Node) bool {
	return r.policy != nil && r.in.Membership.Governor[node.Name] != r.policy.Name
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

// timeouts are the options that say how long a node may take to prepare itself.
func timeouts(action v1alpha1.Action) string {
	if action == v1alpha1.ActionScan {
		return "scan's timeout"
	}
	return "timeouts of scan and download"
}

// concluded is the state of a node with the verdict on its disruption.
func (r *run) concluded(name string, verdict *v1alpha1.EndedOperation) Node {
	state := r.answered(name, verdict)
	state.Answered, state.Disrupted = false, true
	switch verdict.Step {
	case v1alpha1.StepDone:
		took := timeOf(verdict).Sub(verdict.AdmittedAt.Time) - r.soak()
		r.longest = max(r.longest, took)
	case v1alpha1.StepStopped:
		if verdict.Reason == v1alpha1.ReasonHookFailed {
			state.Place = PlaceSkipped
		}
	}
	return state
}

// answered is the state of a node whose agent gave the outcome.
func (r *run) answered(name string, outcome *v1alpha1.EndedOperation) Node {
	state := Node{
		Name: name, Place: PlaceDone, Since: timeOf(outcome), Answered: true, Counts: outcome.Counts,
		Reason: outcome.Reason, Message: outcome.Message,
	}
	asked := r.stop != nil || r.policy != nil && r.in.Membership.Governor[name] != r.policy.Name
	switch {
	case outcome.Step == v1alpha1.StepDone:
		state.Reason, state.Message = "", ""
	case outcome.Step == v1alpha1.StepStopped && asked:
		state.Place = PlaceStopped
	default:
		// A node that says it was stopped while nobody stops the task failed.
		state.Place = PlaceFailed
		if state.Reason == "" {
			state.Reason = failure(r.template.Action, outcome.Step)
		}
	}
	if state.Place != PlaceDone && strings.TrimSpace(state.Message) == "" {
		state.Message = patchlog.NoCause
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

// disruption is the step of a node that was admitted: the manager's, as long as
// it says one, else the agent's. One whose disruption has not begun is about to
// do what its agent waits for, and one whose agent is done is yet to be verified.
func disruption(given *v1alpha1.PatchAssignment) v1alpha1.Step {
	id := given.Spec.Operation.ID
	if said := given.Status.Controller; said != nil && said.OperationID == id && said.Step != "" {
		return said.Step
	}
	step := shown(given, id)
	switch {
	case step.Ended():
		return v1alpha1.StepVerifying
	case step == v1alpha1.StepWaiting && given.Status.Agent.Reason == v1alpha1.ReasonRebootRequired:
		return v1alpha1.StepRebooting
	case step == v1alpha1.StepWaiting, step == v1alpha1.StepPending:
		return v1alpha1.StepInstalling
	default:
		return step
	}
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
