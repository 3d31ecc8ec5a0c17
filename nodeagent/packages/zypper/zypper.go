// Package zypper finds and installs what is missing on a SUSE host.
//
// It works on packages and never on zypper's patches, which are groups of them:
// "zypper patch" leaves out the patches that need a reboot, critical ones too,
// and ends with exit status 0. Patches are only asked for what they say of the
// packages: classification, severity, advisories and CVEs.
//
// zypper answers in XML (/usr/share/zypper/xml/xmlout.rnc), which is parsed
// strictly where a list that is too short would look like a host that is well
// patched. Its exit statuses are in zypper(8), EXIT CODES.
package zypper

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// Manager is the zypper of one host. It implements packages.Manager and is safe
// for concurrent use.
type Manager struct {
	runner packages.Runner
	files  fs.FS
	locks  packages.Locks
	limits limits
}

var _ packages.Manager = (*Manager)(nil)

// New returns the zypper of the host on which runner runs its commands and whose
// root directory is files. Absolute symbolic links in files need not work.
func New(runner packages.Runner, files fs.FS, locks packages.Locks) *Manager {
	return &Manager{runner: runner, files: files, locks: locks, limits: defaultLimits()}
}

// Installed says whether the host whose root directory is files has zypper.
func Installed(files fs.FS) bool {
	for _, name := range []string{"usr/bin/zypper", "usr/bin/rpm"} {
		if _, err := fs.Stat(files, name); err != nil {
			return false
		}
	}
	return true
}

// Name is "zypper".
func (*Manager) Name() string { return "zypper" }

// readTimeout is how long a command may take that reads what is on the host. It
// takes a second or two; a host that is out of memory or disk bandwidth may need
// a hundred times that.
const readTimeout = 5 * time.Minute

// limits bound how long zypper may work where servers hang: libzypp waits without
// an end for one that takes requests and does not answer them, whatever its
// timeouts are set to (17.25 was seen to).
type limits struct {
	// refresh is for one repository.
	refresh time.Duration
	// least and rate bound the download of a batch: least, and the time that its
	// bytes take at rate, in bytes a second.
	least time.Duration
	rate  int64
}

func defaultLimits() limits {
	return limits{refresh: 10 * time.Minute, least: 10 * time.Minute, rate: 64 << 10}
}

func (l limits) download(bytes int64) time.Duration {
	return l.least + time.Duration(bytes/l.rate)*time.Second
}

// Exit statuses that are not failures of the command as a whole, and those that
// have an error of their own (zypper(8)).
const (
	exitOK             = 0
	exitZYpp           = 4
	exitNoRepositories = 6
	exitLocked         = 7
	exitCommit         = 8
	exitReboot         = 102
	exitRestart        = 103
	exitNotFound       = 104
	exitSkipped        = 106
	exitScriptFailed   = 107
)

// command is one call of zypper.
type command struct {
	// name labels it for the Runner, purpose is for people.
	name, purpose string
	// limit, if any, is how long it may use the network.
	limit time.Duration
	// network lets zypper refresh metadata before it does anything else.
	network bool
	// reads means that zypper changes nothing, and so needs no lock.
	reads bool
	// transaction means that it writes the package database.
	transaction bool
	// repositories, if any, are the only ones used.
	repositories []string
	// verb is zypper's command; options and arguments follow it.
	verb      string
	options   []string
	arguments []string
}

// tool is the command as errors name it.
func (c *command) tool() string { return "zypper " + c.verb }

func (c *command) argv() []string {
	var argv []string
	if c.limit > 0 {
		// Where a server hangs, zypper does not end with SIGTERM. What it has said
		// until then is not lost in this way, and no zypper stays behind with the lock.
		argv = []string{"timeout", "--foreground", "--kill-after=" + seconds(grace), seconds(c.limit)}
	}
	argv = append(argv, "zypper", "--non-interactive", "--xmlout")
	if !c.network {
		argv = append(argv, "--no-refresh")
	}
	argv = append(argv, c.verb)
	argv = append(argv, c.options...)
	for _, alias := range c.repositories {
		argv = append(argv, "--repo", alias)
	}
	if len(c.arguments) > 0 {
		argv = append(append(argv, "--"), c.arguments...)
	}
	return argv
}

// grace is how long a zypper whose time is over may take to end by itself.
const grace = 3 * time.Second

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// timeout is the Runner's limit, which is reached only if zypper's own is not kept.
func (c *command) timeout() time.Duration {
	switch {
	case c.transaction:
		return 0
	case c.limit > 0:
		return c.limit + time.Minute
	default:
		return readTimeout
	}
}

// environment makes the tools speak one language and never wait for a lock:
// waiting is ours. What only reads takes no lock at all then; without the
// variable root's zypper takes one for every command, even to list.
func (c *command) environment() []string {
	env := []string{"LC_ALL=C", "LANGUAGE=", "HOME=/root", "ZYPP_LOCK_TIMEOUT=0"}
	if c.reads {
		env = append(env, "ZYPP_READONLY_HACK=1")
	}
	return env
}

// answer is what zypper said.
type answer struct {
	exit int
	// elements are those of the stream, in their order.
	elements []any
	result   packages.Result
	command  *command
}

// late says whether the command was ended because its limit was over: what it
// said is not whole then. The exit statuses are those of timeout(1).
func (a *answer) late() bool {
	return a.command.limit > 0 && (a.exit == 124 || a.exit == 128+9)
}

// run runs one command of zypper. It returns an error where zypper did not begin
// with what it was asked for: a lock, a broken database, an output that is none.
// An exit status is the caller's to judge, with failure for those that it does
// not know.
func (m *Manager) run(ctx context.Context, c *command) (*answer, error) {
	result, err := m.runner.Run(ctx, packages.Command{
		Name: c.name, Argv: c.argv(), Env: c.environment(), Timeout: c.timeout(), Transaction: c.transaction,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.purpose, err)
	}
	a := &answer{exit: result.ExitCode, result: result, command: c}
	a.elements, err = parseStream(c.tool(), result.Stdout)
	switch {
	case err == nil:
	case a.late():
	case c.transaction:
		// What scripts print is in it, and may be anything. What was understood up
		// to there says why packages failed; what is installed is asked elsewhere.
	case result.ExitCode != exitOK:
		// A tool that died says why in other ways than in XML.
		return nil, fmt.Errorf("%s: %w", c.purpose, a.failure())
	default:
		return nil, fmt.Errorf("%s: %w", c.purpose, err)
	}
	if err := a.obstacle(); err != nil {
		return nil, fmt.Errorf("%s: %w", c.purpose, err)
	}
	return a, nil
}

// ask runs a command that only reads, and must end with one of the exit statuses.
func (m *Manager) ask(ctx context.Context, c *command, exits ...int) (*answer, error) {
	c.reads = true
	a, err := m.run(ctx, c)
	if err != nil {
		return nil, err
	}
	if a.exit != exitOK && !slices.Contains(exits, a.exit) {
		return nil, fmt.Errorf("%s: %w", c.purpose, a.failure())
	}
	return a, nil
}
