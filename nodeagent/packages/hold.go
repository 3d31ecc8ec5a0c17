package packages

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Hold takes locks of the host, all of them or none, and keeps them until
// release is called or the process ends: they are the kernel's record locks
// (fcntl(2)), which dpkg, apt and rpm take, and of which nothing is left when
// their holder dies. The paths are relative to the host's root. Then it asks
// busy, if that is set, who is at work although the locks are free. While
// somebody is, it holds none of them, so that he can end his work.
func (l Locks) Hold(ctx context.Context, files fs.FS, paths []string, busy func() *LockHeldError) (release func(), err error) {
	var held []*os.File
	release = func() {
		for _, f := range held {
			_ = f.Close() // with which its lock goes
		}
		held = nil
	}
	err = l.Retry(ctx, files, func() error {
		for _, path := range paths {
			f, err := l.take(path)
			if err != nil {
				release()
				return err
			}
			held = append(held, f)
		}
		if busy != nil {
			if other := busy(); other != nil {
				release()
				return other
			}
		}
		return nil
	})
	if err != nil {
		release()
		return nil, fmt.Errorf("keep package transactions from running: %w", err)
	}
	return release, nil
}

// take locks one file, and says who has it if it is locked.
func (l Locks) take(path string) (*os.File, error) {
	if l.Open == nil {
		return nil, fmt.Errorf("open the lock /%s: nobody says how", path)
	}
	f, err := l.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the lock /%s: %w", path, err)
	}
	whole := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &whole)
	if err == nil {
		return f, nil
	}
	defer func() { _ = f.Close() }()
	if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
		return nil, fmt.Errorf("lock /%s: %w", path, err)
	}
	other := &LockHeldError{Path: "/" + path}
	// A lock of an open file, and not of a process, has -1.
	if unix.FcntlFlock(f.Fd(), unix.F_GETLK, &whole) == nil && whole.Type != unix.F_UNLCK && whole.Pid > 0 {
		other.PID = int(whole.Pid)
	}
	return nil, other
}
