package task

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// pinning is a deployment of which node a, or a and b, are the first wave and decide for the others.
func pinning(first int) Input {
	in := newInput("a", "b", "c", "d")
	in.run(v1alpha1.ActionDeploy)
	in.Task.Status.Template.Rollout.Waves = []v1alpha1.Wave{sizedWave("canary", intstr.FromInt(first))}
	in.Task.Status.Template.Rollout.Pin = v1alpha1.PinFirstWave
	return in
}

func pinnedOn(nodes int32, patches ...v1alpha1.InstalledPatch) *v1alpha1.PinnedPatches {
	return &v1alpha1.PinnedPatches{Time: metav1.NewTime(epoch), Nodes: nodes, Message: "As recorded", Patches: patches}
}

func TestPinHoldsLaterWavesBack(t *testing.T) {
	const known = "NotPinned: What the node is to install is known when the first wave is done"
	tests := map[string]struct {
		first  int
		change func(*Input)
		// wantGiven are the nodes that get an operation, those with * one that installs what is pinned.
		wantGiven   string
		wantFreezes string
		wantWaits   map[string]string
		wantEnds    string
	}{
		"only the first wave begins": {
			first: 2, wantGiven: "a b", wantWaits: map[string]string{"c": known, "d": known},
		},
		"while one of it is at work": {
			first: 2, change: func(in *Input) {
				in.judged("a", v1alpha1.StepDone, v1alpha1.ReasonVerified, "")
				in.ready(3, "b")
			},
			wantWaits: map[string]string{"c": known, "d": known},
		},
		"its nodes that are done are asked, and the others wait for the answer": {
			first: 2, change: func(in *Input) {
				in.judged("a", v1alpha1.StepDone, v1alpha1.ReasonVerified, "")
				in.judged("b", v1alpha1.StepFailed, v1alpha1.ReasonRebootTimeout, "")
			},
			wantFreezes: "a", wantWaits: map[string]string{"c": known, "d": known},
		},
		"one that had nothing to install is asked, too": {
			first: 1, change: func(in *Input) { in.done("a", 0, 0) },
			wantFreezes: "a", wantWaits: map[string]string{"b": known, "c": known, "d": known},
		},
		"once it is recorded, they install that": {
			first: 1, change: func(in *Input) {
				in.judged("a", v1alpha1.StepDone, v1alpha1.ReasonVerified, "")
				in.Task.Status.Pinned = pinnedOn(1)
			},
			wantGiven: "b* c* d*",
		},
		"and so does a node that joins the first wave later": {
			first: 2, change: func(in *Input) {
				in.judged("a", v1alpha1.StepDone, v1alpha1.ReasonVerified, "")
				in.Task.Status.Pinned = pinnedOn(1)
			},
			wantGiven: "b* c* d*",
		},
		"a node that was of the first wave when it began is waited for": {
			first: 1, change: func(in *Input) {
				in.judged("a", v1alpha1.StepDone, v1alpha1.ReasonVerified, "")
				in.admitted("b", epoch)
			},
			wantWaits: map[string]string{"c": known, "d": known},
		},
		"nobody is left to install it": {
			first: 4, change: func(in *Input) {
				for _, name := range []string{"a", "b", "c", "d"} {
					in.judged(name, v1alpha1.StepFailed, v1alpha1.ReasonRebootTimeout, "")
				}
			},
			wantEnds: v1alpha1.ReasonNodesFailed,
		},
		"nobody of the first wave is done": {
			first: 1, change: func(in *Input) { in.judged("a", v1alpha1.StepFailed, v1alpha1.ReasonRebootTimeout, "") },
			wantEnds: "NothingPinned: Nothing is pinned, as no node of the first wave is done; mend what failed there, then start another task",
		},
		"the first wave has no node": {
			change: func(in *Input) {
				in.Task.Status.Template.Rollout.Waves = []v1alpha1.Wave{labelledWave("canary", "canary", "yes"), sizedWave("two", intstr.FromInt(1))}
			},
			wantEnds: "NothingPinned: Nothing is pinned, as no node belongs to the first wave; mend its nodeSelector or size, then start another task",
		},
		"no report says what was installed": {
			first: 1, change: func(in *Input) {
				in.judged("a", v1alpha1.StepDone, v1alpha1.ReasonVerified, "")
				in.Task.Status.Pinned = pinnedOn(0)
			},
			wantEnds: "NothingPinned: As recorded",
		},
		"a task that only downloads pins nothing": {
			first: 1, change: func(in *Input) { in.run(v1alpha1.ActionDownload) }, wantGiven: "a b c d",
		},
		"nor does one that does not say so": {
			first: 1, change: func(in *Input) { in.Task.Status.Template.Rollout.Pin = "" }, wantGiven: "a b c d",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in := pinning(test.first)
			if test.change != nil {
				test.change(&in)
			}
			plan := in.decide()
			var given, freezes []string
			waits := map[string]string{}
			for i := range plan.Nodes {
				node := &plan.Nodes[i]
				switch {
				case node.Assign != nil && node.Assign.Pin == v1alpha1.OperationPinTask:
					given = append(given, node.Name+"*")
				case node.Assign != nil:
					given = append(given, node.Name)
				case node.Place == PlacePending && !plan.Ended():
					waits[node.Name] = node.Reason + ": " + node.Message
				}
			}
			for _, installer := range plan.Freezes {
				freezes = append(freezes, installer.Node)
			}
			if got := strings.Join(given, " "); got != test.wantGiven {
				t.Errorf("given to %q, want %q", got, test.wantGiven)
			}
			if got := strings.Join(freezes, " "); got != test.wantFreezes {
				t.Errorf("asks %q, want %q", got, test.wantFreezes)
			}
			if test.wantWaits == nil {
				test.wantWaits = map[string]string{}
			}
			diff(t, "waiting nodes", test.wantWaits, waits)
			ends := ""
			if plan.Ended() {
				ends = plan.Reason
			}
			if plan.Stop != nil {
				ends += ": " + plan.Stop.Message
			}
			if ends != test.wantEnds || test.wantEnds != "" && plan.Phase != v1alpha1.TaskFailed {
				t.Errorf("ends with %s %q, want %q", plan.Phase, ends, test.wantEnds)
			}
		})
	}
}

