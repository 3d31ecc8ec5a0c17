package task

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

func TestConditions(t *testing.T) {
	tests := map[string]struct {
		change func(*Input)
		want   []string
	}{
		"running": {
			change: func(*Input) {},
			want:   []string{"Accepted=True Accepted", "Reconciling=True Running"},
		},
		"complete": {
			change: func(in *Input) { in.done("a", 0, 0) },
			want:   []string{"Accepted=True Accepted", "Complete=True AllNodesDone"},
		},
		"failed": {
			change: func(in *Input) { in.failed("a", v1alpha1.ReasonLocked, "") },
			want:   []string{"Accepted=True Accepted", "Failed=True NodesFailed", "Stalled=True NodesFailed"},
		},
		"stopped": {
			change: func(in *Input) { in.press("why") },
			want:   []string{"Accepted=True Accepted", "Stalled=True Stopped", "Stopped=True Stopped"},
		},
		"stopping": {
			change: func(in *Input) {
				in.assigned("a", epoch)
				in.press("why")
			},
			want: []string{"Accepted=True Accepted", "Reconciling=True Stopping"},
		},
		"waiting": {
			change: func(in *Input) {
				in.Task.Status = v1alpha1.PatchTaskStatus{ObservedGeneration: -1}
				in.Policies[0].Spec.Suspend = true
			},
			want: []string{"Accepted=False PolicySuspended", "Reconciling=True PolicySuspended"},
		},
		"refused after it waited": {
			change: func(in *Input) {
				in.Task.Status = v1alpha1.PatchTaskStatus{ObservedGeneration: -1}
				in.Now, in.Policies = epoch, nil
				in.apply(ptr.To(in.decide()))
				in.Now = epoch.Add(time.Hour)
			},
			want: []string{"Accepted=False UnknownPolicy", "Failed=True UnknownPolicy", "Stalled=True UnknownPolicy"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in := newInput("a")
			in.Task.Status = v1alpha1.PatchTaskStatus{ObservedGeneration: -1}
			in.Now = epoch
			in.apply(ptr.To(in.decide()))
			in.Now = epoch.Add(time.Minute)
			test.change(&in)
			in.apply(ptr.To(in.decide()))
			status := in.Task.Status
			var got []string
			for _, condition := range status.Conditions {
				got = append(got, fmt.Sprintf("%s=%s %s", condition.Type, condition.Status, condition.Reason))
				if condition.ObservedGeneration != 1 {
					t.Errorf("%s was observed at generation %d", condition.Type, condition.ObservedGeneration)
				}
			}
			if diff := cmp.Diff(test.want, slices.Sorted(slices.Values(got))); diff != "" {
				t.Errorf("conditions differ (-want +got):\n%s", diff)
			}
			if status.ObservedGeneration != 1 {
				t.Errorf("observed generation %d", status.ObservedGeneration)
			}
			if ended := in.Task.Finished(); ended != (status.CompletionTime != nil) {
				t.Errorf("phase %s, but completed at %v", status.Phase, status.CompletionTime)
			}
		})
	}
}

func TestPatchesAreAddedUp(t *testing.T) {
	in := newInput("a", "b", "c", "d", "e")
	one := v1alpha1.PatchCounts{
		Missing: 1, Security: 2, Bugfix: 3, Enhancement: 4, Other: 5, Held: 6,
		KeptBack: 7, Phased: 8, Excluded: 9, Installed: 10, Failed: 11, Blocked: 12, Downloaded: 13,
	}
	for _, name := range []string{"a", "b"} {
		in.answer(name, v1alpha1.AgentStatus{Step: v1alpha1.StepDone, Counts: one.DeepCopy()})
	}
	// A deployment that failed has installed what did not fail.
	in.answer("c", v1alpha1.AgentStatus{Step: v1alpha1.StepFailed, Reason: v1alpha1.ReasonPatchesFailed, Counts: one.DeepCopy()})
	in.answer("d", v1alpha1.AgentStatus{Step: v1alpha1.StepStopped, Reason: v1alpha1.ReasonStopped, Counts: one.DeepCopy()})
	in.answer("e", v1alpha1.AgentStatus{Step: v1alpha1.StepFailed, Reason: v1alpha1.ReasonLocked})
	want := v1alpha1.PatchCounts{
		Missing: 4, Security: 8, Bugfix: 12, Enhancement: 16, Other: 20, Held: 24, KeptBack: 28,
		Phased: 32, Excluded: 36, Downloaded: 52, Installed: 40, Failed: 44, Blocked: 48,
	}
	plan := in.decide()
	if diff := cmp.Diff(want, plan.Patches()); diff != "" {
		t.Errorf("patches differ (-want +got):\n%s", diff)
	}
}

