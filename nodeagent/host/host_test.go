package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// needRoot ends a test that cannot run here: by a skip on a developer's machine, by a failure in CI.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("Running commands on the host needs root")
	}
	t.Skip("Running commands on the host needs root")
}

// newChroot is a host without systemd: this machine's root directory, with the agent's files in a directory of the test.
func newChroot(t testing.TB) *Host {
	t.Helper()
	needRoot(t)
	h := &Host{root: "/", dir: t.TempDir(), backend: &chroot{root: "/"}}
	if err := errors.Join(os.MkdirAll(h.Path(runDir), 0o700), h.writeWrapper()); err != nil {
		t.Fatal(err)
	}
	return h
}

func session(t testing.TB, h *Host, operation string) *Session {
	t.Helper()
	s, err := h.Session(operation, "test")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func shell(name, script string, args ...string) packages.Command {
	return packages.Command{Name: name, Argv: append([]string{"sh", "-c", script, "sh"}, args...)}
}

func run(t testing.TB, s *Session, c packages.Command) packages.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := s.Run(ctx, c)
	if err != nil {
		t.Fatalf("Run %s: %v", c.Name, err)
	}
	return r
}

// eventually waits for what happens in another process.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("Not within 20 seconds: %s", what)
}

// alive says whether the process whose PID stands in the file runs.
func alive(t *testing.T, file string) bool {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = startTime(pid)
	return err == nil
}

func exists(file string) bool {
	b, err := os.ReadFile(file)
	return err == nil && len(b) > 0
}

func TestChroot(t *testing.T) {
	testCommands(t, newChroot(t))
}

