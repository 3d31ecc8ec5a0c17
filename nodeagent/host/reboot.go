package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	systemddbus "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// Reboot asks the host to reboot in good order: services are stopped, and a package transaction that runs is waited for. It
// returns once the host has taken the order, and the agent goes down with the host some time later. An order that is given
// again while the host is on its way down changes nothing. An error says that the host refused, or did not answer.
func (h *Host) Reboot(ctx context.Context) error {
	if err := h.backend.reboot(ctx); err != nil {
		return fmt.Errorf("ask the host to reboot: %w", err)
	}
	return nil
}

// reboot starts what "systemctl reboot" starts where logind does not do it: a job that no other one replaces. Systemd forces
// the reboot after 30 minutes (reboot.target, JobTimeoutAction).
func (s *systemd) reboot(ctx context.Context) error {
	began := time.Now()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := s.call(ctx, func(ctx context.Context, c *systemddbus.Conn) error {
			_, err := c.StartUnitContext(ctx, "reboot.target", "replace-irreversibly", nil)
			return err
		})
		if err == nil {
			return nil
		}
		// Systemd may be executing itself anew, and an order whose answer was lost is given again.
		if refused := (dbus.Error{}); errors.As(err, &refused) && !transient(refused.Name) || time.Since(began) > startTimeout {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// rebootTimeout is how long the host's own program may take to pass the order on.
const rebootTimeout = time.Minute

// reboot runs the host's own program: that of its init system, and systemctl where there is no other.
func (c *chroot) reboot(ctx context.Context) error {
	argv, err := c.rebootCommand()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, rebootTimeout, fmt.Errorf("%s took longer than %s", argv[0], rebootTimeout))
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env, cmd.Dir = environment(nil), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: c.root, Setpgid: true}
	cmd.WaitDelay = time.Second // for programs that go on and keep the output open
	output, err := cmd.CombinedOutput()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	const most = 300
	said := strings.TrimSpace(string(output))
	return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.ToValidUTF8(said[max(0, len(said)-most):], "\uFFFD"))
}

// rebootCommand is the first of the programs that the host has, by its absolute path in the host's root.
func (c *chroot) rebootCommand() ([]string, error) {
	for _, argv := range [][]string{{"reboot"}, {"systemctl", "reboot"}} {
		for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"} {
			path := filepath.Join(dir, argv[0])
			// Not followed: an absolute link is one within the host's root.
			_, err := os.Lstat(filepath.Join(c.root, path))
			if err == nil {
				return append([]string{path}, argv[1:]...), nil
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("look for %s on the host: %w", path, err)
			}
		}
	}
	return nil, errors.New("the host has neither reboot nor systemctl")
}
