package apt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

// TestDownload has one batch with every kind of package that can stand in its way.
func TestDownload(t *testing.T) {
	epoch := aptrepo.Good("toy-epoch", "2:1.1-1")
	m, repos := newOutdated(t, packages.Locks{},
		aptrepo.Good("toy-good", "1.1"), epoch, aptrepo.Missing("toy-missing", "1.1"), aptrepo.Corrupt("toy-corrupt", "1.1"),
		depending("toy-needs-missing", "1.1", "toy-missing (>= 1.1)"), depending("toy-needs-new", "1.1", "toy-new"), aptrepo.Good("toy-new", "0"),
		depending("toy-needs-lost", "1.1", "toy-lost"), aptrepo.Missing("toy-lost", "0"),
		aptrepo.Good("toy-held", "1.1"), depending("toy-unmet", "1.1", "toy-absent"), aptrepo.Good("toy-superseded", "1.2"),
		aptrepo.Good("toy-removed", "1.1"), aptrepo.Good("toy-current", "1.1"),
	)
	m.layer.Run(t, "apt-mark", "hold", "toy-held")
	m.layer.Run(t, "dpkg", "--purge", "toy-removed")
	m.layer.Run(t, "apt-get", "-q", "-y", "install", "toy-current")
	m.layer.Run(t, "apt-get", "clean")

	targets := append(upgrades("toy-good", "toy-missing", "toy-corrupt", "toy-needs-missing", "toy-needs-new", "toy-needs-lost",
		"toy-held", "toy-unmet", "toy-superseded", "toy-removed", "toy-current"), target("toy-epoch", "2:1.1-1"))
	download := m.download(t, targets...)
	sameNames(t, "ready", names(download.Ready), "toy-good", "toy-epoch", "toy-needs-new", "toy-current")
	sameReasons(t, "failed", download.Failed, map[string]string{"toy-missing": "404  Not Found", "toy-corrupt": "Hash Sum mismatch"})
	sameReasons(t, "deferred", download.Deferred, map[string]string{
		"toy-needs-missing": "it needs toy-missing 1.1, which could not be fetched: 404",
		"toy-needs-lost":    "it needs toy-lost 1.0, which could not be fetched: 404",
		"toy-held":          "an administrator holds it",
		"toy-unmet":         "Depends: toy-absent but it is not installable",
		"toy-superseded":    "Version '1.1' for 'toy-superseded' was not found",
		"toy-removed":       "not installed any more",
	})
	if download.Bytes < 5*5000 || download.Bytes > 8*10000 {
		t.Errorf("%d bytes were fetched", download.Bytes)
	}
	for name, want := range map[string]bool{"toy-good_1.1_all.deb": true, "toy-epoch_2%3a1.1-1_all.deb": true, "toy-new_1.0_all.deb": true, "toy-corrupt_1.1_all.deb": false} {
		if _, err := os.Stat(filepath.Join(m.layer.Path, "var/cache/apt/archives", name)); (err == nil) != want {
			t.Errorf("%s on disk: %v, want %t", name, err, want)
		}
	}
	m.wantStates(t, map[string]string{"toy-good": "1.0", "toy-new": "absent"})

	// The scan knows what lies there, and a second download fetches nothing again.
	scan := m.scan(t)
	var downloaded []string
	for _, p := range scan.Patches {
		if p.Downloaded {
			downloaded = append(downloaded, p.Name)
		}
	}
	sameNames(t, "downloaded patches", downloaded, "toy-good", "toy-epoch", "toy-needs-new", "toy-needs-missing", "toy-needs-lost")
	before := repos["updates"].Requests("toy-good")
	again := m.download(t, targets...)
	sameNames(t, "ready again", names(again.Ready), names(download.Ready)...)
	if again.Bytes != 0 || repos["updates"].Requests("toy-good") != before {
		t.Errorf("%d bytes were fetched again", again.Bytes)
	}
	if repos["updates"].Requests("toy-missing") < 2 {
		t.Error("what is missing was not asked for again")
	}
}

