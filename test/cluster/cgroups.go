package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cgroup is a control group of the same name in every tree of groups that the host has mounted: one
// under cgroup v2, one per controller under v1. Every process of a cluster lives in or below its group,
// which is how all of them are found again, whoever started them.
type cgroup struct {
	trees []hierarchy
	name  string
}

func (r record) cgroup() cgroup {
	return cgroup{trees: r.Trees, name: fmt.Sprintf("nodepatch/%d", r.Number)}
}

// controlPlane and machine are the leaves. Cgroup v2 lets only leaves hold processes.
func (c cgroup) controlPlane() cgroup { return c.child("control-plane") }
func (c cgroup) machine(i int) cgroup { return c.child(strconv.Itoa(i)) }

func (c cgroup) child(name string) cgroup { return cgroup{trees: c.trees, name: c.name + "/" + name} }

// hierarchy is one mounted tree of control groups.
type hierarchy struct {
	// Path is the group in the tree below which clusters have theirs.
	Path string `json:"path"`
	// Unified says that the tree is of cgroup v2.
	Unified bool `json:"unified,omitempty"`
}

func (h hierarchy) of(c cgroup) string { return filepath.Join(h.Path, c.name) }

// hierarchies lists the trees below /sys/fs/cgroup. Where a v1 controller limits this process, its
// clusters go below its own group, so that the limits hold for them too.
func hierarchies() ([]hierarchy, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	return parseHierarchies(string(mounts), string(own))
}

func parseHierarchies(mounts, own string) ([]hierarchy, error) {
	paths := map[string]string{}
	for line := range strings.Lines(own) {
		// 4:memory:/user.slice
		if fields := strings.SplitN(strings.TrimSpace(line), ":", 3); len(fields) == 3 {
			paths[fields[1]] = fields[2]
		}
	}
	var found []hierarchy
	for line := range strings.Lines(mounts) {
		// 36 35 0:30 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
		head, tail, _ := strings.Cut(line, " - ")
		fields, kind := strings.Fields(head), strings.Fields(tail)
		if len(fields) < 5 || len(kind) < 3 || !strings.HasPrefix(fields[4]+"/", "/sys/fs/cgroup/") {
			continue
		}
		switch kind[0] {
		case "cgroup2":
			found = append(found, hierarchy{Path: fields[4], Unified: true})
		case "cgroup":
			path := fields[4]
			for controllers, below := range paths {
				// systemd's own tree and the freezer's limit nothing.
				if controllers != "" && controllers != "freezer" && strings.HasSuffix(kind[2], ","+controllers) {
					path = filepath.Join(path, below)
				}
			}
			found = append(found, hierarchy{Path: path})
		}
	}
	if len(found) == 0 {
		return nil, errors.New("no control groups are mounted below /sys/fs/cgroup")
	}
	return found, nil
}

// unified tells whether the host has cgroup v2 alone.
func (c cgroup) unified() bool { return len(c.trees) == 1 && c.trees[0].Unified }

// create makes the group, and its parents able to hold it.
func (c cgroup) create() error {
	for _, tree := range c.trees {
		path := tree.Path
		for name := range strings.SplitSeq(c.name, "/") {
			if c.unified() {
				delegate(path)
			}
			parent := path
			path = filepath.Join(path, name)
			if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			if err := inheritCPUSet(parent, path); err != nil {
				return err
			}
		}
	}
	return nil
}

// delegate lets the children of a cgroup v2 group use all its controllers. A controller that cannot be
// shared out (a real-time process holds cpu) is not needed to run pods.
func delegate(path string) {
	controllers, err := os.ReadFile(filepath.Join(path, "cgroup.controllers"))
	if err != nil {
		return
	}
	for controller := range strings.FieldsSeq(string(controllers)) {
		_ = os.WriteFile(filepath.Join(path, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
	}
}

// inheritCPUSet gives a new group of the v1 cpuset controller its parent's CPUs and memory nodes: with
// none it takes no process.
func inheritCPUSet(parent, path string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(path, name))
		if errors.Is(err, fs.ErrNotExist) || strings.TrimSpace(string(own)) != "" {
			continue
		}
		if err != nil {
			return err
		}
		value, err := os.ReadFile(filepath.Join(parent, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // cgroup v2, where an empty set means the parent's
		}
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(value)) == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(path, name), value, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// command wraps a command so that it enters the group before it runs.
func (c cgroup) command(command ...string) []string {
	const script = `while [ "$1" != -- ]; do echo $$ >"$1" || exit 1; shift; done; shift; exec "$@"`
	wrapped := []string{"/bin/sh", "-c", script, "sh"}
	for _, tree := range c.trees {
		wrapped = append(wrapped, filepath.Join(tree.of(c), "cgroup.procs"))
	}
	return append(append(wrapped, "--"), command...)
}

// kill ends every process in and below the group and returns when none is left.
func (c cgroup) kill() error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		pids, err := c.processes()
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v of %s do not end", pids, c.name)
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kill %d: %w", pid, err)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// processes lists what is in and below the group. Zombies have left already.
func (c cgroup) processes() ([]int, error) {
	var pids []int
	err := c.walk(func(path string) error {
		content, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		for field := range strings.FieldsSeq(string(content)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 && !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids, err
}

// remove removes the group and those below it, which must have no processes, in every tree.
func (c cgroup) remove() error {
	var paths []string
	if err := c.walk(func(path string) error {
		paths = append(paths, path)
		return nil
	}); err != nil {
		return err
	}
	slices.Reverse(paths) // children first
	var errs []error
	for _, path := range paths {
		errs = append(errs, rmdir(path))
	}
	return errors.Join(errs...)
}

// removeParents removes the groups that hold clusters' groups, if this was the last cluster there. The
// caller holds the registry's lock.
func (c cgroup) removeParents() error {
	var errs []error
	for _, tree := range c.trees {
		path := filepath.Dir(tree.of(c))
		entries, err := os.ReadDir(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && !slices.ContainsFunc(entries, fs.DirEntry.IsDir) {
			err = rmdir(path)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// rmdir removes one group. The kernel finishes off a dead process some moments after it left.
func rmdir(path string) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := syscall.Rmdir(path)
		switch {
		case err == nil, errors.Is(err, syscall.ENOENT):
			return nil
		case !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline):
			return fmt.Errorf("remove %s: %w", path, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// walk calls visit for the group and all below it in every tree, parents first.
func (c cgroup) walk(visit func(path string) error) error {
	for _, tree := range c.trees {
		err := filepath.WalkDir(tree.of(c), func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			if !entry.IsDir() {
				return nil
			}
			return visit(path)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
