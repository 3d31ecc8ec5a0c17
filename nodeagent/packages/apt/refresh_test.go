package apt_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/apt"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

// TestRefresh finds what was published since the last time, and counts it.
func TestRefresh(t *testing.T) {
	m := newMachine(t, packages.Locks{})
	repos := archives()
	repos["debian"].Add(aptrepo.Good("toy", "1.0"))
	m.serve(t, repos)
	m.install(t, "toy")
	first := m.scan(t)

	repos["security"].Add(aptrepo.Good("toy", "1.1"))
	publish(t, repos["security"])
	refresh := m.refresh(t)
	if refresh.Changed == 0 || refresh.Indexes < len(repos) || refresh.Changed > refresh.Indexes {
		t.Errorf("refreshed %+v after one of %d repositories changed", refresh, len(repos))
	}
	scan := m.scan(t)
	if p, found := find(scan, "toy"); !found || p.AvailableVersion != "1.1" {
		t.Errorf("after the refresh the patches are %+v", scan.Patches)
	}
	if !scan.MetadataRefreshed.After(first.MetadataRefreshed) {
		t.Errorf("metadata of %s is not newer than that of %s", scan.MetadataRefreshed, first.MetadataRefreshed)
	}
}

// TestRefreshUnreachable has one of several repositories fail in every way. The
// failure names it, and the scan still works and says how old its data is.
func TestRefreshUnreachable(t *testing.T) {
	for name, c := range map[string]struct {
		fail        func(*testing.T, *machine, *aptrepo.Repository)
		unreachable bool
		reason      string // part of apt's own words
	}{
		"no answer": {
			fail:        func(_ *testing.T, _ *machine, r *aptrepo.Repository) { r.SetDown(true) },
			unreachable: true, reason: "Connection failed",
		},
		"no server": {
			fail: func(t *testing.T, m *machine, _ *aptrepo.Repository) {
				// Another address than the server's: apt gives a whole host up.
				m.replaceSource(t, "security", "http://127.0.0.2:1/security")
			},
			unreachable: true, reason: "onnect to 127.0.0.2:1",
		},
		"no name": {
			fail: func(t *testing.T, m *machine, _ *aptrepo.Repository) {
				m.replaceSource(t, "security", "http://mirror.invalid/security")
			},
			unreachable: true, reason: "resolv",
		},
		"no repository": {
			fail: func(t *testing.T, m *machine, _ *aptrepo.Repository) {
				m.replaceSource(t, "security", "$SERVER/nothing/security")
			},
			reason: "404",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, packages.Locks{})
			repos := archives()
			repos["debian"].Add(aptrepo.Good("toy", "1.0"))
			repos["updates"].Add(aptrepo.Good("toy", "1.1"))
			m.serve(t, repos)
			m.install(t, "toy=1.0")
			before := m.scan(t)

			c.fail(t, m, repos["security"])
			_, err := m.Refresh(t.Context())
			var failed *packages.RefreshError
			if !errors.As(err, &failed) {
				t.Fatalf("error is %v, want a refresh that failed", err)
			}
			if len(failed.Failures) == 0 || failed.Unreachable() != c.unreachable {
				t.Errorf("failures are %+v, want unreachable %t", failed.Failures, c.unreachable)
			}
			for _, f := range failed.Failures {
				if !strings.Contains(f.Repository, "security") {
					t.Errorf("%s failed, want only the security repository to", f.Repository)
				}
			}
			if !strings.Contains(err.Error(), c.reason) {
				t.Errorf("error does not say %q: %v", c.reason, err)
			}

			scan := m.scan(t)
			if p, found := find(scan, "toy"); !found || p.AvailableVersion != "1.1" {
				t.Errorf("on the old data, the patches are %+v", scan.Patches)
			}
			if !scan.MetadataRefreshed.Equal(before.MetadataRefreshed) {
				t.Errorf("the failed refresh made data of %s into data of %s", before.MetadataRefreshed, scan.MetadataRefreshed)
			}
		})
	}
}

