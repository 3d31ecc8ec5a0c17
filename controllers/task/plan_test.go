package task

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

func TestRun(t *testing.T) {
	const (
		running  = v1alpha1.TaskRunning
		complete = v1alpha1.TaskComplete
		failed   = v1alpha1.TaskFailed
	)
	late := epoch.Add(scanTimeout)
	tests := map[string]planTest{
		"every node is asked at once": {
			nodes:     []string{"b", "a"},
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage:  "0 of 2 nodes scanned; 2 scanning",
			wantPlaces:   map[string]Place{"a": PlaceWorking, "b": PlaceWorking},
			wantAssigned: []string{"a", "b"},
			wantNext:     epoch.Add(time.Minute + scanTimeout),
		},
		"as many as allowed, the first by name": {
			nodes:     []string{"c", "b", "a"},
			change:    func(in *Input) { in.Task.Status.Template.Rollout.MaxParallelScans = 2 },
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage:  "0 of 3 nodes scanned; 2 scanning; 1 waiting (c ParallelLimit)",
			wantPlaces:   map[string]Place{"a": PlaceWorking, "b": PlaceWorking, "c": PlacePending},
			wantReasons:  map[string]string{"c": v1alpha1.ReasonParallelLimit},
			wantAssigned: []string{"a", "b"},
			wantNext:     epoch.Add(time.Minute + scanTimeout),
		},
		"an answer frees a slot": {
			nodes: []string{"a", "b", "c"},
			change: func(in *Input) {
				in.Task.Status.Template.Rollout.MaxParallelScans = 2
				in.done("a", 5, 2)
				in.assigned("b", epoch)
			},
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage:  "1 of 3 nodes scanned: 5 patches missing, 2 of them security; 2 scanning",
			wantPlaces:   map[string]Place{"a": PlaceDone, "b": PlaceWorking, "c": PlaceWorking},
			wantAssigned: []string{"c"},
			wantNext:     late,
		},
		"all done": {
			nodes: []string{"a", "b"},
			change: func(in *Input) {
				in.done("a", 30, 12)
				in.done("b", 1, 0)
			},
			wantPhase: complete, wantReason: v1alpha1.ReasonAllNodesDone,
			wantMessage: "2 of 2 nodes scanned: 31 patches missing, 12 of them security",
			wantPlaces:  map[string]Place{"a": PlaceDone, "b": PlaceDone},
		},
		"one done, nothing missing": {
			nodes:     []string{"a"},
			change:    func(in *Input) { in.done("a", 0, 0) },
			wantPhase: complete, wantReason: v1alpha1.ReasonAllNodesDone,
			wantMessage: "1 of 1 node scanned: no patch is missing",
			wantPlaces:  map[string]Place{"a": PlaceDone},
		},
		"an outcome is found after the node went on to another task": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.done("a", 3, 1)
				agent := in.Assignments["a"].Status.Agent
				agent.Earlier = []v1alpha1.EndedOperation{{OperationID: taskUID, Step: v1alpha1.StepDone, Counts: agent.Counts}}
				agent.OperationID, agent.Step, agent.Counts = otherUID, v1alpha1.StepScanning, nil
				in.Assignments["a"].Spec.Operation = operation(otherUID, "other", in.Now)
			},
			wantPhase: complete, wantReason: v1alpha1.ReasonAllNodesDone,
			wantMessage: "1 of 1 node scanned: 3 patches missing, 1 of them security",
			wantPlaces:  map[string]Place{"a": PlaceDone},
		},
		"a scan that failed fails the task": {
			nodes: []string{"a", "b"},
			change: func(in *Input) {
				in.done("a", 1, 1)
				in.failed("b", v1alpha1.ReasonLocked, "unattended-upgr (812) holds the lock")
			},
			wantPhase: failed, wantReason: v1alpha1.ReasonNodesFailed,
			wantMessage: "1 of 2 nodes scanned: 1 patch missing, 1 of them security; 1 failed",
			wantPlaces:  map[string]Place{"a": PlaceDone, "b": PlaceFailed},
			wantReasons: map[string]string{"b": v1alpha1.ReasonLocked},
		},
		"a failure without a reason still has one": {
			nodes:     []string{"a"},
			change:    func(in *Input) { in.failed("a", "", "") },
			wantPhase: failed, wantReason: v1alpha1.ReasonNodesFailed,
			wantMessage: "0 of 1 node scanned; 1 failed",
			wantPlaces:  map[string]Place{"a": PlaceFailed},
			wantReasons: map[string]string{"a": v1alpha1.ReasonScanFailed},
		},
		"nodes that cannot be reached are waited for": {
			nodes: []string{"a", "b", "c", "d", "e"},
			change: func(in *Input) {
				in.notReady("a")
				in.agent("b", v1alpha1.AgentAbsent)
				in.agent("c", v1alpha1.AgentNotReady)
				delete(in.Assignments, "d")
				in.Assignments["e"].Status.Controller = nil
			},
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage: "0 of 5 nodes scanned; 5 waiting (a NodeNotReady, b AgentAbsent, c AgentNotReady and 2 more)",
			wantPlaces:  map[string]Place{"a": PlacePending, "b": PlacePending, "c": PlacePending, "d": PlacePending, "e": PlacePending},
			wantReasons: map[string]string{
				"a": v1alpha1.ReasonNodeNotReady, "b": v1alpha1.ReasonAgentAbsent, "c": v1alpha1.ReasonAgentNotReady,
				"d": v1alpha1.ReasonAgentAbsent, "e": v1alpha1.ReasonAgentAbsent,
			},
			wantNext: late,
		},
		"until the timeout, when they count as unreachable and not as failed": {
			nodes: []string{"a", "b"},
			change: func(in *Input) {
				in.Now = late
				in.done("a", 2, 0)
				in.notReady("b")
			},
			wantPhase: failed, wantReason: v1alpha1.ReasonNodesUnreachable,
			wantMessage: "1 of 2 nodes scanned: 2 patches missing, none of them security; 1 could not be reached",
			wantPlaces:  map[string]Place{"a": PlaceDone, "b": PlaceUnreachable},
			wantReasons: map[string]string{"b": v1alpha1.ReasonNodeNotReady},
		},
		"a node that comes back while the task still runs is asked": {
			nodes: []string{"a", "b"},
			change: func(in *Input) {
				in.Now = late.Add(time.Minute)
				in.assigned("a", epoch.Add(10*time.Minute))
			},
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage:  "0 of 2 nodes scanned; 2 scanning",
			wantPlaces:   map[string]Place{"a": PlaceWorking, "b": PlaceWorking},
			wantAssigned: []string{"b"},
			wantNext:     epoch.Add(10*time.Minute + scanTimeout),
		},
		"a node that does not answer in time failed": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.assigned("a", epoch)
				in.Now = late
			},
			wantPhase: failed, wantReason: v1alpha1.ReasonNodesFailed,
			wantMessage:  "0 of 1 node scanned; 1 failed",
			wantPlaces:   map[string]Place{"a": PlaceFailed},
			wantReasons:  map[string]string{"a": v1alpha1.ReasonTimeout},
			wantWithdraw: []string{"a"},
			wantVerdicts: map[string]string{"a": v1alpha1.ReasonTimeout},
		},
		"a second before, it is still waited for": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.assigned("a", epoch)
				in.Now = late.Add(-time.Second)
			},
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage: "0 of 1 node scanned; 1 scanning",
			wantPlaces:  map[string]Place{"a": PlaceWorking},
			wantNext:    late,
		},
		"a node that went away in its scan was unreachable": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.assigned("a", epoch)
				in.notReady("a")
				in.Now = late
			},
			wantPhase: failed, wantReason: v1alpha1.ReasonNodesUnreachable,
			wantMessage:  "0 of 1 node scanned; 1 could not be reached",
			wantPlaces:   map[string]Place{"a": PlaceUnreachable},
			wantReasons:  map[string]string{"a": v1alpha1.ReasonNodeNotReady},
			wantWithdraw: []string{"a"},
			wantVerdicts: map[string]string{"a": v1alpha1.ReasonNodeNotReady},
		},
		"a node that was given up is not asked again": {
			nodes: []string{"a", "b"},
			change: func(in *Input) {
				in.Now = late
				in.assigned("b", epoch.Add(5*time.Minute))
				giveUp(in.Assignments["a"], v1alpha1.ReasonTimeout)
			},
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage: "0 of 2 nodes scanned; 1 failed; 1 scanning",
			wantPlaces:  map[string]Place{"a": PlaceFailed, "b": PlaceWorking},
			wantReasons: map[string]string{"a": v1alpha1.ReasonTimeout},
			wantNext:    epoch.Add(5*time.Minute + scanTimeout),
		},
		"an answer that comes late counts all the same": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.done("a", 1, 0)
				giveUp(in.Assignments["a"], v1alpha1.ReasonTimeout)
			},
			wantPhase: complete, wantReason: v1alpha1.ReasonAllNodesDone,
			wantMessage: "1 of 1 node scanned: 1 patch missing, none of them security",
			wantPlaces:  map[string]Place{"a": PlaceDone},
		},
		"an agent that was told to stop does not hide why": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.answer("a", v1alpha1.AgentStatus{Step: v1alpha1.StepStopped, Reason: v1alpha1.ReasonAborted})
				giveUp(in.Assignments["a"], v1alpha1.ReasonTimeout)
			},
			wantPhase: failed, wantReason: v1alpha1.ReasonNodesFailed,
			wantMessage: "0 of 1 node scanned; 1 failed",
			wantPlaces:  map[string]Place{"a": PlaceFailed},
			wantReasons: map[string]string{"a": v1alpha1.ReasonTimeout},
		},
		"a node that works on another task is waited for": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.Assignments["a"].Spec.Operation = operation(otherUID, "other", epoch)
			},
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage: "0 of 1 node scanned; 1 waiting (a Busy)",
			wantPlaces:  map[string]Place{"a": PlacePending},
			wantReasons: map[string]string{"a": v1alpha1.ReasonBusy},
		},
		"it is free once its agent has ended the other task's part": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.Assignments["a"].Spec.Operation = operation(otherUID, "other", epoch)
				in.done("a", 0, 0)
			},
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage:  "0 of 1 node scanned; 1 scanning",
			wantPlaces:   map[string]Place{"a": PlaceWorking},
			wantAssigned: []string{"a"},
			wantNext:     epoch.Add(time.Minute + scanTimeout),
		},
		"or once the other task has ended": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.Assignments["a"].Spec.Operation = operation(otherUID, "other", epoch)
				in.Finished.Insert(otherUID)
			},
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage:  "0 of 1 node scanned; 1 scanning",
			wantPlaces:   map[string]Place{"a": PlaceWorking},
			wantAssigned: []string{"a"},
			wantNext:     epoch.Add(time.Minute + scanTimeout),
		},
		"a deleted node drops out and holds nothing up": {
			nodes: []string{"a", "b"},
			change: func(in *Input) {
				in.done("a", 4, 4)
				in.assigned("b", epoch)
				in.Nodes = in.Nodes[:1]
			},
			wantPhase: complete, wantReason: v1alpha1.ReasonAllNodesDone,
			wantMessage: "1 of 1 node scanned: 4 patches missing, 4 of them security",
			wantPlaces:  map[string]Place{"a": PlaceDone},
		},
		"a task whose nodes are all gone did not succeed": {
			nodes:     []string{"a"},
			change:    func(in *Input) { in.Nodes = nil },
			wantPhase: failed, wantReason: v1alpha1.ReasonNoNodes,
			wantMessage: "All nodes left the policy workers or the cluster during the run: 0 of 0 nodes scanned",
			wantPlaces:  map[string]Place{},
		},
		"a node that joins during the run is asked too": {
			nodes: []string{"a", "b"},
			change: func(in *Input) {
				in.done("a", 0, 0)
				in.node("b").CreationTimestamp = metav1.NewTime(epoch.Add(30 * time.Second))
			},
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage:  "1 of 2 nodes scanned: no patch is missing; 1 scanning",
			wantPlaces:   map[string]Place{"a": PlaceDone, "b": PlaceWorking},
			wantAssigned: []string{"b"},
			wantNext:     epoch.Add(time.Minute + scanTimeout),
		},
		"but not for ever, so that a cluster that grows does not keep the run going": {
			nodes: []string{"a", "b"},
			change: func(in *Input) {
				in.Now = late.Add(time.Minute)
				in.done("a", 0, 0)
				in.node("b").CreationTimestamp = metav1.NewTime(late.Add(time.Second))
			},
			wantPhase: complete, wantReason: v1alpha1.ReasonAllNodesDone,
			wantMessage: "1 of 1 node scanned: no patch is missing",
			wantPlaces:  map[string]Place{"a": PlaceDone},
		},
		"a node that joined late has as long as the others": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.Now = late
				in.node("a").CreationTimestamp = metav1.NewTime(late.Add(-time.Second))
				in.notReady("a")
			},
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage: "0 of 1 node scanned; 1 waiting (a NodeNotReady)",
			wantPlaces:  map[string]Place{"a": PlacePending},
			wantReasons: map[string]string{"a": v1alpha1.ReasonNodeNotReady},
			wantNext:    late.Add(-time.Second).Add(scanTimeout),
		},
		"a node that another policy took over in its scan is followed to the end": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.assigned("a", epoch)
				in.node("a").Labels["pool"] = "others"
			},
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage: "0 of 1 node scanned; 1 scanning",
			wantPlaces:  map[string]Place{"a": PlaceWorking},
			wantNext:    late,
		},
		"a node that another policy took over before drops out": {
			nodes: []string{"a", "b"},
			change: func(in *Input) {
				in.done("a", 0, 0)
				in.node("b").Labels["pool"] = "others"
			},
			wantPhase: complete, wantReason: v1alpha1.ReasonAllNodesDone,
			wantMessage: "1 of 1 node scanned: no patch is missing",
			wantPlaces:  map[string]Place{"a": PlaceDone},
		},
		"the task's nodeSelector narrows the policy's nodes": {
			nodes: []string{"a", "b"},
			change: func(in *Input) {
				in.node("b").Labels["zone"] = "1"
				in.Task.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"zone": "1"}}
			},
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage:  "0 of 1 node scanned; 1 scanning",
			wantPlaces:   map[string]Place{"b": PlaceWorking},
			wantAssigned: []string{"b"},
			wantNext:     epoch.Add(time.Minute + scanTimeout),
		},
		"a policy that is suspended gives out no more work": {
			nodes: []string{"a", "b"},
			change: func(in *Input) {
				in.assigned("a", epoch)
				in.Policies[0].Spec.Suspend = true
			},
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage: "0 of 2 nodes scanned; 1 scanning; 1 waiting (b PolicySuspended)",
			wantPlaces:  map[string]Place{"a": PlaceWorking, "b": PlacePending},
			wantReasons: map[string]string{"b": v1alpha1.ReasonPolicySuspended},
			wantNext:    late,
		},
		"the deadline is looked at in time": {
			nodes: []string{"a"},
			change: func(in *Input) {
				in.Task.Status.Template.Deadline = &metav1.Duration{Duration: 10 * time.Minute}
			},
			wantPhase: running, wantReason: v1alpha1.ReasonRunning,
			wantMessage:  "0 of 1 node scanned; 1 scanning",
			wantPlaces:   map[string]Place{"a": PlaceWorking},
			wantAssigned: []string{"a"},
			wantNext:     epoch.Add(10 * time.Minute),
		},
	}
	for name, test := range tests {
		t.Run(name, test.run)
	}
}

