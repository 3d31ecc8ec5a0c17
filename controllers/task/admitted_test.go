package task

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

func TestDisruptedNodes(t *testing.T) {
	const (
		running  = v1alpha1.TaskRunning
		complete = v1alpha1.TaskComplete
		failed   = v1alpha1.TaskFailed
		stopped  = v1alpha1.TaskStopped
	)
	deploys := func(change func(*Input)) func(*Input) {
		return func(in *Input) {
			in.run(v1alpha1.ActionDeploy)
			change(in)
		}
	}
	manages := func(in *Input, name string, step v1alpha1.Step) {
		in.Assignments[name].Status.Controller.OperationID = taskUID
		in.Assignments[name].Status.Controller.Step = step
	}
	tests := map[string]planTest{
		"are counted by the manager's step, else by the agent's": {
			nodes: []string{"a", "b", "c", "d", "e"},
			change: deploys(func(in *Input) {
				for _, node := range in.Nodes {
					in.admitted(node.Name, epoch)
				}
				manages(in, "a", v1alpha1.StepDraining)
				manages(in, "b", v1alpha1.StepVerifying)
				in.answer("c", v1alpha1.AgentStatus{Step: v1alpha1.StepWaiting, Reason: v1alpha1.ReasonRebootRequired})
				in.answer("d", v1alpha1.AgentStatus{Step: v1alpha1.StepDone})
			}),
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage: "0 of 5 nodes patched; 1 draining; 1 installing; 1 rebooting; 2 verifying",
			wantPlaces: map[string]Place{
				"a": PlaceDisrupted, "b": PlaceDisrupted, "c": PlaceDisrupted, "d": PlaceDisrupted, "e": PlaceDisrupted,
			},
		},
		"are the assignment controller's until its verdict, also beyond their deadline": {
			nodes: []string{"a"},
			change: deploys(func(in *Input) {
				in.admitted("a", epoch)
				in.answer("a", v1alpha1.AgentStatus{Step: v1alpha1.StepFailed, Reason: v1alpha1.ReasonPatchesFailed})
				in.notReady("a")
				in.Now = epoch.Add(48 * time.Hour)
			}),
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage: "0 of 1 node patched; 1 verifying",
			wantPlaces:  map[string]Place{"a": PlaceDisrupted},
		},
		"its verdict is the last word": {
			nodes: []string{"a", "b"},
			change: deploys(func(in *Input) {
				for _, name := range []string{"a", "b"} {
					in.admitted(name, epoch)
				}
				in.answer("a", v1alpha1.AgentStatus{Step: v1alpha1.StepDone})
				in.judged("a", v1alpha1.StepFailed, v1alpha1.ReasonVerifyTimeout, "The node was not Ready within 10m")
				in.judged("b", v1alpha1.StepDone, v1alpha1.ReasonVerified, "")
			}),
			wantPhase: failed, wantReason: v1alpha1.ReasonNodesFailed,
			wantMessage: "1 of 2 nodes patched: 20 patches installed, none missing; 1 failed",
			wantPlaces:  map[string]Place{"a": PlaceFailed, "b": PlaceDone},
			wantReasons: map[string]string{"a": v1alpha1.ReasonVerifyTimeout},
		},
		"one that its preDisrupt hook kept out was skipped": {
			nodes: []string{"a", "b"},
			change: deploys(func(in *Input) {
				in.judged("a", v1alpha1.StepStopped, v1alpha1.ReasonHookFailed, "Hook preDisrupt failed: exit code 1")
				in.judged("b", v1alpha1.StepDone, v1alpha1.ReasonVerified, "")
			}),
			wantPhase: failed, wantReason: v1alpha1.ReasonNodesSkipped,
			wantMessage: "1 of 2 nodes patched: 20 patches installed, none missing; 1 skipped",
			wantPlaces:  map[string]Place{"a": PlaceSkipped, "b": PlaceDone},
			wantReasons: map[string]string{"a": v1alpha1.ReasonHookFailed},
		},
		"all went through": {
			nodes: []string{"a"},
			change: deploys(func(in *Input) {
				in.judged("a", v1alpha1.StepDone, v1alpha1.ReasonVerified, "")
			}),
			wantPhase: complete, wantReason: v1alpha1.ReasonAllNodesDone,
			wantMessage: "1 of 1 node patched: 10 patches installed, none missing",
			wantPlaces:  map[string]Place{"a": PlaceDone},
		},
		"one that was stopped with the run": {
			nodes: []string{"a"},
			change: deploys(func(in *Input) {
				in.stopping(v1alpha1.ReasonStopped, "enough")
				in.judged("a", v1alpha1.StepStopped, v1alpha1.ReasonStopped, "enough")
			}),
			wantPhase: stopped, wantReason: v1alpha1.ReasonStopped,
			wantMessage: "Stopped (enough): 0 of 1 node patched, 1 stopped after 10 of 10 patches",
			wantPlaces:  map[string]Place{"a": PlaceStopped},
			wantReasons: map[string]string{"a": v1alpha1.ReasonStopped},
		},
		"one that was stopped though nobody stops the run failed": {
			nodes: []string{"a"},
			change: deploys(func(in *Input) {
				in.judged("a", v1alpha1.StepStopped, "", "")
			}),
			wantPhase: failed, wantReason: v1alpha1.ReasonNodesFailed,
			wantMessage: "0 of 1 node patched: 10 patches installed, none missing; 1 failed",
			wantPlaces:  map[string]Place{"a": PlaceFailed},
			wantReasons: map[string]string{"a": v1alpha1.ReasonAborted},
		},
		"a stop tells those that wait and those in their midst, and waits for both": {
			nodes: []string{"a", "b"},
			change: deploys(func(in *Input) {
				in.admitted("a", epoch)
				manages(in, "a", v1alpha1.StepRebooting)
				in.ready(3, "b")
				in.stopping(v1alpha1.ReasonStopped, "enough")
			}),
			wantPhase: running, wantReason: v1alpha1.ReasonStopping,
			wantMessage: "Stopping (enough): waiting for a, which comes back from its reboot; b, which gives up its turn",
			wantPlaces:  map[string]Place{"a": PlaceDisrupted, "b": PlaceWaiting},
			wantStops:   map[string]string{"a": "enough", "b": "enough"},
		},
		"one that waits and cannot be reached is not waited for, one in its midst is": {
			nodes: []string{"a", "b"},
			change: deploys(func(in *Input) {
				in.admitted("a", epoch)
				in.ready(3, "b")
				in.stopping(v1alpha1.ReasonStopped, "enough", "a", "b")
				in.notReady("a")
				in.notReady("b")
			}),
			wantPhase: running, wantReason: v1alpha1.ReasonStopping,
			wantMessage:  "Stopping (enough): waiting for a, which finishes its transaction",
			wantPlaces:   map[string]Place{"a": PlaceDisrupted, "b": PlaceUnreachable},
			wantReasons:  map[string]string{"b": v1alpha1.ReasonNodeNotReady},
			wantWithdraw: []string{"b"},
			wantVerdicts: map[string]string{"b": v1alpha1.ReasonNodeNotReady},
		},
		"one that waits has no deadline to fear": {
			nodes: []string{"a"},
			change: deploys(func(in *Input) {
				in.ready(3, "a")
				in.Policies[0].Spec.Suspend = true
				in.Now = epoch.Add(72 * time.Hour)
			}),
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage: "0 of 1 node patched; 1 waiting (a PolicySuspended)",
			wantPlaces:  map[string]Place{"a": PlaceWaiting},
			wantReasons: map[string]string{"a": v1alpha1.ReasonPolicySuspended},
		},
		"but is given up when it stays away for too long": {
			nodes: []string{"a", "b"},
			change: deploys(func(in *Input) {
				in.ready(3, "a", "b")
				for name, since := range map[string]time.Duration{"a": scanTimeout, "b": scanTimeout - time.Minute} {
					in.notReady(name)
					in.node(name).Status.Conditions[0].LastTransitionTime = metav1.NewTime(in.Now.Add(-since))
				}
			}),
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage:  "0 of 2 nodes patched; 1 could not be reached; 1 waiting (b NodeNotReady)",
			wantPlaces:   map[string]Place{"a": PlaceUnreachable, "b": PlaceWaiting},
			wantReasons:  map[string]string{"a": v1alpha1.ReasonNodeNotReady, "b": v1alpha1.ReasonNodeNotReady},
			wantWithdraw: []string{"a"},
			wantVerdicts: map[string]string{"a": v1alpha1.ReasonNodeNotReady},
			wantNext:     epoch.Add(2 * time.Minute),
		},
		"one that left the policy while it waited is told to end, and fails nothing": {
			nodes: []string{"a", "b", "c"},
			change: deploys(func(in *Input) {
				in.ready(3, "a", "b")
				in.judged("c", v1alpha1.StepDone, v1alpha1.ReasonVerified, "")
				for _, name := range []string{"a", "b"} {
					in.label(name, "pool", "others")
				}
				in.Assignments["b"].Spec.Operation.Stop = "The node left the policy workers while it waited"
				in.answer("b", v1alpha1.AgentStatus{Step: v1alpha1.StepStopped})
			}),
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage: "1 of 3 nodes patched: 10 patches installed, none missing; 1 stopped; 1 waiting (a Aborted)",
			wantPlaces:  map[string]Place{"a": PlaceWaiting, "b": PlaceStopped, "c": PlaceDone},
			wantReasons: map[string]string{"a": v1alpha1.ReasonAborted},
			wantStops:   map[string]string{"a": "The node left the policy workers while it waited"},
		},
		"an earlier deployment has a node first": {
			nodes: []string{"a", "b"},
			change: deploys(func(in *Input) {
				earlier := in.Task.DeepCopy()
				earlier.Name, earlier.UID = "earlier", otherUID
				earlier.Status.StartTime = ptr.To(metav1.NewTime(epoch.Add(-time.Hour)))
				in.Tasks = []v1alpha1.PatchTask{*in.Task, *earlier}
				in.Assignments["b"].Spec.Verdicts = []v1alpha1.EndedOperation{{OperationID: otherUID, Step: v1alpha1.StepDone}}
			}),
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage:  "0 of 2 nodes patched; 1 scanning; 1 waiting (a Busy)",
			wantPlaces:   map[string]Place{"a": PlacePending, "b": PlaceWorking},
			wantReasons:  map[string]string{"a": v1alpha1.ReasonBusy},
			wantAssigned: []string{"b"},
			wantNext:     epoch.Add(time.Minute + prepareTimeout),
		},
	}
	for name, test := range tests {
		t.Run(name, test.run)
	}
}

