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

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// maxTail is how many bytes of the files Last reads at most: room for some hundred usual entries.
const maxTail = 128 << 10

// maxReason is how long a reason may be in a status.
const maxReason = 128

// Last are the last entries of the files, at most limit of them and oldest first, as they stand in a status. It holds one
// line and the result in memory. There are fewer where the last maxTail bytes of the files have fewer whole ones.
func (l *HostLog) Last(limit int) ([]v1alpha1.LogEntry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := []string{currentFile}
	for _, first := range slices.Backward(l.rotated) {
		names = append(names, rotatedName(first))
	}
	var last []v1alpha1.LogEntry
	budget := int64(maxTail)
	for _, name := range names {
		if len(last) == limit || budget <= 0 {
			break
		}
		older, read, err := tail(filepath.Join(l.dir, name), limit-len(last), budget)
		if err != nil {
			return nil, fmt.Errorf("reading the last entries of the patch log: %w", err)
		}
		last = append(older, last...)
		budget -= read
	}
	// An entry may be written some time after what it tells.
	slices.SortStableFunc(last, func(a, b v1alpha1.LogEntry) int { return a.Time.Compare(b.Time.Time) })
	return last, nil
}

// tail are the last entries that lie wholly in the last budget bytes of a file, in its order, and how many bytes were read.
// A file that an administrator has removed has none.
func tail(path string, limit int, budget int64) (last []v1alpha1.LogEntry, read int64, err error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, 0, err
	}
	from := max(0, info.Size()-budget)
	// A section, as an entry may be longer than what is left of the budget.
	reader := bufio.NewReader(io.NewSectionReader(file, from, info.Size()-from))
	for cut := from > 0; ; cut = false {
		l, _, err := readLine(reader)
		switch {
		case errors.Is(err, io.EOF):
			return last, info.Size() - from, nil
		case err != nil && !errors.Is(err, errNotALine):
			return nil, 0, err
		case err != nil || cut || len(l.Reason) > maxReason:
			// What is left of a line, or what somebody else wrote, which the API server would refuse with all the rest.
			continue
		}
		if len(last) == limit {
			last = slices.Delete(last, 0, 1)
		}
		last = append(last, l.LogEntry())
	}
}

// OnCleared has Run call f whenever it has deleted what people had deleted. Call it before Run.
func (l *HostLog) OnCleared(f func()) { l.onCleared = f }

// Cleared stands for all that people had deleted from the files so far, also in the times of earlier agents; it is empty as
// long as that is nothing.
func (l *HostLog) Cleared() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done == (done{}) {
		return ""
	}
	return fmt.Sprintf("%s/%d", l.done.Assignment, l.done.Number)
}