// testCommands is what every backend promises.
func testCommands(t *testing.T, h *Host) {
	t.Run("exit status", func(t *testing.T) {
		s := session(t, h, "exit")
		for name, c := range map[string]struct {
			argv []string
			want int
		}{
			"success":        {[]string{"true"}, 0},
			"failure":        {[]string{"sh", "-c", "exit 100"}, 100},
			"missing binary": {[]string{"/usr/bin/no-such-program"}, 127},
			"not executable": {[]string{"/etc/passwd"}, 126},
			"killed":         {[]string{"sh", "-c", "kill -KILL $$"}, 137},
		} {
			if r := run(t, s, packages.Command{Name: "exit", Argv: c.argv}); r.ExitCode != c.want {
				t.Errorf("%s: exit status %d, want %d (stderr %q)", name, r.ExitCode, c.want, r.Stderr)
			}
		}
	})

	t.Run("arguments are data", func(t *testing.T) {
		args := []string{"$HOME", "${PATH}", "$$", "%n%%", "a b", `"quoted" 'single'`, "*", "", "`id`", "$(id)", "; id", "\\", `\n`, "tab\t", "ü", "-n", "~"}
		c := packages.Command{Name: "print", Argv: append([]string{"printf", `%s\0`}, args...)}
		r := run(t, session(t, h, "args"), c)
		if got := strings.Split(strings.TrimSuffix(string(r.Stdout), "\x00"), "\x00"); strings.Join(got, "|") != strings.Join(args, "|") {
			t.Errorf("Arguments arrived as %q, want %q", got, args)
		}
	})

	t.Run("line breaks are refused", func(t *testing.T) {
		s := session(t, h, "refused")
		for _, arg := range []string{"line\nbreak", "zero\x00byte"} {
			if _, err := s.Run(context.Background(), packages.Command{Name: "print", Argv: []string{"echo", arg}}); err == nil {
				t.Errorf("%q was accepted", arg)
			}
		}
	})

	t.Run("other arguments than asked for", func(t *testing.T) {
		ran := filepath.Join(t.TempDir(), "ran")
		s := session(t, h, "garbled")
		c := shell("garbled", `echo "$1" >"$2"`, "$HOME;", ran)
		a, err := newAttempt(h.Path(s.path, "0001-garbled"), h.Path(s.path, "0001-garbled"), record{
			Name: c.Name, Argv: c.Argv, Unit: "nodepatch-test-garbled-0.service", BootID: s.boot, Started: time.Now(),
		})
		if err != nil {
			t.Fatal(err)
		}
		c.Argv[4] = `\$HOME\;` // as systemd 252 would pass it after a re-exec
		argv := append([]string{"/bin/sh", filepath.Join(h.dir, wrapperFile), a.host}, c.Argv...)
		if err := h.backend.start(context.Background(), a, argv, nil); err != nil {
			t.Fatal(err)
		}
		var interrupted *InterruptedError
		if _, err := s.wait(context.Background(), a); !errors.As(err, &interrupted) || !interrupted.NotStarted {
			t.Errorf("Error is %v, want an InterruptedError that says it was not started", err)
		}
		if exists(ran) {
			t.Error("The command was run with other arguments")
		}
	})

	t.Run("environment", func(t *testing.T) {
		t.Setenv("AGENT_SECRET", "leaked")
		c := shell("env", `echo "$GREETING|$LC_ALL|${LANGUAGE-unset}|$HOME|$AGENT_SECRET"; command -v dpkg >/dev/null && echo found`)
		c.Env = []string{"GREETING=hello $world", "LC_ALL=C", "LANGUAGE="}
		r := run(t, session(t, h, "env"), c)
		if want := "hello $world|C||/root|\nfound\n"; string(r.Stdout) != want {
			t.Errorf("Environment is %q, want %q", r.Stdout, want)
		}
	})

	t.Run("standard streams", func(t *testing.T) {
		r := run(t, session(t, h, "streams"), shell("streams", "cat; echo out; echo err >&2"))
		if string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" {
			t.Errorf("stdout %q, stderr %q", r.Stdout, r.Stderr)
		}
	})

	t.Run("big output", func(t *testing.T) {
		s := session(t, h, "big")
		if r := run(t, s, shell("big", "head -c 8388608 /dev/zero")); len(r.Stdout) != 8<<20 {
			t.Errorf("Read %d bytes of 8 MiB", len(r.Stdout))
		}
		_, err := s.Run(context.Background(), shell("huge", "head -c 33554433 /dev/zero"))
		var tooLarge *OutputTooLargeError
		if !errors.As(err, &tooLarge) || tooLarge.Size != 32<<20+1 {
			t.Errorf("More than 32 MiB: %v, want an OutputTooLargeError", err)
		}
	})

	t.Run("timeout kills", func(t *testing.T) {
		pid := filepath.Join(t.TempDir(), "pid")
		c := shell("slow", `sleep 300 & echo $! >"$1"; wait`, pid)
		c.Timeout = 700 * time.Millisecond
		_, err := session(t, h, "timeout").Run(context.Background(), c)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "slow took longer than 700ms") {
			t.Errorf("Error is %v", err)
		}
		if alive(t, pid) {
			t.Error("The command's child still runs after the timeout")
		}
	})

	t.Run("cancel kills", func(t *testing.T) {
		pid := filepath.Join(t.TempDir(), "pid")
		stopped := errors.New("task was stopped")
		ctx, cancel := context.WithCancelCause(context.Background())
		result := make(chan error, 1)
		go func() {
			_, err := session(t, h, "cancel").Run(ctx, shell("slow", `sleep 300 & echo $! >"$1"; wait`, pid))
			result <- err
		}()
		eventually(t, "the command runs", func() bool { return exists(pid) })
		cancel(stopped)
		if err := <-result; !errors.Is(err, stopped) {
			t.Errorf("Error is %v, want the cause of the cancellation", err)
		}
		if alive(t, pid) {
			t.Error("The command's child still runs after the cancellation")
		}
	})

	t.Run("cancel kills what does not obey", func(t *testing.T) {
		pid := filepath.Join(t.TempDir(), "pid")
		c := shell("stubborn", `sh -c 'trap "" TERM; echo $$ >"$0"; while :; do sleep 1; done' "$1"`, pid)
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			for !exists(pid) {
				time.Sleep(5 * time.Millisecond)
			}
			cancel()
		}()
		if _, err := session(t, h, "stubborn").Run(ctx, c); err == nil {
			t.Error("The command ended by itself")
		}
		if alive(t, pid) {
			t.Error("The command still runs")
		}
	})

	t.Run("detach and attach", func(t *testing.T) {
		dir := t.TempDir()
		began, gate := filepath.Join(dir, "began"), filepath.Join(dir, "gate")
		c := shell("gated", `echo $$ >>"$1"; while ! [ -e "$2" ]; do sleep 0.02; done; echo done; exit 3`, began, gate)
		ctx, cancel := context.WithCancelCause(context.Background())
		result := make(chan error, 1)
		go func() {
			_, err := session(t, h, "attach").Run(ctx, c)
			result <- err
		}()
		eventually(t, "the command runs", func() bool { return exists(began) })
		cancel(ErrDetach)
		if err := <-result; !errors.Is(err, ErrDetach) {
			t.Fatalf("Error is %v, want ErrDetach", err)
		}
		if !alive(t, began) {
			t.Fatal("The command did not survive the agent's end")
		}
		go func() {
			time.Sleep(100 * time.Millisecond)
			_ = os.WriteFile(gate, nil, 0o600)
		}()
		next := session(t, h, "attach")
		if r := run(t, next, c); r.ExitCode != 3 || string(r.Stdout) != "done\n" {
			t.Errorf("Attached: exit status %d, stdout %q", r.ExitCode, r.Stdout)
		}
		if b, _ := os.ReadFile(began); strings.Count(string(b), "\n") != 1 {
			t.Errorf("The command was started %d times", strings.Count(string(b), "\n"))
		}
		// The result of a command that ended while no agent was there serves a third agent as well, but only once.
		third := session(t, h, "attach")
		run(t, third, c)
		if b, _ := os.ReadFile(began); strings.Count(string(b), "\n") != 1 {
			t.Error("A stored result was not used")
		}
		run(t, third, c)
		if b, _ := os.ReadFile(began); strings.Count(string(b), "\n") != 2 {
			t.Error("A stored result was used twice")
		}
	})

	t.Run("wrapper killed", func(t *testing.T) {
		s := session(t, h, "killed")
		_, err := s.Run(context.Background(), shell("victim", "kill -KILL $PPID; sleep 0.1"))
		var interrupted *InterruptedError
		if !errors.As(err, &interrupted) {
			t.Fatalf("Error is %v, want an InterruptedError", err)
		}
		t.Log(err)
	})

	t.Run("neither result nor process", func(t *testing.T) {
		boot, err := h.BootID()
		if err != nil {
			t.Fatal(err)
		}
		for name, bootID := range map[string]string{"same-boot": boot, "power-cut": "another"} {
			c := shell("lost", "echo again")
			c.Transaction = bootID != boot // all else is simply done again after a power cut
			_, err := newAttempt(h.Path(runDir, name, "test", "0004-lost"), "", record{
				Name: c.Name, Argv: c.Argv, Unit: "nodepatch-test-lost-0.service", BootID: bootID, Started: time.Now().Add(-time.Hour),
				Transaction: c.Transaction,
			})
			if err != nil {
				t.Fatal(err)
			}
			s := session(t, h, name)
			var interrupted *InterruptedError
			if _, err := s.Run(context.Background(), c); !errors.As(err, &interrupted) || interrupted.Transaction != c.Transaction {
				t.Errorf("%s: error is %v, want an InterruptedError", name, err)
			}
			if r := run(t, s, c); string(r.Stdout) != "again\n" {
				t.Errorf("%s: not started afresh: %+v", name, r)
			}
		}
	})

	t.Run("discard", func(t *testing.T) {
		pid := filepath.Join(t.TempDir(), "pid")
		c := shell("slow", `sleep 300 & echo $! >"$1"; wait`, pid)
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(300*time.Millisecond, func() { cancel(ErrDetach) })
		if _, err := session(t, h, "discard").Run(ctx, c); !errors.Is(err, ErrDetach) {
			t.Fatal(err)
		}
		s := session(t, h, "discard")
		if err := s.Discard(context.Background()); err != nil {
			t.Fatal(err)
		}
		if alive(t, pid) {
			t.Error("The command still runs")
		}
		if left, _ := filepath.Glob(h.Path(runDir, "discard", "test", "*")); len(left) != 0 {
			t.Errorf("Left behind: %v", left)
		}
	})

	t.Run("at once", func(t *testing.T) {
		s := session(t, h, "parallel")
		results := make(chan string)
		for i := range 8 {
			go func() {
				r, err := s.Run(context.Background(), shell("echo", "echo $1", strconv.Itoa(i)))
				if err != nil {
					results <- err.Error()
					return
				}
				results <- strings.TrimSpace(string(r.Stdout))
			}()
		}
		got := map[string]bool{}
		for range 8 {
			got[<-results] = true
		}
		for i := range 8 {
			if !got[strconv.Itoa(i)] {
				t.Errorf("Output of command %d is missing: %v", i, got)
			}
		}
	})
}

