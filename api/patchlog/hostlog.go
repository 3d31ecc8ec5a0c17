package patchlog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"
)

// The files of a host's log, all in one directory. Rotated files carry the sequence of their first
// entry, so that one rename rotates and the name says where an entry is.
const (
	currentFile    = "patch.log"
	rotatedPrefix  = "patch-"
	rotatedSuffix  = ".log"
	rotatedPattern = rotatedPrefix + "%020d" + rotatedSuffix
	cursorFile     = "acknowledged"
	lockFile       = "lock"
)

// The bounds of a host's log. Rotated files go when there are more than keptFiles of them and the API
// server has all their entries; when it does not take entries for so long that there are maxFiles, the
// oldest go nevertheless, as a full disk would hurt the node more.
const (
	maxFileSize = 512 << 10
	keptFiles   = 15
	maxFiles    = 127
)

// maxMessage is how many bytes of a message the host's file takes.
const maxMessage = 32 << 10

// ErrInUse says that another process writes the same log.
var ErrInUse = errors.New("another process has the patch log open")

// HostLog is the patch log of one host: a file of JSON lines, rotated, and at the same time the queue of
// entries that the API server has not yet acknowledged. An entry that Append took reaches the API
// server, whatever happens to the agent or the API server in between. Its methods may be called at the
// same time from several goroutines.
type HostLog struct {
	dir     string
	sender  Sink
	echo    io.Writer
	limits  limits
	backoff wait.Backoff
	// wake has an element when there may be something to send.
	wake chan struct{}
	lock *os.File
	// refused is how many entries the API server refused since it took one; only Run uses it.
	refused int
	// onCleared is called by Run when entries were deleted; nil if nobody cares.
	onCleared func()

	mu       sync.Mutex
	file     *os.File
	size     int64
	sent     int64  // where in the current file the entries begin that are not acknowledged, or before
	first    uint64 // sequence of the current file's first entry, also if that is still to come
	last     uint64 // sequence of the last entry written
	acked    uint64 // sequence up to which the API server has all entries
	rotated  []uint64
	recorded map[string]struct{} // ids of the entries in the current file
	wanted   *clearing           // what people had deleted, by the assignment seen last; nil if that is nothing new
	done     done                // what of it was deleted
}

// limits are the bounds of the log; tests make them small.
type limits struct {
	fileSize        int64
	kept, unsentMax int
}

// Open opens the log in a directory, which it makes if need be. What a crash cut off in mid-line is
// removed; it had not been promised to anybody. Sender is where Run sends entries. Each entry also goes
// to echo, the pod's stdout, if that is not nil. Close it to let go of the directory: until then, Open
// by another process says ErrInUse.
func Open(dir string, sender Sink, echo io.Writer) (*HostLog, error) {
	return open(dir, sender, echo, limits{fileSize: maxFileSize, kept: keptFiles, unsentMax: maxFiles})
}

func open(dir string, sender Sink, echo io.Writer, limits limits) (*HostLog, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("making the directory of the patch log: %w", err)
	}
	lock, err := acquire(filepath.Join(dir, lockFile))
	if err != nil {
		return nil, err
	}
	log := &HostLog{
		dir: dir, sender: sender, echo: echo, limits: limits, lock: lock,
		backoff: defaultBackoff, wake: make(chan struct{}, 1),
	}
	if err := log.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the patch log: %w", err), log.Close())
	}
	log.signal()
	return log, nil
}

// acquire takes the lock of the log, which ends with the process at the latest.
func acquire(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of the patch log: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrInUse
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), file.Close())
	}
	return file, nil
}

// Close lets go of the files. Entries that were not sent yet are sent after the next Open.
func (l *HostLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, file := range []*os.File{l.file, l.lock} {
		if file != nil {
			errs = append(errs, file.Close())
		}
	}
	l.file, l.lock = nil, nil
	return errors.Join(errs...)
}

// Append keeps an entry: when it returns nil, the entry is on disk and will be sent. An entry that the
// current file already has is not written again. It does not wait for the API server. On an error the
// entry is not kept; the usual cause is a full disk.
func (l *HostLog) Append(entry Entry) error {
	if err := entry.validate(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return fmt.Errorf("appending to the patch log: %w", os.ErrClosed)
	}
	if _, ok := l.recorded[entry.id()]; ok {
		return nil
	}
	entry.Message = cut(strings.ToValidUTF8(entry.Message, "\uFFFD"), maxMessage)
	next := line{Sequence: l.last + 1, Entry: entry}
	data, err := next.encode()
	if err != nil {
		return err
	}
	if err := l.rotate(int64(len(data))); err != nil {
		klog.ErrorS(err, "Could not rotate the patch log, going on with the file there is")
	}
	if err := l.write(data); err != nil {
		return fmt.Errorf("appending to the patch log: %w", err)
	}
	l.last = next.Sequence
	l.recorded[entry.id()] = struct{}{}
	l.signal()
	if l.echo != nil {
		// The entry is kept; a pod whose stdout is gone can do without the echo.
		_ = printLine(l.echo, next)
	}
	return nil
}

// write adds data to the current file, or leaves the file as it was.
func (l *HostLog) write(data []byte) error {
	_, err := l.file.Write(data)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		return errors.Join(err, l.file.Truncate(l.size))
	}
	l.size += int64(len(data))
	return nil
}

// signal tells Run that there may be something to send.
func (l *HostLog) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}