// planTest is what a plan is made from and what it has to be.
type planTest struct {
	nodes        []string
	change       func(*Input)
	wantPhase    v1alpha1.TaskPhase
	wantReason   string
	wantMessage  string
	wantPlaces   map[string]Place
	wantReasons  map[string]string
	wantAssigned []string
	wantAdmitted []string
	wantAsks     []string
	wantStops    map[string]string
	wantWithdraw []string
	wantVerdicts map[string]string
	wantNext     time.Time
}

func (test planTest) run(t *testing.T) {
	in := newInput(test.nodes...)
	if test.change != nil {
		test.change(&in)
	}
	plan := in.decide()

	if plan.Phase != test.wantPhase || plan.Reason != test.wantReason {
		t.Errorf("phase %s (%s), want %s (%s)", plan.Phase, plan.Reason, test.wantPhase, test.wantReason)
	}
	if got := plan.Message(); got != test.wantMessage {
		t.Errorf("message\n  %q, want\n  %q", got, test.wantMessage)
	}
	places, reasons, verdicts, stops := map[string]Place{}, map[string]string{}, map[string]string{}, map[string]string{}
	var assigned, admitted, withdrawn []string
	for _, node := range plan.Nodes {
		places[node.Name] = node.Place
		if node.Reason != "" && (node.Place != PlacePending || !plan.Ended()) {
			reasons[node.Name] = node.Reason
		}
		if node.Assign != nil {
			assigned = append(assigned, node.Name)
		}
		if node.Admit {
			admitted = append(admitted, node.Name)
		}
		if node.Stop != "" {
			stops[node.Name] = node.Stop
		}
		if node.Withdraw {
			withdrawn = append(withdrawn, node.Name)
		}
		if node.Verdict != nil {
			verdicts[node.Name] = node.Verdict.Reason
		}
	}
	for what, pair := range map[string][2]any{
		"places":    {places, test.wantPlaces},
		"reasons":   {orEmpty(reasons), orEmpty(test.wantReasons)},
		"stops":     {orEmpty(stops), orEmpty(test.wantStops)},
		"verdicts":  {orEmpty(verdicts), orEmpty(test.wantVerdicts)},
		"assigned":  {assigned, test.wantAssigned},
		"admitted":  {admitted, test.wantAdmitted},
		"asks":      {plan.Asks, test.wantAsks},
		"withdrawn": {withdrawn, test.wantWithdraw},
	} {
		if diff := cmp.Diff(pair[1], pair[0]); diff != "" {
			t.Errorf("%s differ (-want +got):\n%s", what, diff)
		}
	}
	if !plan.Ended() && !plan.Next.Equal(test.wantNext) {
		t.Errorf("next look at %s, want %s", plan.Next, test.wantNext)
	}
}

func diff(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s differ (-want +got):\n%s", what, diff)
	}
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
