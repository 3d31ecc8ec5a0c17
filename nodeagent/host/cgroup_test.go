package host

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// commandInCgroup is a command in a cgroup of its own, which is removed at the end of the test with all that
// systemd-nspawn makes below it: it would make it below this process' own, and leave it there.
func commandInCgroup(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	var own []string
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
			continue // not a hierarchy on this host
		}
		dir := filepath.Join(root, "nodepatch-host-test-"+strconv.Itoa(os.Getpid()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { removeCgroup(t, dir) })
		own = append(own, dir)
	}
	const join = `while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@"`
	return exec.Command("sh", slices.Concat([]string{"-c", join, "sh"}, own, []string{"--"}, args)...)
}

// removeCgroup removes a cgroup and those below it, which a process that was killed leaves some moments later.
func removeCgroup(t *testing.T, dir string) {
	t.Helper()
	var err error
	for range 100 {
		var all []string
		_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		slices.Reverse(all) // the deepest first
		err = nil
		for _, path := range all {
			if e := os.Remove(path); e != nil && !errors.Is(e, fs.ErrNotExist) {
				err = e
			}
		}
		if err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("A cgroup is left behind: %v", err)
}
