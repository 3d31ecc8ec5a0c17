package task

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// newCandidate is a task that was just created and asks for the policy's scan.
func newCandidate(names ...string) Input {
	in := newInput(names...)
	in.Now = epoch.Add(time.Second)
	in.Task.Status = v1alpha1.PatchTaskStatus{ObservedGeneration: -1}
	return in
}

func TestAdmission(t *testing.T) {
	schedule := func(in *Input) {
		in.Task.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: v1alpha1.GroupVersion.String(), Kind: "PatchPolicy", Name: "workers", UID: "policy-workers",
			Controller: ptr.To(true),
		}}
	}
	minute := epoch.Add(time.Minute)
	tests := map[string]struct {
		nodes       []string
		change      func(*Input)
		wantPhase   v1alpha1.TaskPhase
		wantReason  string
		wantMessage string
		wantTrigger v1alpha1.Trigger
		wantNext    time.Time
		wantEvent   string
	}{
		"a named task": {
			nodes:     []string{"b", "a"},
			wantPhase: v1alpha1.TaskRunning, wantReason: v1alpha1.ReasonRunning,
			wantMessage: "0 of 2 nodes scanned; 2 waiting",
			wantEvent:   v1alpha1.EventTaskStarted,
		},
		"options of its own": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.Task.Spec.Task = ""
				in.Task.Spec.Template = &v1alpha1.TaskTemplate{Action: v1alpha1.ActionScan}
			},
			wantPhase: v1alpha1.TaskRunning, wantReason: v1alpha1.ReasonRunning,
			wantMessage: "0 of 1 node scanned; 1 waiting",
			wantEvent:   v1alpha1.EventTaskStarted,
		},
		"a policy that may yet be applied": {
			nodes:     []string{"a"},
			change:    func(in *Input) { in.Task.Spec.Policy = "workres" },
			wantPhase: v1alpha1.TaskPending, wantReason: v1alpha1.ReasonUnknownPolicy,
			wantMessage: "There is no PatchPolicy workres; the task waits for it until 2026-11-21T06:01:00Z",
			wantNext:    minute,
		},
		"a policy that never came": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.Task.Spec.Policy = "workres"
				in.Policies = append(in.Policies, newPolicy("masters"))
				in.Now = minute
			},
			wantPhase: v1alpha1.TaskFailed, wantReason: v1alpha1.ReasonUnknownPolicy,
			wantMessage: "There is no PatchPolicy workres; the PatchPolicies are masters, workers; create another task with one of these names",
			wantEvent:   v1alpha1.EventTaskRefused,
		},
		"no policy at all": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.Policies = nil
				in.Now = minute
			},
			wantPhase: v1alpha1.TaskFailed, wantReason: v1alpha1.ReasonUnknownPolicy,
			wantMessage: "There is no PatchPolicy workers, nor any other; create it, then create the task again",
			wantEvent:   v1alpha1.EventTaskRefused,
		},
		"a policy that is being deleted": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.Policies[0].DeletionTimestamp = ptr.To(metav1.NewTime(epoch))
				in.Now = minute.Add(-time.Second)
			},
			wantPhase: v1alpha1.TaskPending, wantReason: v1alpha1.ReasonUnknownPolicy,
			wantMessage: "There is no PatchPolicy workers; the task waits for it until 2026-11-21T06:01:00Z",
			wantNext:    minute,
		},
		"a task that the policy may yet offer": {
			nodes:     []string{"a"},
			change:    func(in *Input) { in.Task.Spec.Task = "scann" },
			wantPhase: v1alpha1.TaskPending, wantReason: v1alpha1.ReasonUnknownTask,
			wantMessage: "The policy workers has no task scann; the task waits for it until 2026-11-21T06:01:00Z",
			wantNext:    minute,
		},
		"a task that the policy does not offer": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.Task.Spec.Task = "scann"
				in.Now = minute
			},
			wantPhase: v1alpha1.TaskFailed, wantReason: v1alpha1.ReasonUnknownTask,
			wantMessage: "The policy workers has no task scann; its tasks are deploy, scan; create another task with one of these names",
			wantEvent:   v1alpha1.EventTaskRefused,
		},
		"a person, where only the schedule may": {
			nodes:     []string{"a"},
			change:    func(in *Input) { in.Policies[0].Spec.ManualTasks = v1alpha1.ManualTasksDenied },
			wantPhase: v1alpha1.TaskFailed, wantReason: v1alpha1.ReasonManualTasksDenied,
			wantMessage: "The policy workers lets only its schedule start tasks (manualTasks: Denied)",
			wantEvent:   v1alpha1.EventTaskRefused,
		},
		"the schedule, where only it may": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.Policies[0].Spec.ManualTasks = v1alpha1.ManualTasksDenied
				schedule(in)
			},
			wantPhase: v1alpha1.TaskRunning, wantReason: v1alpha1.ReasonRunning,
			wantMessage: "0 of 1 node scanned; 1 waiting",
			wantTrigger: v1alpha1.TriggerScheduled,
			wantEvent:   v1alpha1.EventTaskStarted,
		},
		"a scan of overdue nodes, where only the schedule may": {
			nodes: []string{"a", "b", "c"},
			change: func(in *Input) {
				in.Policies[0].Spec.ManualTasks = v1alpha1.ManualTasksDenied
				schedule(in)
				in.Task.Spec.Task, in.Task.Spec.Template = "", scanTemplate()
				in.Task.Spec.Nodes = []string{"c", "a", "gone"}
			},
			wantPhase: v1alpha1.TaskRunning, wantReason: v1alpha1.ReasonRunning,
			wantMessage: "0 of 2 nodes scanned; 2 waiting",
			wantTrigger: v1alpha1.TriggerOverdue,
			wantEvent:   v1alpha1.EventTaskStarted,
		},
		"names of nodes that are none of the policy's": {
			nodes:     []string{"a", "b"},
			change:    func(in *Input) { in.Task.Spec.Nodes = []string{"gone"} },
			wantPhase: v1alpha1.TaskFailed, wantReason: v1alpha1.ReasonNoNodes,
			wantMessage: "The task's list of nodes has none of the 2 nodes that the policy workers governs",
			wantEvent:   v1alpha1.EventTaskRefused,
		},
		"the schedule of a policy that had the name before": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.Policies[0].Spec.ManualTasks = v1alpha1.ManualTasksDenied
				in.Policies[0].UID = "another"
				schedule(in)
			},
			wantPhase: v1alpha1.TaskFailed, wantReason: v1alpha1.ReasonManualTasksDenied,
			wantMessage: "The policy workers lets only its schedule start tasks (manualTasks: Denied)",
			wantEvent:   v1alpha1.EventTaskRefused,
		},
		"a selector that is none": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.Task.Spec.NodeSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
					{Key: "zone", Operator: "Near", Values: []string{"1"}},
				}}
			},
			wantPhase: v1alpha1.TaskFailed, wantReason: v1alpha1.ReasonInvalidSelector,
			wantMessage: `The task's nodeSelector is not valid: "Near" is not a valid label selector operator`,
			wantEvent:   v1alpha1.EventTaskRefused,
		},
		"a policy whose selector is none": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.Policies[0].Spec.NodeSelector.MatchExpressions = []metav1.LabelSelectorRequirement{
					{Key: "zone", Operator: metav1.LabelSelectorOpIn},
				}
			},
			wantPhase: v1alpha1.TaskFailed, wantReason: v1alpha1.ReasonInvalidSelector,
			wantMessage: "The nodeSelector of the policy workers is not valid: values: Invalid value: null: for 'in', 'notin' operators, values set can't be empty",
			wantEvent:   v1alpha1.EventTaskRefused,
		},
		"a policy that is suspended": {
			nodes:     []string{"a"},
			change:    func(in *Input) { in.Policies[0].Spec.Suspend = true },
			wantPhase: v1alpha1.TaskPending, wantReason: v1alpha1.ReasonPolicySuspended,
			wantMessage: "The policy workers is suspended; the task begins when it no longer is",
		},
		"a suspended policy does not hide what a person has to mend": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.Policies[0].Spec.Suspend = true
				in.Policies[0].Spec.ManualTasks = v1alpha1.ManualTasksDenied
			},
			wantPhase: v1alpha1.TaskFailed, wantReason: v1alpha1.ReasonManualTasksDenied,
			wantMessage: "The policy workers lets only its schedule start tasks (manualTasks: Denied)",
			wantEvent:   v1alpha1.EventTaskRefused,
		},
		"a selector that matches none of the policy's nodes": {
			nodes: []string{"a", "b"},
			change: func(in *Input) {
				in.Task.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"zone": "9"}}
			},
			wantPhase: v1alpha1.TaskFailed, wantReason: v1alpha1.ReasonNoNodes,
			wantMessage: "The task's nodeSelector selects none of the 2 nodes that the policy workers governs",
			wantEvent:   v1alpha1.EventTaskRefused,
		},
		"a policy that governs no node": {
			wantPhase: v1alpha1.TaskFailed, wantReason: v1alpha1.ReasonNoNodes,
			wantMessage: "The policy workers governs no node; see its conditions",
			wantEvent:   v1alpha1.EventTaskRefused,
		},
		"stopped before it began": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.Task.Spec.Policy = "workres"
				in.Task.Annotations = map[string]string{v1alpha1.StopAnnotation: "typo"}
			},
			wantPhase: v1alpha1.TaskStopped, wantReason: v1alpha1.ReasonStopped,
			wantMessage: "Stopped before it began: typo",
			wantEvent:   v1alpha1.EventTaskStopped,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in := newCandidate(test.nodes...)
			if test.change != nil {
				test.change(&in)
			}
			plan := in.decide()
			status := plan.Status(in.Task.Status)

			if plan.Phase != test.wantPhase || plan.Reason != test.wantReason {
				t.Errorf("phase %s (%s), want %s (%s)", plan.Phase, plan.Reason, test.wantPhase, test.wantReason)
			}
			if status.Message != test.wantMessage {
				t.Errorf("message\n  %q, want\n  %q", status.Message, test.wantMessage)
			}
			trigger := test.wantTrigger
			if trigger == "" {
				trigger = v1alpha1.TriggerManual
			}
			if status.Trigger != trigger {
				t.Errorf("trigger %s, want %s", status.Trigger, trigger)
			}
			if !plan.Next.Equal(test.wantNext) {
				t.Errorf("next look at %s, want %s", plan.Next, test.wantNext)
			}
			accepted := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionAccepted)
			if want := test.wantPhase == v1alpha1.TaskRunning; (accepted.Status == metav1.ConditionTrue) != want {
				t.Errorf("accepted %s, want %v", accepted.Status, want)
			}
			if accepted.Status == metav1.ConditionFalse && accepted.Reason != test.wantReason {
				t.Errorf("not accepted for %s, want %s", accepted.Reason, test.wantReason)
			}
			var events []string
			for _, entry := range plan.Entries() {
				events = append(events, entry.Reason)
			}
			if got := strings.Join(events, " "); got != test.wantEvent {
				t.Errorf("entries %q, want %q", got, test.wantEvent)
			}
			for _, node := range plan.Nodes {
				if node.Assign != nil {
					t.Errorf("node %s is given work before the status says that the task began", node.Name)
				}
			}
		})
	}
}

