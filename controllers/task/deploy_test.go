package task

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

func TestDeployment(t *testing.T) {
	const (
		running  = v1alpha1.TaskRunning
		complete = v1alpha1.TaskComplete
		failed   = v1alpha1.TaskFailed
	)
	deploy := func(at int, in *Input) {
		in.run(v1alpha1.ActionDeploy)
		in.Task.Status.Template.Rollout.MaxUnavailable = ptr.To(intstr.FromInt(at))
	}
	patched := func(in *Input, name string, counts v1alpha1.PatchCounts) {
		in.answer(name, v1alpha1.AgentStatus{Step: v1alpha1.StepDone, Reason: v1alpha1.ReasonInstalled, Counts: &counts})
	}
	// other has another task deploy on a node.
	other := func(in *Input, name string) {
		in.Assignments[name].Spec.Operation = operation(otherUID, "other", epoch)
		in.Assignments[name].Spec.Operation.Step = v1alpha1.StepInstalling
	}
	tests := map[string]planTest{
		"a download works on as many nodes at once as a scan": {
			nodes: []string{"a", "b", "c"},
			change: func(in *Input) {
				in.run(v1alpha1.ActionDownload)
				in.Task.Status.Template.Rollout.MaxParallelScans = 2
			},
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage:  "0 of 3 nodes done; 2 scanning; 1 waiting (c ParallelLimit)",
			wantPlaces:   map[string]Place{"a": PlaceWorking, "b": PlaceWorking, "c": PlacePending},
			wantReasons:  map[string]string{"c": v1alpha1.ReasonParallelLimit},
			wantAssigned: []string{"a", "b"},
			wantNext:     epoch.Add(time.Minute + scanTimeout + downloadTimeout),
		},
		"a deployment prepares as many nodes at once": {
			nodes: []string{"a", "b", "c"},
			change: func(in *Input) {
				deploy(1, in)
				in.Task.Status.Template.Rollout.MaxParallelScans = 2
				other(in, "c")
			},
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage:  "0 of 3 nodes patched; 2 scanning; 1 waiting (c Busy)",
			wantPlaces:   map[string]Place{"a": PlaceWorking, "b": PlaceWorking, "c": PlacePending},
			wantReasons:  map[string]string{"c": v1alpha1.ReasonBusy},
			wantAssigned: []string{"a", "b"},
			wantNext:     epoch.Add(time.Minute + prepareTimeout),
		},
		"nodes that wait leave their place to others": {
			nodes: []string{"a", "b", "c", "d"},
			change: func(in *Input) {
				deploy(1, in)
				in.Task.Status.Template.Rollout.MaxParallelScans = 1
				in.ready(3, "a", "b")
			},
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage:  "0 of 4 nodes patched; 1 scanning; 1 installing; 2 waiting (b Budget, d ParallelLimit)",
			wantPlaces:   map[string]Place{"a": PlaceDisrupted, "b": PlaceWaiting, "c": PlaceWorking, "d": PlacePending},
			wantReasons:  map[string]string{"b": v1alpha1.ReasonBudget, "d": v1alpha1.ReasonParallelLimit},
			wantAssigned: []string{"c"},
			wantAdmitted: []string{"a"},
			wantNext:     epoch.Add(time.Minute + prepareTimeout),
		},
		"nodes with nothing to install never enter": {
			nodes: []string{"a", "b"},
			change: func(in *Input) {
				deploy(1, in)
				in.Policies[0].Spec.MaintenanceWindows = []v1alpha1.MaintenanceWindow{windowAt("0 3 * * *", "UTC", time.Hour)}
				patched(in, "a", v1alpha1.PatchCounts{})
				patched(in, "b", v1alpha1.PatchCounts{Missing: 2, Held: 2})
			},
			wantPhase: complete, wantReason: v1alpha1.ReasonAllNodesDone,
			wantMessage: "2 of 2 nodes patched: 0 patches installed, 2 on hold",
			wantPlaces:  map[string]Place{"a": PlaceDone, "b": PlaceDone},
		},
		"each node is counted by the step that its agent shows": {
			nodes: []string{"a", "b", "c", "d", "e"},
			change: func(in *Input) {
				deploy(5, in)
				for name, step := range map[string]v1alpha1.Step{
					"a": v1alpha1.StepScanning, "b": v1alpha1.StepDownloading, "c": v1alpha1.StepInstalling, "d": v1alpha1.StepVerifying,
				} {
					in.shows(name, step)
				}
				// The agent still shows what it did before.
				in.shows("e", v1alpha1.StepInstalling)
				in.Assignments["e"].Status.Agent.OperationID = otherUID
			},
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage: "0 of 5 nodes patched; 2 scanning; 1 downloading; 1 installing; 1 verifying",
			wantPlaces: map[string]Place{
				"a": PlaceWorking, "b": PlaceWorking, "c": PlaceWorking, "d": PlaceWorking, "e": PlaceWorking,
			},
			wantNext: epoch.Add(scanTimeout),
		},
		"all patched": {
			nodes: []string{"a", "b"},
			change: func(in *Input) {
				deploy(2, in)
				patched(in, "a", v1alpha1.PatchCounts{Installed: 30})
				patched(in, "b", v1alpha1.PatchCounts{Installed: 1})
			},
			wantPhase: complete, wantReason: v1alpha1.ReasonAllNodesDone,
			wantMessage: "2 of 2 nodes patched: 31 patches installed, none missing",
			wantPlaces:  map[string]Place{"a": PlaceDone, "b": PlaceDone},
		},
		"nothing to patch": {
			nodes: []string{"a"},
			change: func(in *Input) {
				deploy(1, in)
				patched(in, "a", v1alpha1.PatchCounts{})
			},
			wantPhase: complete, wantReason: v1alpha1.ReasonAllNodesDone,
			wantMessage: "1 of 1 node patched: no patch is missing",
			wantPlaces:  map[string]Place{"a": PlaceDone},
		},
		"what is left says why": {
			nodes: []string{"a"},
			change: func(in *Input) {
				deploy(1, in)
				patched(in, "a", v1alpha1.PatchCounts{
					Installed: 1, Missing: 28, Excluded: 2, Held: 3, KeptBack: 4, Phased: 5, Security: 28,
				})
			},
			wantPhase: complete, wantReason: v1alpha1.ReasonAllNodesDone,
			wantMessage: "1 of 1 node patched: 1 patch installed, 2 excluded, 3 on hold, 4 kept back, 5 phased, 14 missing",
			wantPlaces:  map[string]Place{"a": PlaceDone},
		},
		"a patch that failed fails its node, and what the node installed counts": {
			nodes: []string{"a", "b"},
			change: func(in *Input) {
				deploy(2, in)
				patched(in, "a", v1alpha1.PatchCounts{Installed: 18})
				in.answer("b", v1alpha1.AgentStatus{
					Step: v1alpha1.StepFailed, Reason: v1alpha1.ReasonPatchesFailed, Message: "ham 2.0 (1 of 4): its preinst failed",
					Counts: &v1alpha1.PatchCounts{Installed: 12, Missing: 3, Failed: 1, Blocked: 2},
				})
			},
			wantPhase: failed, wantReason: v1alpha1.ReasonNodesFailed,
			wantMessage: "1 of 2 nodes done: 30 patches installed, 1 failed, 2 blocked; 1 failed",
			wantPlaces:  map[string]Place{"a": PlaceDone, "b": PlaceFailed},
			wantReasons: map[string]string{"b": v1alpha1.ReasonPatchesFailed},
		},
		"all downloaded": {
			nodes: []string{"a", "b"},
			change: func(in *Input) {
				in.run(v1alpha1.ActionDownload)
				patched(in, "a", v1alpha1.PatchCounts{Missing: 30, Downloaded: 30})
				patched(in, "b", v1alpha1.PatchCounts{Missing: 3, Downloaded: 1, Excluded: 2})
			},
			wantPhase: complete, wantReason: v1alpha1.ReasonAllNodesDone,
			wantMessage: "2 of 2 nodes done: 31 patches ready on disk, 2 excluded",
			wantPlaces:  map[string]Place{"a": PlaceDone, "b": PlaceDone},
		},
		"nothing to download": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.run(v1alpha1.ActionDownload)
				patched(in, "a", v1alpha1.PatchCounts{})
			},
			wantPhase: complete, wantReason: v1alpha1.ReasonAllNodesDone,
			wantMessage: "1 of 1 node done: no patch is missing",
			wantPlaces:  map[string]Place{"a": PlaceDone},
		},
		"a node that does not prepare itself in time failed": {
			nodes: []string{"a"},
			change: func(in *Input) {
				deploy(1, in)
				in.assigned("a", epoch)
				in.shows("a", v1alpha1.StepDownloading)
				in.Now = epoch.Add(prepareTimeout)
			},
			wantPhase: failed, wantReason: v1alpha1.ReasonNodesFailed,
			wantMessage:  "0 of 1 node patched; 1 failed",
			wantPlaces:   map[string]Place{"a": PlaceFailed},
			wantReasons:  map[string]string{"a": v1alpha1.ReasonTimeout},
			wantWithdraw: []string{"a"},
			wantVerdicts: map[string]string{"a": v1alpha1.ReasonTimeout},
		},
	}
	for name, test := range tests {
		t.Run(name, test.run)
	}
}

