package task

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment"
)

func TestOperationGivenToANode(t *testing.T) {
	in := newInput("a")
	in.Now = epoch.Add(time.Minute + 700*time.Millisecond)
	plan := in.decide()
	now := epoch.Add(time.Minute)
	want := &v1alpha1.Operation{
		ID: taskUID, Task: "scan-now", Step: v1alpha1.StepScanning, Action: v1alpha1.ActionScan,
		RetryLimits: &v1alpha1.RetryLimits{Download: 11, Install: 4},
		AssignedAt:  metav1.NewTime(now), Deadline: metav1.NewTime(now.Add(scanTimeout)),
	}
	if diff := cmp.Diff(want, plan.Nodes[0].Assign); diff != "" {
		t.Errorf("operation differs (-want +got):\n%s", diff)
	}
}

func TestOnlyTheNodesThatATaskNames(t *testing.T) {
	in := newInput("a", "b", "c")
	in.node("b").Labels["zone"] = "2"
	in.Task.Spec.Nodes = []string{"b", "c", "gone"}
	if plan := in.decide(); len(plan.Nodes) != 2 || plan.Nodes[0].Name != "b" || plan.Nodes[1].Name != "c" {
		t.Errorf("the task is about %+v, want b and c", plan.Nodes)
	}
	in.Task.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"zone": "2"}}
	if plan := in.decide(); len(plan.Nodes) != 1 || plan.Nodes[0].Name != "b" {
		t.Errorf("the task is about %+v, want b alone", plan.Nodes)
	}
}

func TestFinishedTaskIsLeftAlone(t *testing.T) {
	for _, phase := range []v1alpha1.TaskPhase{v1alpha1.TaskComplete, v1alpha1.TaskFailed, v1alpha1.TaskStopped} {
		in := newInput("a")
		in.assigned("a", epoch)
		in.Now = epoch.Add(24 * time.Hour)
		in.Task.Status.Phase = phase
		if diff := cmp.Diff(fmt.Sprint(Plan{}), fmt.Sprint(in.decide())); diff != "" {
			t.Errorf("a plan for a task that is %s:\n%s", phase, diff)
		}
	}
}

func giveUp(given *v1alpha1.PatchAssignment, reason string) {
	verdict := &v1alpha1.EndedOperation{OperationID: taskUID, Step: v1alpha1.StepFailed, Reason: reason}
	assignment.Conclude(&given.Spec, verdict)
}