func TestAcceptedTaskKeepsWhatItRuns(t *testing.T) {
	in := newCandidate("a")
	in.Policies[0].Spec.Tasks[0].Template = v1alpha1.TaskTemplate{Action: v1alpha1.ActionScan}
	plan := in.decide()
	status := plan.Status(in.Task.Status)
	want := scanTemplate()
	if diff := cmp.Diff(want, status.Template); diff != "" {
		t.Errorf("the template lacks its defaults (-want +got):\n%s", diff)
	}
	in.Task.Status = status
	in.Policies[0].Spec.Tasks[0].Template.Scan.Timeout.Duration = time.Second
	plan = in.decide()
	status = plan.Status(in.Task.Status)
	if diff := cmp.Diff(want, status.Template); diff != "" {
		t.Errorf("a change of the policy reached a task that runs (-want +got):\n%s", diff)
	}
}

func TestUnknownNamesAreListedUpToALimit(t *testing.T) {
	in := newCandidate("a")
	in.Task.Spec.Policy = "workres"
	in.Now = epoch.Add(time.Minute)
	in.Policies = nil
	for i := range 64 {
		in.Policies = append(in.Policies, newPolicy(fmt.Sprintf("policy-%02d", i)))
	}
	plan := in.decide()
	if !strings.Contains(plan.Message(), "policy-08, policy-09 and 54 more; create another") {
		t.Errorf("message %q", plan.Message())
	}
}
