package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// MachineStatus is what the supervisor knows of a machine.
type MachineStatus struct {
	// Name is the machine's host name and the name of its Node.
	Name string `json:"name"`
	// Address is its address on the bridge.
	Address netip.Addr `json:"address"`
	// Leader is the PID, on the host, of the machine's systemd; 0 while it is off.
	Leader int `json:"leader"`
	// Boots counts how often it was switched on or rebooted.
	Boots int `json:"boots"`
	// Cut tells that its network cable is pulled.
	Cut bool `json:"cut"`
}

// Machine is one of a cluster's machines.
type Machine struct {
	// Name is the machine's host name and the name of its Node.
	Name string
	// Address is its address on the bridge, which does not change.
	Address netip.Addr

	cluster *Cluster
}

// Machines lists the machines by name, those that are off too.
func (c *Cluster) Machines(ctx context.Context) ([]MachineStatus, error) {
	var list []MachineStatus
	err := c.call(ctx, "GET", "/machines", &list)
	return list, err
}

// Machine returns the machine with the name.
func (c *Cluster) Machine(name string) (*Machine, error) {
	for i := 1; i <= c.record.Machines; i++ {
		if nodeName(i) == name {
			return &Machine{Name: name, Address: c.record.Number.machine(i), cluster: c}, nil
		}
	}
	return nil, fmt.Errorf("no machine is named %q: there are %s to %s", name, nodeName(1), nodeName(c.record.Machines))
}

// Status asks the supervisor about the machine.
func (m *Machine) Status(ctx context.Context) (MachineStatus, error) {
	list, err := m.cluster.Machines(ctx)
	if err != nil {
		return MachineStatus{}, err
	}
	for _, status := range list {
		if status.Name == m.Name {
			return status, nil
		}
	}
	return MachineStatus{}, fmt.Errorf("the supervisor does not know %s", m.Name)
}

// Command returns a command that runs on the machine as root, in all of its namespaces. It ends with
// the machine. Stdin, Stdout and Stderr are the caller's to set.
func (m *Machine) Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	status, err := m.Status(ctx)
	if err != nil {
		return nil, err
	}
	if status.Leader == 0 {
		return nil, fmt.Errorf("%s is off", m.Name)
	}
	enter := []string{"--target=" + strconv.Itoa(status.Leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--", name}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"}
	return cmd, nil
}

// ExecError is a command that ran on a machine and failed there.
type ExecError struct {
	Machine string
	Command []string
	// Code is the exit status, or -1 if a signal ended it.
	Code   int
	Stdout string
	Stderr string
}

func (e *ExecError) Error() string {
	return fmt.Sprintf("%s on %s: exit status %d: %s", strings.Join(e.Command, " "), e.Machine, e.Code, strings.TrimSpace(e.Stderr))
}

// Exec runs a command on the machine and returns its stdout. If the command fails, the error is an
// [ExecError]. The end of the context ends the command.
func (m *Machine) Exec(ctx context.Context, name string, args ...string) (stdout string, err error) {
	cmd, err := m.Command(ctx, name, args...)
	if err != nil {
		return "", err
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	// nsenter forks, so that killing it alone would leave the command running.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		return out.String(), &ExecError{
			Machine: m.Name, Command: append([]string{name}, args...),
			Code: exit.ExitCode(), Stdout: out.String(), Stderr: errOut.String(),
		}
	}
	if err != nil {
		return out.String(), fmt.Errorf("run %s on %s: %w", name, m.Name, err)
	}
	return out.String(), nil
}

// BootID is the machine's own, which changes with each boot.
func (m *Machine) BootID(ctx context.Context) (string, error) {
	id, err := m.Exec(ctx, "cat", "/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(id), err
}

// Reboot asks the machine's systemd for an orderly reboot and returns at once.
func (m *Machine) Reboot(ctx context.Context) error {
	_, err := m.Exec(ctx, "systemctl", "reboot")
	return err
}

// PowerOff asks the machine's systemd to shut down in good order, and returns at once. Start switches
// it on again.
func (m *Machine) PowerOff(ctx context.Context) error {
	_, err := m.Exec(ctx, "systemctl", "poweroff")
	return err
}

// Kill cuts the machine's power and returns when it is off. It stays off until Start, and keeps its disk.
func (m *Machine) Kill(ctx context.Context) error { return m.ask(ctx, "kill") }

// Start switches a machine on that is off, and returns when its systemd takes
// commands.
func (m *Machine) Start(ctx context.Context) error { return m.ask(ctx, "start") }

// Hang makes the machine's next reboot end with it off, as if it hung in its firmware. It stays off until
// Start, after which reboots come back.
func (m *Machine) Hang(ctx context.Context) error { return m.ask(ctx, "hang") }

// Mend lets a machine's reboots come back again that has not gone down since Hang.
func (m *Machine) Mend(ctx context.Context) error { return m.ask(ctx, "mend") }

// Cut pulls the machine's network cable, until Join. A reboot leaves it pulled.
func (m *Machine) Cut(ctx context.Context) error { return m.ask(ctx, "cut") }

// Join plugs the machine's network cable in again.
func (m *Machine) Join(ctx context.Context) error { return m.ask(ctx, "join") }

func (m *Machine) ask(ctx context.Context, what string) error {
	return m.cluster.call(ctx, "POST", "/machines/"+m.Name+"/"+what, nil)
}

// call sends a request to the supervisor and decodes its answer.
func (c *Cluster) call(ctx context.Context, method, path string, into any) error {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", c.record.Number.socket())
		},
	}}
	request, err := http.NewRequestWithContext(ctx, method, "http://supervisor/"+c.record.ID+path, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask the cluster's supervisor: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode >= http.StatusBadRequest {
		message, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
		return errors.New(strings.TrimSpace(string(message)))
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(into)
}
