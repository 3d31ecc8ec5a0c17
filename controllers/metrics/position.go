package metrics

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment"
)

// idle is the step of a node that is in no task.
const idle v1alpha1.Step = "Idle"

// workSteps are the steps that a node may be in, in their order.
var workSteps = []v1alpha1.Step{
	v1alpha1.StepScanning, v1alpha1.StepDownloading, v1alpha1.StepWaiting, v1alpha1.StepDraining,
	v1alpha1.StepInstalling, v1alpha1.StepRebooting, v1alpha1.StepVerifying,
}

// position is where a node stands.
type position struct {
	// operation is its ID, empty if the node is idle.
	operation string
	step      v1alpha1.Step
	// since is when the node was first known to be in the step, zero if that is not
	// known.
	since time.Time
}

// positionOf derives where a node stands: of one that is disrupted the manager's
// word goes before the agent's, which says nothing of drains. An agent that has
// said nothing yet scans, which mostly is over before it would.
func positionOf(given *v1alpha1.PatchAssignment) position {
	operation := given.Spec.Operation
	if !given.Busy() {
		return position{step: idle}
	}
	admitted := operation.AdmittedAt != nil
	if said := given.Status.Controller; admitted && said != nil && said.OperationID == operation.ID && said.Step != "" {
		return position{operation.ID, said.Step, timeOf(said.Since)}
	}
	if outcome := assignment.Outcome(given, operation.ID); outcome != nil {
		return position{operation.ID, v1alpha1.StepVerifying, timeOf(outcome.Time)}
	}
	agent := given.Status.Agent
	if agent == nil || agent.OperationID != operation.ID || agent.Step == "" || agent.Step == v1alpha1.StepPending {
		return position{operation.ID, v1alpha1.StepScanning, operation.AssignedAt.Time}
	}
	return position{operation.ID, agent.Step, timeOf(agent.Time)}
}

// left is when a node left a position, zero if that is not known: it then is
// somewhere else.
func (p position) left(given *v1alpha1.PatchAssignment, to position) time.Time {
	if to.operation == p.operation {
		if operation := given.Spec.Operation; p.step == v1alpha1.StepWaiting && operation.AdmittedAt != nil {
			return operation.AdmittedAt.Time
		}
		return to.since
	}
	if verdict := assignment.Verdict(given, p.operation); verdict != nil {
		return timeOf(verdict.Time)
	}
	if outcome := assignment.Outcome(given, p.operation); outcome != nil {
		return timeOf(outcome.Time)
	}
	return time.Time{}
}

// waitsFor is the manager's reason why a node goes no further, empty if it does.
func waitsFor(given *v1alpha1.PatchAssignment, at position) string {
	switch rollout, said := given.Status.Rollout, given.Status.Controller; {
	case at.step == v1alpha1.StepWaiting && rollout != nil && rollout.OperationID == at.operation:
		return rollout.Reason
	case at.operation != "" && said != nil && said.OperationID == at.operation:
		return said.Reason
	default:
		return ""
	}
}

func timeOf(t *metav1.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.Time
}
