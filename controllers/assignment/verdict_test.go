package assignment

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

func TestVerdictsKeepTheNewest(t *testing.T) {
	given := &v1alpha1.PatchAssignment{}
	unfinished := sets.New[string]()
	for i := range maxKept + 3 {
		id := fmt.Sprint("task-", i)
		Give(given, &v1alpha1.Operation{ID: id}, unfinished.Insert(id))
		Conclude(&given.Spec, &v1alpha1.EndedOperation{OperationID: id, Step: v1alpha1.StepFailed, Reason: v1alpha1.ReasonTimeout})
	}
	kept := given.Spec.Verdicts
	if len(kept) != maxKept || kept[0].OperationID != fmt.Sprint("task-", maxKept+2) {
		t.Errorf("kept %d, the first of them %v", len(kept), kept[0])
	}
}

func TestVerdictsOfTasksThatEndedMakeRoom(t *testing.T) {
	given := &v1alpha1.PatchAssignment{}
	admitted := ptr.To(metav1.Now())
	for i := range 40 {
		id := fmt.Sprint("task-", i)
		Give(given, &v1alpha1.Operation{ID: id}, sets.New("task-3", "task-5", id))
		Conclude(&given.Spec, &v1alpha1.EndedOperation{OperationID: id, Step: v1alpha1.StepDone, AdmittedAt: admitted})
	}
	want := []string{"task-39", "task-38", "task-37", "task-36", "task-35", "task-34", "task-5", "task-3"}
	if diff := cmp.Diff(want, ids(given.Spec.Verdicts)); diff != "" {
		t.Errorf("verdicts differ (-want +got):\n%s", diff)
	}
}

func TestOutcomesOfTasksThatGoOn(t *testing.T) {
	ended := func(id string, step v1alpha1.Step) v1alpha1.EndedOperation {
		return v1alpha1.EndedOperation{OperationID: id, Step: step}
	}
	done := func(ids ...string) (list []v1alpha1.EndedOperation) {
		for _, id := range ids {
			list = append(list, ended(id, v1alpha1.StepDone))
		}
		return list
	}
	var many []string
	for i := range maxKept + 3 {
		many = append(many, fmt.Sprint("task-", i))
	}
	tests := map[string]struct {
		agent      *v1alpha1.AgentStatus
		kept       []v1alpha1.EndedOperation
		unfinished []string
		want       []string
	}{
		"an agent that has said nothing": {unfinished: []string{"a"}},
		"the last one":                   {agent: &v1alpha1.AgentStatus{OperationID: "a", Step: v1alpha1.StepDone}, unfinished: []string{"a"}, want: []string{"a"}},
		"none that is still at work":     {agent: &v1alpha1.AgentStatus{OperationID: "a", Step: v1alpha1.StepScanning}, unfinished: []string{"a"}},
		"none whose task has ended":      {agent: &v1alpha1.AgentStatus{OperationID: "a", Step: v1alpha1.StepDone, Earlier: done("b")}, kept: done("c")},
		"newest first, each once": {
			agent: &v1alpha1.AgentStatus{OperationID: "a", Step: v1alpha1.StepDone, Earlier: done("b", "c")}, kept: done("c", "a", "d"),
			unfinished: []string{"a", "c", "d"}, want: []string{"a", "c", "d"},
		},
		"what the agent forgot":     {agent: &v1alpha1.AgentStatus{OperationID: "x", Step: v1alpha1.StepDone}, kept: done("a"), unfinished: []string{"a"}, want: []string{"a"}},
		"no more than there may be": {kept: done(many...), unfinished: many, want: many[:maxKept]},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			given := &v1alpha1.PatchAssignment{
				Spec:   v1alpha1.PatchAssignmentSpec{Outcomes: test.kept},
				Status: v1alpha1.PatchAssignmentStatus{Agent: test.agent},
			}
			Give(given, &v1alpha1.Operation{ID: "next"}, sets.New(test.unfinished...))
			if diff := cmp.Diff(test.want, ids(given.Spec.Outcomes)); diff != "" {
				t.Errorf("outcomes differ (-want +got):\n%s", diff)
			}
			if given.Spec.Operation.ID != "next" {
				t.Errorf("the operation is %s", given.Spec.Operation.ID)
			}
		})
	}
}

func TestOutcomeIsTheAgentsOwnWordFirst(t *testing.T) {
	given := &v1alpha1.PatchAssignment{
		Spec: v1alpha1.PatchAssignmentSpec{Outcomes: []v1alpha1.EndedOperation{
			{OperationID: "a", Step: v1alpha1.StepFailed}, {OperationID: "b", Step: v1alpha1.StepFailed}, {OperationID: "c", Step: v1alpha1.StepFailed},
		}},
		Status: v1alpha1.PatchAssignmentStatus{Agent: &v1alpha1.AgentStatus{
			OperationID: "a", Step: v1alpha1.StepDone, Earlier: []v1alpha1.EndedOperation{{OperationID: "b", Step: v1alpha1.StepDone}},
		}},
	}
	for id, want := range map[string]v1alpha1.Step{"a": v1alpha1.StepDone, "b": v1alpha1.StepDone, "c": v1alpha1.StepFailed} {
		if outcome := Outcome(given, id); outcome == nil || outcome.Step != want {
			t.Errorf("the outcome of %s is %+v, want %s", id, outcome, want)
		}
	}
	given.Status.Agent = nil
	if Outcome(given, "c") == nil || Outcome(given, "d") != nil {
		t.Errorf("outcomes %+v and %+v", Outcome(given, "c"), Outcome(given, "d"))
	}
}

func ids(ended []v1alpha1.EndedOperation) []string {
	var ids []string
	for i := range ended {
		ids = append(ids, ended[i].OperationID)
	}
	return ids
}
