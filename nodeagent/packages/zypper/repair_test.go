package zypper_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/test/rpmrepo"
)

// TestRepair kills a transaction in the middle, as a power cut does: the new
// package is there beside the old one, and its %post has not come to its end.
func TestRepair(t *testing.T) {
	t.Parallel()
	slow := rpmrepo.Good("toy-b", "1.1-1")
	slow.Post = "[ -e /var/lib/toy.second ] && { echo done >/var/lib/toy.done; exit 0; }\ntouch /var/lib/toy.second\nsleep 60"
	m, repo := outdated(t, rpmrepo.Good("toy-a", "1.1-1"), slow, rpmrepo.Good("toy-c", "1.1-1"))
	all := targets("1.1-1", "toy-a", "toy-b", "toy-c")
	m.download(t, all...)

	// The order is zypper's.
	argv := []string{m.layer.Path, "zypper", "-n", "--no-refresh", "install", "--no-recommends", "toy-a", "toy-b", "toy-c"}
	cmd := m.layer.Command(t.Context(), "true")
	cmd.Path, cmd.Args = "/usr/sbin/chroot", append([]string{"chroot"}, argv...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the script is at work", func() bool {
		_, err := os.Stat(filepath.Join(m.layer.Path, "var/lib/toy.second"))
		return err == nil
	})
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	m.has(t, "toy-b 1.0-1 1.1-1")
	if problems := m.scan(t).Problems; len(problems) != 1 || problems[0].Kind != packages.InterruptedTransaction || problems[0].Name != "toy-b" {
		t.Errorf("problems are %+v", problems)
	}

	repo.SetDown(true)
	repair, err := m.Repair(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(repair.Packages, ", ") != "toy-b 1.1-1" || len(repair.Remaining) != 0 {
		t.Errorf("repair is %+v", repair)
	}
	m.has(t, "toy-b 1.1-1")
	if got := m.layer.Read(t, "/var/lib/toy.done"); got != "done\n" {
		t.Errorf("the script that was cut off was not run again: %q", got)
	}
	if install := m.install(t, all...); len(install.Failed) != 0 {
		t.Errorf("install is %+v", install)
	}
	m.has(t, "toy-a 1.1-1", "toy-b 1.1-1", "toy-c 1.1-1")
	// A machine in order has nothing to repair.
	if repair, err = m.Repair(t.Context()); err != nil || len(repair.Packages)+len(repair.Remaining) != 0 {
		t.Errorf("a second repair is %+v, %v", repair, err)
	}
}

// TestDamagedDatabase has a database that rpm cannot read.
func TestDamagedDatabase(t *testing.T) {
	t.Parallel()
	m, _ := outdated(t, rpmrepo.Good("toy", "1.1-1"))
	m.download(t, targets("1.1-1", "toy")...)
	m.layer.Write(t, "/var/lib/rpm/rpmdb.sqlite", "this is not a database")
	for _, name := range []string{"rpmdb.sqlite-wal", "rpmdb.sqlite-shm"} {
		_ = os.Remove(filepath.Join(m.layer.Path, "var/lib/rpm", name))
	}
	var interrupted *packages.InterruptedDatabaseError
	for name, call := range map[string]func() error{
		"scan":    func() error { _, err := m.Scan(t.Context()); return err },
		"install": func() error { _, err := m.Install(t.Context(), targets("1.1-1", "toy")); return err },
		"inspect": func() error { _, err := m.Inspect(t.Context(), targets("1.1-1", "toy")); return err },
	} {
		if err := call(); !errors.As(err, &interrupted) {
			t.Errorf("%s is %v, want an InterruptedDatabaseError", name, err)
		}
	}
}
