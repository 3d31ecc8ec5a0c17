package assignment

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

const (
	// maxKept is how many verdicts an assignment keeps at most, and how many
	// outcomes. Only tasks that go on need theirs.
	maxKept = 32
	// maxEnded is how many verdicts it keeps with those of tasks that have ended: as
	// many as an agent keeps outcomes.
	maxEnded = 8
)

// Outcome finds what a node's agent said about an operation that ended, nil if it
// has not said that it ended.
func Outcome(assignment *v1alpha1.PatchAssignment, id string) *v1alpha1.EndedOperation {
	if agent := assignment.Status.Agent; agent != nil {
		if agent.OperationID == id && agent.Step.Ended() {
			return &v1alpha1.EndedOperation{
				OperationID: id, Step: agent.Step, Time: agent.Time,
				Reason: agent.Reason, Message: agent.Message, Counts: agent.Counts,
			}
		}
		if earlier := find(agent.Earlier, id); earlier != nil {
			return earlier
		}
	}
	return find(assignment.Spec.Outcomes, id)
}

// Verdict finds what the manager decided about an operation that it ended, nil
// if it has not.
func Verdict(assignment *v1alpha1.PatchAssignment, id string) *v1alpha1.EndedOperation {
	return find(assignment.Spec.Verdicts, id)
}

// Give has an assignment ask for another operation. What was said about those of
// tasks that go on, by the UIDs of these, is kept: such a task may outlive more
// operations than the agent remembers, and would visit the node again. Verdicts of
// other tasks make room for the one that this operation may need.
func Give(assignment *v1alpha1.PatchAssignment, operation *v1alpha1.Operation, goOn sets.Set[string]) {
	spec := &assignment.Spec
	spec.Outcomes = outcomes(assignment, goOn)
	for i := len(spec.Verdicts) - 1; i >= 0 && len(spec.Verdicts) >= maxEnded; i-- {
		if !goOn.Has(spec.Verdicts[i].OperationID) {
			spec.Verdicts = slices.Delete(spec.Verdicts, i, i+1)
		}
	}
	spec.Operation = operation
}

// outcomes are those of the tasks that go on, newest first.
func outcomes(assignment *v1alpha1.PatchAssignment, goOn sets.Set[string]) []v1alpha1.EndedOperation {
	var known, kept []v1alpha1.EndedOperation
	if agent := assignment.Status.Agent; agent != nil {
		if last := Outcome(assignment, agent.OperationID); last != nil {
			known = append(known, *last)
		}
		known = append(known, agent.Earlier...)
	}
	known = append(known, assignment.Spec.Outcomes...)
	for i := range known {
		if id := known[i].OperationID; goOn.Has(id) && find(kept, id) == nil {
			kept = append(kept, known[i])
		}
	}
	return kept[:min(len(kept), maxKept)]
}

// Conclude takes the operation off an assignment's spec and remembers the verdict.
func Conclude(spec *v1alpha1.PatchAssignmentSpec, verdict *v1alpha1.EndedOperation) {
	spec.Operation = nil
	kept := append([]v1alpha1.EndedOperation{*verdict}, spec.Verdicts...)
	spec.Verdicts = kept[:min(len(kept), maxKept)]
}

func find(ended []v1alpha1.EndedOperation, id string) *v1alpha1.EndedOperation {
	for i := range ended {
		if ended[i].OperationID == id {
			return &ended[i]
		}
	}
	return nil
}
