// Package apt finds what is missing on a Debian or Ubuntu host, and installs it.
//
// Nothing is resolved here: the plan is that of "apt-get upgrade", which is
// asked in the way that it answers fastest and in full. A few commands make a
// scan; their output is parsed strictly, because a list that is too short looks
// like a host that is well patched.
//
// What apt-get prints while it downloads and installs is read for reasons alone.
// Which files are there is asked of apt, and which packages are installed of dpkg.
package apt

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// Manager is the apt of one host. It implements packages.Manager and is safe
// for concurrent use.
type Manager struct {
	runner packages.Runner
	files  fs.FS
	locks  packages.Locks
	limits limits
}

var _ packages.Manager = (*Manager)(nil)

// New returns the apt of the host on which runner runs its commands and whose
// root directory is files. Absolute symbolic links in files need not work.
func New(runner packages.Runner, files fs.FS, locks packages.Locks) *Manager {
	return &Manager{runner: runner, files: files, locks: locks, limits: defaultLimits()}
}

// Installed says whether the host whose root directory is files has apt.
func Installed(files fs.FS) bool {
	for _, name := range []string{"usr/bin/apt-get", "usr/bin/dpkg-query"} {
		if _, err := fs.Stat(files, name); err != nil {
			return false
		}
	}
	return true
}

// Name is "apt".
func (*Manager) Name() string { return "apt" }

// How long the commands may take at most. A scan takes a second; a host that is
// out of memory or disk bandwidth may need a hundred times that.
const (
	readTimeout    = 5 * time.Minute
	refreshTimeout = 15 * time.Minute
)

// environment makes the tools speak one language and never ask.
func environment() []string {
	return []string{"LC_ALL=C", "LANGUAGE=", "DEBIAN_FRONTEND=noninteractive", "HOME=/root"}
}

// options are those that every apt command gets. They come on the command line,
// which overrides whatever an administrator has configured, and older versions
// ignore those that they do not know.
func options() []string {
	return []string{
		// The level that apt chooses where there is no terminal. At 2, plans are not printed.
		"-o", "quiet=1",
		// apt 3 has a second layout, which apt-get does not use unless configured.
		"-o", "APT::Output-Version=0",
		"-o", "APT::Color=false",
	}
}

// run runs one command of the host and returns its whole result. A failure to
// run it is returned with the purpose in front of it.
func (m *Manager) run(ctx context.Context, name, purpose string, timeout time.Duration, argv ...string) (packages.Result, error) {
	result, err := m.runner.Run(ctx, packages.Command{Name: name, Argv: argv, Env: environment(), Timeout: timeout})
	if err != nil {
		return packages.Result{}, fmt.Errorf("%s: %w", purpose, err)
	}
	return result, nil
}

func wrap(purpose string, err error) error { return fmt.Errorf("%s: %w", purpose, err) }

// lastLines are the last lines that say something of a tool's complaint: of its
// errors, or of all that it printed if it printed no errors.
func lastLines(result packages.Result) string {
	const most, longest = 5, 1000
	text := bytes.TrimSpace(result.Stderr)
	if len(text) == 0 {
		text = bytes.TrimSpace(result.Stdout)
	}
	lines := bytes.Split(text, []byte("\n"))
	if len(lines) > most {
		lines = lines[len(lines)-most:]
	}
	text = bytes.Join(lines, []byte("; "))
	if len(text) > longest {
		text = text[len(text)-longest:]
	}
	return string(bytes.ToValidUTF8(text, []byte("\uFFFD")))
}
