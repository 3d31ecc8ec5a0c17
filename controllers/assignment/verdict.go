package assignment

import (
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// maxVerdicts is how many verdicts an assignment keeps: as many as an agent
// keeps outcomes. Only tasks that run at the same time need theirs.
const maxVerdicts = 8

// Outcome finds what a node's agent said about an operation that ended, nil if it
// has not said that it ended.
func Outcome(assignment *v1alpha1.PatchAssignment, id string) *v1alpha1.EndedOperation {
	agent := assignment.Status.Agent
	if agent == nil {
		return nil
	}
	if agent.OperationID == id && agent.Step.Ended() {
		return &v1alpha1.EndedOperation{
			OperationID: id, Step: agent.Step, Time: agent.Time,
			Reason: agent.Reason, Message: agent.Message, Counts: agent.Counts,
		}
	}
	return find(agent.Earlier, id)
}

// Verdict finds what the manager decided about an operation that it ended, nil
// if it has not.
func Verdict(assignment *v1alpha1.PatchAssignment, id string) *v1alpha1.EndedOperation {
	return find(assignment.Spec.Verdicts, id)
}

// Conclude takes the operation off an assignment's spec and remembers the verdict.
func Conclude(spec *v1alpha1.PatchAssignmentSpec, verdict *v1alpha1.EndedOperation) {
	spec.Operation = nil
	kept := append([]v1alpha1.EndedOperation{*verdict}, spec.Verdicts...)
	spec.Verdicts = kept[:min(len(kept), maxVerdicts)]
}

func find(ended []v1alpha1.EndedOperation, id string) *v1alpha1.EndedOperation {
	for i := range ended {
		if ended[i].OperationID == id {
			return &ended[i]
		}
	}
	return nil
}
