package task

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

func sizedWave(name string, size intstr.IntOrString) v1alpha1.Wave {
	return v1alpha1.Wave{Name: name, Size: &size}
}

func labelledWave(name, key, value string) v1alpha1.Wave {
	return v1alpha1.Wave{Name: name, NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}}
}

func TestWavesDivideNodes(t *testing.T) {
	tests := map[string]struct {
		waves  []v1alpha1.Wave
		change func(*Input)
		want   string // the waves of nodes a to e
	}{
		"none":         {want: "0 0 0 0 0"},
		"by size":      {waves: []v1alpha1.Wave{sizedWave("one", intstr.FromInt(2))}, want: "0 0 1 1 1"},
		"by share":     {waves: []v1alpha1.Wave{sizedWave("one", intstr.FromString("50%"))}, want: "0 0 1 1 1"},
		"at least one": {waves: []v1alpha1.Wave{sizedWave("one", intstr.FromString("1%"))}, want: "0 1 1 1 1"},
		"by selector, then of those that are left": {
			waves:  []v1alpha1.Wave{labelledWave("canary", "canary", "yes"), sizedWave("two", intstr.FromInt(2))},
			change: func(in *Input) { in.label("b", "canary", "yes") },
			want:   "1 0 1 2 2",
		},
		"the first that takes it": {
			waves:  []v1alpha1.Wave{labelledWave("one", "canary", "yes"), labelledWave("two", "canary", "yes")},
			change: func(in *Input) { in.label("e", "canary", "yes") },
			want:   "2 2 2 2 0",
		},
		"more than there are":       {waves: []v1alpha1.Wave{sizedWave("all", intstr.FromInt(99))}, want: "0 0 0 0 0"},
		"the control plane in none": {waves: []v1alpha1.Wave{sizedWave("all", intstr.FromInt(2))}, change: func(in *Input) { in.label("a", controlPlaneLabels[1], "") }, want: "2 0 0 1 1"},
		"of nodes that have ended, too": {
			waves: []v1alpha1.Wave{sizedWave("one", intstr.FromInt(1))}, change: func(in *Input) { in.done("a", 0, 0) }, want: "0 1 1 1 1",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in := newInput("a", "b", "c", "d", "e")
			in.Task.Status.Template.Rollout.Waves = test.waves
			if test.change != nil {
				test.change(&in)
			}
			in.decide() // for the membership
			run := newRun(in)
			got := strings.Trim(fmt.Sprint(run.divide(run.nodes()).of), "[]")
			if got != test.want {
				t.Errorf("waves %s, want %s", got, test.want)
			}
		})
	}
}

