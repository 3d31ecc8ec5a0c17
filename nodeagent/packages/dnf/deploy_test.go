package dnf_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/test/rpmrepo"
)

// TestDeploy downloads and installs what can be, among everything that can go wrong
// with a package.
func TestDeploy(t *testing.T) {
	names := []string{"toy-good", "toy-config", "toy-pre", "toy-post", "toy-missing", "toy-corrupt", "toy-needs", "toy-needs-missing", "toy-unmet", "toy-superseded"}
	m, repo := with(t, names...)
	m.offer(t, repo, rpmrepo.WithConfig("toy-config", "1.1-1"))
	m.layer.Run(t, "dnf", "-q", "-y", "upgrade", "toy-config")
	m.layer.Write(t, "/etc/toy-config.conf", "mine\n")
	needs, needsMissing, unmet := rpmrepo.Good("toy-needs", "2.0-1"), rpmrepo.Good("toy-needs-missing", "2.0-1"), rpmrepo.Good("toy-unmet", "2.0-1")
	needs.Requires, needsMissing.Requires, unmet.Requires = []string{"toy-extra"}, []string{"toy-missing-extra"}, []string{"toy-nowhere"}
	m.offer(t, repo,
		rpmrepo.Good("toy-good", "2.0-1"), rpmrepo.WithConfig("toy-config", "2.0-1"), rpmrepo.FailingPre("toy-pre", "2.0-1"),
		rpmrepo.FailingPost("toy-post", "2.0-1"), rpmrepo.Missing("toy-missing", "2.0-1"), rpmrepo.Corrupt("toy-corrupt", "2.0-1"),
		needs, rpmrepo.Good("toy-extra", "1-1"), needsMissing, rpmrepo.Missing("toy-missing-extra", "1-1"), unmet,
		rpmrepo.Good("toy-superseded", "3.0-1"),
	)

	got := m.download(t, toys("2.0-1", names...)...)
	var ready []string
	for _, r := range got.Ready {
		ready = append(ready, r.Name)
	}
	if want := []string{"toy-good", "toy-config", "toy-pre", "toy-post", "toy-needs"}; !slices.Equal(ready, want) {
		t.Errorf("ready are %q, want %q", ready, want)
	}
	if want := []string{"toy-corrupt", "toy-missing"}; !slices.Equal(namesOf(got.Failed), want) {
		t.Errorf("failed are %+v, want %q", got.Failed, want)
	}
	if want := []string{"toy-needs-missing", "toy-superseded", "toy-unmet"}; !slices.Equal(namesOf(got.Deferred), want) {
		t.Errorf("deferred are %+v, want %q", got.Deferred, want)
	}
	for name, want := range map[string]string{
		"toy-missing": "404", "toy-corrupt": "checksum", "toy-needs-missing": "404", "toy-superseded": "no repository offers", "toy-unmet": "toy-nowhere",
	} {
		if said := message(slices.Concat(got.Failed, got.Deferred), name); !strings.Contains(said, want) {
			t.Errorf("of %s it says %q, want %q", name, said, want)
		}
	}
	if got.Bytes < 5000 {
		t.Errorf("%d bytes were fetched", got.Bytes)
	}

	repo.SetDown(true) // an installation needs no network
	done := m.install(t, got.Ready...)
	if !slices.Equal(namesOf(done.Failed), []string{"toy-pre"}) || !strings.Contains(message(done.Failed, "toy-pre"), "%pre of toy-pre fails on purpose") {
		t.Errorf("failed are %+v", done.Failed)
	}
	if !slices.Equal(namesOf(done.Warned), []string{"toy-post"}) || !strings.Contains(message(done.Warned, "toy-post"), "%post of toy-post fails on purpose") {
		t.Errorf("warned of are %+v", done.Warned)
	}
	m.wantVersions(t, "2.0-1 2.0-1 1.0-1 2.0-1 1.0-1 2.0-1 1-1", "toy-good", "toy-config", "toy-pre", "toy-post", "toy-missing", "toy-needs", "toy-extra")
	if got := m.layer.Read(t, "/etc/toy-config.conf"); got != "mine\n" {
		t.Errorf("a changed configuration file is %q", got)
	}
	// The file of what failed stays, the others' go.
	left := m.layer.Run(t, "sh", "-c", "ls /var/cache/dnf/toys-*/packages")
	if !strings.Contains(left, "toy-pre-2.0-1.noarch.rpm") || strings.Contains(left, "toy-good") || strings.Contains(left, "toy-extra") {
		t.Errorf("dnf's cache has %q", left)
	}
}

