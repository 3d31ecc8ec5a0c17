package zypper_test

import (
	"strings"
	"testing"

	"github.com/nodepatch/nodepatch/test/rpmrepo"
)

// TestPinned asks for versions that were the newest yesterday: beside a newer one, in place of which there is a newer one,
// and withdrawn without one. zypper installs exactly these, or nothing.
func TestPinned(t *testing.T) {
	t.Parallel()
	needs := rpmrepo.Good("toy-beside", "1.1-1")
	needs.Requires = []string{"toy-library = 1.1-1"}
	m, repo := outdated(t, needs, rpmrepo.Good("toy-replaced", "1.1-1"), rpmrepo.Good("toy-withdrawn", "1.1-1"))
	repo.Add(rpmrepo.Good("toy-library", "1.1-1"))
	repo.Remove("toy-replaced", "toy-withdrawn")
	m.newer(t, repo, rpmrepo.Good("toy-beside", "1.2-1"), rpmrepo.Good("toy-library", "1.2-1"),
		rpmrepo.Good("toy-replaced", "1.2-1"), rpmrepo.Good("toy-withdrawn", "1.0-1"))

	got := m.download(t, targets("1.1-1", "toy-beside", "toy-replaced", "toy-withdrawn")...)
	if len(got.Ready) != 1 || got.Ready[0] != target("toy-beside", "1.1-1") || len(got.Failed) != 0 || failed(got.Deferred) != "toy-replaced toy-withdrawn" {
		t.Fatalf("download is %+v", got)
	}
	for _, f := range got.Deferred {
		if !strings.Contains(f.Message, "not found") {
			t.Errorf("of %s it says %q", f.Target.Name, f.Message)
		}
	}
	repo.SetDown(true)
	if done := m.install(t, got.Ready...); len(done.Failed)+len(done.Warned) != 0 {
		t.Errorf("install is %+v", done)
	}
	m.has(t, "toy-beside 1.1-1", "toy-library 1.1-1", "toy-replaced 1.0-1", "toy-withdrawn 1.0-1")
	for _, p := range m.scan(t).Patches {
		if p.Name == "toy-beside" && (p.InstalledVersion != "1.1-1" || p.AvailableVersion != "1.2-1") {
			t.Errorf("afterwards a scan has %+v", p)
		}
	}
}
