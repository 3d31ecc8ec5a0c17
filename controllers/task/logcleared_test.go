package task

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

func TestClearedLogDoesNotComeBack(t *testing.T) {
	in := newInput("a", "b", "c")
	in.Now = epoch.Add(time.Minute)
	in.done("a", 2, 1)
	in.failed("b", v1alpha1.ReasonOutputNotUnderstood, "line 3: what?")
	in.apply(ptr.To(in.decide()))
	if len(in.Task.Status.Log) != 1 {
		t.Fatalf("log before it is cleared: %v", in.Task.Status.Log)
	}

	in.Task.Status.Log = nil
	in.Task.Status.Handled = &v1alpha1.HandledButtons{LogClearedAt: ptr.To(metav1.NewMicroTime(in.Now.Add(1500 * time.Millisecond)))}
	in.Now = epoch.Add(time.Minute + time.Second)
	in.failed("c", v1alpha1.ReasonLocked, "in the second in which it was cleared")
	in.apply(ptr.To(in.decide()))
	var got []string
	for _, entry := range in.Task.Status.Log {
		got = append(got, fmt.Sprintf("%s %s %s", entry.Time.UTC().Format("15:04:05"), entry.Reason, entry.Node))
	}
	if diff := cmp.Diff([]string{"06:01:01 ScanFailed c", "06:01:01 TaskFailed "}, got); diff != "" {
		t.Errorf("log differs (-want +got):\n%s", diff)
	}

	late := newInput("d")
	late.notReady("d")
	late.Now = epoch.Add(scanTimeout)
	if plan := late.decide(); len(plan.Entries()) != 2 {
		t.Errorf("the end of a run has these entries: %v", plan.Entries())
	}
	late.Task.Status.Handled = &v1alpha1.HandledButtons{LogClearedAt: ptr.To(metav1.NewMicroTime(late.Now.Add(time.Minute)))}
	if plan := late.decide(); len(plan.Entries()) > 0 {
		t.Errorf("a manager that begins anew writes them again: %v", plan.Entries())
	}
}

func TestNodesClearedLogDoesNotComeBack(t *testing.T) {
	in := newInput("a", "b", "c")
	in.Now = epoch.Add(time.Minute)
	in.failed("a", v1alpha1.ReasonOutputNotUnderstood, "of a node whose log was cleared")
	in.failed("b", v1alpha1.ReasonOutputNotUnderstood, "of another")
	in.apply(ptr.To(in.decide()))
	clear := func(node string, clears ...v1alpha1.LogClear) { in.Assignments[node].Spec.LogClears = clears }
	clear("a", v1alpha1.LogClear{Number: 1, Until: metav1.NewMicroTime(in.Now.Add(1500 * time.Millisecond))})
	clear("b", v1alpha1.LogClear{Number: 1, Task: "another", Until: metav1.NewMicroTime(in.Now.Add(1500 * time.Millisecond))})
	in.Task.Status.Log = nil
	in.Now = in.Now.Add(time.Second)
	in.failed("c", v1alpha1.ReasonLocked, "of a third")
	in.apply(ptr.To(in.decide()))
	var got []string
	for _, entry := range in.Task.Status.Log {
		got = append(got, entry.Reason+" "+entry.Node)
	}
	if diff := cmp.Diff([]string{"ScanFailed b", "ScanFailed c", "TaskFailed "}, got); diff != "" {
		t.Errorf("log differs (-want +got):\n%s", diff)
	}
}
