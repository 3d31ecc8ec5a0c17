package assignment

import (
	"fmt"
	"testing"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

func TestVerdictsKeepTheNewest(t *testing.T) {
	spec := &v1alpha1.PatchAssignmentSpec{}
	for i := range maxVerdicts + 3 {
		Conclude(spec, &v1alpha1.EndedOperation{OperationID: fmt.Sprint("task-", i), Step: v1alpha1.StepFailed, Reason: v1alpha1.ReasonTimeout})
	}
	kept := spec.Verdicts
	if len(kept) != maxVerdicts || kept[0].OperationID != fmt.Sprint("task-", maxVerdicts+2) {
		t.Errorf("kept %d, the first of them %v", len(kept), kept[0])
	}
}
