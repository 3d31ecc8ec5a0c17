package patchlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// memory is a sink that keeps entries, or answers with an error while it has one.
type memory struct {
	mu      sync.Mutex
	err     error
	calls   int
	entries []Entry
}

func (m *memory) Write(_ context.Context, entry Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	if m.err != nil {
		return m.err
	}
	m.entries = append(m.entries, entry)
	return nil
}

func (m *memory) keys() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys []string
	for _, entry := range m.entries {
		keys = append(keys, entry.Key)
	}
	return keys
}

func numbered(i int) Entry {
	entry := ScanStarted(testTime.Add(time.Duration(i)*time.Second), testRun, "node-a", "apt")
	entry.Key = fmt.Sprintf("entry-%d", i)
	return entry
}

func numberedKeys(from, to int) []string {
	var keys []string
	for i := from; i <= to; i++ {
		keys = append(keys, numbered(i).Key)
	}
	return keys
}

var roomy = limits{fileSize: maxFileSize, kept: keptFiles, unsentMax: maxFiles}

// openTest opens a log that retries quickly.
func openTest(t *testing.T, dir string, sender Sink, limits limits) *HostLog {
	t.Helper()
	log, err := open(dir, sender, nil, limits)
	if err != nil {
		t.Fatal(err)
	}
	log.backoff = wait.Backoff{Duration: time.Millisecond, Factor: 1, Steps: 1}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return log
}

func appendNumbered(t *testing.T, log *HostLog, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		if err := log.Append(numbered(i)); err != nil {
			t.Fatal(err)
		}
	}
}

// run runs the log until the condition holds, and says how many seconds it had.
func run(t *testing.T, log *HostLog, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { log.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	eventually(t, what, condition)
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("30 seconds went by until: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (l *HostLog) acknowledged() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked
}

// recordedKeys reads what stands in the files of a log, oldest first.
func recordedKeys(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, rotatedPrefix+"*"+rotatedSuffix))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	var keys []string
	for _, path := range append(paths, filepath.Join(dir, currentFile)) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for text := range strings.Lines(string(data)) {
			var l line
			if err := json.Unmarshal([]byte(text), &l); err != nil {
				t.Fatalf("%s has the line %q: %v", path, text, err)
			}
			keys = append(keys, l.Key)
		}
	}
	return keys
}

func TestAppendKeepsAndEchoes(t *testing.T) {
	dir := t.TempDir()
	var echo bytes.Buffer
	log, err := Open(dir, &memory{}, &echo)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	entry := numbered(1)
	entry.Message = Change("a", "1", "2") + strings.Repeat("x", 2*maxMessage)
	for range 2 {
		if err := log.Append(entry); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Append(Entry{Reason: "Nothing"}); err == nil {
		t.Error("an entry that regards nothing is taken")
	}
	data, err := os.ReadFile(filepath.Join(dir, currentFile))
	if err != nil {
		t.Fatal(err)
	}
	if echo.String() != string(data) {
		t.Errorf("the echo is %q, the file %q", &echo, data)
	}
	want := `{"sequence":1,"time":"2026-11-22T04:30:01.123456Z","reason":"ScanStarted","message":"a 1 -> 2`
	if !strings.HasPrefix(string(data), want) || strings.Count(string(data), "\n") != 1 || len(data) > maxMessage+500 {
		t.Errorf("the file has %d bytes that begin %.200q", len(data), data)
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	first := openTest(t, dir, &memory{}, roomy)
	if _, err := Open(dir, &memory{}, nil); !errors.Is(err, ErrInUse) {
		t.Fatalf("the second agent gets %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := first.Append(numbered(1)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed log answers %v", err)
	}
	openTest(t, dir, &memory{}, roomy)
}

// What an agent of before left unsent is sent by the next one, once and in order, and what it had sent
// is not sent again.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	before := &memory{}
	log := openTest(t, dir, before, roomy)
	appendNumbered(t, log, 1, 3)
	run(t, log, "3 entries are acknowledged", func() bool { return log.acknowledged() == 3 })
	appendNumbered(t, log, 4, 6)
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}

	after := &memory{}
	log = openTest(t, dir, after, roomy)
	// The agent that died in mid-operation repeats what it had logged.
	appendNumbered(t, log, 6, 7)
	run(t, log, "7 entries are acknowledged", func() bool { return log.acknowledged() == 7 })
	if got, want := append(before.keys(), after.keys()...), numberedKeys(1, 7); !slices.Equal(got, want) {
		t.Errorf("sent were %v, want %v", got, want)
	}
	if got, want := recordedKeys(t, dir), numberedKeys(1, 7); !slices.Equal(got, want) {
		t.Errorf("the files have %v, want %v", got, want)
	}
}

