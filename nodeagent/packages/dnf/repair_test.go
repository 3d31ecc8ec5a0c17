package dnf_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/test/rpmrepo"
)

// waits is a scriptlet that holds up the first transaction it is part of, and
// writes down each run.
const waits = "echo run >>/var/lib/waits\n[ \"$(wc -l </var/lib/waits)\" -gt 1 ] || sleep 60"

// cut starts a command and kills it, with all that it has started, when a file is
// there: a power cut but for the disk.
func (m *machine) cut(t *testing.T, when string, argv ...string) {
	t.Helper()
	// In no PID namespace of its own: the next dnf looks for the process that its lock names.
	cmd := exec.Command("chroot", append([]string{m.layer.Path, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C"}, argv...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	deadline := time.After(time.Minute)
	for {
		if _, err := os.Stat(filepath.Join(m.layer.Path, when)); err == nil {
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("%q ended by itself: %v", argv, err)
		case <-deadline:
			kill()
			t.Fatalf("%q did not come to the scriptlet", argv)
		case <-time.After(10 * time.Millisecond):
		}
	}
	kill()
	if err := <-ended; err == nil {
		t.Fatalf("%q ended by itself", argv)
	}
}

// TestRepair kills dnf in mid-transaction, where some packages are installed and
// their old versions are still there.
func TestRepair(t *testing.T) {
	names := []string{"toy-0", "toy-1", "toy-2", "toy-3", "toy-4", "toy-wait"}
	m, repo := with(t, names...)
	waiting := rpmrepo.WithConfig("toy-wait", "2.0-1")
	waiting.Post, waiting.Requires = waits, []string{"toy-0 >= 2", "toy-1 >= 2", "toy-2 >= 2"}
	repo.Add(waiting)
	for _, name := range names[:5] {
		p := rpmrepo.Good(name, "2.0-1")
		if name >= "toy-3" {
			p.Requires = []string{"toy-wait >= 2"}
		}
		repo.Add(p)
	}
	m.offer(t, repo)
	targets := toys("2.0-1", names...)
	m.download(t, targets...)
	m.cut(t, "var/lib/waits", append([]string{"dnf", "-y", "-C", "--setopt=keepcache=1", "upgrade"}, names...)...)

	scan := m.scan(t)
	if len(scan.Problems) != 4 {
		t.Fatalf("a transaction that was cut off left %+v", scan.Problems)
	}
	for _, p := range scan.Problems {
		if p.Kind != packages.InterruptedTransaction || p.Version != "1.0-1" {
			t.Errorf("a problem is %+v", p)
		}
	}

	done, err := m.Repair(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(done.Packages) != 4 || len(done.Remaining) != 0 || !strings.Contains(strings.Join(done.Packages, ","), "toy-wait 2.0-1") {
		t.Errorf("repaired is %+v", done)
	}
	if got := m.layer.Read(t, "/var/lib/waits"); got != "run\nrun\n" {
		t.Errorf("the scriptlet that was cut off ran: %q", got)
	}
	if scan = m.scan(t); len(scan.Problems) != 0 || scan.Installed != len(names)+1 {
		t.Errorf("afterwards there are %d packages and the problems %+v", scan.Installed, scan.Problems)
	}
	m.layer.Run(t, "rpm", "-V", "toy-wait", "toy-0")

	again, err := m.Repair(t.Context())
	if err != nil || len(again.Packages) != 0 {
		t.Errorf("a second repair is %+v, %v", again, err)
	}
	var left []packages.Target
	for _, p := range scan.Patches {
		left = append(left, toy(p.Name, p.AvailableVersion))
	}
	m.download(t, left...)
	if got := m.install(t, left...); len(got.Failed) != 0 {
		t.Errorf("the rest is %+v", got)
	}
	m.wantVersions(t, strings.TrimSpace(strings.Repeat("2.0-1 ", len(names))), names...)
}

// TestRepairKernel kills dnf where a kernel is installed and what makes it bootable
// has not run. There are never two versions too many of a kernel.
func TestRepairKernel(t *testing.T) {
	m, repo := with(t, "toy")
	m.offer(t, repo, rpmrepo.Kernel("5.14.0-1.el9"))
	m.layer.Run(t, "dnf", "-q", "-y", "install", "kernel-core")
	kernel := rpmrepo.Kernel("5.14.0-2.el9")
	kernel.Posttrans = waits + "\ntouch /boot/entry"
	m.offer(t, repo, kernel)
	target := packages.Target{Name: "kernel-core", Architecture: "x86_64", Version: "5.14.0-2.el9"}
	m.download(t, target)
	m.cut(t, "var/lib/waits", "dnf", "-y", "-C", "--setopt=keepcache=1", "upgrade", "kernel-core")

	done, err := m.Repair(t.Context())
	if err != nil || len(done.Packages) != 1 || done.Packages[0] != "kernel-core 5.14.0-2.el9" || len(done.Remaining) != 0 {
		t.Errorf("repaired is %+v, %v", done, err)
	}
	if _, err := m.files.Stat("boot/entry"); err != nil {
		t.Errorf("the kernel was not made bootable: %v", err)
	}
	if got := strings.Fields(m.layer.Run(t, "rpm", "-q", "kernel-core")); len(got) != 2 {
		t.Errorf("kernels are %q", got)
	}
	if again, err := m.Repair(t.Context()); err != nil || len(again.Packages) != 0 {
		t.Errorf("a second repair is %+v, %v", again, err)
	}
}

// TestRepairDatabase has the files of the database damaged.
func TestRepairDatabase(t *testing.T) {
	m, _ := with(t, "toy")
	path := filepath.Join(m.layer.Path, "var/lib/rpm/rpmdb.sqlite")
	m.layer.Run(t, "rpm", "-q", "toy")
	for _, extra := range []string{"-wal", "-shm"} {
		if err := os.RemoveAll(path + extra); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("not a database", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := m.Scan(t.Context())
	var interrupted *packages.InterruptedDatabaseError
	if !errors.As(err, &interrupted) {
		t.Errorf("a scan returns %#v", err)
	}
	// What cannot be read at all cannot be repaired; nothing is thrown away.
	if _, err := m.Repair(t.Context()); err == nil {
		t.Error("a database that is no database was repaired")
	}
	kept, err := os.ReadFile(filepath.Join(m.layer.Path, "var/lib/rpm.damaged/rpmdb.sqlite"))
	if err != nil || !strings.HasPrefix(string(kept), "not a database") {
		t.Errorf("the copy of the damaged database is %.20q (%v)", kept, err)
	}
}
