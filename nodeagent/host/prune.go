package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// What is kept of the commands' output, for people who look into a failure.
const (
	keepOperations = 5
	keepBytes      = 64 << 20
)

// Prune removes the output of all but the last few operations, and of more if they hold too much. The operation named
// current is kept.
func (h *Host) Prune(current string) error {
	entries, err := os.ReadDir(h.Path(runDir))
	if err != nil {
		return fmt.Errorf("read the operations' directory: %w", err)
	}
	type operation struct {
		name     string
		modified time.Time
	}
	var operations []operation
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || e.Name() == current {
			continue
		}
		operations = append(operations, operation{e.Name(), info.ModTime()})
	}
	slices.SortFunc(operations, func(a, b operation) int { return b.modified.Compare(a.modified) })
	var errs []error
	var kept int64
	for i, o := range operations {
		kept += size(h.Path(runDir, o.name))
		if i < keepOperations && kept <= keepBytes {
			continue
		}
		if err := os.RemoveAll(h.Path(runDir, o.name)); err != nil {
			errs = append(errs, fmt.Errorf("remove the output of an old operation: %w", err))
		}
	}
	return errors.Join(errs...)
}

// size sums up the files below a directory, in bytes. What cannot be read counts nothing.
func size(dir string) int64 {
	var n int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n
}