// Every place at which a crash can leave the files.
func TestCrashes(t *testing.T) {
	tests := map[string]struct {
		crash    func(dir string) error
		wantKeys []string // sent after the restart, with entry-4 appended by then
	}{
		"in mid-line": {
			crash:    func(dir string) error { return appendTo(current(dir), `{"sequence":4,"time":"2026`) },
			wantKeys: numberedKeys(1, 4),
		},
		"a line of somebody else": {
			crash:    func(dir string) error { return appendTo(current(dir), "hello\n\x00\x00\n{}\n") },
			wantKeys: numberedKeys(1, 4),
		},
		"after the rename of a rotation": {
			crash:    func(dir string) error { return os.Rename(current(dir), filepath.Join(dir, rotatedName(1))) },
			wantKeys: numberedKeys(1, 4),
		},
		"before the rename of the cursor": {
			crash: func(dir string) error {
				return os.WriteFile(filepath.Join(dir, cursorFile+".new"), []byte(`{"sequ`), 0o600)
			},
			wantKeys: numberedKeys(1, 4),
		},
		"cursor destroyed": {
			crash:    func(dir string) error { return os.WriteFile(filepath.Join(dir, cursorFile), []byte("\x00\x00"), 0o600) },
			wantKeys: numberedKeys(1, 4),
		},
		"file removed by an administrator": {
			crash:    func(dir string) error { return os.Remove(current(dir)) },
			wantKeys: numberedKeys(4, 4),
		},
		"file removed, cursor left": {
			crash: func(dir string) error {
				return errors.Join(os.Remove(current(dir)), writeState(dir, cursorFile, cursor{Sequence: 3}))
			},
			wantKeys: numberedKeys(4, 4),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			log := openTest(t, dir, &memory{}, roomy)
			appendNumbered(t, log, 1, 3)
			if err := errors.Join(log.Close(), test.crash(dir)); err != nil {
				t.Fatal(err)
			}
			sent := &memory{}
			log = openTest(t, dir, sent, roomy)
			appendNumbered(t, log, 4, 4)
			run(t, log, "everything is sent", func() bool { return len(sent.keys()) >= len(test.wantKeys) })
			if got := sent.keys(); !slices.Equal(got, test.wantKeys) {
				t.Errorf("sent were %v, want %v", got, test.wantKeys)
			}
		})
	}
}

func appendTo(path, text string) error {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

// Files with entries that the API server does not have are kept beyond the number of files, up to a
// limit; the others go.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	down := &memory{err: errors.New("connection refused")}
	small := limits{fileSize: 600, kept: 1, unsentMax: 30} // two entries per file
	log := openTest(t, dir, down, small)
	appendNumbered(t, log, 1, 40)
	if got, want := recordedKeys(t, dir), numberedKeys(1, 40); !slices.Equal(got, want) {
		t.Fatalf("the files have %v, want %v", got, want)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}

	up := &memory{}
	log = openTest(t, dir, up, small)
	run(t, log, "40 entries are acknowledged", func() bool { return log.acknowledged() == 40 })
	if got, want := up.keys(), numberedKeys(1, 40); !slices.Equal(got, want) {
		t.Errorf("sent were %v, want %v", got, want)
	}
	if got, want := recordedKeys(t, dir), numberedKeys(37, 40); !slices.Equal(got, want) {
		t.Errorf("left are %v, want the last two files, %v", got, want)
	}

	up.err = errors.New("connection refused")
	appendNumbered(t, log, 41, 140)
	kept := recordedKeys(t, dir)
	if len(kept) < 60 || len(kept) > 62 || kept[len(kept)-1] != "entry-140" {
		t.Errorf("of 100 unsent entries %d are kept in 30 files: %v", len(kept), kept)
	}
	up.err = nil
	run(t, log, "the last entry is acknowledged", func() bool { return log.acknowledged() == 140 })
	if got := up.keys()[40:]; !slices.Equal(got, kept) {
		t.Errorf("sent were %v, want what was kept, %v", got, kept)
	}
}

