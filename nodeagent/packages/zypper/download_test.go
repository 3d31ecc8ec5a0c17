package zypper_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/test/rpmrepo"
)

// TestDownload has packages fail in every way in one batch: the others must be
// ready, and each failure under its own name.
func TestDownload(t *testing.T) {
	t.Parallel()
	needy := rpmrepo.Good("toy-needy", "1.1-1")
	needy.Requires = []string{"toy-gone"}
	content := rpmrepo.Good("toy-content", "1.1-1")
	content.Requires = []string{"toy-there"}
	unmet := rpmrepo.Good("toy-unmet", "1.1-1")
	unmet.Requires = []string{"toy-nowhere"}
	m, repo := outdated(t, rpmrepo.Good("toy-a", "1.1-1"), rpmrepo.Missing("toy-missing", "1.1-1"), rpmrepo.Corrupt("toy-corrupt", "1.1-1"),
		needy, content, unmet, rpmrepo.Good("toy-super", "1.2-1"), rpmrepo.Good("toy-z", "1.1-1"))
	m.newer(t, repo, rpmrepo.Missing("toy-gone", "2.0-1"), rpmrepo.Good("toy-there", "2.0-1"))
	all := targets("1.1-1", "toy-a", "toy-missing", "toy-corrupt", "toy-needy", "toy-content", "toy-unmet", "toy-super", "toy-never", "toy-z")
	d := m.download(t, all...)
	if got := names(d.Ready); got != "toy-a toy-content toy-z" {
		t.Errorf("ready are %s", got)
	}
	if got := failed(d.Failed); got != "toy-corrupt toy-missing" {
		t.Errorf("failed are %s: %+v", got, d.Failed)
	}
	if got := failed(d.Deferred); got != "toy-needy toy-never toy-super toy-unmet" {
		t.Errorf("deferred are %s: %+v", got, d.Deferred)
	}
	for name, want := range map[string]string{
		"toy-missing": "not found on medium", "toy-corrupt": "Digest verification failed",
		"toy-needy": "needs toy-gone-2.0-1.noarch", "toy-never": "not installed", "toy-super": "not found", "toy-unmet": "nothing provides toy-nowhere",
	} {
		if got := reason(append(d.Failed, d.Deferred...), name); !strings.Contains(got, want) || strings.Contains(got, "\n") {
			t.Errorf("%s is not ready because %q, want %q", name, got, want)
		}
	}
	// What is ready can be installed with no server.
	repo.SetDown(true)
	if install := m.install(t, d.Ready...); len(install.Failed) != 0 {
		t.Errorf("install is %+v", install)
	}
	m.has(t, "toy-a 1.1-1", "toy-content 1.1-1", "toy-there 2.0-1", "toy-z 1.1-1", "toy-missing 1.0-1")
}

// TestDownloadServer has the server fail, in part and altogether: nobody's failure.
func TestDownloadServer(t *testing.T) {
	t.Parallel()
	m, repo := outdated(t, rpmrepo.Good("toy-a", "1.1-1"), rpmrepo.Good("toy-b", "1.1-1"))
	m.download(t, targets("1.1-1", "toy-a")...)
	repo.SetDown(true)
	d := m.download(t, targets("1.1-1", "toy-a", "toy-b")...)
	if names(d.Ready) != "toy-a" || failed(d.Deferred) != "toy-b" || len(d.Failed) != 0 {
		t.Errorf("with the server down, download is %+v", d)
	}
	var repository *packages.RepositoryError
	if _, err := m.Download(t.Context(), targets("1.1-1", "toy-b")); !errors.As(err, &repository) {
		t.Errorf("with nothing but a server that is down, download is %v, want a RepositoryError", err)
	}
	repo.SetDown(false)
	if d := m.download(t, targets("1.1-1", "toy-a", "toy-b")...); names(d.Ready) != "toy-a toy-b" {
		t.Errorf("with the server back, download is %+v", d)
	}
}

// TestDownloadHanging has a server that takes requests and never answers, for
// which libzypp waits with each file: after a batch, no more is asked for.
func TestDownloadHanging(t *testing.T) {
	t.Parallel()
	var all []rpmrepo.Package
	var wanted []packages.Target
	for i := range 40 {
		all = append(all, rpmrepo.Good(fmt.Sprintf("toy-%02d", i), "1.1-1"))
		wanted = append(wanted, target(all[i].Name, "1.1-1"))
	}
	m, repo := outdated(t, all...)
	m.download(t, wanted[3])
	before := m.seen.count("zypper-download")
	m.Hurry(3 * time.Second)
	repo.SetHanging(true)
	defer repo.SetHanging(false)
	var repository *packages.RepositoryError
	if _, err := m.Download(t.Context(), wanted[4:]); !errors.As(err, &repository) || !strings.Contains(err.Error(), "not fetched within 3s") {
		t.Errorf("with a server that hangs, download is %v, want a RepositoryError", err)
	}
	if n := m.seen.count("zypper-download") - before; n != 1 {
		t.Errorf("zypper was asked to download %d times", n)
	}
	// What is there already is ready.
	if d := m.download(t, wanted[3], wanted[5]); names(d.Ready) != "toy-03" || failed(d.Deferred) != "toy-05" {
		t.Errorf("with a server that hangs, download is %+v", d)
	}
}

