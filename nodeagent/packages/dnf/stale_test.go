package dnf_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// TestStaleLock has a lock that a dnf left behind that was killed, whose number
// another process has got since. dnf itself would wait for that one for ever.
func TestStaleLock(t *testing.T) {
	m, _ := with(t, "toy")
	path := filepath.Join(m.layer.Path, "var/cache/dnf/metadata_lock.pid")
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lock := func(age time.Duration) {
		t.Helper()
		if err := os.WriteFile(path, fmt.Append(nil, cmd.Process.Pid), 0o644); err != nil {
			t.Fatal(err)
		}
		written := time.Now().Add(-age)
		if err := os.Chtimes(path, written, written); err != nil {
			t.Fatal(err)
		}
	}
	lock(time.Hour)
	m.refresh(t)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock is still there: %v", err)
	}
	lock(0) // this process may hold it
	_, err := m.Refresh(t.Context())
	var held *packages.LockHeldError
	if !errors.As(err, &held) || held.PID != cmd.Process.Pid {
		t.Errorf("a lock that may be held returns %#v", err)
	}
}