func TestFailuresAndLogAreBoundedAndSettle(t *testing.T) {
	const nodes = 120
	in := newInput()
	for i := range nodes {
		name := fmt.Sprintf("node-%03d", i)
		in.Nodes = append(in.Nodes, newNode(name))
		in.Assignments[name] = newAssignment(name)
		if i%2 == 0 {
			in.failed(name, v1alpha1.ReasonScanFailed, strings.Repeat("ü", 2000))
		} else {
			in.notReady(name)
		}
	}
	in.Assignments["node-000"].Status.Agent.Time = nil
	in.Nodes = append(in.Nodes, newNode("zzz"))
	in.Assignments["zzz"] = newAssignment("zzz")
	in.Now = epoch.Add(scanTimeout)
	in.apply(ptr.To(in.decide()))
	first := in.Task.Status.DeepCopy()

	if len(first.Failures) != maxFailures || first.Failures[0].Node != "node-000" || first.Failures[19].Node != "node-019" {
		t.Errorf("%d failures, from %s to %s", len(first.Failures), first.Failures[0].Node, first.Failures[len(first.Failures)-1].Node)
	}
	if got := len([]rune(first.Failures[0].Message)); got != maxMessage {
		t.Errorf("a message of %d characters, the API takes %d", got, maxMessage)
	}
	if len(first.Log) != maxLog {
		t.Errorf("%d entries in the log", len(first.Log))
	}
	in.Now = in.Now.Add(time.Second)
	in.apply(ptr.To(in.decide()))
	if diff := cmp.Diff(first, &in.Task.Status); diff != "" {
		t.Errorf("a second look changed the status though nothing happened (-first +second):\n%s", diff)
	}
}

func TestLogOfARun(t *testing.T) {
	in := newInput("a", "b", "c", "d")
	in.Task.Status = v1alpha1.PatchTaskStatus{ObservedGeneration: -1}
	in.Now = epoch
	in.apply(ptr.To(in.decide()))
	in.apply(ptr.To(in.decide()))
	in.notReady("d")
	in.Assignments["d"].Spec.Operation = nil
	in.Now = epoch.Add(time.Minute)
	in.done("a", 2, 1)
	in.failed("b", v1alpha1.ReasonOutputNotUnderstood, "line 3: what?")
	in.Now = epoch.Add(scanTimeout)
	in.apply(ptr.To(in.decide()))
	var got []string
	for _, entry := range in.Task.Status.Log {
		got = append(got, fmt.Sprintf("%s %s %s", entry.Time.UTC().Format("15:04:05"), entry.Reason, entry.Node))
	}
	want := []string{
		"06:00:00 TaskStarted ",
		"06:01:00 ScanFailed b",
		"06:30:00 NodeTimedOut c",
		"06:30:00 NodeUnreachable d",
		"06:30:00 TaskFailed ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log differs (-want +got):\n%s", diff)
	}
	last := in.Task.Status.Log[4].Message
	if !strings.Contains(last, "1 of 4 nodes done, 2 failed, 1 unreachable: first b (OutputNotUnderstood): line 3") {
		t.Errorf("last entry %q", last)
	}
}

func TestUntil(t *testing.T) {
	tests := map[string]struct{ at, now, want time.Duration }{
		"ahead":                {at: time.Minute, now: 0, want: time.Minute},
		"past":                 {at: 0, now: time.Minute, want: time.Millisecond},
		"decisions round down": {at: 10500 * time.Millisecond, now: 10500 * time.Millisecond, want: 500 * time.Millisecond},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := until(epoch.Add(test.at), epoch.Add(test.now)); got != test.want {
				t.Errorf("waits %s, want %s", got, test.want)
			}
		})
	}
}

func TestDuration(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"30m": 30 * time.Minute, "2h": 2 * time.Hour, "1h30m": 90 * time.Minute, "10s": 10 * time.Second,
		"1m30s": 90 * time.Second, "20m": 20 * time.Minute, "10h": 10 * time.Hour, "1h10m": 70 * time.Minute,
	} {
		if got := duration(d); got != want {
			t.Errorf("%v prints as %s, want %s", d, got, want)
		}
	}
}

// TestFailureWithoutACause has agents that say that they failed and nothing else, as
// one of another version may, and a verdict without a message.
func TestFailureWithoutACause(t *testing.T) {
	in := newInput("a", "b")
	in.Now = epoch
	in.apply(ptr.To(in.decide()))
	in.failed("a", v1alpha1.ReasonScanFailed, "")
	in.answer("b", v1alpha1.AgentStatus{Step: v1alpha1.StepFailed})
	plan := in.decide()
	in.apply(&plan)
	want := []v1alpha1.NodeFailure{
		{Node: "a", Reason: v1alpha1.ReasonScanFailed, Message: patchlog.NoCause},
		{Node: "b", Reason: v1alpha1.ReasonScanFailed, Message: patchlog.NoCause},
	}
	if diff := cmp.Diff(want, in.Task.Status.Failures); diff != "" {
		t.Errorf("failures differ (-want +got):\n%s", diff)
	}
	said := []string{plan.Message()}
	for _, entry := range in.Task.Status.Log {
		said = append(said, entry.Message)
	}
	if len(said) != 4 {
		t.Errorf("the log is %q", said)
	}
	for _, message := range said {
		if strings.HasSuffix(strings.TrimSpace(message), ":") {
			t.Errorf("%q breaks off", message)
		}
	}
}
