package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nodepatch/nodepatch/test/roots"
)

// rebooted is the exit status by which systemd-nspawn says that the machine asked to be started again.
const rebooted = 133

// container is a machine as the supervisor sees it: a disk, and while it is on, systemd-nspawn.
type container struct {
	supervisor *supervisor
	index      int
	layer      *roots.Layer

	mu     sync.Mutex
	nspawn *exec.Cmd
	leader int           // PID of the machine's systemd; 0 while it is off or takes no commands yet
	off    chan struct{} // closed when the machine is off
	boots  int
	cut    bool
	hung   bool // a reboot does not come back
}

// start switches the machine on. It returns when systemd takes commands, long before the node is ready.
func (c *container) start(ctx context.Context) error {
	c.mu.Lock()
	if c.nspawn != nil {
		c.mu.Unlock()
		return fmt.Errorf("%s is on already", nodeName(c.index))
	}
	off := make(chan struct{})
	c.off, c.hung = off, false
	err := c.boot()
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.waitForLeader(ctx)
}

// boot starts systemd-nspawn and sees to it that a reboot starts it again. The caller holds the mutex.
func (c *container) boot() error {
	s := c.supervisor
	group := s.cgroup().machine(c.index)
	// A machine that lost its power has left groups.
	if err := errors.Join(group.kill(), group.remove(), group.create()); err != nil {
		return err
	}
	command := group.command("systemd-nspawn",
		"--quiet", "--boot", "--directory="+c.layer.Path,
		"--machine="+s.Number.container(c.index), "--hostname="+nodeName(c.index),
		"--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
		"--network-bridge="+s.Number.bridge(),
		"--capability=all", "--system-call-filter=add_key keyctl bpf",
		"--bind-ro="+escape(s.binaries)+":/opt/k8s", "--bind-ro="+escape(s.dir.path("images"))+":/opt/images",
		// Off the layer, so that containerd's own layers need not lie on another overlayfs.
		"--bind="+escape(s.dir.containerd(c.index))+":/var/lib/containerd",
		"systemd.log_target=console")
	console, err := os.OpenFile(s.dir.log(nodeName(c.index)), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer console.Close()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = console, console
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", nodeName(c.index), err)
	}
	c.nspawn, c.leader = cmd, 0
	c.boots++
	go c.watch(cmd)
	return nil
}

// escape escapes a path for systemd-nspawn's --bind, where a colon ends it.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(path)
}

// watch waits for the machine to end and starts it again if it asked for that.
func (c *container) watch(cmd *exec.Cmd) {
	err := cmd.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nspawn, c.leader = nil, 0
	if cmd.ProcessState.ExitCode() == rebooted && !c.hung && !c.supervisor.stopping.Load() {
		if err := c.boot(); err == nil {
			go func() {
				if err := c.waitForLeader(context.Background()); err != nil {
					fmt.Fprintln(os.Stderr, err)
				}
			}()
			return
		} else {
			fmt.Fprintf(os.Stderr, "%s could not start again: %v\n", nodeName(c.index), err)
		}
	} else {
		fmt.Fprintf(os.Stderr, "%s is off: %v\n", nodeName(c.index), err)
	}
	close(c.off)
}

// waitForLeader returns when the machine's systemd takes commands, and sees to its cable.
func (c *container) waitForLeader(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		c.mu.Lock()
		if c.nspawn == nil {
			c.mu.Unlock()
			return fmt.Errorf("%s did not boot, see %s", nodeName(c.index), c.supervisor.dir.log(nodeName(c.index)))
		}
		leader, err := findLeader(c.nspawn.Process.Pid)
		if err != nil || leader > 0 {
			c.leader = leader
			if err == nil && c.cut {
				err = c.plug(ctx, "down")
			}
			c.mu.Unlock()
			return err
		}
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for systemd on %s: %w", nodeName(c.index), ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// findLeader returns the PID of the systemd that is a child of systemd-nspawn, or 0 while there is none
// that takes commands.
func findLeader(nspawn int) (int, error) {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", nspawn, nspawn))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for field := range strings.FieldsSeq(string(children)) {
		program, err := os.Readlink(filepath.Join("/proc", field, "exe"))
		if err != nil || filepath.Base(program) != "systemd" {
			continue
		}
		if _, err := os.Lstat(filepath.Join("/proc", field, "root/run/systemd/private")); err == nil {
			return strconv.Atoi(field)
		}
	}
	return 0, nil
}

// kill cuts the machine's power: nothing on it gets to say a word. It returns when it is off.
func (c *container) kill() error {
	c.mu.Lock()
	leader, nspawn, off := c.leader, c.nspawn, c.off
	c.hung = true // a reboot under way does not come back either
	c.mu.Unlock()
	if nspawn == nil {
		return nil
	}
	victim := leader
	if victim == 0 {
		victim = nspawn.Process.Pid
	}
	if err := syscall.Kill(victim, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("cut the power of %s: %w", nodeName(c.index), err)
	}
	<-off
	return nil
}

// setHung lets the machine's reboots end with the machine off, or come back again. Starting it mends it.
func (c *container) setHung(hung bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nspawn == nil {
		return fmt.Errorf("%s is off", nodeName(c.index))
	}
	c.hung = hung
	return nil
}

// setCut pulls the machine's network cable, or plugs it in again. It stays as it is over reboots.
func (c *container) setCut(ctx context.Context, cut bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
	if c.leader == 0 {
		return nil
	}
	if cut {
		return c.plug(ctx, "down")
	}
	return c.plug(ctx, "up")
}

func (c *container) plug(ctx context.Context, direction string) error {
	_, err := run(ctx, "ip", "link", "set", c.supervisor.Number.veth(c.index), direction)
	return err
}

func (c *container) status() MachineStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return MachineStatus{
		Name: nodeName(c.index), Address: c.supervisor.Number.machine(c.index),
		Leader: c.leader, Boots: c.boots, Cut: c.cut,
	}
}
