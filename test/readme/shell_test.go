package readme

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// shell is a person's terminal: what a command exports, and the directory it changes to, hold for the
// next one.
type shell struct {
	state string
}

// foreign are variables of whoever runs the test that would change what README's commands do.
var foreign = []string{"KUBECONFIG", "KUBEBUILDER_ASSETS", "IMG", "VERSION", "MACHINES", "KUBECTL", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}

// openShell opens one in a directory. state is a directory of its own.
func openShell(state, directory string) (*shell, error) {
	s := &shell{state: state}
	return s, errors.Join(
		os.WriteFile(s.file("environment"), []byte("unset "+strings.Join(foreign, " ")+"\n"), 0o644),
		os.WriteFile(s.file("directory"), []byte(directory), 0o644),
	)
}

func (s *shell) file(name string) string { return filepath.Join(s.state, name) }

// typed carries a command out and keeps its state. "export -p" is what bash reads back.
const typed = `
. "$0/environment" && cd "$(cat "$0/directory")" || exit 125
eval "$1"
status=$?
export -p >"$0/environment" && pwd >"$0/directory"
exit $status`

// run runs a command to its end, or interrupts it as Ctrl-C does when enough says so of what it printed
// so far; that is no error. It returns what it printed, on both streams.
func (s *shell) run(ctx context.Context, command string, enough func(output string) bool) (string, error) {
	output, err := os.Create(s.file("output"))
	if err != nil {
		return "", err
	}
	defer output.Close()
	// A file and no pipe: programs that a command leaves running keep it open.
	cmd := exec.Command("bash", "-o", "pipefail", "-c", typed, s.state, command)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.state, output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	look := time.NewTicker(250 * time.Millisecond)
	defer look.Stop()
	interrupted := false
	for {
		select {
		case err := <-ended:
			printed, readErr := os.ReadFile(s.file("output"))
			if interrupted {
				err = nil
			}
			return string(printed), errors.Join(err, readErr)
		case <-ctx.Done():
			// Also what waits for a terminal ends now.
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			err := <-ended
			printed, readErr := os.ReadFile(s.file("output"))
			return string(printed), errors.Join(fmt.Errorf("it did not end in time: %w", context.Cause(ctx)), err, readErr)
		case <-look.C:
			if enough == nil || interrupted {
				continue
			}
			printed, err := os.ReadFile(s.file("output"))
			if err == nil && enough(string(printed)) {
				interrupted = true
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
			}
		}
	}
}
