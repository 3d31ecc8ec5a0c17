package host

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	systemddbus "github.com/coreos/go-systemd/v22/dbus"

	"github.com/nodepatch/nodepatch/test/roots"
)

// TestSystemd boots a machine with a real systemd and runs the TestMachine… tests of this binary in it.
func TestSystemd(t *testing.T) {
	roots.Require(t, roots.Supported())
	m := boot(t)
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m.copy(t, binary, "host.test")
	args := []string{"/host.test", "-test.run=^TestMachine", "-test.v", "-test.bench=^BenchmarkMachine", "-test.timeout=3m"}
	cmd := m.command(args...)
	cmd.Env = append(cmd.Env, inMachine+"=1")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("In the machine: %v", err)
	}
	if !bytes.Contains(out, []byte("--- PASS: TestMachineReexec")) {
		t.Error("The tests did not run in the machine")
	}
}

type machine struct {
	path   string
	leader int
	// ended is closed when the machine is off; status is then systemd-nspawn's exit status.
	ended  chan struct{}
	status int
}

// boot starts a machine without a network. It is powered off at the end of the test.
func boot(t *testing.T) *machine {
	t.Helper()
	root, err := roots.Debian(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	layer, err := root.Layer(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := layer.Close(); err != nil {
			t.Error(err)
		}
	})
	var console bytes.Buffer
	nspawn := commandInCgroup(t, "systemd-nspawn", "-q", "-b", "-D", layer.Path, "--machine=host-test-"+strconv.Itoa(os.Getpid()),
		"--register=no", "--keep-unit", "--private-network", "--capability=all", "systemd.log_target=console")
	nspawn.Stdout, nspawn.Stderr = &console, &console
	nspawn.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := nspawn.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	m := &machine{path: layer.Path, ended: ended}
	go func() {
		_ = nspawn.Wait()
		m.status = nspawn.ProcessState.ExitCode()
		close(ended)
	}()
	t.Cleanup(func() {
		if m.leader > 0 {
			_ = syscall.Kill(m.leader, syscall.SIGKILL)
		} else {
			_ = nspawn.Process.Kill()
		}
		<-ended
		if t.Failed() {
			t.Logf("Console of the machine:\n%s", console.Bytes()[max(0, console.Len()-4096):])
		}
	})
	eventually(t, "the machine's systemd runs", func() bool {
		select {
		case <-ended:
			t.Fatalf("The machine did not boot:\n%s", console.Bytes())
		default:
		}
		m.leader = child(nspawn.Process.Pid)
		return m.leader > 0 && m.command("systemctl", "is-active", "-q", "multi-user.target").Run() == nil
	})
	return m
}

// child returns the only child of a process, or 0.
func child(pid int) int {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/task/" + strconv.Itoa(pid) + "/children")
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return n
}

func (m *machine) command(args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(m.leader), "-m", "-u", "-i", "-n", "-p", "--"}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"}
	cmd.Dir = "/"
	return cmd
}

