package host

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// The test binary is also the programs that its tests start, and each has a variable that makes it that program.
const (
	// inMachine is set where the test binary runs in the machine: systemd refuses clients from outside of its PID namespace.
	inMachine = "NODEPATCH_IN_MACHINE"
	// testAgent names the directory of an agent that a test kills.
	testAgent = "NODEPATCH_TEST_AGENT"
	// longTransaction names the directory of the agent whose machine is shut down.
	longTransaction = "NODEPATCH_LONG_TRANSACTION"
	// rebootOrders is set where the test binary is an agent that has its machine rebooted.
	rebootOrders = "NODEPATCH_REBOOT_ORDERS"
)

// longDir is the directory in that machine.
const longDir = "/root/long"

func TestMain(m *testing.M) {
	flag.Parse()
	if dir := os.Getenv(testAgent); dir != "" {
		exit(runAgent(dir))
	}
	if dir := os.Getenv(longTransaction); dir != "" {
		exit(runLongTransaction(dir))
	}
	if os.Getenv(rebootOrders) != "" {
		exit(runRebootOrders())
	}
	if os.Getenv(inMachine) == "" {
		if err := hide("^(Test|Benchmark)Machine"); err != nil {
			exit(err)
		}
	}
	os.Exit(m.Run())
}

// exit ends a program that is not a run of the tests.
func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// hide keeps tests from running beside those that the user does not want. They are not reported as skipped, which
// would read as if they never ran.
func hide(pattern string) error {
	// The first alternative that matches decides. One of the user's that names a subtest matches its parent too, and
	// lets that run: so the user's come last.
	if users := flag.Lookup("test.skip").Value.String(); users != "" {
		pattern += "|" + users
	}
	return flag.Set("test.skip", pattern)
}

// runAgent is an agent that runs the gated command.
func runAgent(dir string) error {
	h, err := Detect("/", DefaultDir)
	if err != nil {
		return err
	}
	s, err := h.Session("agent", "test")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err = s.Run(ctx, gated(dir))
	return err
}

// gated writes its PID to the file began, and ends when the file gate is there.
func gated(dir string) packages.Command {
	return shell("gated", `echo $$ >>"$1/began"; while ! [ -e "$1/gate" ]; do sleep 0.02; done; echo done; exit 3`, dir)
}

func startAgent(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	agent := exec.Command(os.Args[0])
	agent.Env = append(os.Environ(), testAgent+"="+dir)
	agent.Stdout, agent.Stderr = os.Stdout, os.Stderr
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	return agent
}

// runLongTransaction is an agent whose machine is shut down in the middle of a transaction.
func runLongTransaction(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	h, err := detectSystemd()
	if err != nil {
		return err
	}
	s, err := h.Session("long", "test")
	if err != nil {
		return err
	}
	if _, err := s.Run(context.Background(), transaction(filepath.Join(dir, "began"), filepath.Join(dir, "gate"))); err != nil {
		return err
	}
	// The machine goes down now, and takes no more commands. The agent waits until it goes down with it.
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if _, err := s.Run(ctx, shell("after", "true")); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return os.WriteFile(filepath.Join(dir, "refused"), []byte(err.Error()), 0o600)
	}
	return nil
}
