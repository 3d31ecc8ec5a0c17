// Package packages is what the agent knows of its host's package manager: one
// small interface, and the data every package manager answers with. The
// implementations live in packages below it, one for each tool.
//
// Nothing here imports Kubernetes: the agent turns a Scan into its PatchReport.
package packages

import (
	"context"
	"time"
)

// Command is one program to run on the host. Its arguments never pass through
// a shell.
type Command struct {
	// Name is a short label of the purpose, such as "apt-refresh". It fits in
	// the name of a systemd unit and of a directory: [a-z0-9-], at most 32 bytes.
	Name string
	// Argv is the program, by name or absolute path, and its arguments. None has
	// a line break or a zero byte.
	Argv []string
	// Env holds "KEY=value" pairs. It is the whole environment of the program
	// apart from what every program on a host has (PATH).
	Env []string
	// Timeout ends the command when it has run for so long; 0 means no limit
	// but the context's.
	Timeout time.Duration
	// Transaction marks a command that writes the package database. Once started
	// it is never killed, by no context and no agent, and an orderly shutdown of
	// the host waits for it. It has no Timeout; a context that ends does not end
	// the wait for it either, unless the agent itself ends.
	Transaction bool
}

// Result is what a command that ran to its end left behind.
type Result struct {
	// ExitCode is the exit status, or 128 plus the number of the signal that ended it.
	ExitCode int
	// Stdout and Stderr are whole: a Runner that had to cut output off returns an error.
	Stdout []byte
	Stderr []byte
	// Status is what it wrote to file descriptor 3, whole too.
	Status []byte
}

// Runner runs commands on the host, in the host's own root.
//
// An exit status other than zero is no error. Run returns an error only if the
// command could not be started, was cut off by its timeout or the context, or
// has no known end. It is safe for concurrent use.
type Runner interface {
	Run(ctx context.Context, command Command) (Result, error)
}

// Manager is a host's package manager.
//
// A call either answers for each target, or returns an error that is nobody's
// failure: *LockHeldError, *DiskFullError, *InterruptedDatabaseError,
// *UnmetDependenciesError, *RefusedError, *RepositoryError, an error of the
// Runner, or *CommandError and *ParseError where the tool did something
// unforeseen. What the tool says is
// trusted for causes; whether a patch is installed is asked of the package
// database alone, with Inspect.
//
// Whether the host needs a reboot is part of a Scan and no method of its own:
// it is read from the same query of the package database, and whoever wants to
// know it wants to know it together with what is still missing.
//
// No lock outlives a call but those of Hold, and a Manager keeps nothing between
// calls, so that an agent that was restarted carries on with a new one.
type Manager interface {
	// Name is the tool's name, such as "apt".
	Name() string
	// Refresh fetches the repositories' metadata. It returns a *RefreshError if
	// one repository could not be refreshed, and a *LockHeldError if another
	// program kept the metadata locked.
	Refresh(ctx context.Context) (Refresh, error)
	// Scan finds what is missing by the metadata that is on the host, however
	// old. It changes nothing, waits for no lock and uses no network.
	Scan(ctx context.Context) (Scan, error)
	// Download fetches the files of the targets, and of the packages that they
	// need in addition, to where Install finds them. It installs nothing. What
	// cannot be fetched does not keep the others from being fetched.
	Download(ctx context.Context, targets []Target) (Download, error)
	// Install installs the targets in one transaction, from files that Download
	// left, without network. It never removes a package, never replaces a
	// configuration file that an administrator has changed, and never asks. A
	// target that is broken (see Patch.Broken) is installed again.
	Install(ctx context.Context, targets []Target) (Install, error)
	// Repair puts right what a transaction left that was cut off: the database
	// itself, packages that are unpacked or configured by half, packages that
	// must be installed again. Scripts of packages that fail again leave these
	// as they are, which Inspect and Scan show; that is no error.
	Repair(ctx context.Context) (Repair, error)
	// Inspect says what the package database has of each target, in their order.
	Inspect(ctx context.Context, targets []Target) ([]Presence, error)
	// Hold keeps every program on the host, the package manager itself first,
	// from beginning a transaction until release is called or this process ends.
	// It waits for one that is under way, and returns a *LockHeldError if that
	// takes too long. It runs no command on the host.
	Hold(ctx context.Context) (release func(), err error)
}

// Target is a patch that is to be downloaded or installed: this version and no other.
type Target struct {
	// Name and Architecture are those of the Patch.
	Name, Architecture string
	// Version is the Patch's AvailableVersion.
	Version string
}

// Failure is the tool's verdict on one target.
type Failure struct {
	Target Target
	// Message is the tool's own last words on it, in one line, such as
	// "404  Not Found".
	Message string
}

// Download is what a download did. Every target is in exactly one of its lists.
type Download struct {
	// Ready lie on the host's disk, with all that they need.
	Ready []Target
	// Failed could not be fetched, through a fault of their own file: it is
	// missing, or not what the metadata says. This counts.
	Failed []Failure
	// Deferred could not be fetched through no fault of theirs: a server that
	// does not answer, a version that is no longer offered, a package they need
	// in addition that cannot be fetched or installed.
	Deferred []Failure
	// Bytes were fetched, as far as the tool says.
	Bytes int64
}

// Install is what a transaction did, by the tool's own report.
type Install struct {
	// Failed are the culprits: packages whose own scripts or files failed. A
	// package that was left undone because of another is not among them.
	Failed []Failure
	// Warned were installed, and a script failed that the tool does not take for
	// a failure, as with rpm's %post.
	Warned []Failure
}

// Repair is what a repair did.
type Repair struct {
	// Packages were put right, sorted: name and version.
	Packages []string
	// Remaining are the problems that are left, as a Scan has them.
	Remaining []Problem
}

// Presence is what the package database has of a target.
type Presence struct {
	// Installed is true if the target's version, or a newer one, is installed in full.
	Installed bool
	// Version is what is there of the package, whatever its state; empty if nothing is.
	Version string
	// Problem says in a few words what is wrong with it, such as
	// "half-configured"; empty if nothing is.
	Problem string
}