// TestDownloadForeign tells one name of two architectures apart.
func TestDownloadForeign(t *testing.T) {
	m := newMachine(t, packages.Locks{})
	m.layer.Run(t, "dpkg", "--add-architecture", foreignArchitecture())
	repos := archives()
	var targets []packages.Target
	for _, architecture := range []string{nativeArchitecture(), foreignArchitecture()} {
		for _, version := range []string{"1.0", "1.1"} {
			p := aptrepo.Good("toy-twin", version)
			p.Architecture, p.MultiArch = architecture, "same"
			repos["debian"].Add(p)
		}
		targets = append(targets, packages.Target{Name: "toy-twin", Architecture: architecture, Version: "1.1"})
	}
	m.serve(t, repos)
	m.install(t, "toy-twin=1.0", "toy-twin:"+foreignArchitecture()+"=1.0")
	m.layer.Run(t, "apt-get", "clean")
	if download := m.download(t, targets...); !slices.Equal(download.Ready, targets) {
		t.Fatalf("download is %+v", download)
	}
	if install := m.put(t, targets...); len(install.Failed) != 0 {
		t.Fatalf("install is %+v", install)
	}
	presences, err := m.Inspect(t.Context(), targets)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range presences {
		if !p.Installed || p.Version != "1.1" {
			t.Errorf("%+v is %+v", targets[i], p)
		}
	}
	if left := m.archives(t); len(left) != 0 {
		t.Errorf("on disk are still %q", left)
	}

	for i := range targets {
		targets[i].Version = "1.2"
		p := aptrepo.Good("toy-twin", "1.2")
		if p.Architecture, p.MultiArch = targets[i].Architecture, "same"; p.Architecture == foreignArchitecture() {
			p.Postinst = "exit 1"
		}
		repos["debian"].Add(p)
	}
	publish(t, repos["debian"])
	m.refresh(t)
	m.fetch(t, targets...)
	install := m.put(t, targets...)
	if len(install.Failed) != 1 || install.Failed[0].Target != targets[1] {
		t.Errorf("install is %+v, want the foreign one to fail", install)
	}
}

// archives are the packages in apt's folder.
func (m *machine) archives(tb testing.TB) (names []string) {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(m.layer.Path, "var/cache/apt/archives/*.deb"))
	if err != nil {
		tb.Fatal(err)
	}
	for _, file := range files {
		names = append(names, filepath.Base(file))
	}
	return names
}

// TestDownloadUntrusted has a repository that is not signed: what comes from it is
// not downloaded, and does not keep others from it.
func TestDownloadUntrusted(t *testing.T) {
	m, repos := newOutdated(t, packages.Locks{}, aptrepo.Good("toy", "1.1"))
	repos["vendor"].Add(aptrepo.Good("toy-untrusted", "1.0"), aptrepo.Good("toy-untrusted", "1.1"))
	publish(t, repos["vendor"])
	m.install(t, "toy-untrusted=1.0")
	m.layer.Run(t, "sed", "-i", "/vendor/s/trusted=yes/allow-insecure=yes/", "/etc/apt/sources.list")
	m.layer.Run(t, "apt-get", "update")
	download := m.download(t, upgrades("toy", "toy-untrusted")...)
	sameNames(t, "ready", names(download.Ready), "toy")
	sameReasons(t, "deferred", download.Deferred, map[string]string{"toy-untrusted": "not signed"})
}

// TestDownloadUnreachable has servers that do not answer, one of two and then all.
func TestDownloadUnreachable(t *testing.T) {
	m, repos := newOutdated(t, packages.Locks{}, aptrepo.Good("toy-here", "1.1"), aptrepo.Good("toy-fresh", "1.1"))
	repos["vendor"].Add(aptrepo.Good("toy-there", "1.0"), aptrepo.Good("toy-there", "1.1"))
	publish(t, repos["vendor"])
	m.install(t, "toy-there=1.0")
	m.SetLimits(2*time.Second, time.Minute)
	m.layer.Write(t, "/etc/apt/apt.conf.d/99test", "Acquire::Retries::Delay \"false\";\n")
	repos["vendor"].SetDown(true)

	download := m.download(t, upgrades("toy-here", "toy-there")...)
	sameNames(t, "ready", names(download.Ready), "toy-here")
	sameReasons(t, "failed", download.Failed, nil)
	sameReasons(t, "deferred", download.Deferred, map[string]string{"toy-there": "Connection failed"})

	repos["updates"].SetDown(true)
	_, err := m.Download(t.Context(), upgrades("toy-there", "toy-fresh"))
	var unreachable *packages.RepositoryError
	if !errors.As(err, &unreachable) || !strings.Contains(err.Error(), "Connection failed") {
		t.Errorf("error is %v, want one of repositories", err)
	}
	repos["updates"].SetDown(false)
	repos["vendor"].SetDown(false)
	m.fetch(t, upgrades("toy-there", "toy-fresh")...)
}

// TestDownloadHangs has a server that sends half of a file, and one that takes
// connections and says nothing: both end in a time that is known before.
func TestDownloadHangs(t *testing.T) {
	m, repos := newOutdated(t, packages.Locks{}, aptrepo.Slow("toy-slow", "1.1"), aptrepo.Good("toy-good", "1.1"))
	m.SetLimits(time.Second, time.Minute)
	m.layer.Write(t, "/etc/apt/apt.conf.d/99test", "Acquire::Retries::Delay \"false\";\n")
	download := m.download(t, upgrades("toy-slow", "toy-good")...)
	sameReasons(t, "deferred", download.Deferred, map[string]string{"toy-slow": "Connection timed out"})
	sameReasons(t, "failed", download.Failed, nil)

	// The whole is bounded too, however often apt would ask.
	m.SetLimits(time.Hour, 2*time.Second)
	started := time.Now()
	_, err := m.Download(t.Context(), upgrades("toy-slow"))
	var unreachable *packages.RepositoryError
	if !errors.As(err, &unreachable) || !strings.Contains(err.Error(), "not fetched within 2s") {
		t.Errorf("error is %v, want a server that hangs", err)
	}
	if took := time.Since(started); took > time.Minute {
		t.Errorf("a server that hangs took %s", took)
	}

	// A person who stops it does not wait.
	stopped := errors.New("stopped by a person")
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, stopped)
	defer cancel()
	m.SetLimits(time.Hour, time.Hour)
	if _, err := m.Download(ctx, upgrades("toy-slow")); !errors.Is(err, stopped) {
		t.Errorf("error is %v, want %v", err, stopped)
	}
	repos["updates"].ReleaseSlow()
	m.fetch(t, upgrades("toy-slow")...)
}

