package packages

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"
)

// Locks say what a Manager does while another program holds a lock of the
// package manager. The zero value is right for a node.
type Locks struct {
	// Patience is how long it asks for the lock again; 10 minutes if it is 0.
	Patience time.Duration
	// Poll is how long it waits before it asks again; 2 seconds if it is 0.
	Poll time.Duration
	// Waiting, if set, is told each time that the lock is held and is going to
	// be asked for again. An error that it returns ends the wait.
	Waiting func(*LockHeldError) error
	// Open opens a file of the host for reading and writing, by its path below
	// the host's root, and makes it if it is not there. Manager.Hold needs it.
	Open func(path string) (*os.File, error)
}

// Retry calls try until it returns something else than a *LockHeldError, or
// patience is over. It completes the error with the time waited, and with the
// name of the holder's process, which files, the host's root, knows.
func (l Locks) Retry(ctx context.Context, files fs.FS, try func() error) error {
	if l.Patience == 0 {
		l.Patience = 10 * time.Minute
	}
	if l.Poll == 0 {
		l.Poll = 2 * time.Second
	}
	for started := time.Now(); ; {
		err := try()
		var held *LockHeldError
		if !errors.As(err, &held) {
			return err
		}
		if held.Process == "" && held.PID != 0 {
			held.Process = ProcessName(files, held.PID)
		}
		if held.Waited = time.Since(started); held.Waited+l.Poll > l.Patience {
			return err
		}
		if l.Waiting != nil {
			if err := l.Waiting(held); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(l.Poll):
		}
	}
}