// Appending goes on from several goroutines while Run sends and files rotate.
func TestConcurrency(t *testing.T) {
	dir := t.TempDir()
	sent := &memory{}
	log := openTest(t, dir, sent, limits{fileSize: 2000, kept: 2, unsentMax: 1000})
	const writers, each = 4, 100
	run(t, log, "all are acknowledged", func() bool {
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					if err := log.Append(numbered(w*each + i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		eventually(t, "the queue is empty", func() bool { return log.acknowledged() == writers*each })
		return true
	})
	got, want := sent.keys(), numberedKeys(0, writers*each-1)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d entries were sent, want each of %d once", len(got), len(want))
	}
}

// An agent that has nothing to say asks nothing of the API server.
func TestIdle(t *testing.T) {
	dir := t.TempDir()
	sent := &memory{}
	log := openTest(t, dir, sent, roomy)
	appendNumbered(t, log, 1, 1)
	run(t, log, "it is acknowledged", func() bool { return log.acknowledged() == 1 })
	calls := sent.calls
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	log.Run(ctx)
	if sent.calls != calls {
		t.Errorf("%d requests were made for nothing", sent.calls-calls)
	}
}

// A full disk costs the entries that come while it is full, and never the file.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("This test mounts a small file system and needs root")
		}
		t.Skip("This test mounts a small file system and needs root")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	log, err := open(dir, &memory{}, nil, roomy)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	kept := 0
	for err == nil {
		entry := numbered(kept + 1)
		entry.Message = strings.Repeat("x", 3000)
		if err = log.Append(entry); err == nil {
			kept++
		}
	}
	if kept < 10 || !strings.Contains(err.Error(), "no space left") {
		t.Fatalf("after %d entries: %v", kept, err)
	}
	// The administrator makes room: an old rotated file goes, and the log goes on.
	if err := os.Truncate(filepath.Join(dir, currentFile), 0); err != nil {
		t.Fatal(err)
	}
	if err := log.Append(numbered(kept + 1)); err != nil {
		t.Fatal(err)
	}
	if got, want := recordedKeys(t, dir), numberedKeys(kept+1, kept+1); !slices.Equal(got, want) {
		t.Errorf("the file has %v, want %v", got, want)
	}
}

// Whatever stands in the files, the log opens, takes entries and sends them.
func FuzzOpen(f *testing.F) {
	one, err := line{Sequence: 1, Entry: numbered(1)}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(one, []byte(`{"sequence":1}`))
	f.Add([]byte("{}\nhello"), []byte("{"))
	f.Add(append(one, one[:40]...), []byte(`{"sequence":18446744073709551615}`))
	f.Fuzz(func(t *testing.T, file, cursor []byte) {
		dir := t.TempDir()
		if err := errors.Join(
			os.WriteFile(filepath.Join(dir, currentFile), file, 0o600),
			os.WriteFile(filepath.Join(dir, cursorFile), cursor, 0o600),
		); err != nil {
			t.Fatal(err)
		}
		sent := &memory{}
		log := openTest(t, dir, sent, roomy)
		entry := ScanFinished(testTime, testRun, "node-a", v1alpha1.ReportCounts{}, v1alpha1.RebootNotRequired, time.Second)
		entry.Key = "new"
		if err := log.Append(entry); err != nil {
			t.Fatal(err)
		}
		if _, known := log.recorded[entry.id()]; !known {
			t.Fatal("the entry was not recorded")
		}
		run(t, log, "the entry is sent", func() bool { return slices.Contains(sent.keys(), "new") })
	})
}
