// Package host runs commands on the node itself, not in the agent's container, and keeps what the agent must not forget
// on the node's disk.
//
// A command runs as a transient unit of the host's systemd, in a control group of its own: an agent that is killed,
// evicted or upgraded does not hurt it, and the next agent finds it and waits for it. Where there is no systemd it runs as
// a child process in a chroot of the host's root.
//
// The truth about a command is a file: a fixed wrapper script writes the exit status beside the output. The unit only says
// "still running". A directory with neither a result nor a running unit is an interrupted command.
package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultDir is where the agent keeps its files, as the host sees it.
const DefaultDir = "/var/lib/nodepatch"

// ErrDetach is the cancellation cause (context.WithCancelCause) of an agent that ends while a command goes on: Run returns
// at once and leaves the command running for the next agent. Every other cancellation kills the command.
var ErrDetach = errors.New("agent ends, the command goes on")

// Host is one node, seen from the agent's container.
type Host struct {
	root    string // where the host's root is mounted, "/host" in the agent's pod
	dir     string // the agent's files, as the host sees them
	backend backend
}

// backend starts, observes and kills commands. The unit's name is also the key of the command in every call.
type backend interface {
	// start runs argv detached from the agent. It returns nil if the command is already running, and may be called
	// again after an error: the wrapper script runs at most once per directory.
	start(ctx context.Context, a *attempt, argv, env []string) error
	// state says whether the command still runs; reason is the backend's word on a command that ended without a result.
	state(ctx context.Context, a *attempt) (running bool, reason string, err error)
	// stop kills the command if it runs, returns when it is gone, and removes what the backend remembers of it.
	stop(ctx context.Context, a *attempt) error
	// reboot gives the host the order to reboot, and returns once it has taken it.
	reboot(ctx context.Context) error
	// String names the backend in logs and reports.
	String() string
}

// Detect returns the host whose root is mounted at root: with systemd if systemd is running there, and with child
// processes in a chroot otherwise. The directory dir (as the host sees it, DefaultDir) is created.
func Detect(root, dir string) (*Host, error) {
	h := &Host{root: filepath.Clean(root), dir: filepath.Clean(dir)}
	if err := os.MkdirAll(h.Path(runDir), 0o700); err != nil {
		return nil, fmt.Errorf("create the agent's directory on the host: %w", err)
	}
	if err := h.writeWrapper(); err != nil {
		return nil, err
	}
	// What sd_booted(3) tests, and the socket that we need.
	booted, err := os.Stat(filepath.Join(h.root, "run/systemd/system"))
	if err == nil && booted.IsDir() {
		h.backend = &systemd{socket: filepath.Join(h.root, "run/systemd/private")}
		return h, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for systemd on the host: %w", err)
	}
	h.backend = &chroot{root: h.root}
	return h, nil
}

// writeWrapper replaces the file by a rename, because shells read a script while they run it.
func (h *Host) writeWrapper() error {
	temporary := h.Path(wrapperFile + ".tmp")
	if err := os.WriteFile(temporary, []byte(wrapper), 0o600); err != nil {
		return fmt.Errorf("write the wrapper script: %w", err)
	}
	if err := os.Rename(temporary, h.Path(wrapperFile)); err != nil {
		return fmt.Errorf("replace the wrapper script: %w", err)
	}
	return nil
}

// Backend is "systemd" or "chroot".
func (h *Host) Backend() string { return h.backend.String() }

// Root is where the host's root directory is mounted in the agent's mount namespace.
func (h *Host) Root() string { return h.root }

// Path is the path in the agent's mount namespace of a file in the agent's directory on the host.
func (h *Host) Path(elem ...string) string {
	return filepath.Join(append([]string{h.root, h.dir}, elem...)...)
}

// BootID identifies the host's current boot (random(4)).
func (h *Host) BootID() (string, error) {
	const file = "proc/sys/kernel/random/boot_id"
	// The host's view first: where nodes are containers, each has a boot ID of its own mounted over the kernel's.
	b, err := os.ReadFile(filepath.Join(h.root, file))
	if errors.Is(err, fs.ErrNotExist) {
		b, err = os.ReadFile("/" + file)
	}
	if err != nil {
		return "", fmt.Errorf("read the boot ID: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Lock waits until no other agent works on this host, for there are two for a moment when the DaemonSet is updated or a
// pod hangs in termination. The kernel releases the lock when its holder dies, whatever it died of. waiting is called
// once if the lock is held by another agent.
func (h *Host) Lock(ctx context.Context, waiting func()) (unlock func(), err error) {
	f, err := os.OpenFile(h.Path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the agent's lock on the host: %w", err)
	}
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, context.Cause(ctx)
		case <-ticker.C:
		}
	}
}
