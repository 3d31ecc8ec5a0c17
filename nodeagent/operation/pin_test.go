package operation

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// pinning asks for an operation that installs what its task has pinned.
func pinning(id string) *v1alpha1.PatchAssignment {
	a := assign(id, later())
	o := a.Spec.Operation
	o.Step, o.Action, o.Pin = v1alpha1.StepDownloading, v1alpha1.ActionDeploy, v1alpha1.OperationPinTask
	return a
}

// pinnedTask is the operation's task, with ham pinned at what the fixture has installed.
func pinnedTask(id string) *v1alpha1.PatchTask {
	return &v1alpha1.PatchTask{
		ObjectMeta: metav1.ObjectMeta{Name: "t-" + id, UID: "1"},
		Status: v1alpha1.PatchTaskStatus{Pinned: &v1alpha1.PinnedPatches{
			Nodes: 1, Patches: []v1alpha1.InstalledPatch{{Name: "ham", Version: "1"}},
		}},
	}
}

func present(targets []packages.Target) ([]packages.Presence, error) {
	return slices.Repeat([]packages.Presence{{Installed: true, Version: "1"}}, len(targets)), nil
}

// An API server that is away is waited for: what the operation is to install nobody else knows.
func TestPinIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, manager{inspect: present})
		f.api.task, f.api.taskErr = pinnedTask("1"), errors.New("connection refused")
		go func() {
			time.Sleep(10 * time.Minute)
			f.api.mu.Lock()
			defer f.api.mu.Unlock()
			f.api.taskErr = nil
		}()
		began := time.Now()
		f.see(t, pinning("1"))
		if s := f.api.last(); s.Step != v1alpha1.StepDone || s.Reason != v1alpha1.ReasonNothingToDo || time.Since(began) < 10*time.Minute {
			t.Errorf("Status after %s is %+v", time.Since(began), s)
		}
		report := f.api.reports[len(f.api.reports)-1]
		if p := report.Patches[0]; p.State != v1alpha1.PatchExcluded || !strings.HasPrefix(p.Reason, "the task has pinned 1, and this or a newer version is there") {
			t.Errorf("The report has %+v", p)
		}
	})
}

// An operation is stopped while it waits for that.
func TestPinIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, manager{inspect: present})
		f.api.taskErr = errors.New("connection refused")
		go func() {
			time.Sleep(time.Minute)
			stop := pinning("1")
			stop.Spec.Operation.Stop = "enough"
			f.Assign(stop)
		}()
		f.see(t, pinning("1"))
		if s := f.api.last(); s.Step != v1alpha1.StepStopped || s.Reason != v1alpha1.ReasonStopped {
			t.Errorf("Status is %+v", s)
		}
	})
}

// Without a pin that can be known the operation fails before anything is chosen.
func TestPinUnknown(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*fixture, *v1alpha1.PatchAssignment)
		want   string
	}{
		"the task is gone": {func(f *fixture, _ *v1alpha1.PatchAssignment) { f.api.task = nil }, "is gone, and with it what it has pinned"},
		"another task has its name": {
			func(f *fixture, _ *v1alpha1.PatchAssignment) { f.api.task.UID = "2" }, "is gone, and with it what it has pinned",
		},
		"nothing is pinned": {func(f *fixture, _ *v1alpha1.PatchAssignment) { f.api.task.Status.Pinned = nil }, "the task t-1 has pinned nothing"},
		"no version": {
			func(f *fixture, _ *v1alpha1.PatchAssignment) { f.api.task.Status.Pinned.Patches[0].Version = "-y" }, `the task has pinned ham at "-y", which is no version`,
		},
		"a pin of a newer manager": {
			func(_ *fixture, a *v1alpha1.PatchAssignment) { a.Spec.Operation.Pin = "Oracle" }, "agent v1 does not know the pin Oracle: it is older than the manager",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, manager{inspect: present})
			f.api.task = pinnedTask("1")
			a := pinning("1")
			test.change(f, a)
			f.see(t, a)
			if s := f.api.last(); s.Step != v1alpha1.StepFailed || s.Reason != v1alpha1.ReasonPinUnknown || !strings.Contains(s.Message, test.want) {
				t.Errorf("Status is %+v, want the message %q", s, test.want)
			}
		})
	}
}

// The journal remembers the pin for agents that go on, and one that is lost is never taken for leave to choose.
func TestPinIsKept(t *testing.T) {
	f := newFixture(t, manager{inspect: present})
	f.api.task = pinnedTask("1")
	f.see(t, pinning("1"))
	f.restart(t)
	if p := f.pinned(); p == nil || p.Versions["ham"] != "1" || !p.Present["ham"] {
		t.Errorf("The next agent has %+v", p)
	}
	if err := os.Remove(f.options.Host.Path("journal", pinFile)); err != nil {
		t.Fatal(err)
	}
	f.restart(t)
	f.journal.Current.Phase = phaseScan
	if goOn := f.choose(t.Context(), &packages.Scan{}); goOn || f.journal.Current.Outcome.Reason != v1alpha1.ReasonPinUnknown {
		t.Errorf("Without its pin the operation went on: %+v", f.journal.Current)
	}
}

// What another version of the same package has come to is not asked of the operation's scan, but of the package database.
func TestPinCompares(t *testing.T) {
	var asked []packages.Target
	m := manager{inspect: func(targets []packages.Target) ([]packages.Presence, error) {
		asked = targets
		all := make([]packages.Presence, len(targets))
		for i, target := range targets {
			switch {
			case target.Name == "listed", target.Name == "older" && target.Architecture == "noarch", target.Name == "foreign":
				all[i] = packages.Presence{Version: "1"}
			case target.Name == "there" && target.Architecture == "all":
				all[i] = packages.Presence{Version: "3", Installed: true}
			}
		}
		return all, nil
	}}
	p, err := newPin("1", &v1alpha1.PinnedPatches{Patches: []v1alpha1.InstalledPatch{
		{Name: "absent", Version: "2"}, {Name: "foreign:riscv", Version: "2"}, {Name: "listed", Version: "2"},
		{Name: "older", Version: "1:2~rc1-1.el9_4"}, {Name: "there", Version: "2"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	found := &packages.Scan{Patches: []packages.Patch{
		{Name: "listed", Architecture: "all", InstalledVersion: "1", AvailableVersion: "3", State: packages.Missing},
		{Name: "unpinned", Architecture: "all", InstalledVersion: "1", AvailableVersion: "3", State: packages.Missing},
	}}
	if err := p.compare(t.Context(), found, m); err != nil {
		t.Fatal(err)
	}
	if len(p.Present) != 1 || !p.Present["there"] {
		t.Errorf("Present are %v", p.Present)
	}
	var unlisted []string
	for _, i := range p.Unlisted {
		unlisted = append(unlisted, i.change())
	}
	if want := []string{"foreign:riscv 1 -> 2", "older 1 -> 1:2~rc1-1.el9_4"}; !slices.Equal(unlisted, want) {
		t.Errorf("Unlisted are %q, want %q", unlisted, want)
	}
	for _, target := range asked {
		if target.Name == "unpinned" || target.Name == "listed" && target.Architecture != "all" {
			t.Errorf("It asks for %+v", target)
		}
	}
}
