// Package dnf is the package manager of Fedora, Red Hat Enterprise Linux and
// their kin, in its versions 4 and 5.
//
// Nothing is resolved here: what would be installed is dnf's own plan, of which
// the same form is read from both versions. Output is parsed strictly, because a
// list that is too short looks like a host that is well patched.
package dnf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// Manager is the dnf of one host. It implements packages.Manager and is safe for
// concurrent use, although dnf's own locks let one command run at a time.
type Manager struct {
	runner   packages.Runner
	files    fs.FS
	locks    packages.Locks
	database *rpm.Database
}

var _ packages.Manager = (*Manager)(nil)

// New returns the dnf of the host on which runner runs its commands and whose
// root directory is files. Absolute symbolic links in files need not work.
func New(runner packages.Runner, files fs.FS, locks packages.Locks) *Manager {
	return &Manager{runner: runner, files: files, locks: locks, database: rpm.New(runner, files)}
}

// Installed says whether the host whose root directory is files has dnf and rpm.
func Installed(files fs.FS) bool {
	if _, err := fs.Lstat(files, "usr/bin/rpm"); err != nil {
		return false
	}
	for _, name := range []string{"usr/bin/dnf", "usr/bin/dnf5"} {
		if _, err := fs.Lstat(files, name); err == nil {
			return true
		}
	}
	return false
}

// Name is "dnf".
func (*Manager) Name() string { return "dnf" }

// five says whether the host's dnf is dnf 5: by the link that /usr/bin/dnf is
// where a distribution has chosen it, or because there is no other.
func (m *Manager) five() bool {
	target, err := fs.ReadLink(m.files, "usr/bin/dnf")
	if err == nil {
		return strings.HasSuffix(target, "dnf5")
	}
	if _, err := fs.Lstat(m.files, "usr/bin/dnf"); err == nil {
		return false
	}
	return true
}

// program is the command by its name.
func (m *Manager) program() string {
	if _, err := fs.Lstat(m.files, "usr/bin/dnf"); err == nil {
		return "dnf"
	}
	return "dnf5"
}

// How long the commands may take at most. A scan takes seconds; a host that is
// out of memory or disk bandwidth may need a hundred times that.
const (
	readTimeout    = 10 * time.Minute
	refreshTimeout = 30 * time.Minute
)

// environment makes dnf speak one language, and dnf 5 print wide tables.
func environment() []string { return append(rpm.Environment(), "COLUMNS=1000") }

// command is a dnf command line, with the options that every one gets. They
// override whatever an administrator has configured.
func (m *Manager) command(args ...string) []string {
	argv := []string{m.program(), "--setopt=color=never"}
	if !m.five() {
		// Without it dnf 4 waits for another one for ever. dnf 5 never waits, and
		// knows no such option.
		argv = append(argv, "--setopt=exit_on_lock=1", "--setopt=errorlevel=3")
		if !slices.Contains(args, "-q") {
			argv = append(argv, "--setopt=debuglevel=2")
		}
	}
	return append(argv, args...)
}

// network are the options of commands that use it. A server that does not answer
// is asked for some two minutes: librepo tries four times.
func (m *Manager) network() []string {
	return []string{
		"--setopt=timeout=30", "--setopt=*.timeout=30", "--setopt=minrate=1000", "--setopt=*.minrate=1000",
		"--setopt=retries=3", "--setopt=*.retries=3",
	}
}

// run runs a command that needs dnf's locks, and again while another program
// holds them.
func (m *Manager) run(ctx context.Context, purpose string, c packages.Command) (packages.Result, error) {
	c.Env = environment()
	var result packages.Result
	err := m.locks.Retry(ctx, m.files, func() error {
		var err error
		if result, err = m.runner.Run(ctx, c); err != nil {
			return err
		}
		if held := lockHeld(result); held != nil {
			if dropped, err := m.dropStale(ctx, held); err != nil {
				return err
			} else if !dropped {
				return held
			}
			if result, err = m.runner.Run(ctx, c); err != nil {
				return err
			}
			if held := lockHeld(result); held != nil {
				return held
			}
		}
		if result.ExitCode == 0 {
			return nil
		}
		if full := diskFull(result); full != nil {
			return full
		}
		if detail := rpm.Damage(result.Stderr); detail != "" {
			return &packages.InterruptedDatabaseError{Detail: detail}
		}
		return nil
	})
	if err != nil {
		return packages.Result{}, fmt.Errorf("%s: %w", purpose, err)
	}
	return result, nil
}

// output runs a command that reads and must succeed, and returns what it printed.
func (m *Manager) output(ctx context.Context, name, tool, purpose string, args ...string) ([]byte, error) {
	result, err := m.run(ctx, purpose, packages.Command{Name: name, Argv: m.command(args...), Timeout: readTimeout})
	if err != nil {
		return nil, err
	}
	if result.ExitCode != 0 {
		return nil, fmt.Errorf("%s: %w", purpose, commandError(tool, result))
	}
	return result.Stdout, nil
}

func commandError(tool string, result packages.Result) error {
	return &packages.CommandError{Tool: tool, ExitCode: result.ExitCode, LastLines: rpm.LastLines(result)}
}

// checkTargets keeps what is no package of any rpm distribution from becoming an
// argument: nothing that passes is an option or a pattern.
func checkTargets(targets []packages.Target) error {
	for _, t := range targets {
		if !rpm.ValidName(t.Name) || !rpm.ValidVersion(t.Version) || !rpm.ValidArchitecture(t.Architecture) {
			return fmt.Errorf("%q version %q for %q is not a package of this host", t.Name, t.Version, t.Architecture)
		}
	}
	return nil
}

// nevra is the target as an argument of dnf, and as dnf prints it.
func nevra(t packages.Target) string { return t.Name + "-" + t.Version + "." + t.Architecture }

// Inspect says what the package database has of each target, in their order.
func (m *Manager) Inspect(ctx context.Context, targets []packages.Target) ([]packages.Presence, error) {
	return m.database.Inspect(ctx, targets)
}

// exists says whether one of some patterns matches a file of the host.
func (m *Manager) exists(patterns ...string) bool {
	for _, pattern := range patterns {
		found, err := fs.Glob(m.files, pattern)
		if err == nil && len(found) > 0 {
			return true
		}
	}
	return false
}

// readFile reads a file that need not be there.
func (m *Manager) readFile(name string) (string, error) {
	text, err := fs.ReadFile(m.files, name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}