func TestShareOfNodes(t *testing.T) {
	tests := map[string]struct {
		value    *intstr.IntOrString
		governed int
		want     int
	}{
		"none":                      {governed: 100, want: 1},
		"a number":                  {value: ptr.To(intstr.FromInt(7)), governed: 3, want: 7},
		"a percentage":              {value: ptr.To(intstr.FromString("10%")), governed: 50, want: 5},
		"rounded down":              {value: ptr.To(intstr.FromString("10%")), governed: 59, want: 5},
		"of few nodes, never none":  {value: ptr.To(intstr.FromString("10%")), governed: 9, want: 1},
		"of no node, never none":    {value: ptr.To(intstr.FromString("100%")), governed: 0, want: 1},
		"what no API server let in": {value: ptr.To(intstr.FromString("many")), governed: 100, want: 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := share(test.value, test.governed); got != test.want {
				t.Errorf("%d nodes, want %d", got, test.want)
			}
		})
	}
}

func TestOperationsOfActions(t *testing.T) {
	patches := &v1alpha1.PatchSelection{Classifications: []v1alpha1.Classification{v1alpha1.ClassificationSecurity}}
	tests := map[v1alpha1.Action]struct {
		wantStep    v1alpha1.Step
		wantReboot  v1alpha1.RebootWhen
		wantTimeout time.Duration
		wantAdvice  string
	}{
		v1alpha1.ActionScan: {
			v1alpha1.StepScanning, "", scanTimeout,
			"No answer within 30m; see what the agent on this node logs, or raise the scan's timeout",
		},
		v1alpha1.ActionDownload: {
			v1alpha1.StepDownloading, "", prepareTimeout,
			"No answer within 1h30m; see what the agent on this node logs, or raise the timeouts of scan and download",
		},
		v1alpha1.ActionDeploy: {
			v1alpha1.StepDownloading, v1alpha1.RebootAlways, prepareTimeout,
			"No answer within 1h30m; see what the agent on this node logs, or raise the timeouts of scan and download",
		},
	}
	for action, test := range tests {
		t.Run(string(action), func(t *testing.T) {
			in := newInput("a")
			in.run(action)
			in.Task.Status.Template.Patches = patches
			in.Task.Status.Template.Reboot.When = v1alpha1.RebootAlways
			in.Policies[0].Spec.RetryLimits = v1alpha1.RetryLimits{Download: 2, Install: 1}
			plan := in.decide()
			now := epoch.Add(time.Minute)
			want := &v1alpha1.Operation{
				ID: taskUID, Task: "scan-now", Step: test.wantStep, Patches: patches, Action: action, Reboot: test.wantReboot,
				RetryLimits: &v1alpha1.RetryLimits{Download: 2, Install: 1},
				AssignedAt:  metav1.NewTime(now), Deadline: metav1.NewTime(now.Add(test.wantTimeout)),
			}
			if diff := cmp.Diff(want, plan.Nodes[0].Assign); diff != "" {
				t.Errorf("operation differs (-want +got):\n%s", diff)
			}
			if plan.Nodes[0].Assign.Patches == in.Task.Status.Template.Patches {
				t.Error("the operation shares its patches with the cache")
			}

			in.apply(&plan)
			in.shows("a", v1alpha1.StepDownloading)
			in.Now = now.Add(test.wantTimeout)
			plan = in.decide()
			if got := plan.Nodes[0].Message; got != test.wantAdvice {
				t.Errorf("message\n  %q, want\n  %q", got, test.wantAdvice)
			}
			wantEntry := fmt.Sprintf("No answer to task scan-now within %s, last seen at step Downloading", test.wantTimeout)
			if got := plan.Entries()[0].Message; got != wantEntry {
				t.Errorf("entry\n  %q, want\n  %q", got, wantEntry)
			}
		})
	}
}