func TestEstimate(t *testing.T) {
	hook := &v1alpha1.Hook{Timeout: metav1.Duration{Duration: 5 * time.Minute}}
	tests := map[string]struct {
		patches int32
		reboot  bool // nothing but a reboot is left to do
		took    []time.Duration
		change  func(*v1alpha1.TaskTemplate)
		want    time.Duration
	}{
		"installation, drain and reboot":  {patches: 20, want: 45 * time.Minute},
		"nothing but a reboot":            {patches: 20, reboot: true, want: 35 * time.Minute},
		"never more than install.timeout": {patches: 1000, want: 155 * time.Minute},
		"in whole minutes":                {patches: 1, want: 41 * time.Minute},
		"no reboot, and so no drain":      {patches: 20, want: 10 * time.Minute, change: func(t *v1alpha1.TaskTemplate) { t.Reboot.When = v1alpha1.RebootNever }},
		"no drain":                        {patches: 20, want: 30 * time.Minute, change: func(t *v1alpha1.TaskTemplate) { t.Drain.When = v1alpha1.DrainNever }},
		"a drain in any case": {patches: 20, want: 25 * time.Minute, change: func(t *v1alpha1.TaskTemplate) {
			t.Reboot.When, t.Drain.When = v1alpha1.RebootNever, v1alpha1.DrainBeforeInstall
		}},
		"hooks": {patches: 20, want: 55 * time.Minute, change: func(t *v1alpha1.TaskTemplate) { t.Hooks = &v1alpha1.Hooks{PreDisrupt: hook, PostReboot: hook} }},
		"load balancers": {patches: 20, want: 50 * time.Minute, change: func(t *v1alpha1.TaskTemplate) {
			t.LoadBalancer = &v1alpha1.LoadBalancerOptions{Delay: metav1.Duration{Duration: 5 * time.Minute}}
		}},
		"what the slowest took, and half":  {patches: 20, took: []time.Duration{4 * time.Minute, 10 * time.Minute}, want: 16 * time.Minute},
		"never above the first bound":      {patches: 20, took: []time.Duration{time.Hour}, want: 45 * time.Minute},
		"soaking disrupts nobody any more": {patches: 20, took: []time.Duration{70 * time.Minute}, want: 16 * time.Minute, change: func(t *v1alpha1.TaskTemplate) { t.Rollout.Soak = &metav1.Duration{Duration: time.Hour} }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in := newInput("a", "b", "c")
			in.run(v1alpha1.ActionDeploy)
			if test.change != nil {
				test.change(in.Task.Status.Template)
			}
			for i, took := range test.took {
				name := in.Nodes[1+i].Name
				in.admitted(name, in.Now.Add(-took))
				in.judged(name, v1alpha1.StepDone, v1alpha1.ReasonVerified, "")
			}
			agent := &v1alpha1.AgentStatus{Reason: v1alpha1.ReasonReadyToInstall, Counts: &v1alpha1.PatchCounts{Downloaded: test.patches}}
			if test.reboot {
				agent.Reason = v1alpha1.ReasonRebootRequired
			}
			run := newRun(in)
			run.nodes()
			if got := run.estimate(agent); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}