// replaceSource changes the address of one repository; $SERVER is the one it had.
func (m *machine) replaceSource(tb testing.TB, repo, address string) {
	tb.Helper()
	file := filepath.Join(m.layer.Path, "etc/apt/sources.list")
	text, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	old := localAddress.FindString(string(text))
	changed := strings.Replace(string(text), old+"/"+repo+" ", strings.Replace(address, "$SERVER", old, 1)+" ", 1)
	if changed == string(text) {
		tb.Fatalf("no source %s in %s", repo, text)
	}
	m.layer.Write(tb, "/etc/apt/sources.list", changed)
}

// TestRefreshLockHeld waits for as long as it may and then says who holds the lock.
func TestRefreshLockHeld(t *testing.T) {
	m := newMachine(t, packages.Locks{Patience: time.Second, Poll: 100 * time.Millisecond})
	m.serve(t, archives())
	m.refresh(t)
	before := m.scan(t)
	defer m.hold(t, "/var/lib/apt/lists/lock")()

	started := time.Now()
	_, err := m.Refresh(t.Context())
	var held *packages.LockHeldError
	if !errors.As(err, &held) {
		t.Fatalf("error is %v, want a lock that is held", err)
	}
	name, readErr := os.ReadFile("/proc/self/comm")
	if readErr != nil {
		t.Fatal(readErr)
	}
	if held.PID != os.Getpid() || held.Process != strings.TrimSpace(string(name)) || held.Path != "/var/lib/apt/lists/lock" {
		t.Errorf("the lock is held by %+v, want %s (process %d)", held, name, os.Getpid())
	}
	if waited := time.Since(started); waited < 800*time.Millisecond || held.Waited > waited {
		t.Errorf("waited %s and said %s, want almost a second", waited, held.Waited)
	}
	// The scan takes no lock.
	if scan := m.scan(t); !scan.MetadataRefreshed.Equal(before.MetadataRefreshed) {
		t.Errorf("without a refresh, data of %s became data of %s", before.MetadataRefreshed, scan.MetadataRefreshed)
	}
}

// TestRefreshLockReleased succeeds if the other program finishes in time.
func TestRefreshLockReleased(t *testing.T) {
	m := newMachine(t, packages.Locks{Patience: time.Minute, Poll: 100 * time.Millisecond})
	m.serve(t, archives())
	release := m.hold(t, "/var/lib/apt/lists/lock")
	tries := &countingRunner{next: m.runner, after: func(n int) {
		if n == 2 {
			release()
		}
	}}
	files, err := os.OpenRoot(m.layer.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = files.Close() }()
	manager := apt.New(tries, files.FS(), packages.Locks{Patience: time.Minute, Poll: 50 * time.Millisecond})
	if _, err := manager.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if tries.n < 3 {
		t.Errorf("refreshed at try %d, before the lock was released", tries.n)
	}
}

// TestRefreshCancelled ends the wait for a lock when the caller gives up.
func TestRefreshCancelled(t *testing.T) {
	m := newMachine(t, packages.Locks{})
	m.serve(t, archives())
	defer m.hold(t, "/var/lib/apt/lists/lock")()
	stopped := errors.New("stopped by a person")
	ctx, cancel := context.WithCancelCause(t.Context())
	tries := &countingRunner{next: m.runner, after: func(int) { cancel(stopped) }}
	manager := apt.New(tries, os.DirFS(m.layer.Path), packages.Locks{Patience: 2 * time.Hour, Poll: time.Hour})
	if _, err := manager.Refresh(ctx); !errors.Is(err, stopped) {
		t.Errorf("error is %v, want %v", err, stopped)
	}
}

// countingRunner calls back after each command.
type countingRunner struct {
	next  packages.Runner
	n     int
	after func(n int)
}

func (r *countingRunner) Run(ctx context.Context, c packages.Command) (packages.Result, error) {
	result, err := r.next.Run(ctx, c)
	r.n++
	r.after(r.n)
	return result, err
}