func TestPin(t *testing.T) {
	installed := func(node string, ended int, patches ...string) Installer {
		said := &v1alpha1.InstalledPatches{OperationID: taskUID}
		for _, p := range patches {
			name, version, _ := strings.Cut(p, "=")
			said.Patches = append(said.Patches, v1alpha1.InstalledPatch{Name: name, Version: version})
		}
		return Installer{Node: node, Ended: epoch.Add(time.Duration(ended) * time.Minute), Installed: said}
	}
	foreign := installed("x", 1, "ham=9")
	foreign.Installed.OperationID = otherUID
	var many []string
	for i := range maxPinned + 5 {
		many = append(many, fmt.Sprintf("p%04d=1", i))
	}
	cut := installed("a", 1, "ham=2")
	cut.Installed.PatchesOmitted = 7
	tests := map[string]struct {
		from        []Installer
		want        string
		wantNodes   int32
		wantOmitted int32
		wantMessage string
	}{
		"all of them": {
			from: []Installer{installed("a", 1, "ham=2", "egg=3"), installed("b", 2, "egg=3", "salt=4")},
			want: "egg=3 ham=2 salt=4", wantNodes: 2, wantMessage: "3 patches pinned, as installed on a, b",
		},
		"nothing to install is something, too": {
			from: []Installer{installed("a", 1)}, wantNodes: 1, wantMessage: "No patch is pinned: a had none to install",
		},
		"most nodes": {
			from: []Installer{installed("a", 1, "ham=2"), installed("b", 2, "ham=2"), installed("c", 3, "ham=3")},
			want: "ham=2", wantNodes: 3, wantMessage: "1 patch pinned, as installed on a, b, c; installed in several versions: ham 2 and not 3 as on c",
		},
		"the last of equally many": {
			from: []Installer{installed("a", 5, "ham=2", "egg=1"), installed("b", 2, "ham=3", "egg=1")},
			want: "egg=1 ham=2", wantNodes: 2, wantMessage: "2 patches pinned, as installed on a, b; installed in several versions: ham 2 and not 3 as on b",
		},
		"another operation's report": {
			from: []Installer{foreign, installed("a", 1, "ham=2")},
			want: "ham=2", wantNodes: 1, wantMessage: "1 patch pinned, as installed on a; the reports of x do not say what it has installed there",
		},
		"no report": {
			from:        []Installer{foreign, {Node: "a"}},
			wantMessage: "Nothing is pinned: the reports of a, x do not say what this task has installed there, as after another deployment; start another task",
		},
		"more than fit": {
			from: []Installer{installed("a", 1, many...)}, want: strings.Join(many[:maxPinned], " "), wantNodes: 1, wantOmitted: 5,
			wantMessage: "1000 patches pinned, as installed on a; 5 more did not fit and are left to another task",
		},
		"more than fit into the report": {
			from: []Installer{cut}, want: "ham=2", wantNodes: 1, wantOmitted: 7,
			wantMessage: "1 patch pinned, as installed on a; 7 more did not fit and are left to another task",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := pin(taskUID, test.from, epoch)
			var patches []string
			for _, p := range got.Patches {
				patches = append(patches, p.Name+"="+p.Version)
			}
			if all := strings.Join(patches, " "); all != test.want || got.Nodes != test.wantNodes || got.PatchesOmitted != test.wantOmitted {
				t.Errorf("pinned on %d nodes, %d omitted: %s, want on %d, %d omitted: %s", got.Nodes, got.PatchesOmitted, all, test.wantNodes, test.wantOmitted, test.want)
			}
			if got.Message != test.wantMessage {
				t.Errorf("message\n  %q, want\n  %q", got.Message, test.wantMessage)
			}
		})
	}
}
