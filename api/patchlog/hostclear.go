package patchlog

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// doneFile says what people had deleted already.
const doneFile = "cleared"

// Clear has Run delete from the host's files what people had deleted, by the node's assignment, before it sends anything
// more. It does not block. What was deleted is not deleted again; what a crash left half done is done again, and that an
// entry is not later than the button was pressed says that it goes, whenever that comes to pass.
func (l *HostLog) Clear(assignment *v1alpha1.PatchAssignment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wanted := &clearing{
		node: assignment.Name, policy: assignment.Spec.Policy, uid: assignment.UID,
		clears: slices.Clone(assignment.Spec.LogClears),
	}
	if len(wanted.left(l.done)) == 0 {
		return
	}
	l.wanted = wanted
	l.signal()
}

// due are the clears that are to be done; none may be changed.
func (l *HostLog) due() (*clearing, []v1alpha1.LogClear) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wanted, l.wanted.left(l.done)
}

// clear does the clears that are due, and says so in the log. Only Run calls it, between two entries that it sends.
func (l *HostLog) clear() error {
	wanted, clears := l.due()
	if len(clears) == 0 {
		return nil
	}
	if err := l.strip(clears); err != nil {
		return fmt.Errorf("deleting entries of the patch log: %w", err)
	}
	for _, one := range clears {
		if err := l.Append(hostLogCleared(time.Now(), wanted, one)); err != nil {
			return err
		}
	}
	done := done{Assignment: wanted.uid, Number: clears[len(clears)-1].Number}
	if err := writeState(l.dir, doneFile, done); err != nil {
		return fmt.Errorf("storing what was deleted of the patch log: %w", err)
	}
	l.mu.Lock()
	l.done = done
	l.mu.Unlock()
	if l.onCleared != nil {
		l.onCleared()
	}
	return nil
}

// strip deletes entries from all files.
func (l *HostLog) strip(clears []v1alpha1.LogClear) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return os.ErrClosed
	}
	var errs []error
	l.rotated = slices.DeleteFunc(l.rotated, func(first uint64) bool {
		path := filepath.Join(l.dir, rotatedName(first))
		file, size, err := rewrite(path, clears)
		if file != nil {
			err = errors.Join(err, file.Close())
		}
		if err == nil && file != nil && size == 0 {
			err = os.Remove(path)
		}
		errs = append(errs, err)
		return err == nil && file != nil && size == 0
	})
	file, size, err := rewrite(filepath.Join(l.dir, currentFile), clears)
	if file != nil {
		// What was not sent is found again from the beginning. The ids stay: a repetition of an entry that was deleted is
		// one still.
		errs = append(errs, l.file.Close())
		l.file, l.size, l.sent = file, size, 0
	}
	return errors.Join(append(errs, err, syncDir(l.dir))...)
}

// rewrite replaces a file by one without the entries that clears cover; lines that are no entries stay as they are. It
// returns the new file, open for more, and its size; nil if there was nothing to delete, or no file.
func rewrite(path string, clears []v1alpha1.LogClear) (file *os.File, size int64, err error) {
	old, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = old.Close() }()
	gaps, end, err := gapsOf(old, clears)
	if err != nil || len(gaps) == 0 {
		return nil, 0, err
	}
	next, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return nil, 0, err
	}
	from := int64(0)
	for _, gap := range append(gaps, span{end, end}) {
		copied, err := io.Copy(next, io.NewSectionReader(old, from, gap.from-from))
		if size += copied; err != nil {
			return nil, 0, errors.Join(err, next.Close(), os.Remove(path+".new"))
		}
		from = gap.to
	}
	// What is not on disk must not take the place of what is, and the old file is still the one that is open for more.
	if err = next.Sync(); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return nil, 0, errors.Join(err, next.Close(), os.Remove(path+".new"))
	}
	return next, size, nil
}

// span is a part of a file, in bytes.
type span struct{ from, to int64 }

// gapsOf are the lines of a file that clears cover, in order, and where the file ends.
func gapsOf(file *os.File, clears []v1alpha1.LogClear) (gaps []span, end int64, err error) {
	reader := bufio.NewReader(file)
	at := int64(0)
	for {
		l, size, err := readLine(reader)
		switch {
		case errors.Is(err, io.EOF):
			info, err := file.Stat()
			if err != nil {
				return nil, 0, err
			}
			return gaps, info.Size(), nil
		case err != nil && !errors.Is(err, errNotALine):
			return nil, 0, err
		case err == nil && Cleared(l.Entry, clears):
			if n := len(gaps); n > 0 && gaps[n-1].to == at {
				gaps[n-1].to += size
			} else {
				gaps = append(gaps, span{at, at + size})
			}
		}
		at += size
	}
}