// TestInstallRefused has one target of a batch that cannot be installed: nothing is.
func TestInstallRefused(t *testing.T) {
	names := []string{"toy-good", "toy-unmet", "toy-old"}
	m, repo := with(t, names...)
	unmet := rpmrepo.Good("toy-unmet", "2.0-1")
	unmet.Requires = []string{"toy-nowhere"}
	m.offer(t, repo, rpmrepo.Good("toy-good", "2.0-1"), unmet)
	for name, c := range map[string]struct {
		target packages.Target
		detail string
	}{
		"superseded":     {toy("toy-good", "1.5-1"), "do not offer"},
		"unknown":        {toy("toy-nowhere", "1.0-1"), "do not offer"},
		"unmet":          {toy("toy-unmet", "2.0-1"), "toy-nowhere"},
		"not downloaded": {toy("toy-good", "2.0-1"), "cache"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := m.Install(t.Context(), []packages.Target{c.target, toy("toy-old", "1.0-1")})
			var refused *packages.RefusedError
			if !errors.As(err, &refused) || !strings.Contains(refused.Detail, c.detail) {
				t.Fatalf("it returns %#v, want a refusal with %q", err, c.detail)
			}
			if len(refused.Targets) != 1 || refused.Targets[0].Target != c.target {
				t.Errorf("it names %+v, want %+v", refused.Targets, c.target)
			}
		})
	}
	m.wantVersions(t, "1.0-1 1.0-1 1.0-1", names...)
	if got := m.install(t, toys("1.0-1", "toy-good", "toy-old")...); len(got.Failed)+len(got.Warned) != 0 {
		t.Errorf("to install what is there already is %+v", got)
	}
	for _, wrong := range []packages.Target{toy("-y", "1-1"), toy("toy*", "1-1"), toy("toy", "1-1 x"), {Name: "toy", Version: "1-1", Architecture: "no arch"}} {
		if _, err := m.Install(t.Context(), []packages.Target{wrong}); err == nil {
			t.Errorf("%+v is a target", wrong)
		}
	}
}

// TestNeverRemoves has an upgrade that conflicts with an installed package, and
// one that replaces a package by another name.
func TestNeverRemoves(t *testing.T) {
	m, repo := with(t, "toy-a", "toy-b", "toy-old", "toy-kept")
	conflicting, successor := rpmrepo.Good("toy-a", "2.0-1"), rpmrepo.Good("toy-new", "2.0-1")
	conflicting.Conflicts, successor.Obsoletes = []string{"toy-b"}, []string{"toy-old"}
	m.offer(t, repo, conflicting, successor)
	if p := find(t, m.scan(t), "toy-a"); p.State != packages.KeptBack || !strings.Contains(p.Reason, "toy-b") {
		t.Errorf("an upgrade that would need a removal is %+v", p)
	}
	m.download(t, toys("2.0-1", "toy-a", "toy-new")...)
	_, err := m.Install(t.Context(), toys("2.0-1", "toy-a"))
	var refused *packages.RefusedError
	if !errors.As(err, &refused) {
		t.Fatalf("to install it returns %#v", err)
	}
	if got := m.install(t, toy("toy-new", "2.0-1")); len(got.Failed) != 0 {
		t.Errorf("to install a successor is %+v", got)
	}
	m.wantVersions(t, "1.0-1 1.0-1  2.0-1 1.0-1", "toy-a", "toy-b", "toy-old", "toy-new", "toy-kept")
}

// TestFileConflict is found by rpm's test of the transaction, which changes nothing.
func TestFileConflict(t *testing.T) {
	m, repo := with(t, "toy-a", "toy-good")
	owner := rpmrepo.Good("toy-owner", "1.0-1")
	owner.Files = map[string]string{"/usr/share/toy": "owner"}
	m.offer(t, repo, owner)
	m.layer.Run(t, "dnf", "-q", "-y", "install", "toy-owner")
	other := rpmrepo.Good("toy-a", "2.0-1")
	other.Files = map[string]string{"/usr/share/toy": "a"}
	m.offer(t, repo, other, rpmrepo.Good("toy-good", "2.0-1"))
	targets := toys("2.0-1", "toy-a", "toy-good")
	m.download(t, targets...)
	got := m.install(t, targets...)
	if !slices.Equal(namesOf(got.Failed), []string{"toy-a"}) || !strings.Contains(message(got.Failed, "toy-a"), "conflicts with file") {
		t.Errorf("installed is %+v", got)
	}
	m.wantVersions(t, "1.0-1 1.0-1", "toy-a", "toy-good")
	m.install(t, toy("toy-good", "2.0-1"))
	m.wantVersions(t, "1.0-1 2.0-1", "toy-a", "toy-good")
}

