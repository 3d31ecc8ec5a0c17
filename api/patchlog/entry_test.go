package patchlog

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

var (
	testTime = time.Date(2026, 11, 22, 5, 30, 0, 123456000, time.FixedZone("CET", 3600))
	testRun  = Run{Task: "weekly", UID: "6f1d", Policy: "workers"}
)

func TestConstructors(t *testing.T) {
	counts := v1alpha1.ReportCounts{NewPackages: 1, DownloadBytes: 12_345_678}
	counts.Missing, counts.Security, counts.Bugfix, counts.Held = 12, 5, 7, 2
	tests := map[string]struct {
		entry       Entry
		wantMessage string
		wantWarning bool
		wantNode    string
		wantKey     string // the reason if empty
	}{
		v1alpha1.EventTaskStarted: {
			entry:       TaskStarted(testTime, testRun, v1alpha1.ActionScan, v1alpha1.TriggerManual, 1),
			wantMessage: "Scan begins on 1 node of policy workers, started by hand",
		},
		v1alpha1.EventTaskStopping: {
			entry:       TaskStopping(testTime, testRun, v1alpha1.ReasonStopped, "a release goes on"),
			wantMessage: "Waits for its nodes to finish what they have begun, and ends (Stopped): a release goes on",
		},
		v1alpha1.EventNodeWaiting: {
			entry:       NodeWaiting(testTime, testRun, "node-a", v1alpha1.ReasonBudget, "1 of 1 nodes is not available"),
			wantMessage: "Ready, and waits (Budget): 1 of 1 nodes is not available",
			wantNode:    "node-a", wantKey: "NodeWaiting/Budget",
		},
		v1alpha1.EventTaskRefused: {
			entry:       TaskRefused(testTime, testRun, v1alpha1.ReasonUnknownPolicy, "there is no PatchPolicy worker"),
			wantMessage: "UnknownPolicy: there is no PatchPolicy worker",
			wantWarning: true,
		},
		v1alpha1.EventTaskFinished: {
			entry:       TaskFinished(testTime, testRun, v1alpha1.TaskNodeCounts{Total: 2, Done: 2}, v1alpha1.PatchCounts{Missing: 1, Other: 1}, 90*time.Second),
			wantMessage: "Done on 2 nodes in 1m30s: 1 patch missing (1 other)",
		},
		v1alpha1.EventTaskFailed: {
			entry:       TaskFailed(testTime, testRun, v1alpha1.TaskNodeCounts{Total: 3, Done: 1, Failed: 1, Unreachable: 1}, "2 nodes were not scanned"),
			wantMessage: "1 of 3 nodes done, 1 failed, 1 unreachable: 2 nodes were not scanned",
			wantWarning: true,
		},
		v1alpha1.EventNodeUnreachable: {
			entry:       NodeUnreachable(testTime, testRun, "node-a", v1alpha1.ReasonNodeNotReady, "kubelet stopped posting status"),
			wantMessage: "Task weekly went on without this node (NodeNotReady): kubelet stopped posting status",
			wantWarning: true, wantNode: "node-a",
		},
		v1alpha1.EventNodeTimedOut: {
			entry:       NodeTimedOut(testTime, testRun, "node-a", v1alpha1.StepScanning, 30*time.Minute),
			wantMessage: "No answer to task weekly within 30m0s, last seen at step Scanning",
			wantWarning: true, wantNode: "node-a",
		},
		v1alpha1.EventScanStarted: {
			entry:       ScanStarted(testTime, testRun, "node-a", "apt"),
			wantMessage: "Scan for task weekly begins with apt",
			wantNode:    "node-a",
		},
		v1alpha1.EventPatchDataRefreshed: {
			entry:       PatchDataRefreshed(testTime, testRun, "node-a", "apt", 2345678*time.Microsecond),
			wantMessage: "Patch data of apt refreshed in 2.346s",
			wantNode:    "node-a",
		},
		v1alpha1.EventPatchDataStale: {
			entry:       PatchDataStale(testTime, testRun, "node-a", v1alpha1.ReasonRepositoryUnreachable, "Could not resolve 'deb.example'", 50*time.Hour),
			wantMessage: "Patch data is not fresh, what there is is 50h0m0s old (RepositoryUnreachable): Could not resolve 'deb.example'",
			wantWarning: true, wantNode: "node-a",
		},
		v1alpha1.EventScanFinished: {
			entry: ScanFinished(testTime, testRun, "node-a", counts, v1alpha1.RebootRequired, 1500*time.Millisecond),
			wantMessage: "Scan for task weekly took 1.5s: 12 patches missing (5 security, 7 bugfix, 2 on hold), 12.3 MB to download, " +
				"1 new package; a reboot is required",
			wantNode: "node-a",
		},
		v1alpha1.EventScanFailed: {
			entry:       ScanFailed(testTime, testRun, "node-a", v1alpha1.ReasonLocked, "apt-get (process 77) has had the lock for 10m"),
			wantMessage: "Locked: apt-get (process 77) has had the lock for 10m",
			wantWarning: true, wantNode: "node-a",
		},
		v1alpha1.EventScanStopped: {
			entry:       ScanStopped(testTime, testRun, "node-a", "Task weekly was stopped: 100% sure"),
			wantMessage: "Task weekly was stopped: 100% sure",
			wantNode:    "node-a",
		},
	}
	for reason, test := range tests {
		t.Run(reason, func(t *testing.T) {
			want := Entry{
				Time: testTime, Reason: reason, Warning: test.wantWarning, Message: test.wantMessage, Node: test.wantNode,
				Task: "weekly", TaskUID: "6f1d", Policy: "workers", Key: cmp.Or(test.wantKey, reason),
			}
			if test.entry != want {
				t.Errorf("got  %+v\nwant %+v", test.entry, want)
			}
			if err := test.entry.validate(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEntriesWithoutACause(t *testing.T) {
	for reason, failed := range map[string]func(time.Time, Run, string, string, string) Entry{
		v1alpha1.EventScanFailed: ScanFailed, v1alpha1.EventDeployFailed: DeployFailed, v1alpha1.EventNodeFailed: NodeFailed,
	} {
		for _, cause := range []string{"", " \n"} {
			want := "Aborted: No cause was given; the log of the node's agent may have one"
			if entry := failed(testTime, testRun, "node-a", v1alpha1.ReasonAborted, cause); entry.Reason != reason || entry.Message != want {
				t.Errorf("%s says %q, want %q", entry.Reason, entry.Message, want)
			}
		}
	}
}

func TestNothingMissing(t *testing.T) {
	got := ScanFinished(testTime, testRun, "node-a", v1alpha1.ReportCounts{}, v1alpha1.RebootUnknown, 11600*time.Millisecond).Message
	if want := "Scan for task weekly took 12s: no patch is missing; whether a reboot is required is unknown"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestValidate(t *testing.T) {
	for name, breakIt := range map[string]func(*Entry){
		"no reason":  func(e *Entry) { e.Reason = "" },
		"no key":     func(e *Entry) { e.Key = "" },
		"no time":    func(e *Entry) { e.Time = time.Time{} },
		"no subject": func(e *Entry) { e.Node, e.TaskUID = "", "" },
	} {
		t.Run(name, func(t *testing.T) {
			entry := ScanStarted(testTime, testRun, "node-a", "apt")
			breakIt(&entry)
			if entry.validate() == nil {
				t.Errorf("%+v is taken", entry)
			}
		})
	}
}

// The names of Events decide what is a repetition: they must not depend on time and words, and must
// tell nodes, tasks, keys and components apart.
func TestEventNames(t *testing.T) {
	agent, manager := &Events{component: AgentComponent}, &Events{component: ManagerComponent}
	entry := ScanStarted(testTime, testRun, "node-a", "apt")
	again := ScanStarted(testTime.Add(time.Hour), testRun, "node-a", "dnf")
	if agent.name(entry) != agent.name(again) {
		t.Errorf("a repetition is called %s and not %s", agent.name(again), agent.name(entry))
	}
	otherRun := testRun
	otherRun.UID = "7a2e"
	seen := map[string]string{agent.name(entry): "the entry"}
	for what, name := range map[string]string{
		"the manager's":  manager.name(entry),
		"another node's": agent.name(ScanStarted(testTime, testRun, "node-b", "apt")),
		"another task's": agent.name(ScanStarted(testTime, otherRun, "node-a", "apt")),
		"another reason": agent.name(ScanStopped(testTime, testRun, "node-a", "")),
		"the task's own": agent.name(TaskStarted(testTime, testRun, v1alpha1.ActionScan, v1alpha1.TriggerManual, 1)),
	} {
		if other, taken := seen[name]; taken {
			t.Errorf("%s and %s are both called %s", what, other, name)
		}
		seen[name] = what
	}
}

func TestNoteIsCutBetweenCharacters(t *testing.T) {
	for extra := range 4 {
		got := note(strings.Repeat("x", extra) + strings.Repeat("ü", MaxNote))
		if len(got) > MaxNote || len(got) < MaxNote-4 || !utf8.ValidString(got) || !strings.HasSuffix(got, "ü…") {
			t.Errorf("a note of %d bytes ends in %q", len(got), got[len(got)-6:])
		}
	}
	if got := note("E: one\n\n  W: two\t\n"); got != "E: one W: two" {
		t.Errorf("lines of a package manager become %q", got)
	}
	if got := note("a\xffb"); got != "a\uFFFDb" {
		t.Errorf("invalid UTF-8 becomes %q", got)
	}
}

func TestLabelValue(t *testing.T) {
	long := strings.Repeat("a", 60) + ".example"
	other := strings.Repeat("a", 60) + ".example2"
	for name, want := range map[string]string{"node-a": "node-a", strings.Repeat("a", 63): strings.Repeat("a", 63)} {
		if got := LabelValue(name); got != want {
			t.Errorf("LabelValue(%q) = %q", name, got)
		}
	}
	if got := LabelValue(long); len(got) != 63 || got == LabelValue(other) || !strings.HasPrefix(got, long[:52]+"-") {
		t.Errorf("LabelValue of a long name is %q", got)
	}
}

func TestPack(t *testing.T) {
	var items []string
	for i := range 200 {
		items = append(items, Change(fmt.Sprintf("package-%d", i), "1.2.3-4+deb12u1", "1.2.3-4+deb12u2"))
	}
	tests := map[string]struct {
		prefix    string
		items     []string
		wantNotes int
		wantFirst string
	}{
		"no items":             {prefix: "Installed: ", wantNotes: 1, wantFirst: "Installed: "},
		"one":                  {prefix: "Installed: ", items: []string{Change("a", "1", "2")}, wantNotes: 1, wantFirst: "Installed: a 1 -> 2"},
		"new":                  {items: []string{Change("a", "", "2"), "b 1 -> 3"}, wantNotes: 1, wantFirst: "a 2, b 1 -> 3"},
		"200 patches":          {prefix: "Installed: ", items: items, wantNotes: 10},
		"exactly full":         {prefix: "p", items: []string{strings.Repeat("x", MaxNote-1)}, wantNotes: 1},
		"one byte more":        {prefix: "p", items: []string{strings.Repeat("x", MaxNote)}, wantNotes: 2},
		"longer than a note":   {prefix: "p: ", items: []string{"a", strings.Repeat("ü", 3*MaxNote), "b"}, wantNotes: 8},
		"prefix too long":      {prefix: strings.Repeat("p", 2*MaxNote), items: []string{"a", "b"}, wantNotes: 1},
		"separator at the end": {items: []string{strings.Repeat("x", MaxNote-1), "y"}, wantNotes: 2},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			notes := Pack(test.prefix, test.items)
			if len(notes) != test.wantNotes {
				t.Errorf("%d notes, want %d", len(notes), test.wantNotes)
			}
			if test.wantFirst != "" && notes[0] != test.wantFirst {
				t.Errorf("the first note is %q, want %q", notes[0], test.wantFirst)
			}
			checkPacked(t, test.prefix, test.items, notes)
		})
	}
}

// checkPacked says whether notes hold all of items, in order, within their bounds.
func checkPacked(t *testing.T, prefix string, items, notes []string) {
	t.Helper()
	prefix = cut(strings.ToValidUTF8(prefix, "\uFFFD"), MaxNote/2)
	var text strings.Builder
	for _, n := range notes {
		if len(n) > MaxNote || !utf8.ValidString(n) || !strings.HasPrefix(n, prefix) {
			t.Fatalf("a note of %d bytes: %q", len(n), n)
		}
		text.WriteString(strings.ReplaceAll(strings.TrimPrefix(n, prefix), ", ", ""))
	}
	want := strings.ReplaceAll(strings.ToValidUTF8(strings.Join(items, ""), "\uFFFD"), ", ", "")
	if text.String() != want {
		t.Errorf("the notes hold %q, want %q", text.String(), want)
	}
}

func FuzzPack(f *testing.F) {
	f.Add("Installed: ", "a 1 -> 2", strings.Repeat("ü", 700), 3)
	f.Fuzz(func(t *testing.T, prefix, a, b string, n int) {
		// The check joins what Pack separates; items that hold or border on a separator would confuse it.
		a, b = strings.NewReplacer(",", "", " ", "").Replace(a), strings.NewReplacer(",", "", " ", "").Replace(b)
		a, b = strings.ToValidUTF8(a, "?"), strings.ToValidUTF8(b, "?")
		var items []string
		for range max(n, -n) % 20 {
			items = append(items, a, b)
		}
		checkPacked(t, prefix, items, Pack(prefix, items))
	})
}