func TestWaves(t *testing.T) {
	hour := &metav1.Duration{Duration: time.Hour}
	canary := func(in *Input) *v1alpha1.Wave {
		in.Task.Status.Template.Rollout.Waves = []v1alpha1.Wave{sizedWave("canary", intstr.FromInt(1)), sizedWave("half", intstr.FromInt(2))}
		return &in.Task.Status.Template.Rollout.Waves[0]
	}
	tests := map[string]gateTest{
		"one after the other": {
			most: 5, waiting: []string{"a", "b", "d"}, change: func(in *Input) { canary(in) },
			wantGo:    []string{"a"},
			wantWaits: map[string]string{"b": "Wave: The wave canary is not done", "d": "Wave: The wave canary is not done"},
		},
		"nodes that prepare themselves hold the next wave up": {
			most: 5, waiting: []string{"b"}, change: func(in *Input) {
				canary(in)
				in.shows("a", v1alpha1.StepScanning)
			},
			wantWaits: map[string]string{"b": "Wave: The wave canary is not done"},
			wantNext:  epoch.Add(scanTimeout),
		},
		"the last takes all that is left": {
			most: 5, waiting: []string{"d", "e"}, change: func(in *Input) { canary(in) },
			wantGo: []string{"d", "e"},
		},
		"a wave soaks, from its last disruption": {
			most: 5, waiting: []string{"b", "c"}, change: func(in *Input) {
				canary(in).Soak = hour
				in.judged("a", v1alpha1.StepDone, v1alpha1.ReasonVerified, "")
			},
			wantWaits: map[string]string{
				"b": "Wave: The wave canary soaks until 2026-11-21T07:01:00Z", "c": "Wave: The wave canary soaks until 2026-11-21T07:01:00Z",
			},
			wantNext: epoch.Add(time.Minute + time.Hour),
		},
		"and no longer": {
			most: 5, waiting: []string{"b", "c"}, change: func(in *Input) {
				canary(in).Soak = hour
				in.judged("a", v1alpha1.StepDone, v1alpha1.ReasonVerified, "")
				in.Now = in.Now.Add(time.Hour)
			},
			wantGo: []string{"b", "c"},
		},
		"a wave of which no node was disrupted has nothing to soak": {
			most: 5, waiting: []string{"b"}, change: func(in *Input) { canary(in).Soak = hour },
			wantGo: []string{"b"},
		},
		"the control plane waits for the last soak, too": {
			most: 5, waiting: []string{"e"}, change: func(in *Input) {
				canary(in).Soak = hour
				in.label("e", controlPlaneLabels[0], "")
				in.judged("a", v1alpha1.StepDone, v1alpha1.ReasonVerified, "")
			},
			wantWaits: map[string]string{"e": "Wave: The wave canary soaks until 2026-11-21T07:01:00Z"},
			wantNext:  epoch.Add(time.Minute + time.Hour),
		},
		"the manager's own node is the last of its wave, not of all": {
			waiting: []string{"b", "c", "d"}, change: func(in *Input) {
				canary(in)
				in.OwnNode = "b"
			},
			wantGo: []string{"c"},
			wantWaits: map[string]string{
				"b": budgetSpent, "d": "Wave: The wave half is not done",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, test.run)
	}
}

func TestTooManyFailures(t *testing.T) {
	failed := func(in *Input, names ...string) {
		for _, name := range names {
			in.Assignments[name] = newAssignment(name)
			in.judged(name, v1alpha1.StepFailed, v1alpha1.ReasonRebootTimeout, "The node was not back within 20m")
		}
	}
	limits := func(in *Input, rollout int32, waves ...*int32) {
		in.Task.Status.Template.Rollout.MaxFailures = &rollout
		for i, limit := range waves {
			wave := sizedWave(fmt.Sprint("wave-", i), intstr.FromInt(2))
			wave.MaxFailures = limit
			in.Task.Status.Template.Rollout.Waves = append(in.Task.Status.Template.Rollout.Waves, wave)
		}
	}
	tests := map[string]struct {
		change func(*Input)
		want   string
	}{
		"one may fail where nothing is said": {change: func(in *Input) { failed(in, "a") }},
		"two are too many": {
			change: func(in *Input) { failed(in, "a", "b") },
			want:   "More nodes failed than rollout.maxFailures allows (1): a (RebootTimeout), b (RebootTimeout); mend what failed there, then start another task",
		},
		"none may fail": {
			change: func(in *Input) {
				limits(in, 0)
				failed(in, "c")
			},
			want: "More nodes failed than rollout.maxFailures allows (0): c (RebootTimeout); mend what failed there, then start another task",
		},
		"nodes that failed before they were admitted do not count": {
			change: func(in *Input) {
				limits(in, 0)
				in.failed("a", v1alpha1.ReasonLocked, "")
				giveUp(in.Assignments["b"], v1alpha1.ReasonTimeout)
			},
		},
		"nor those that were skipped": {
			change: func(in *Input) {
				limits(in, 0)
				in.judged("a", v1alpha1.StepStopped, v1alpha1.ReasonHookFailed, "")
			},
		},
		"a wave's own limit": {
			change: func(in *Input) {
				limits(in, 5, nil, ptr.To[int32](0))
				failed(in, "a", "b", "c")
			},
			want: "More nodes failed than maxFailures of its wave allows (0): c (RebootTimeout); mend what failed there, then start another task",
		},
		"and what it allows is not held against the others": {
			change: func(in *Input) {
				limits(in, 0, ptr.To[int32](2))
				failed(in, "a", "b")
			},
		},
		"nothing is left to halt": {
			change: func(in *Input) {
				failed(in, "a", "b", "c", "d", "e")
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in := newInput("a", "b", "c", "d", "e")
			in.run(v1alpha1.ActionDeploy)
			in.ready(3, "e")
			test.change(&in)
			plan := in.decide()
			got := ""
			if plan.Stop != nil {
				got = plan.Stop.Message
			}
			if got != test.want {
				t.Errorf("it halts for\n  %q, want\n  %q", got, test.want)
			}
			if halts := test.want != ""; plan.Halts != halts || halts && plan.Stop.Reason != v1alpha1.ReasonTooManyFailures {
				t.Errorf("halts %v: %+v", plan.Halts, plan.Stop)
			}
			for _, node := range plan.Nodes {
				if plan.Halts && (node.Admit || node.Assign != nil) {
					t.Errorf("%s begins all the same", node.Name)
				}
			}
		})
	}
}

// TestHaltOfARollout goes through a halt plan by plan: nodes that wait are told to
// end, and the one in the midst of its disruption is waited for.
func TestHaltOfARollout(t *testing.T) {
	in := newInput("a", "b", "c", "d")
	in.run(v1alpha1.ActionDeploy)
	in.Task.Status.Template.Rollout.MaxFailures = ptr.To[int32](0)
	in.admitted("b", epoch)
	in.ready(3, "c")
	in.judged("a", v1alpha1.StepFailed, v1alpha1.ReasonDrainTimeout, "web-0 was still there after 15m")
	plan := in.decide()
	in.apply(&plan)
	plan = in.decide()
	in.apply(&plan)
	if got := plan.Message(); !strings.HasSuffix(got, "waiting for b, which finishes its transaction; c, which gives up its turn") {
		t.Errorf("message %q", got)
	}
	for _, name := range []string{"b", "c"} {
		if in.Assignments[name].Spec.Operation.Stop == "" {
			t.Errorf("%s was not told", name)
		}
	}
	in.answer("c", v1alpha1.AgentStatus{Step: v1alpha1.StepStopped, Reason: v1alpha1.ReasonStopped})
	in.answer("b", v1alpha1.AgentStatus{Step: v1alpha1.StepDone})
	plan = in.decide()
	if plan.Ended() {
		t.Fatalf("it ended before the verdict on b: %s", plan.Message())
	}
	in.apply(&plan)
	in.judged("b", v1alpha1.StepDone, v1alpha1.ReasonVerified, "")
	plan = in.decide()
	in.apply(&plan)
	want := "More nodes failed than rollout.maxFailures allows (0): a (DrainTimeout); mend what failed there, then start another task: " +
		"1 of 4 nodes patched, 1 failed, 1 stopped, 1 not begun"
	if got := in.Task.Status; got.Phase != v1alpha1.TaskFailed || got.Message != want {
		t.Errorf("%s: %s\nwant %s", got.Phase, got.Message, want)
	}
	var log []string
	for _, entry := range in.Task.Status.Log {
		log = append(log, strings.TrimSpace(entry.Reason+" "+entry.Node))
	}
	diff(t, "log", []string{"TaskStopping", "NodeFailed a", "DeployStopped c", "TaskFailed"}, log)
}
