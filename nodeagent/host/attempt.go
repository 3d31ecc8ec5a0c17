package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// runDir holds a directory per operation, and in it one per command that was started.
const runDir = "run"

// maxOutput bounds what is read of each of a command's output files, in bytes.
const maxOutput = 32 << 20

// wrapper is the fixed script that runs every command: /bin/sh wrapper DIRECTORY COMMAND…. Data reaches it only as
// arguments, and the status is written, synced and renamed, so that it is never half there.
//
// It is a file, and compares its arguments to the directory's, because systemd may read them back wrongly: a daemon-reload
// or re-exec between the request and the start makes it load the unit from the file that it wrote itself, and systemd 252
// does not understand its own quoting of $ and ; there. In that case nothing is run.
//
// The output is opened with noclobber (-C): it is there if, and only if, the command was started, and a start that is
// repeated because its answer was lost does not run it twice.
//
// The wrapper succeeds once the status is stored, whatever it is: a command that fails must not leave a failed unit, which
// makes a host "degraded".
//
// What a transaction printed is synced too, as it may be read after a reboot that waited for it.
const wrapper = `# Runs one command for the nodepatch agent. It is written anew when the agent starts.
set -C
dir=$1
shift
IFS= read -r arguments <"$dir/arguments" && [ "$*" = "$arguments" ] || exit 75
exec </dev/null >"$dir/stdout" 2>"$dir/stderr" 3>"$dir/status"
"$@"
code=$?
[ ! -e "$dir/transaction" ] || sync "$dir/stdout" "$dir/stderr" "$dir/status"
echo $code >"$dir/exit.tmp" && sync "$dir/exit.tmp" && mv "$dir/exit.tmp" "$dir/exit"
`

const wrapperFile = "wrapper"

// attempt is one start of one command: a directory on the host, and a unit of the same life.
type attempt struct {
	record
	path string // the directory, in the agent's mount namespace
	host string // the directory, as the host sees it
}

// record is what the directory says about itself, for the next agent and for people who look at it.
type record struct {
	Name    string    `json:"name"`
	Argv    []string  `json:"argv"`
	Unit    string    `json:"unit"`
	BootID  string    `json:"bootID"`
	Started time.Time `json:"started"`
	// Transaction is that of packages.Command.
	Transaction bool `json:"transaction,omitempty"`
}

const recordFile = "command.json"

// newAttempt makes the directory of a command that is about to be started.
func newAttempt(path, hostPath string, r record) (*attempt, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("create the command's directory: %w", err)
	}
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode the command's record: %w", err)
	}
	if err := storeRecord(path, b, r.Transaction); err != nil {
		return nil, fmt.Errorf("write the command's record: %w", err)
	}
	if r.Transaction {
		if err := os.WriteFile(filepath.Join(path, "transaction"), nil, 0o600); err != nil {
			return nil, fmt.Errorf("mark the command as a transaction: %w", err)
		}
	}
	arguments := strings.Join(r.Argv, " ") + "\n"
	if err := os.WriteFile(filepath.Join(path, "arguments"), []byte(arguments), 0o600); err != nil {
		return nil, fmt.Errorf("write the command's arguments: %w", err)
	}
	return &attempt{record: r, path: path, host: hostPath}, nil
}

// storeRecord writes the record of a command. That of a transaction is on disk, with all directories that lead to it, before
// the transaction starts: after a power cut nobody else would know that it was cut off.
func storeRecord(path string, content []byte, durable bool) error {
	file := filepath.Join(path, recordFile)
	if !durable {
		return os.WriteFile(file, content, 0o600)
	}
	if err := Replace(file, content); err != nil {
		return err
	}
	for range 3 { // those of the step, of the operation and of all operations
		path = filepath.Dir(path)
		if err := syncDir(path); err != nil {
			return err
		}
	}
	return nil
}

// openAttempt reads back the directory of a command that an earlier agent was about to start, or started.
func openAttempt(path, hostPath string) (*attempt, error) {
	b, err := os.ReadFile(filepath.Join(path, recordFile))
	if err != nil {
		return nil, fmt.Errorf("read the command's record: %w", err)
	}
	a := &attempt{path: path, host: hostPath}
	if err := json.Unmarshal(b, &a.record); err != nil {
		return nil, fmt.Errorf("decode %s: %w", filepath.Join(path, recordFile), err)
	}
	return a, nil
}

// started says whether the command was run at all; if not, it may be started again in another attempt.
func (a *attempt) started() (bool, error) {
	_, err := os.Lstat(filepath.Join(a.path, "stdout"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// exitCode returns the stored exit status; ok is false while there is none.
func (a *attempt) exitCode() (code int, ok bool, err error) {
	b, err := os.ReadFile(filepath.Join(a.path, "exit"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read the exit status: %w", err)
	}
	code, err = strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, false, fmt.Errorf("exit status in %s: %w", filepath.Join(a.path, "exit"), err)
	}
	return code, true, nil
}

// output reads one of the output files. A larger file is an error and not a shorter output: half a list of patches
// would be a wrong report.
func (a *attempt) output(name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(a.path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the command's output: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the command's output: %w", err)
	}
	if info.Size() > maxOutput {
		return nil, &OutputTooLargeError{Command: a.Name, File: filepath.Join(a.host, name), Size: info.Size()}
	}
	b := make([]byte, info.Size())
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("read the command's output: %w", err)
	}
	return b[:n], nil
}

// InterruptedError says that a command ended without leaving a result: it was killed, the host went down under it, or it
// could not be started at all.
type InterruptedError struct {
	Command string
	Reason  string
	// NotStarted: it did nothing at all.
	NotStarted bool
	// Transaction is that of packages.Command.
	Transaction bool
}

func (e *InterruptedError) Error() string {
	return fmt.Sprintf("%s was interrupted: %s", e.Command, e.Reason)
}

// UnavailableError says that the host could not be made to run a command, or be asked about it.
type UnavailableError struct {
	Command string
	Err     error
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("%s cannot be run on the host: %v", e.Command, e.Err)
}

func (e *UnavailableError) Unwrap() error { return e.Err }

// OutputTooLargeError says that a command printed more than is reasonable; the file stays on the host for a while.
type OutputTooLargeError struct {
	Command string
	File    string // on the host
	Size    int64  // bytes
}

func (e *OutputTooLargeError) Error() string {
	return fmt.Sprintf("%s printed %d MiB, more than the %d MiB that are read; the output is in %s on the node",
		e.Command, e.Size>>20, maxOutput>>20, e.File)
}