// TestDownloadUnsigned has a repository whose packages must be signed and are not.
func TestDownloadUnsigned(t *testing.T) {
	t.Parallel()
	m, _ := outdated(t, rpmrepo.Good("toy-a", "1.1-1"))
	file := m.layer.Read(t, "/etc/zypp/repos.d/toys.repo")
	m.layer.Write(t, "/etc/zypp/repos.d/toys.repo", file+"pkg_gpgcheck=1\n")
	d := m.download(t, targets("1.1-1", "toy-a")...)
	if failed(d.Failed) != "toy-a" || !strings.Contains(d.Failed[0].Message, "Signature verification failed") {
		t.Errorf("download is %+v", d)
	}
}

// TestDiskFull has no room: for the packages in the cache, for what is being
// fetched, and for what is in the packages.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	big := rpmrepo.Good("toy-big", "1.1-1")
	var content strings.Builder // that cannot be compressed
	for random := rand.New(rand.NewPCG(1, 2)); content.Len() < 4<<20; {
		content.WriteByte(byte(random.Uint32()))
	}
	big.Files = map[string]string{"/big/file": content.String()}
	m, _ := outdated(t, rpmrepo.Good("toy-a", "1.1-1"), big)
	all := targets("1.1-1", "toy-a", "toy-big")
	var full *packages.DiskFullError
	for name, c := range map[string]struct{ path, size string }{
		"cache":     {"var/cache/zypp/packages", "4k"},
		"temporary": {"var/tmp", "4k"},
	} {
		path := m.small(t, c.path, c.size)
		_, err := m.Download(t.Context(), all)
		if !errors.As(err, &full) || !strings.Contains(full.Path, "/var/") {
			t.Errorf("%s: download is %v, want a DiskFullError", name, err)
		}
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	if d := m.download(t, all...); len(d.Ready) != 2 {
		t.Fatalf("with room, download is %+v", d)
	}
	path := m.small(t, "big", "1m")
	if _, err := m.Install(t.Context(), all); !errors.As(err, &full) || full.Path != "/big" {
		t.Errorf("install is %v, want a DiskFullError of /big", err)
	}
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	m.has(t, "toy-big 1.0-1")
	if install := m.install(t, all...); len(install.Failed) != 0 {
		t.Errorf("with room, install is %+v", install)
	}
	m.has(t, "toy-a 1.1-1", "toy-big 1.1-1")
}

// small mounts a file system with little room.
func (m *machine) small(tb testing.TB, name, size string) string {
	tb.Helper()
	path := filepath.Join(m.layer.Path, name)
	if err := os.MkdirAll(path, 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := unix.Mount("small", path, "tmpfs", 0, "size="+size); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	return path
}

// TestLocked has another zypper at work: it is waited for, and then named.
func TestLocked(t *testing.T) {
	t.Parallel()
	waited := 0
	var release func()
	m, _ := outdated(t, rpmrepo.Good("toy-a", "1.1-1"))
	wanted := targets("1.1-1", "toy-a")
	m.download(t, wanted...)
	patient := m.with(t, packages.Locks{Poll: 50 * time.Millisecond, Waiting: func(held *packages.LockHeldError) error {
		waited++
		if waited == 3 {
			release()
		}
		if held.Path != "/run/zypp.pid" || held.PID == 0 || held.Process != "zypper" {
			t.Errorf("the lock is held by %+v", held)
		}
		return nil
	}})
	for name, call := range map[string]func() error{
		"refresh": func() error { _, err := patient.Refresh(t.Context()); return err },
		"install": func() error { _, err := patient.Install(t.Context(), wanted); return err },
	} {
		waited = 0
		release = m.lock(t)
		if err := call(); err != nil || waited < 3 {
			t.Errorf("%s waited %d times, and is %v", name, waited, err)
		}
	}
	m.has(t, "toy-a 1.1-1")

	release = m.lock(t)
	defer release()
	impatient := m.with(t, packages.Locks{Poll: 10 * time.Millisecond, Patience: 50 * time.Millisecond})
	var held *packages.LockHeldError
	if _, err := impatient.Refresh(t.Context()); !errors.As(err, &held) || !strings.Contains(err.Error(), "zypper (process") {
		t.Errorf("it is %v, want a LockHeldError", err)
	}
}
