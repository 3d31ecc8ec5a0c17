package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/test/roots"
)

func TestChrootTransaction(t *testing.T) { testTransaction(t, newChroot(t)) }

func TestMachineTransaction(t *testing.T) { testTransaction(t, newSystemd(t)) }

// transaction writes its PID to began, and ends when gate is there.
func transaction(began, gate string) packages.Command {
	c := shell("transaction", `echo $$ >>"$1"; while ! [ -e "$2" ]; do sleep 0.02; done; echo said; echo status >&3`, began, gate)
	c.Transaction = true
	return c
}

// testTransaction is what every backend promises of commands that may not be cut in two.
func testTransaction(t *testing.T, h *Host) {
	files := func(t *testing.T) (began, gate string) {
		dir := t.TempDir()
		return filepath.Join(dir, "began"), filepath.Join(dir, "gate")
	}
	open := func(t *testing.T, gate string) {
		if err := os.WriteFile(gate, nil, 0o600); err != nil {
			t.Error(err)
		}
	}

	t.Run("no context ends it", func(t *testing.T) {
		began, gate := files(t)
		ctx, cancel := context.WithCancelCause(context.Background())
		type outcome struct {
			packages.Result
			error
		}
		ended := make(chan outcome)
		go func() {
			r, err := session(t, h, "cancelled").Run(ctx, transaction(began, gate))
			ended <- outcome{r, err}
		}()
		eventually(t, "the transaction runs", func() bool { return exists(began) })
		cancel(errors.New("the operation was taken back"))
		select {
		case o := <-ended:
			t.Fatalf("Nobody waits for the transaction any more: %v", o.error)
		case <-time.After(300 * time.Millisecond):
		}
		if !alive(t, began) {
			t.Fatal("The transaction was killed")
		}
		open(t, gate)
		if o := <-ended; o.error != nil || string(o.Stdout) != "said\n" || string(o.Status) != "status\n" {
			t.Errorf("Result is %q and %q, %v", o.Stdout, o.Status, o.error)
		}
	})

	t.Run("an agent that ends leaves it, and the next attaches to it", func(t *testing.T) {
		began, gate := files(t)
		ctx, cancel := context.WithCancelCause(context.Background())
		ended := make(chan error)
		go func() {
			_, err := session(t, h, "left").Run(ctx, transaction(began, gate))
			ended <- err
		}()
		eventually(t, "the transaction runs", func() bool { return exists(began) })
		cancel(ErrDetach)
		if err := <-ended; !errors.Is(err, ErrDetach) {
			t.Errorf("Error is %v, want ErrDetach", err)
		}
		s := session(t, h, "left")
		if !s.Resumes() {
			t.Error("The session does not know of the transaction")
		}
		if err := s.Discard(context.Background()); err != nil || !alive(t, began) {
			t.Fatalf("The transaction was discarded: %v", err)
		}
		open(t, gate)
		if r := run(t, session(t, h, "left"), transaction(began, gate)); string(r.Stdout) != "said\n" {
			t.Errorf("Result is %q", r.Stdout)
		}
		if b, _ := os.ReadFile(began); strings.Count(string(b), "\n") != 1 {
			t.Error("The transaction was started twice")
		}
	})

	t.Run("what it printed is believed after a reboot that waited for it", func(t *testing.T) {
		c := shell("transaction", "echo again")
		for name, is := range map[string]bool{"believed": true, "done-again": false} {
			c.Transaction = is
			a, err := newAttempt(h.Path(runDir, name, "test", "0001-transaction"), "", record{
				Name: c.Name, Argv: c.Argv, BootID: "another", Started: time.Now().Add(-time.Hour), Transaction: is,
			})
			if err != nil {
				t.Fatal(err)
			}
			for file, content := range map[string]string{"exit": "100\n", "stdout": "said\n", "stderr": "", "status": ""} {
				if err := os.WriteFile(filepath.Join(a.path, file), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r := run(t, session(t, h, name), c)
			if is && (r.ExitCode != 100 || string(r.Stdout) != "said\n") || !is && string(r.Stdout) != "again\n" {
				t.Errorf("%s: %+v", name, r)
			}
		}
	})

	t.Run("it is found by its name, whatever its arguments would be now", func(t *testing.T) {
		c := shell("transaction", "echo first")
		c.Transaction = true
		run(t, session(t, h, "renamed"), c)
		c.Argv = shell("transaction", "echo second").Argv
		s := session(t, h, "renamed")
		if r := run(t, s, c); string(r.Stdout) != "first\n" {
			t.Errorf("Result is %q, want that of the transaction that ran", r.Stdout)
		}
		if r := run(t, s, c); string(r.Stdout) != "second\n" {
			t.Errorf("Result is %q, want that of a new transaction", r.Stdout)
		}
	})

	t.Run("older tries are forgotten", func(t *testing.T) {
		c := shell("transaction", "echo locked; exit 100")
		c.Transaction = true
		former := session(t, h, "tries")
		for range 3 {
			run(t, former, c)
		}
		s := session(t, h, "tries")
		for _, want := range []string{"locked\n", "free\n"} {
			if r := run(t, s, c); string(r.Stdout) != want {
				t.Errorf("Result is %q, want %q", r.Stdout, want)
			}
			c.Argv = shell("transaction", "echo free").Argv
		}
		if left, err := os.ReadDir(h.Path(s.path)); err != nil || len(left) != 2 || s.Resumes() {
			t.Errorf("What is left are %v, %v", left, err)
		}
	})

	t.Run("a timeout is refused", func(t *testing.T) {
		c := transaction("", "")
		c.Timeout = time.Second
		if _, err := session(t, h, "timeout").Run(context.Background(), c); err == nil {
			t.Error("A transaction may be cut by its timeout")
		}
	})
}

// An orderly shutdown in the middle of a transaction ends when that has ended.
func TestSystemdShutdownWaits(t *testing.T) {
	roots.Require(t, roots.Supported())
	m := boot(t)
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m.copy(t, binary, "host.test")
	agent := m.command("/host.test")
	agent.Env = append(agent.Env, longTransaction+"="+longDir)
	agent.Stderr = os.Stderr
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	outside := func(name string) string { return filepath.Join(m.path, longDir, name) }
	eventually(t, "the transaction runs", func() bool { return exists(outside("began")) })
	if err := m.command("systemctl", "--no-block", "poweroff").Run(); err != nil {
		t.Fatal(err)
	}
	stopping := func() bool {
		out, _ := m.command("systemctl", "is-system-running").Output()
		return strings.TrimSpace(string(out)) == "stopping"
	}
	eventually(t, "the shutdown has begun", stopping)
	time.Sleep(time.Second) // an eternity for a machine of this size, whose shutdown takes a tenth of it
	if !stopping() {
		t.Fatal("The machine did not wait for the transaction")
	}
	if err := os.WriteFile(outside("gate"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	leader := m.leader
	eventually(t, "the machine is off", func() bool {
		// The last thing that a shutdown does is to stop all processes, kill them and let them go on. Nsenter stops with
		// its child, and nobody lets it go on.
		_ = agent.Process.Signal(syscall.SIGCONT)
		return errors.Is(syscall.Kill(leader, 0), syscall.ESRCH)
	})
	m.leader = 0
	_ = agent.Wait() // it went with the machine
	if why, err := os.ReadFile(outside("refused")); err == nil {
		t.Errorf("The agent was refused a command, and did not wait for the reboot: %s", why)
	}
	results, err := filepath.Glob(filepath.Join(m.path, DefaultDir, runDir, "*", "test", "*-transaction", "exit"))
	if err != nil || len(results) != 1 {
		t.Fatalf("Results are %v, %v", results, err)
	}
	if code, err := os.ReadFile(results[0]); err != nil || string(code) != "0\n" {
		t.Errorf("Exit status is %q, %v", code, err)
	}
}
