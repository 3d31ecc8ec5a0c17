package packages

import (
	"fmt"
	"strings"
	"time"
)

// LockHeldError says that another program had the package manager's lock for
// all of the time that was waited. It is nobody's failure: try again later.
type LockHeldError struct {
	// Path is the lock's file on the host.
	Path string
	// PID and Process are the holder's; 0 and empty if they are not known.
	PID     int
	Process string
	// Waited is how long the lock was asked for.
	Waited time.Duration
}

func (e *LockHeldError) Error() string {
	return fmt.Sprintf("%s is held by %s, waited %s: let it finish or stop it on the host, then try again",
		e.Path, e.Holder(), e.Waited.Round(time.Second))
}

// Holder names the other program for a person, as well as it is known.
func (e *LockHeldError) Holder() string {
	switch {
	case e.PID != 0 && e.Process != "":
		return fmt.Sprintf("%s (process %d)", e.Process, e.PID)
	case e.PID != 0:
		return fmt.Sprintf("process %d", e.PID)
	default:
		return "another program"
	}
}

// RepositoryFailure is one repository whose metadata could not be fetched.
type RepositoryFailure struct {
	// Repository is its address in the tool's own words.
	Repository string
	// Reason is the tool's own explanation, in one line.
	Reason string
	// Unreachable is true if the server did not answer at all: no name, no
	// route, no connection, or no answer in time.
	Unreachable bool
}

// RefreshError says which repositories' metadata could not be fetched. The
// host keeps its older metadata, and a scan still works on that.
type RefreshError struct {
	Failures []RepositoryFailure
}

// Unreachable is true if every failure is that of a server that did not answer.
func (e *RefreshError) Unreachable() bool {
	for _, f := range e.Failures {
		if !f.Unreachable {
			return false
		}
	}
	return len(e.Failures) > 0
}

func (e *RefreshError) Error() string {
	const most = 3
	var b strings.Builder
	for i, f := range e.Failures {
		if i == most {
			fmt.Fprintf(&b, "; and %d more", len(e.Failures)-most)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(f.Repository)
		b.WriteString(": ")
		b.WriteString(f.Reason)
	}
	if e.Unreachable() {
		return "repositories cannot be reached: " + b.String() + ": check the network, proxy and name servers of the host"
	}
	return "repositories cannot be refreshed: " + b.String() + ": check the host's package sources"
}

// ParseError says that a tool printed what this program does not understand.
// Nothing is reported then, rather than too little.
type ParseError struct {
	// Tool is the command, such as "apt-get upgrade".
	Tool string
	// Line is the line's number in the tool's output, from 1; 0 if it is the
	// output as a whole that is not understood.
	Line int
	// Text is the line, cut at some 200 bytes.
	Text string
	// Problem says what is wrong with it.
	Problem string
}

func (e *ParseError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("output of %s is not understood: %s: run it on the host and report its output", e.Tool, e.Problem)
	}
	return fmt.Sprintf("output of %s is not understood: line %d: %s: %q: run it on the host and report its output", e.Tool, e.Line, e.Problem, e.Text)
}

// CommandError says that a tool ended with an exit status that means failure,
// for none of the reasons that have an error of their own.
type CommandError struct {
	// Tool is the command, such as "apt-get upgrade".
	Tool     string
	ExitCode int
	// LastLines are the last lines the tool printed, its errors first.
	LastLines string
}

func (e *CommandError) Error() string {
	said := e.LastLines
	if said == "" {
		said = "it printed nothing"
	}
	return fmt.Sprintf("%s ended with exit status %d: %s: run it on the host to see more", e.Tool, e.ExitCode, said)
}

// UnmetDependenciesError says that installed packages lack what they depend on,
// so that the package manager plans nothing else until that is put right.
type UnmetDependenciesError struct {
	// Details are the tool's own lines, one for each dependency.
	Details []string
	// Repair is the command that puts it right on the host.
	Repair string
}

func (e *UnmetDependenciesError) Error() string {
	return fmt.Sprintf("installed packages have unmet dependencies: %s: run %q on the host", strings.Join(e.Details, "; "), e.Repair)
}

// ChangedError says that the package database or the metadata changed during a
// scan, each time that it was tried. Another program is at work: try again when
// it has finished.
type ChangedError struct {
	// Detail says what did not fit together.
	Detail string
	// Tries is how often the scan was tried.
	Tries int
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("packages changed while they were read, %d times: %s: wait until the other program on the host has finished, then try again", e.Tries, e.Detail)
}

// DiskFullError says that a file system of the host has no room for what was to
// be downloaded or installed.
type DiskFullError struct {
	// Path is the directory or file system in the tool's own words.
	Path string
	// Detail is the tool's own line.
	Detail string
}

func (e *DiskFullError) Error() string {
	return fmt.Sprintf("the disk of the host is full at %s (%s): make room there, then try again", e.Path, e.Detail)
}

// InterruptedDatabaseError says that the package manager does nothing before its
// database, which was cut off in a transaction, is put right: call Repair.
type InterruptedDatabaseError struct {
	// Detail is the tool's own line.
	Detail string
}

func (e *InterruptedDatabaseError) Error() string {
	return fmt.Sprintf("the package database was interrupted in a transaction: %s", e.Detail)
}

// RefusedError says that the package manager refuses all of the targets because
// of some, and changed nothing: their dependencies are not met, their versions
// are no longer offered, an administrator holds them.
type RefusedError struct {
	// Targets are those that it names; none if it names none.
	Targets []Failure
	// Detail are the tool's own lines, joined.
	Detail string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the package manager refuses the transaction: %s", e.Detail)
}

// RepositoryError says that nothing can be downloaded, because of the
// repositories and not of a package: none is configured, or none answers.
type RepositoryError struct {
	// Detail are the tool's own lines, joined.
	Detail string
}

func (e *RepositoryError) Error() string {
	return fmt.Sprintf("the repositories do not serve packages: %s: check the network and the package sources of the host", e.Detail)
}
