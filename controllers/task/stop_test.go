package task

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

func TestStop(t *testing.T) {
	const (
		running = v1alpha1.TaskRunning
		failed  = v1alpha1.TaskFailed
		stopped = v1alpha1.TaskStopped
	)
	late := epoch.Add(scanTimeout)
	deploy := func(in *Input, names ...string) {
		in.run(v1alpha1.ActionDeploy)
		for _, name := range names {
			in.assigned(name, epoch)
		}
	}
	tests := map[string]planTest{
		"a task without nodes at work stops at once": {
			nodes: []string{"a", "b"},
			change: func(in *Input) {
				in.done("a", 1, 1)
				in.notReady("b")
				in.press("wrong cluster")
			},
			wantPhase: stopped, wantReason: v1alpha1.ReasonStopped,
			wantMessage: "Stopped (wrong cluster): 1 of 2 nodes scanned, 1 not begun",
			wantPlaces:  map[string]Place{"a": PlaceDone, "b": PlacePending},
		},
		"without a word": {
			nodes:     []string{"a"},
			change:    func(in *Input) { in.press(" ") },
			wantPhase: stopped, wantReason: v1alpha1.ReasonStopped,
			wantMessage: "Stopped (no reason given): 0 of 1 node scanned, 1 not begun",
			wantPlaces:  map[string]Place{"a": PlacePending},
		},
		"by somebody whose name the cluster has stamped": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.press("wrong cluster")
				in.Task.Annotations[v1alpha1.StoppedByAnnotation] = "carla"
			},
			wantPhase: stopped, wantReason: v1alpha1.ReasonStopped,
			wantMessage: "Stopped (wrong cluster, by carla): 0 of 1 node scanned, 1 not begun",
			wantPlaces:  map[string]Place{"a": PlacePending},
		},
		"nodes at work are told after the status remembers why, and no more begin": {
			nodes: []string{"a", "b", "c"},
			change: func(in *Input) {
				deploy(in, "a", "b")
				in.press("wrong cluster")
			},
			wantPhase: running, wantReason: v1alpha1.ReasonStopping,
			wantMessage: "Stopping (wrong cluster): waiting for a, which ends its scan; b, which ends its scan",
			wantPlaces:  map[string]Place{"a": PlaceWorking, "b": PlaceWorking, "c": PlacePending},
			wantNext:    late,
		},
		"then each is told once": {
			nodes: []string{"a", "b", "c"},
			change: func(in *Input) {
				deploy(in, "a", "b")
				in.stopping(v1alpha1.ReasonStopped, "wrong cluster", "b")
				in.shows("a", v1alpha1.StepInstalling)
				in.shows("b", v1alpha1.StepVerifying)
			},
			wantPhase: running, wantReason: v1alpha1.ReasonStopping,
			wantMessage: "Stopping (wrong cluster): waiting for a, which finishes its transaction; b, which verifies what it installed",
			wantPlaces:  map[string]Place{"a": PlaceWorking, "b": PlaceWorking, "c": PlacePending},
			wantStops:   map[string]string{"a": "wrong cluster"},
			wantNext:    late,
		},
		"the first words count, also when the annotation changes": {
			nodes: []string{"a"},
			change: func(in *Input) {
				deploy(in, "a")
				in.stopping(v1alpha1.ReasonStopped, "wrong cluster")
				in.press("never mind")
			},
			wantPhase: running, wantReason: v1alpha1.ReasonStopping,
			wantMessage: "Stopping (wrong cluster): waiting for a, which ends its scan",
			wantPlaces:  map[string]Place{"a": PlaceWorking},
			wantStops:   map[string]string{"a": "wrong cluster"},
			wantNext:    late,
		},
		"or comes after another cause": {
			nodes: []string{"a"},
			change: func(in *Input) {
				deploy(in, "a")
				in.stopping(v1alpha1.ReasonDeadlineExceeded, "The deadline of 10m passed", "a")
				in.press("too slow")
				in.done("a", 0, 0)
			},
			wantPhase: failed, wantReason: v1alpha1.ReasonDeadlineExceeded,
			wantMessage: "The deadline of 10m passed: 1 of 1 node patched",
			wantPlaces:  map[string]Place{"a": PlaceDone},
		},
		"it ends when every node has answered, and says what each had done": {
			nodes: []string{"a", "b", "c"},
			change: func(in *Input) {
				deploy(in, "a", "b")
				in.stopping(v1alpha1.ReasonStopped, "wrong cluster", "a", "b")
				in.answer("a", v1alpha1.AgentStatus{Step: v1alpha1.StepDone, Counts: &v1alpha1.PatchCounts{Installed: 12}})
				in.answer("b", v1alpha1.AgentStatus{
					Step: v1alpha1.StepStopped, Reason: v1alpha1.ReasonStopped, Message: "wrong cluster; 3 of 12 installed",
					Counts: &v1alpha1.PatchCounts{Installed: 3, Missing: 15, Excluded: 2, Held: 1, Blocked: 3},
				})
			},
			wantPhase: stopped, wantReason: v1alpha1.ReasonStopped,
			wantMessage: "Stopped (wrong cluster): 1 of 3 nodes patched, 1 stopped after 3 of 12 patches, 1 not begun",
			wantPlaces:  map[string]Place{"a": PlaceDone, "b": PlaceStopped, "c": PlacePending},
			wantReasons: map[string]string{"b": v1alpha1.ReasonStopped},
		},
		"a download that was stopped says how much is on disk": {
			nodes: []string{"a", "b"},
			change: func(in *Input) {
				in.run(v1alpha1.ActionDownload)
				in.stopping(v1alpha1.ReasonStopped, "enough")
				for name, ready := range map[string]int32{"a": 4, "b": 5} {
					in.answer(name, v1alpha1.AgentStatus{
						Step: v1alpha1.StepStopped, Reason: v1alpha1.ReasonStopped,
						Counts: &v1alpha1.PatchCounts{Missing: 10, Downloaded: ready},
					})
				}
			},
			wantPhase: stopped, wantReason: v1alpha1.ReasonStopped,
			wantMessage: "Stopped (enough): 0 of 2 nodes done, 2 stopped after 9 of 20 patches",
			wantPlaces:  map[string]Place{"a": PlaceStopped, "b": PlaceStopped},
			wantReasons: map[string]string{"a": v1alpha1.ReasonStopped, "b": v1alpha1.ReasonStopped},
		},
		"a scan that was stopped found nothing": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.stopping(v1alpha1.ReasonStopped, "enough")
				in.answer("a", v1alpha1.AgentStatus{Step: v1alpha1.StepStopped, Reason: v1alpha1.ReasonStopped})
			},
			wantPhase: stopped, wantReason: v1alpha1.ReasonStopped,
			wantMessage: "Stopped (enough): 0 of 1 node scanned, 1 stopped",
			wantPlaces:  map[string]Place{"a": PlaceStopped},
			wantReasons: map[string]string{"a": v1alpha1.ReasonStopped},
		},
		"a node that fails while it is stopped failed": {
			nodes: []string{"a"},
			change: func(in *Input) {
				deploy(in, "a")
				in.stopping(v1alpha1.ReasonStopped, "enough", "a")
				in.failed("a", v1alpha1.ReasonDiskFull, "no room in /var")
			},
			wantPhase: stopped, wantReason: v1alpha1.ReasonStopped,
			wantMessage: "Stopped (enough): 0 of 1 node patched, 1 failed",
			wantPlaces:  map[string]Place{"a": PlaceFailed},
			wantReasons: map[string]string{"a": v1alpha1.ReasonDiskFull},
		},
		"a node that says it was stopped while nobody stops the task failed": {
			nodes:     []string{"a"},
			change:    func(in *Input) { in.answer("a", v1alpha1.AgentStatus{Step: v1alpha1.StepStopped}) },
			wantPhase: failed, wantReason: v1alpha1.ReasonNodesFailed,
			wantMessage: "0 of 1 node scanned; 1 failed",
			wantPlaces:  map[string]Place{"a": PlaceFailed},
			wantReasons: map[string]string{"a": v1alpha1.ReasonAborted},
		},
		"an agent that knows no stop is given up at its deadline": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.assigned("a", epoch)
				in.stopping(v1alpha1.ReasonStopped, "enough", "a")
				in.Now = late
			},
			wantPhase: stopped, wantReason: v1alpha1.ReasonStopped,
			wantMessage:  "Stopped (enough): 0 of 1 node scanned, 1 failed",
			wantPlaces:   map[string]Place{"a": PlaceFailed},
			wantReasons:  map[string]string{"a": v1alpha1.ReasonTimeout},
			wantWithdraw: []string{"a"},
			wantVerdicts: map[string]string{"a": v1alpha1.ReasonTimeout},
		},
		"nodes that cannot be reached are not waited for": {
			nodes: []string{"a", "b", "c"},
			change: func(in *Input) {
				deploy(in, "a", "b", "c")
				in.stopping(v1alpha1.ReasonStopped, "enough", "a", "c")
				in.notReady("a")
				in.agent("b", v1alpha1.AgentAbsent)
				in.agent("c", v1alpha1.AgentNotReady)
			},
			wantPhase: running, wantReason: v1alpha1.ReasonStopping,
			wantMessage:  "Stopping (enough): waiting for c, which ends its scan",
			wantPlaces:   map[string]Place{"a": PlaceUnreachable, "b": PlaceUnreachable, "c": PlaceWorking},
			wantReasons:  map[string]string{"a": v1alpha1.ReasonNodeNotReady, "b": v1alpha1.ReasonAgentAbsent},
			wantWithdraw: []string{"a", "b"},
			wantVerdicts: map[string]string{"a": v1alpha1.ReasonNodeNotReady, "b": v1alpha1.ReasonAgentAbsent},
			wantNext:     late,
		},
		"but only once the status remembers why": {
			nodes: []string{"a"},
			change: func(in *Input) {
				deploy(in, "a")
				in.notReady("a")
				in.press("enough")
			},
			wantPhase: running, wantReason: v1alpha1.ReasonStopping,
			wantMessage: "Stopping (enough): waiting for a, which ends its scan",
			wantPlaces:  map[string]Place{"a": PlaceWorking},
			wantNext:    late,
		},
		"the deadline ends it, whatever is left": {
			nodes: []string{"a", "b", "c"},
			change: func(in *Input) {
				in.Task.Status.Template.Rollout.MaxParallelScans = 1
				in.Task.Status.Template.Deadline = &metav1.Duration{Duration: 10 * time.Minute}
				in.Now = epoch.Add(10 * time.Minute)
				in.done("a", 1, 0)
				in.assigned("b", epoch)
			},
			wantPhase: running, wantReason: v1alpha1.ReasonStopping,
			wantMessage: "Stopping (The deadline of 10m passed): waiting for b, which ends its scan",
			wantPlaces:  map[string]Place{"a": PlaceDone, "b": PlaceWorking, "c": PlacePending},
			wantNext:    late,
		},
		"a policy that was deleted ends it": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.assigned("a", epoch)
				in.Policies = nil
			},
			wantPhase: running, wantReason: v1alpha1.ReasonStopping,
			wantMessage: "Stopping (The policy workers was deleted during the run): waiting for a, which ends its scan",
			wantPlaces:  map[string]Place{"a": PlaceWorking},
			wantNext:    late,
		},
		"also if it is made anew": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.answer("a", v1alpha1.AgentStatus{Step: v1alpha1.StepStopped})
				in.stopping(v1alpha1.ReasonPolicyDeleted, "The policy workers was deleted during the run", "a")
			},
			wantPhase: failed, wantReason: v1alpha1.ReasonPolicyDeleted,
			wantMessage: "The policy workers was deleted during the run: 0 of 1 node scanned, 1 stopped",
			wantPlaces:  map[string]Place{"a": PlaceStopped},
		},
		"a node that is deleted holds nothing up": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.assigned("a", epoch)
				in.stopping(v1alpha1.ReasonStopped, "enough", "a")
				in.Nodes = nil
			},
			wantPhase: stopped, wantReason: v1alpha1.ReasonStopped,
			wantMessage: "Stopped (enough): 0 of 0 nodes scanned",
			wantPlaces:  map[string]Place{},
		},
	}
	for name, test := range tests {
		t.Run(name, test.run)
	}
}

