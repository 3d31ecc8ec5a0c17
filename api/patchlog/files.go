package patchlog

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"k8s.io/klog/v2"
)

// maxLine bounds the memory that reading a line takes. A longer line is not one that Append wrote, even
// if JSON writes each byte of its message with six.
const maxLine = 256 << 10

// maxSequence is one that no host reaches; a higher one was never written here.
const maxSequence = 1 << 62

// cursor is the file that says what the API server has acknowledged.
type cursor struct {
	Sequence uint64 `json:"sequence"`
}

// load finds out where the log stands.
func (l *HostLog) load() error {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		var first uint64
		if n, err := fmt.Sscanf(entry.Name(), rotatedPattern, &first); n == 1 && err == nil && entry.Name() == rotatedName(first) {
			l.rotated = append(l.rotated, first)
		}
	}
	slices.Sort(l.rotated)
	if l.acked, err = readCursor(filepath.Join(l.dir, cursorFile)); err != nil {
		return err
	}
	if l.done, err = readDone(filepath.Join(l.dir, doneFile)); err != nil {
		return err
	}
	l.last = l.acked
	if n := len(l.rotated); n > 0 {
		// The current file may have been rotated away and its successor not begun.
		scanned, err := scanFile(filepath.Join(l.dir, rotatedName(l.rotated[n-1])))
		if err != nil {
			return err
		}
		l.last = max(l.last, scanned.last)
	}
	current := filepath.Join(l.dir, currentFile)
	scanned, err := scanFile(current)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l.recorded = scanned.ids
	l.first = scanned.first
	if l.first == 0 {
		l.first = l.last + 1
	}
	l.last = max(l.last, scanned.last)
	if l.file, err = os.OpenFile(current, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640); err != nil {
		return err
	}
	if err := l.file.Truncate(scanned.size); err != nil {
		return err
	}
	l.size = scanned.size
	return syncDir(l.dir)
}

// scan is what a file holds.
type scan struct {
	first, last uint64              // sequences of its first and last entry, 0 without any
	size        int64               // where its last whole line ends
	ids         map[string]struct{} // of its entries
}

func scanFile(path string) (scan, error) {
	result := scan{ids: map[string]struct{}{}}
	file, err := os.Open(path)
	if err != nil {
		return result, err
	}
	defer func() { _ = file.Close() }()
	reader := bufio.NewReader(file)
	for {
		l, size, err := readLine(reader)
		if errors.Is(err, io.EOF) {
			return result, nil
		}
		result.size += size
		if errors.Is(err, errNotALine) {
			continue
		}
		if err != nil {
			return result, err
		}
		if result.first == 0 {
			result.first = l.Sequence
		}
		result.last = max(result.last, l.Sequence)
		result.ids[l.id()] = struct{}{}
	}
}

// errNotALine marks a whole line that is no entry: somebody or something else wrote it.
var errNotALine = errors.New("not an entry of the patch log")

// readLine reads the next whole line and says how many bytes it has. It returns io.EOF at the end and
// for a last line without its end.
func readLine(reader *bufio.Reader) (line, int64, error) {
	var text []byte
	var size int64
	for {
		part, err := reader.ReadSlice('\n')
		size += int64(len(part))
		if len(text) < maxLine {
			text = append(text, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return line{}, 0, err
		}
		break
	}
	var l line
	if err := json.Unmarshal(text, &l); err != nil || l.Sequence == 0 || l.Sequence > maxSequence || l.validate() != nil {
		return line{}, size, errNotALine
	}
	return l, size, nil
}

// rotate makes room for n more bytes: it renames a full current file and removes old ones.
func (l *HostLog) rotate(n int64) error {
	if l.size == 0 || l.size+n <= l.limits.fileSize {
		return nil
	}
	current := filepath.Join(l.dir, currentFile)
	if err := os.Rename(current, filepath.Join(l.dir, rotatedName(l.first))); err != nil {
		return err
	}
	file, err := os.OpenFile(current, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		// Without a new file the old one goes on, under its own name.
		return errors.Join(err, os.Rename(filepath.Join(l.dir, rotatedName(l.first)), current))
	}
	err = errors.Join(l.file.Close(), syncDir(l.dir))
	l.rotated = append(l.rotated, l.first)
	l.file, l.size, l.sent, l.first, l.recorded = file, 0, 0, l.last+1, map[string]struct{}{}
	l.prune()
	return err
}

// prune removes the oldest files, as far as the bounds allow. A file that cannot be removed now is tried
// again at the next rotation.
func (l *HostLog) prune() {
	for len(l.rotated) > l.limits.kept {
		end := l.endOf(0)
		if end > l.acked {
			if len(l.rotated) <= l.limits.unsentMax {
				return
			}
			klog.ErrorS(nil, "Dropped entries of the patch log that the API server never took", "from", l.rotated[0], "to", end)
		}
		path := filepath.Join(l.dir, rotatedName(l.rotated[0]))
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			klog.ErrorS(err, "Could not remove an old file of the patch log", "path", path)
			return
		}
		l.rotated = l.rotated[1:]
	}
}

// endOf is the sequence of the last entry of a rotated file, which comes just before the first of its
// successor.
func (l *HostLog) endOf(i int) uint64 {
	if i+1 < len(l.rotated) {
		return l.rotated[i+1] - 1
	}
	return l.first - 1
}

func rotatedName(first uint64) string { return fmt.Sprintf(rotatedPattern, first) }

// readCursor reads what was acknowledged; without the file, nothing was. A cursor that cannot be
// understood means that entries are sent again, which the API server recognises.
func readCursor(path string) (uint64, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var c cursor
	if err := json.Unmarshal(data, &c); err != nil || c.Sequence > maxSequence {
		klog.ErrorS(err, "Cannot read what the API server has of the patch log, sending all of it again", "path", path)
		return 0, nil
	}
	return c.Sequence, nil
}

// readDone reads what people had deleted; without the file, nothing was. One that cannot be understood means
// that it is deleted again.
func readDone(path string) (done, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return done{}, nil
	}
	if err != nil {
		return done{}, err
	}
	var d done
	if err := json.Unmarshal(data, &d); err != nil {
		klog.ErrorS(err, "Cannot read what was deleted of the patch log, deleting it again", "path", path)
		return done{}, nil
	}
	return d, nil
}

// writeState replaces a file of JSON as a whole: written, synced, renamed.
func writeState(dir, name string, state any) error {
	data, err := json.Marshal(state)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, name)
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = file.Write(append(data, '\n'))
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes names that were created, renamed or removed in a directory outlive a power cut.
func syncDir(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