// TestRetry has a package that fails twice, and is installed at the third attempt.
func TestRetry(t *testing.T) {
	m, repo := with(t, "toy-twice")
	m.offer(t, repo, rpmrepo.FailingTimes("toy-twice", "2.0-1", 2))
	m.download(t, toy("toy-twice", "2.0-1"))
	for attempt := 1; attempt <= 3; attempt++ {
		got := m.install(t, toy("toy-twice", "2.0-1"))
		if failed := len(got.Failed) == 1; failed != (attempt < 3) {
			t.Fatalf("attempt %d is %+v", attempt, got)
		}
	}
	m.wantVersions(t, "2.0-1", "toy-twice")
}

// TestManyPackages installs twenty in one transaction.
func TestManyPackages(t *testing.T) {
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("toy-%02d", i))
	}
	m, repo := with(t, names...)
	for _, name := range names {
		repo.Add(rpmrepo.Good(name, "2.0-1"))
	}
	m.offer(t, repo)
	targets := toys("2.0-1", names...)
	if got := m.download(t, targets...); len(got.Ready) != len(targets) {
		t.Fatalf("downloaded is %+v", got)
	}
	if got := m.install(t, targets...); len(got.Failed)+len(got.Warned) != 0 {
		t.Fatalf("installed is %+v", got)
	}
	m.wantVersions(t, strings.TrimSpace(strings.Repeat("2.0-1 ", 20)), names...)
	if got := strings.Fields(m.layer.Run(t, "rpm", "-q", "--qf", "%{INSTALLTID}\n", "toy-00", "toy-19")); got[0] != got[1] {
		t.Errorf("they were installed by the transactions %q", got)
	}
}

// TestMirrorDown downloads from a server that closes connections: nobody's failure.
func TestMirrorDown(t *testing.T) {
	m, repo := with(t, "toy-a", "toy-b")
	m.offer(t, repo, rpmrepo.Good("toy-a", "2.0-1"), rpmrepo.Good("toy-b", "2.0-1"))
	m.download(t, toy("toy-a", "2.0-1"))
	repo.SetDown(true)
	got := m.download(t, toys("2.0-1", "toy-a", "toy-b")...)
	if len(got.Failed) != 0 || len(got.Ready) != 1 || !slices.Equal(namesOf(got.Deferred), []string{"toy-b"}) || !strings.Contains(got.Deferred[0].Message, "Curl error") {
		t.Errorf("with a server that is down it is %+v", got)
	}
	_, err := m.Download(t.Context(), toys("2.0-1", "toy-b"))
	var repository *packages.RepositoryError
	if !errors.As(err, &repository) {
		t.Errorf("with nothing to be had it returns %#v", err)
	}
	repo.SetDown(false)
	if got := m.download(t, toys("2.0-1", "toy-a", "toy-b")...); len(got.Ready) != 2 {
		t.Errorf("with the server back it is %+v", got)
	}
}

// TestDiskFull has no room for dnf's cache: of a small file, dnf says that its
// checksum does not match.
func TestDiskFull(t *testing.T) {
	m, repo := with(t, "toy-a")
	m.offer(t, repo, rpmrepo.Good("toy-a", "2.0-1"))
	cache, err := filepath.Glob(m.layer.Path + "/var/cache/dnf/toys-*/repodata")
	if err != nil || len(cache) != 1 {
		t.Fatalf("dnf's cache is %q (%v)", cache, err)
	}
	small := filepath.Join(filepath.Dir(cache[0]), "packages")
	if err := os.MkdirAll(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=4k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(small, unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(small, "full"), make([]byte, 4096), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = m.Download(t.Context(), toys("2.0-1", "toy-a"))
	var full *packages.DiskFullError
	if !errors.As(err, &full) {
		t.Fatalf("it returns %#v", err)
	}
	if !strings.HasSuffix(full.Path, "/packages") {
		t.Errorf("it names %q", full.Path)
	}
}

// TestDiskFullForFiles has no room for a package's files: rpm finds that before it begins.
func TestDiskFullForFiles(t *testing.T) {
	m, repo := with(t, "toy-a", "toy-b")
	large := rpmrepo.Good("toy-a", "2.0-1")
	large.Files = map[string]string{"/opt/toy": strings.Repeat("x", 1<<20)}
	m.offer(t, repo, large, rpmrepo.Good("toy-b", "2.0-1"))
	targets := toys("2.0-1", "toy-a", "toy-b")
	m.download(t, targets...)
	opt := filepath.Join(m.layer.Path, "opt")
	if err := unix.Mount("tmpfs", opt, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(opt, unix.MNT_DETACH) })
	_, err := m.Install(t.Context(), targets)
	var full *packages.DiskFullError
	if !errors.As(err, &full) || full.Path != "/opt" {
		t.Errorf("it returns %#v", err)
	}
	m.wantVersions(t, "1.0-1 1.0-1", "toy-a", "toy-b")
}
