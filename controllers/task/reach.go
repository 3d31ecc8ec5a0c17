package task

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment"
)

// pending derives where a node stands that has no part of the task yet. A node
// without a reason to wait can be given it.
func (r *run) pending(node *corev1.Node, assignment *v1alpha1.PatchAssignment) Node {
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
	} else if task := r.rival(node, assignment); task != "" {
		state.Reason, state.Message = v1alpha1.ReasonBusy, "The node belongs to the task "+task+" first, which began earlier"
	}
	return state
}

// occupant names another task that the node works on. An operation whose task
// is gone also occupies the node, until the assignment controller, which asks
// the API server itself whether the task is gone, has taken it back. So does one
// that was admitted, until the verdict, whatever its agent and its task say.
func (r *run) occupant(given *v1alpha1.PatchAssignment) string {
	operation := given.Spec.Operation
	switch {
	case operation == nil:
		return ""
	case operation.AdmittedAt != nil:
		return operation.Task
	case assignment.Outcome(given, operation.ID) != nil || r.in.Finished.Has(operation.ID):
		return ""
	default:
		return operation.Task
	}
}

// unfinished are the UIDs of the tasks that have not ended.
func unfinished(tasks []v1alpha1.PatchTask) sets.Set[string] {
	ids := sets.New[string]()
	for i := range tasks {
		if !tasks[i].Finished() {
			ids.Insert(string(tasks[i].UID))
		}
	}
	return ids
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

// lost says that a node which is told to end will not answer soon: the run does
// not wait for it. An agent that is there and not ready may be on its way up.
func lost(node *corev1.Node, assignment *v1alpha1.PatchAssignment) bool {
	reason, _ := unreachable(node, assignment)
	return reason == v1alpha1.ReasonNodeNotReady || reason == v1alpha1.ReasonAgentAbsent
}