func (m *machine) copy(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(filepath.Join(m.path, to), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// newSystemd is the host of the tests that run in the machine.
func newSystemd(t testing.TB) *Host {
	t.Helper()
	if os.Getenv(inMachine) == "" {
		t.Fatal("Needs the machine that TestSystemd boots, which runs what is named TestMachine… or BenchmarkMachine…")
	}
	h, err := detectSystemd()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func detectSystemd() (*Host, error) {
	h, err := Detect("/", DefaultDir)
	if err != nil {
		return nil, err
	}
	if h.Backend() != "systemd" {
		return nil, fmt.Errorf("backend is %s, not systemd", h.Backend())
	}
	return h, nil
}

func TestMachineCommands(t *testing.T) {
	h := newSystemd(t)
	testCommands(t, h)
	if got := units(t); got != "" {
		t.Errorf("Units are left: %s", got)
	}
}

// units lists what systemd knows of our commands.
func units(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("systemctl", "list-units", "--all", "--plain", "--no-legend", "nodepatch-*").CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl: %v: %s", err, out)
	}
	return string(out)
}

func TestMachineUnit(t *testing.T) {
	h := newSystemd(t)
	r := run(t, session(t, h, "unit"), shell("show", `cat /proc/self/cgroup; echo; ls -l /proc/self/fd`))
	if !strings.Contains(string(r.Stdout), "/nodepatch.slice/nodepatch-test-show-") {
		t.Errorf("The command does not run in the slice: %s", r.Stdout)
	}
}

// A failed command must not make the host "degraded", not even while no agent is there to remove its unit.
func TestMachineFailureLeavesNoFailedUnit(t *testing.T) {
	h := newSystemd(t)
	dir := t.TempDir()
	agent := startAgent(t, dir)
	eventually(t, "the command runs", func() bool { return exists(filepath.Join(dir, "began")) })
	kill(t, agent)
	if err := os.WriteFile(filepath.Join(dir, "gate"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the unit is gone", func() bool { return units(t) == "" })
	if r := run(t, session(t, h, "agent"), gated(dir)); r.ExitCode != 3 {
		t.Errorf("Exit status %d, want that of the command which ended while no agent was there", r.ExitCode)
	}
}

func kill(t *testing.T, agent *exec.Cmd) {
	t.Helper()
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()
}

// An agent is killed while its command runs: the next one waits for the same command.
func TestMachineAgentKilled(t *testing.T) {
	h := newSystemd(t)
	if err := os.RemoveAll(h.Path(runDir, "agent")); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	agent := startAgent(t, dir)
	eventually(t, "the command runs", func() bool { return exists(filepath.Join(dir, "began")) })
	kill(t, agent)
	if !alive(t, filepath.Join(dir, "began")) {
		t.Fatal("The command died with the agent")
	}
	time.AfterFunc(time.Second, func() { _ = os.WriteFile(filepath.Join(dir, "gate"), nil, 0o600) })
	r := run(t, session(t, h, "agent"), gated(dir))
	if r.ExitCode != 3 || string(r.Stdout) != "done\n" {
		t.Errorf("Attached: %+v", r)
	}
	b, err := os.ReadFile(filepath.Join(dir, "began"))
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b, []byte("\n")); n != 1 {
		t.Errorf("The command was started %d times", n)
	}
}

// systemd executes itself anew and drops all connections, as when a patch of systemd is installed.
func TestMachineReexec(t *testing.T) {
	h := newSystemd(t)
	began := filepath.Join(t.TempDir(), "began")
	done := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				close(done)
				return
			default:
			}
			if out, err := exec.Command("systemctl", "daemon-reexec").CombinedOutput(); err != nil {
				t.Logf("daemon-reexec: %v: %s", err, out)
			}
			time.Sleep(200 * time.Millisecond)
		}
	}()
	defer func() { close(stop); <-done }()
	s := session(t, h, "reexec")
	if r := run(t, s, shell("long", "sleep 3; echo survived")); string(r.Stdout) != "survived\n" {
		t.Errorf("%+v", r)
	}
	const n = 10
	for i := range n { // starts whose answers get lost
		if r := run(t, s, shell("start", `echo "$1" >>"$2"; exit 7`, strconv.Itoa(i), began)); r.ExitCode != 7 {
			t.Errorf("Start %d: %+v", i, r)
		}
	}
	b, err := os.ReadFile(began)
	if err != nil {
		t.Fatal(err)
	}
	if got := bytes.Count(b, []byte("\n")); got != n {
		t.Errorf("%d commands ran %d times", n, got)
	}
}

// An administrator stops the unit: that is an interrupted command, not one that goes on for ever.
func TestMachineUnitStopped(t *testing.T) {
	h := newSystemd(t)
	began := filepath.Join(t.TempDir(), "began")
	result := make(chan error, 1)
	go func() {
		_, err := session(t, h, "stopped").Run(context.Background(), shell("victim", `echo $$ >"$1"; sleep 300`, began))
		result <- err
	}()
	eventually(t, "the command runs", func() bool { return exists(began) })
	if out, err := exec.Command("systemctl", "stop", "nodepatch-test-victim-*").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	select {
	case err := <-result:
		if err == nil || !strings.Contains(err.Error(), "victim was interrupted") {
			t.Errorf("Error is %v", err)
		}
		t.Log(err)
	case <-time.After(20 * time.Second):
		t.Fatal("Still waiting for a unit that was stopped")
	}
	if got := units(t); got != "" {
		t.Errorf("Units are left: %s", got)
	}
}

// The private socket answered each of many short connections: a hang would show as a timeout.
func TestMachineConnections(t *testing.T) {
	h := newSystemd(t)
	s := h.backend.(*systemd)
	start := time.Now()
	const n = 300
	for range n {
		if err := s.call(t.Context(), func(ctx context.Context, c *systemddbus.Conn) error {
			_, err := c.GetUnitPropertiesContext(ctx, "-.slice")
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s per connection and call", time.Since(start)/n)
}

func BenchmarkMachineRun(b *testing.B) { benchmarkRun(b, newSystemd(b)) }
