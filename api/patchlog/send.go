package patchlog

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"
)

// defaultBackoff goes from one second to one minute while the API server does not take entries.
var defaultBackoff = wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.2, Steps: 6, Cap: time.Minute}

// sendTimeout bounds one request, so that a connection that died in silence is given up.
const sendTimeout = 30 * time.Second

// refusedAttempts is how many refusals in a row it takes until entries are skipped. More than one,
// because right after an installation the API server may not know a role or a policy yet.
const refusedAttempts = 7

// Run sends what the API server does not have yet, in order, until ctx ends, and deletes what people had
// deleted. While there is nothing to send it does nothing at all.
func (l *HostLog) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		}
		backoff := l.backoff
		for !l.drain(ctx) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(backoff.Step()):
			}
		}
	}
}

// drain sends until nothing is left, and says whether it got there. What cannot be deleted, as on a full
// disk, is tried again when the rest was sent.
func (l *HostLog) drain(ctx context.Context) bool {
	q := &queue{log: l}
	defer q.close()
	cleared := true
	for ctx.Err() == nil {
		if _, due := l.due(); cleared && len(due) > 0 {
			q.close() // its file is about to be another
			if err := l.clear(); err != nil {
				klog.ErrorS(err, "Could not delete what people had deleted of the patch log")
				cleared = false
			}
		}
		next, err := q.next()
		if errors.Is(err, io.EOF) {
			return cleared
		}
		if err != nil {
			klog.ErrorS(err, "Could not read the patch log")
			return false
		}
		if !l.send(ctx, next) {
			return false
		}
		if err := l.acknowledge(next.Sequence, q); err != nil {
			klog.ErrorS(err, "Could not store what the API server has of the patch log")
			return false
		}
	}
	return false
}

// send sends an entry, and says whether the API server has it or will never take it.
func (l *HostLog) send(ctx context.Context, next line) bool {
	attempt, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	err := l.sender.Write(attempt, next.Entry)
	switch {
	case err == nil:
		l.refused = 0
		return true
	case ctx.Err() != nil:
		return false
	case isRefusal(err):
		if l.refused++; mayChange(err) && l.refused < refusedAttempts {
			klog.V(1).InfoS("The API server refuses an entry of the patch log, trying again", "err", err, "sequence", next.Sequence)
			return false
		}
		klog.ErrorS(err, "The API server refuses an entry of the patch log, skipped it", "sequence", next.Sequence, "reason", next.Reason)
		return true
	default:
		klog.V(1).InfoS("Could not send the patch log, trying again", "err", err, "sequence", next.Sequence)
		return false
	}
}

// acknowledge stores that the API server has, or for ever refuses, all entries up to sequence, which is
// the one that q read last.
func (l *HostLog) acknowledge(sequence uint64, q *queue) error {
	if err := writeState(l.dir, cursorFile, cursor{Sequence: sequence}); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = sequence
	if q.first == l.first {
		l.sent = q.offset
	}
	l.prune()
	return nil
}

// isRefusal says that the API server understood the request and does not want it, so that trying again
// for ever would hold up all later entries.
func isRefusal(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	switch code := status.Status().Code; code {
	case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		return false
	default:
		return code >= 400 && code < 500
	}
}

// mayChange says that a refusal depends on what the cluster holds, and not on the entry alone.
func mayChange(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsNotFound(err)
}

// queue reads the entries that the API server does not have, oldest first, and holds one at a time.
type queue struct {
	log    *HostLog
	file   *os.File
	reader *bufio.Reader
	// first is the sequence of the file's first entry, offset is where the last line read ends, and
	// until is the last entry that the file had when it was opened.
	first  uint64
	offset int64
	until  uint64
	// after is the sequence of the last entry read.
	after uint64
}

func (q *queue) close() {
	if q.file != nil {
		_ = q.file.Close()
		q.file = nil
	}
}

// next returns the first entry that was not acknowledged, or io.EOF.
func (q *queue) next() (line, error) {
	for {
		if q.file == nil {
			if err := q.open(); err != nil {
				return line{}, err
			}
			continue
		}
		l, size, err := readLine(q.reader)
		q.offset += size
		switch {
		case err == nil && l.Sequence > q.until, errors.Is(err, io.EOF):
			// What came after the file was opened may not be on disk yet; it is read at the next opening.
			// Lines that could not be read must not make it begin again for ever.
			q.after = max(q.after, q.until)
			q.close()
		case err == nil && l.Sequence > q.after:
			q.after = l.Sequence
			return l, nil
		case err != nil && !errors.Is(err, errNotALine):
			return line{}, err
		}
	}
}

// open opens the file that holds the entry after the last one read, or returns io.EOF.
func (q *queue) open() error {
	l := q.log
	l.mu.Lock()
	defer l.mu.Unlock()
	q.after = max(q.after, l.acked)
	if q.after >= l.last {
		return io.EOF
	}
	name := currentFile
	q.first, q.offset, q.until = l.first, l.sent, l.last
	for i, first := range l.rotated {
		if l.endOf(i) > q.after {
			name = rotatedName(first)
			q.first, q.offset, q.until = first, 0, l.endOf(i)
			break
		}
	}
	file, err := os.Open(filepath.Join(l.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		klog.ErrorS(err, "A file of the patch log is gone, its entries were not sent", "from", q.after+1, "to", q.until)
		q.after = q.until
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := file.Seek(q.offset, io.SeekStart); err != nil {
		return errors.Join(err, file.Close())
	}
	q.file, q.reader = file, bufio.NewReader(file)
	return nil
}
