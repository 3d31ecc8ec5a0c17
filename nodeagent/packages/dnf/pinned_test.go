package dnf_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/nodepatch/nodepatch/test/rpmrepo"
)

// TestPinned asks for versions that were the newest yesterday: beside a newer one, in place of which there is a newer one,
// and withdrawn without one. dnf installs exactly these, or nothing.
func TestPinned(t *testing.T) {
	names := []string{"toy-beside", "toy-replaced", "toy-withdrawn"}
	m, repo := with(t, names...)
	for _, name := range names {
		repo.Add(rpmrepo.Good(name, "2.0-1"))
	}
	needs := rpmrepo.Good("toy-beside", "2.0-1")
	needs.Requires = []string{"toy-library = 2.0-1"}
	m.offer(t, repo, needs, rpmrepo.Good("toy-library", "2.0-1"))
	repo.Remove("toy-replaced", "toy-withdrawn")
	m.offer(t, repo, rpmrepo.Good("toy-beside", "3.0-1"), rpmrepo.Good("toy-library", "3.0-1"),
		rpmrepo.Good("toy-replaced", "3.0-1"), rpmrepo.Good("toy-withdrawn", "1.0-1"))

	got := m.download(t, toys("2.0-1", names...)...)
	if len(got.Ready) != 1 || got.Ready[0] != toy("toy-beside", "2.0-1") || len(got.Failed) != 0 ||
		!slices.Equal(namesOf(got.Deferred), []string{"toy-replaced", "toy-withdrawn"}) {
		t.Fatalf("downloaded is %+v", got)
	}
	for _, f := range got.Deferred {
		if !strings.Contains(f.Message, "no repository offers this version any more") {
			t.Errorf("of %s it says %q", f.Target.Name, f.Message)
		}
	}
	repo.SetDown(true)
	if done := m.install(t, got.Ready...); len(done.Failed)+len(done.Warned) != 0 {
		t.Errorf("installed is %+v", done)
	}
	m.wantVersions(t, "2.0-1 2.0-1 1.0-1 1.0-1", "toy-beside", "toy-library", "toy-replaced", "toy-withdrawn")
	if p := find(t, m.scan(t), "toy-beside"); p.InstalledVersion != "2.0-1" || p.AvailableVersion != "3.0-1" {
		t.Errorf("afterwards a scan has %+v", p)
	}
}
