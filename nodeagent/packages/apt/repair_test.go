package apt_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

func (m *machine) repair(tb testing.TB) packages.Repair {
	tb.Helper()
	repair, err := m.Repair(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return repair
}

// waiting is a package whose configuration goes on once the machine has the file /run/go.
func waiting(name, version string) aptrepo.Package {
	p := aptrepo.Good(name, version)
	p.Postinst = "touch /run/waiting\nwhile [ ! -e /run/go ]; do sleep 0.02; done"
	return p
}

// await waits until the machine has a file.
func (m *machine) await(tb testing.TB, name string) {
	tb.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		if _, err := os.Stat(filepath.Join(m.layer.Path, name)); err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("the machine has no file %s", name)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// kill kills the machine's processes of a name.
func (m *machine) kill(tb testing.TB, name string) {
	tb.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		tb.Fatal(err)
	}
	killed := 0
	for _, entry := range entries {
		// Processes come and go; those that are gone are not the machine's.
		comm, _ := os.ReadFile(filepath.Join(entry, "comm"))
		root, _ := os.Readlink(filepath.Join(entry, "root"))
		if strings.TrimSpace(string(comm)) != name || root != m.layer.Path {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(entry))
		if err != nil {
			tb.Fatal(err)
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			tb.Fatal(err)
		}
		killed++
	}
	if killed == 0 {
		tb.Fatalf("no %s is running in the machine", name)
	}
}

// TestRepairKilled has dpkg be killed in the middle of a transaction of ours. The
// transaction blames nobody, the next one and the next download say what is to be
// done first, and after the repair the very same call succeeds.
func TestRepairKilled(t *testing.T) {
	m, _ := newOutdated(t, packages.Locks{}, waiting("toy-waiting", "1.1"), depending("toy-after", "1.1", "toy-waiting (>= 1.1)"), aptrepo.Good("toy-unfetched", "1.1"))
	targets := upgrades("toy-waiting", "toy-after")
	m.fetch(t, targets...)
	ended := make(chan error, 1)
	go func() {
		_, err := m.Install(t.Context(), targets)
		ended <- err
	}()
	m.await(t, "run/waiting")
	m.kill(t, "dpkg")
	m.layer.Write(t, "/run/go", "")
	var interrupted *packages.InterruptedDatabaseError
	if err := <-ended; !errors.As(err, &interrupted) {
		t.Fatalf("error is %v, want an interrupted database", err)
	}
	if _, err := m.Install(t.Context(), targets); !errors.As(err, &interrupted) || !strings.Contains(err.Error(), "dpkg was interrupted") {
		t.Errorf("error of the next transaction is %v, want an interrupted database", err)
	}
	if _, err := m.Download(t.Context(), upgrades("toy-unfetched")); !errors.As(err, &interrupted) {
		t.Errorf("error of the next download is %v, want an interrupted database", err)
	}
	repair := m.repair(t)
	if len(repair.Remaining) != 0 || !slices.Equal(repair.Packages, []string{"toy-after 1.1", "toy-waiting 1.1"}) {
		t.Errorf("repair is %+v", repair)
	}
	if install := m.put(t, targets...); len(install.Failed) != 0 {
		t.Errorf("install is %+v", install)
	}
	m.wantStates(t, map[string]string{"toy-waiting": "1.1", "toy-after": "1.1"})
	if left := m.archives(t); len(left) != 0 {
		t.Errorf("on disk are still %q", left)
	}
}

// TestRepairUnpacking heals packages that a power cut left half unpacked, which
// apt's and dpkg's own repair leave as they are without a word: one whose version
// is still offered, and one of which only a newer version is.
func TestRepairUnpacking(t *testing.T) {
	m, repos := newOutdated(t, packages.Locks{}, aptrepo.Good("toy-offered", "1.1"), aptrepo.Good("toy-superseded", "1.1"))
	repos["debian"].Remove("toy-superseded")
	publish(t, repos["debian"])
	m.refresh(t)
	m.cutUnpacking(t, "toy-offered", "1.1")
	m.cutUnpacking(t, "toy-superseded", "1.1")
	repair := m.repair(t)
	if len(repair.Remaining) != 0 || !slices.Equal(repair.Packages, []string{"toy-offered 1.0", "toy-superseded 1.1"}) {
		t.Errorf("repair is %+v", repair)
	}
	m.wantStates(t, map[string]string{"toy-offered": "1.0", "toy-superseded": "1.1"})
}

// TestRepairOrphan has a half unpacked package of which no version is offered.
// Apt does nothing at all then, and no package is to blame.
func TestRepairOrphan(t *testing.T) {
	m, repos := newOutdated(t, packages.Locks{}, aptrepo.Good("toy-orphan", "1.1"), aptrepo.Good("toy", "1.1"))
	for _, name := range []string{"debian", "updates"} {
		repos[name].Remove("toy-orphan")
		publish(t, repos[name])
	}
	m.refresh(t)
	m.cutUnpacking(t, "toy-orphan", "1.1")
	repair := m.repair(t)
	if len(repair.Packages) != 0 || len(repair.Remaining) != 1 || repair.Remaining[0].Name != "toy-orphan" {
		t.Errorf("repair is %+v, want toy-orphan remaining", repair)
	}
	for name, call := range map[string]func() error{
		"download": func() error { _, err := m.Download(t.Context(), upgrades("toy")); return err },
		"install":  func() error { _, err := m.Install(t.Context(), upgrades("toy")); return err },
	} {
		var interrupted *packages.InterruptedDatabaseError
		if err := call(); !errors.As(err, &interrupted) || !strings.Contains(err.Error(), "toy-orphan needs to be reinstalled") {
			t.Errorf("error of the %s is %v, want one of the database", name, err)
		}
	}
}

// TestRepairFailing has scripts that fail in the repair too, and one that does not any more.
func TestRepairFailing(t *testing.T) {
	m, _ := newOutdated(t, packages.Locks{}, aptrepo.FailingPostinst("toy-failing", "1.1"), aptrepo.FailingTimes("toy-once", "1.1", 1), aptrepo.WithConffile("toy-conffile", "1.1"))
	targets := upgrades("toy-failing", "toy-once", "toy-conffile")
	m.layer.Write(t, "/etc/toy-conffile.conf", "version = mine\n")
	m.fetch(t, targets...)
	m.layer.Run(t, "sh", "-c", "dpkg --unpack /var/cache/apt/archives/toy-*.deb")

	repair := m.repair(t)
	if !slices.Equal(repair.Packages, []string{"toy-conffile 1.1", "toy-once 1.1"}) {
		t.Errorf("put right were %q", repair.Packages)
	}
	if len(repair.Remaining) != 1 || repair.Remaining[0].Name != "toy-failing" || repair.Remaining[0].Version != "1.1" {
		t.Errorf("remaining are %+v, want toy-failing", repair.Remaining)
	}
	m.wantStates(t, map[string]string{"toy-failing": "1.1 iF", "toy-conffile": "1.1"})
	if content, err := os.ReadFile(filepath.Join(m.layer.Path, "etc/toy-conffile.conf")); err != nil || string(content) != "version = mine\n" {
		t.Errorf("the administrator's file is %q, %v", content, err)
	}
}

// TestRepairNeverRemoves has dependencies that apt could only put right by removing a package.
func TestRepairNeverRemoves(t *testing.T) {
	m, _ := newOutdated(t, packages.Locks{}, aptrepo.Good("toy", "1.1"))
	needy := depending("toy-needy", "1.0", "toy-absent")
	deb, err := needy.Build()
	if err != nil {
		t.Fatal(err)
	}
	m.layer.Write(t, "/root/needy.deb", string(deb))
	m.layer.Run(t, "dpkg", "-i", "--force-depends", "/root/needy.deb")
	if repair := m.repair(t); len(repair.Packages) != 0 {
		t.Errorf("put right were %q", repair.Packages)
	}
	m.wantStates(t, map[string]string{"toy-needy": "1.0"})

	// Until an administrator decides, apt does nothing else, and the error says so.
	var unmet *packages.UnmetDependenciesError
	if _, err := m.Download(t.Context(), upgrades("toy")); !errors.As(err, &unmet) || !strings.Contains(err.Error(), "toy-absent") {
		t.Errorf("error of the download is %v, want unmet dependencies", err)
	}
	if _, err := m.Install(t.Context(), upgrades("toy")); !errors.As(err, &unmet) {
		t.Errorf("error of the installation is %v, want unmet dependencies", err)
	}
}

// TestRepairNothing changes nothing on a machine that is in order.
func TestRepairNothing(t *testing.T) {
	m, _ := newOutdated(t, packages.Locks{}, aptrepo.Good("toy", "1.1"))
	before := m.layer.Run(t, "dpkg-query", "-W")
	if repair := m.repair(t); len(repair.Packages)+len(repair.Remaining) != 0 {
		t.Errorf("repair is %+v", repair)
	}
	if after := m.layer.Run(t, "dpkg-query", "-W"); after != before {
		t.Errorf("packages were\n%s\nand are\n%s", before, after)
	}
}
