package dnf_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/test/rpmrepo"
)

// TestLocks has each of dnf's and rpm's locks held by another program.
func TestLocks(t *testing.T) {
	m, repo := with(t, "toy")
	m.offer(t, repo, rpmrepo.Good("toy", "2.0-1"))
	m.download(t, toy("toy", "2.0-1"))
	for name, c := range map[string]struct {
		lock string
		hold func(*testing.T, string) (release func())
		pid  bool // whether the holder is known
		call func() error
	}{
		"metadata while refreshing": {"/var/cache/dnf/metadata_lock.pid", holdPID, true, func() error {
			_, err := m.Refresh(t.Context())
			return err
		}},
		"metadata while scanning": {"/var/cache/dnf/metadata_lock.pid", holdPID, true, func() error {
			_, err := m.Scan(t.Context())
			return err
		}},
		"downloads": {"/var/cache/dnf/download_lock.pid", holdPID, true, func() error {
			files, err := filepath.Glob(m.layer.Path + "/var/cache/dnf/*/packages/*")
			for _, f := range files {
				err = errors.Join(err, os.Remove(f))
			}
			if err != nil {
				return err
			}
			_, err = m.Download(t.Context(), toys("2.0-1", "toy"))
			return err
		}},
		"transactions": {"/var/lib/rpm/.rpm.lock", holdRecord, false, func() error {
			m.download(t, toy("toy", "2.0-1"))
			_, err := m.Install(t.Context(), toys("2.0-1", "toy"))
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			release := c.hold(t, filepath.Join(m.layer.Path, c.lock))
			err := c.call()
			release()
			var held *packages.LockHeldError
			if !errors.As(err, &held) || held.Path != c.lock || held.Waited == 0 || (held.PID != 0) != c.pid || c.pid && held.Process != "sleep" {
				t.Fatalf("it returns %#v, want the lock %s", err, c.lock)
			}
		})
	}
	m.wantVersions(t, "1.0-1", "toy")

	// One that ends in time is waited for.
	release := holdPID(t, filepath.Join(m.layer.Path, "var/cache/dnf/metadata_lock.pid"))
	time.AfterFunc(500*time.Millisecond, release)
	m.refresh(t)
}

// holdPID is dnf's way of a lock: the number of a process that lives.
func holdPID(t *testing.T, path string) func() {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, fmt.Append(nil, cmd.Process.Pid), 0o644); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = os.Remove(path)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// holdRecord is rpm's way of a lock.
func holdRecord(t *testing.T, path string) func() {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	// Of the open file, not of this process: its other files do not drop it.
	if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}); err != nil {
		t.Fatal(err)
	}
	return func() { _ = file.Close() }
}

// TestAnotherDNF has a real one at work, which downloads for a while.
func TestAnotherDNF(t *testing.T) {
	m, repo := with(t, "toy-slow", "toy-good")
	m.offer(t, repo, rpmrepo.Slow("toy-slow", "2.0-1"), rpmrepo.Good("toy-good", "2.0-1"))
	// In no PID namespace of its own, as on a host.
	other := exec.CommandContext(t.Context(), "chroot", m.layer.Path, "dnf", "-y", "--downloadonly", "upgrade", "toy-slow")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- other.Wait() }()
	for deadline := time.Now().Add(time.Minute); repo.Requests("toy-slow") < 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the other dnf does not download")
		}
	}
	_, err := m.Download(t.Context(), toys("2.0-1", "toy-good"))
	var held *packages.LockHeldError
	if !errors.As(err, &held) || held.Process != "dnf" || held.PID != other.Process.Pid {
		t.Errorf("it returns %#v, want that dnf (process %d) holds a lock", err, other.Process.Pid)
	}
	m.scan(t) // which waits for nobody's download
	repo.ReleaseSlow()
	if err := <-ended; err != nil {
		t.Errorf("the other dnf was disturbed: %v", err)
	}
	if got := m.download(t, toys("2.0-1", "toy-good")...); len(got.Ready) != 1 {
		t.Errorf("afterwards it is %+v", got)
	}
}

// TestStop ends a download from a server that hangs.
func TestStop(t *testing.T) {
	m, repo := with(t, "toy-slow", "toy-good")
	m.offer(t, repo, rpmrepo.Slow("toy-slow", "2.0-1"), rpmrepo.Good("toy-good", "2.0-1"))
	ctx, stop := context.WithCancelCause(t.Context())
	reason := errors.New("stopped by a person")
	time.AfterFunc(time.Second, func() {
		for repo.Requests("toy-slow") < 2 { // the first was of version 1.0-1
			time.Sleep(10 * time.Millisecond)
		}
		stop(reason)
	})
	began := time.Now()
	if _, err := m.Download(ctx, toys("2.0-1", "toy-slow", "toy-good")); !errors.Is(err, reason) {
		t.Errorf("it returns %v", err)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %s to stop", took)
	}
	repo.ReleaseSlow()
	got := m.download(t, toys("2.0-1", "toy-slow", "toy-good")...)
	if names := []string{got.Ready[0].Name, got.Ready[1].Name}; !slices.Equal(names, []string{"toy-slow", "toy-good"}) {
		t.Errorf("afterwards it is %+v", got)
	}
}