func TestStoppingNamesTheFirstNodes(t *testing.T) {
	in := newInput("a", "b", "c", "d", "e")
	for _, node := range in.Nodes {
		in.assigned(node.Name, epoch)
	}
	in.shows("b", v1alpha1.StepDownloading)
	in.press("enough")
	plan := in.decide()
	want := "Stopping (enough): waiting for a, which ends its scan; b, which ends its download; c, which ends its scan; and 2 more"
	if got := plan.Message(); got != want {
		t.Errorf("message\n  %q, want\n  %q", got, want)
	}
}

func TestLongWordsLeaveRoomForTheNumbers(t *testing.T) {
	in := newInput("a")
	in.press(strings.Repeat("ü", 5000))
	in.apply(ptr.To(in.decide()))
	if got := in.Task.Status.Message; !strings.HasSuffix(got, "…): 0 of 1 node scanned, 1 not begun") {
		t.Errorf("message %q", got)
	}
	if got := len([]rune(in.Task.Status.Stop.Message)); got != maxMessage {
		t.Errorf("the status remembers %d characters, the API takes %d", got, maxMessage)
	}
}

// TestStopOfARun goes through a stop plan by plan, with the annotation gone as
// soon as the status remembers it.
func TestStopOfARun(t *testing.T) {
	in := newInput("a", "b", "c")
	in.run(v1alpha1.ActionDeploy)
	in.Task.Status.Template.Rollout.MaxParallelScans = 1
	in.apply(ptr.To(in.decide()))
	in.press("wrong cluster")
	plan := in.decide()
	if !plan.Halts {
		t.Fatalf("the status does not remember the stop first: %+v", plan)
	}
	in.apply(&plan)
	in.Task.Annotations = nil
	plan = in.decide()
	in.apply(&plan)
	if got := in.Assignments["a"].Spec.Operation.Stop; got != "wrong cluster" {
		t.Fatalf("the node was told %q", got)
	}
	if plan.Halts {
		t.Error("the status is asked to remember the stop again")
	}
	in.Now = epoch.Add(5 * time.Minute)
	in.answer("a", v1alpha1.AgentStatus{Step: v1alpha1.StepStopped, Reason: v1alpha1.ReasonStopped, Message: "wrong cluster; nothing was installed"})
	in.apply(ptr.To(in.decide()))

	status := in.Task.Status
	want := &v1alpha1.TaskStop{Time: metav1.NewTime(epoch.Add(time.Minute)), Reason: v1alpha1.ReasonStopped, Message: "wrong cluster"}
	if diff := cmp.Diff(want, status.Stop); diff != "" {
		t.Errorf("stop differs (-want +got):\n%s", diff)
	}
	if status.Phase != v1alpha1.TaskStopped || status.Message != "Stopped (wrong cluster): 0 of 3 nodes patched, 1 stopped, 2 not begun" {
		t.Errorf("%s: %s", status.Phase, status.Message)
	}
	if diff := cmp.Diff(&v1alpha1.TaskNodeCounts{Total: 3, Pending: 2, Stopped: 1}, status.Nodes); diff != "" {
		t.Errorf("counts differ (-want +got):\n%s", diff)
	}
	var log []string
	for _, entry := range status.Log {
		log = append(log, fmt.Sprintf("%s %s: %s", entry.Reason, entry.Node, entry.Message))
	}
	wantLog := []string{
		"DeployStopped a: wrong cluster; nothing was installed",
		"TaskStopped : Stopped (wrong cluster): 0 of 3 nodes patched, 1 stopped, 2 not begun",
	}
	if diff := cmp.Diff(wantLog, log[max(0, len(log)-2):]); diff != "" {
		t.Errorf("log differs (-want +got):\n%s", diff)
	}
}

// TestFailedWritesOfAStop has the API server refuse what a plan wanted to write.
func TestFailedWritesOfAStop(t *testing.T) {
	in := newInput("a", "b")
	in.assigned("a", epoch)
	in.assigned("b", epoch)
	in.stopping(v1alpha1.ReasonStopped, "enough", "a")
	in.notReady("a")
	in.notReady("b")
	plan := in.decide()
	if !plan.Ended() {
		t.Fatalf("the run waits: %s", plan.Message())
	}
	i := slices.IndexFunc(plan.Nodes, func(node Node) bool { return node.Name == "b" })
	plan.undo(i, v1alpha1.ReasonNotAssigned)
	if got := plan.Message(); plan.Ended() || got != "Stopping (enough): waiting for b, which ends its scan" {
		t.Errorf("%s: %s", plan.Phase, got)
	}
}
