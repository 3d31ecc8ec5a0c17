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
}

// Result is what a command that ran to its end left behind.
type Result struct {
	// ExitCode is the exit status, or 128 plus the number of the signal that ended it.
	ExitCode int
	// Stdout and Stderr are whole: a Runner that had to cut output off returns an error.
	Stdout []byte
	Stderr []byte
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
// Whether the host needs a reboot is part of a Scan and no method of its own:
// it is read from the same query of the package database, and whoever wants to
// know it wants to know it together with what is still missing.
//
// The interface takes no lock that outlives a call, and a Manager keeps nothing
// between calls, so that an agent that was restarted carries on with a new one.
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
}
