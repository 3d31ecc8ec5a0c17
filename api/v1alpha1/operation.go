package v1alpha1

// Busy says whether the node is at work on the operation that it was given: its
// agent has not ended it, or the manager, which lets no disrupted node go without
// a verdict, has not.
func (a *PatchAssignment) Busy() bool {
	operation := a.Spec.Operation
	return operation != nil && (operation.AdmittedAt != nil || !a.Status.ended(operation.ID))
}

// ended says whether the agent has said that an operation ended.
func (s *PatchAssignmentStatus) ended(id string) bool {
	if s.Agent == nil {
		return false
	}
	if s.Agent.OperationID == id {
		return s.Agent.Step.Ended()
	}
	for i := range s.Agent.Earlier {
		if s.Agent.Earlier[i].OperationID == id {
			return true
		}
	}
	return false
}
