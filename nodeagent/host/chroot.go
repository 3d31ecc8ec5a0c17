package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// chroot runs commands as child processes in the host's root, for hosts without systemd. They have a process group of
// their own and outlive an agent that dies alone, but not its container.
type chroot struct {
	root string
}

func (*chroot) String() string { return "chroot" }

const processFile = "process"

func (c *chroot) start(_ context.Context, a *attempt, argv, env []string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Path = argv[0] // not looked up in the agent's own PATH
	cmd.Err = nil
	cmd.Env = env
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: c.root, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	began, err := startTime(pid)
	go func() { _ = cmd.Wait() }() // the exit status is in the file
	if err != nil {
		return nil // it has already ended
	}
	if err := os.WriteFile(filepath.Join(a.path, processFile), fmt.Appendf(nil, "%d %s\n", pid, began), 0o600); err != nil {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		return fmt.Errorf("record the process: %w", err)
	}
	return nil
}

func (c *chroot) state(_ context.Context, a *attempt) (running bool, reason string, err error) {
	pid, err := c.process(a)
	if err != nil {
		return false, "", err
	}
	if pid == 0 {
		return false, "its process is gone and left no result", nil
	}
	return true, "", nil
}

func (c *chroot) stop(ctx context.Context, a *attempt) error {
	group, err := c.process(a)
	if err != nil || group == 0 {
		return err
	}
	// The wrapper obeys at once, and what it runs may not. The kernel gives nobody else the group's number as long as a
	// process of it is left.
	signal, began := syscall.SIGTERM, time.Now()
	for {
		if time.Since(began) > stopTimeout {
			signal = syscall.SIGKILL
		}
		err := syscall.Kill(-group, signal)
		if errors.Is(err, syscall.ESRCH) || time.Since(began) > stopTimeout+time.Second {
			return nil // what is left now is dead, and only waits to be reaped
		}
		if err != nil {
			return fmt.Errorf("kill %s: %w", a.Name, err)
		}
		if signal == syscall.SIGTERM {
			signal = 0
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("stop %s: %w", a.Name, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// process returns the PID of the attempt's process, or 0 if it has ended. A PID that was given to another process since
// is told by its start time.
func (c *chroot) process(a *attempt) (int, error) {
	b, err := os.ReadFile(filepath.Join(a.path, processFile))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the process of %s: %w", a.Name, err)
	}
	number, began, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	pid, err := strconv.Atoi(number)
	if err != nil || pid <= 1 {
		return 0, nil // cut off by a power cut: the process is gone too
	}
	if now, err := startTime(pid); err != nil || now != began {
		return 0, nil
	}
	return pid, nil
}

// startTime is field 22 of /proc/PID/stat (proc(5)), in clock ticks since boot. A zombie counts as gone.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	return parseStartTime(string(b))
}

// parseStartTime finds the field by the last bracket: the second field is the program's name in brackets and may hold
// anything, also spaces and brackets.
func parseStartTime(stat string) (string, error) {
	end := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[end+1:])
	if end < 0 || len(fields) < 20 {
		return "", fmt.Errorf("unknown format of /proc/PID/stat: %q", stat)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return "", os.ErrProcessDone
	}
	return fields[19], nil
}