func TestNames(t *testing.T) {
	h := newChroot(t)
	for _, name := range []string{"", "..", "a/b", "a b", "a\n", "$HOME", strings.Repeat("a", 101)} {
		if _, err := h.Session(name, "test"); err == nil {
			t.Errorf("%q was taken for an operation's name", name)
		}
		if _, err := session(t, h, "names").Run(context.Background(), packages.Command{Name: name, Argv: []string{"true"}}); err == nil {
			t.Errorf("%q was taken for a command's name", name)
		}
	}
}

func TestLock(t *testing.T) {
	h := newChroot(t)
	unlock, err := h.Lock(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	waited := 0
	if _, err := h.Lock(ctx, func() { waited++ }); !errors.Is(err, context.DeadlineExceeded) || waited != 1 {
		t.Errorf("A second agent got the lock, or was not told (%d): %v", waited, err)
	}
	unlock()
	unlock, err = h.Lock(context.Background(), nil)
	if err != nil {
		t.Errorf("The lock was not released: %v", err)
	}
	unlock()
}

func FuzzStartTime(f *testing.F) {
	self, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(self))
	f.Add("1 (a b) c) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9")
	f.Fuzz(func(t *testing.T, stat string) {
		began, err := parseStartTime(stat)
		if err == nil && (began == "" || strings.ContainsAny(began, " \n")) {
			t.Errorf("Start time %q in %q", began, stat)
		}
	})
}

func TestStartTime(t *testing.T) {
	const rest = " 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9"
	for stat, want := range map[string]string{"1 (a b) c) S" + rest: "4711", "1 (Z) Z" + rest: "", "1 (a) S 0 1": "", "": ""} {
		if got, err := parseStartTime(stat); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", stat, got, err)
		}
	}
}

func BenchmarkChroot(b *testing.B) { benchmarkRun(b, newChroot(b)) }

// benchmarkRun is what a command costs beyond its own time.
func benchmarkRun(b *testing.B, h *Host) {
	s := session(b, h, "benchmark")
	for b.Loop() {
		run(b, s, packages.Command{Name: "true", Argv: []string{"true"}})
	}
}