func TestLogOfADeployment(t *testing.T) {
	tests := map[string]struct {
		step        v1alpha1.Step
		wantMessage string
	}{
		"that went well": {v1alpha1.StepDone, "TaskFinished: Done in 1h0m0s: 1 of 1 node patched: 12 patches installed, none missing"},
		"that failed": {
			v1alpha1.StepFailed,
			"TaskFailed: 0 of 1 node patched: 12 patches installed, none missing; 1 failed: first a (DiskFull): no room in /var",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in := newInput("a")
			in.run(v1alpha1.ActionDeploy)
			in.Now = epoch.Add(time.Hour)
			in.answer("a", v1alpha1.AgentStatus{
				Step: test.step, Reason: v1alpha1.ReasonDiskFull, Message: "no room in /var", Counts: &v1alpha1.PatchCounts{Installed: 12},
			})
			in.apply(ptr.To(in.decide()))
			log := in.Task.Status.Log
			last := log[len(log)-1]
			if got := last.Reason + ": " + last.Message; got != test.wantMessage {
				t.Errorf("last entry\n  %q, want\n  %q", got, test.wantMessage)
			}
			if failed := test.step == v1alpha1.StepFailed; failed && (log[0].Reason != v1alpha1.EventDeployFailed || log[0].Node != "a") {
				t.Errorf("the log says of the node %+v", log[0])
			}
		})
	}
}