// TestDownloadDiskFull has no room for the files, by apt's own account and then by the kernel's.
func TestDownloadDiskFull(t *testing.T) {
	big := aptrepo.Good("toy-big", "1.1")
	big.Files = map[string]string{"/opt/big": strings.Repeat("x", 200<<10)}
	m, _ := newOutdated(t, packages.Locks{}, big)
	for _, folder := range []string{"archives", "archives/partial"} {
		t.Run(folder, func(t *testing.T) {
			m.mount(t, "tmpfs", "/var/cache/apt/"+folder, "size=100k")
			if folder == "archives" {
				m.layer.Write(t, "/var/cache/apt/archives/partial/.keep", "")
			}
			_, err := m.Download(t.Context(), upgrades("toy-big"))
			var full *packages.DiskFullError
			if !errors.As(err, &full) {
				t.Fatalf("error is %v, want a full disk", err)
			}
			if !strings.Contains(err.Error(), "space") {
				t.Errorf("error does not say what is the matter: %v", err)
			}
		})
	}
	m.fetch(t, upgrades("toy-big")...)
}

// mount mounts a file system in the machine until the test ends.
func (m *machine) mount(tb testing.TB, kind, path, options string) {
	tb.Helper()
	path = filepath.Join(m.layer.Path, path)
	if err := os.MkdirAll(path, 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := unix.Mount(kind, path, kind, 0, options); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			tb.Error(err)
		}
	})
}

// TestLocks has each call find each lock held by another process, which it names,
// and go on when it is released.
func TestLocks(t *testing.T) {
	m, _ := newOutdated(t, packages.Locks{Patience: 100 * time.Millisecond, Poll: 50 * time.Millisecond}, aptrepo.Good("toy", "1.1"))
	calls := map[string]func() error{
		"Download": func() error { _, err := m.Download(t.Context(), upgrades("toy")); return err },
		"Install":  func() error { _, err := m.Install(t.Context(), upgrades("toy")); return err },
		"Repair":   func() error { _, err := m.Repair(t.Context()); return err },
	}
	for _, c := range []struct {
		lock  string
		calls []string
	}{
		{"/var/lib/dpkg/lock-frontend", []string{"Download", "Install", "Repair"}},
		{"/var/lib/dpkg/lock", []string{"Download", "Install", "Repair"}},
		{"/var/cache/apt/archives/lock", []string{"Download", "Install"}},
	} {
		for _, call := range c.calls {
			t.Run(fmt.Sprintf("%s %s", call, c.lock), func(t *testing.T) {
				release := m.hold(t, c.lock)
				err := calls[call]()
				release()
				var held *packages.LockHeldError
				if !errors.As(err, &held) {
					t.Fatalf("error is %v, want a lock that is held", err)
				}
				if held.Path != c.lock || held.PID != os.Getpid() || held.Process == "" {
					t.Errorf("held is %+v, want %s by process %d", held, c.lock, os.Getpid())
				}
			})
		}
	}
	for _, call := range []string{"Download", "Install", "Repair"} {
		if err := calls[call](); err != nil {
			t.Errorf("%s after the locks were released: %v", call, err)
		}
	}
	m.wantStates(t, map[string]string{"toy": "1.1"})
}

// TestLocksList: downloading and installing read the lists and do not write them,
// so that a refresh by another program does not hold them up.
func TestLocksList(t *testing.T) {
	m, _ := newOutdated(t, packages.Locks{Patience: time.Millisecond}, aptrepo.Good("toy", "1.1"))
	defer m.hold(t, "/var/lib/apt/lists/lock")()
	m.fetch(t, upgrades("toy")...)
	m.put(t, upgrades("toy")...)
	m.wantStates(t, map[string]string{"toy": "1.1"})
}

// hold takes a lock as another package manager would.
func (m *machine) hold(tb testing.TB, path string) (release func()) {
	tb.Helper()
	f, err := os.OpenFile(filepath.Join(m.layer.Path, path), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		tb.Fatal(err)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		tb.Fatal(err)
	}
	return func() { _ = f.Close() }
}
