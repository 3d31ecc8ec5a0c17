package patchlog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// pressedOn is an assignment that says what people had deleted.
func pressedOn(uid types.UID, clears ...v1alpha1.LogClear) *v1alpha1.PatchAssignment {
	return &v1alpha1.PatchAssignment{
		ObjectMeta: metav1.ObjectMeta{Name: "node-a", UID: uid},
		Spec:       v1alpha1.PatchAssignmentSpec{Policy: "workers", LogClears: clears},
	}
}

// until is as late as the entry with a number.
func until(number int64, i int) v1alpha1.LogClear {
	return v1alpha1.LogClear{Number: number, Until: metav1.NewMicroTime(numbered(i).Time)}
}

// mixed appends entries of two tasks and two policies in turn, as entry-1 of ham under workers, entry-2 of egg under
// workers, entry-3 of ham under others, entry-4 of egg under others and so on.
func mixed(t *testing.T, log *HostLog, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		entry := numbered(i)
		entry.Task = []string{"egg", "ham"}[i%2]
		entry.Policy = []string{"others", "workers", "workers", "others"}[i%4]
		if err := log.Append(entry); err != nil {
			t.Fatal(err)
		}
	}
}

// clearAll runs the log until it has done what an assignment says.
func clearAll(t *testing.T, log *HostLog, assignment *v1alpha1.PatchAssignment) {
	t.Helper()
	log.Clear(assignment)
	run(t, log, "the entries are deleted", func() bool { _, due := log.due(); return len(due) == 0 })
}

// entryKeys are the keys of a log's files without those of the entries that say that something was deleted.
func entryKeys(t *testing.T, dir string) []string {
	t.Helper()
	return slices.DeleteFunc(recordedKeys(t, dir), func(key string) bool { return strings.HasPrefix(key, v1alpha1.EventLogCleared) })
}

func TestClear(t *testing.T) {
	for name, tc := range map[string]struct {
		clear v1alpha1.LogClear
		keeps func(i int) bool
		says  string
	}{
		"a node": {
			until(1, 20), func(int) bool { return false }, "Deleted from the log on the host: all entries until 2026-",
		},
		"a task": {
			v1alpha1.LogClear{Number: 1, Task: "ham", Until: until(1, 20).Until}, func(i int) bool { return i%2 == 0 },
			"Deleted from the log on the host: the entries of the task ham until 2026-",
		},
		"a policy": {
			v1alpha1.LogClear{Number: 1, Policy: "workers", Until: until(1, 20).Until}, func(i int) bool { return i%4 == 3 || i%4 == 0 },
			"Deleted from the log on the host: the entries of the policy workers until 2026-",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			log := openTest(t, dir, &memory{}, limits{fileSize: 1500, kept: 50, unsentMax: 50})
			mixed(t, log, 1, 20)
			mixed(t, log, 21, 30)
			if len(log.rotated) < 3 {
				t.Fatalf("the entries are in %d files", len(log.rotated)+1)
			}
			clearAll(t, log, pressedOn("uid", tc.clear))
			var want []string
			for i := 1; i <= 30; i++ {
				if i > 20 || tc.keeps(i) {
					want = append(want, numbered(i).Key)
				}
			}
			if diff := cmp.Diff(want, entryKeys(t, dir)); diff != "" {
				t.Errorf("what is left differs (-want +got):\n%s", diff)
			}
			data, err := os.ReadFile(current(dir))
			if err != nil || strings.Count(string(data), tc.says) != 1 {
				t.Errorf("the log does not say once %q: %v, %s", tc.says, err, data)
			}

			before := recordedKeys(t, dir)
			log.Clear(pressedOn("uid", tc.clear))
			if err := log.Close(); err != nil {
				t.Fatal(err)
			}
			again := openTest(t, dir, &memory{}, roomy)
			mixed(t, again, 31, 33)
			clearAll(t, again, pressedOn("uid", tc.clear))
			if diff := cmp.Diff(append(before, numberedKeys(31, 33)...), recordedKeys(t, dir)); diff != "" {
				t.Errorf("what is left differs after the second time (-want +got):\n%s", diff)
			}
		})
	}
}

// Lines of others stay as they are, also what has no end yet.
func TestClearLeavesForeignLines(t *testing.T) {
	dir := t.TempDir()
	log := openTest(t, dir, &memory{}, limits{fileSize: 8 * maxLine, kept: 1, unsentMax: 1})
	for i := 1; i <= 6; i++ {
		appendNumbered(t, log, i, i)
		if err := appendTo(current(dir), fmt.Sprintf("foreign line %d, {\"sequence\": 1}\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(
		appendTo(current(dir), "\xff\x00"+strings.Repeat("long ", maxLine)+"\n"),
		os.WriteFile(filepath.Join(dir, "patch-of-mine.log"), []byte("my own\n"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	clearAll(t, log, pressedOn("uid", until(1, 4)))
	appendNumbered(t, log, 1, 6) // as an agent does that goes on with an operation
	data, err := os.ReadFile(current(dir))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(data), "foreign line"); n != 6 || !strings.Contains(string(data), strings.Repeat("long ", maxLine)+"\n") {
		t.Errorf("%d foreign lines are left: %.2000s", n, data)
	}
	if own, err := os.ReadFile(filepath.Join(dir, "patch-of-mine.log")); err != nil || string(own) != "my own\n" {
		t.Errorf("another's file: %q, %v", own, err)
	}
	for i := 1; i <= 6; i++ {
		if is := strings.Contains(string(data), fmt.Sprintf("\"entry-%d\"", i)); is != (i > 4) {
			t.Errorf("whether entry %d is there: %t", i, is)
		}
	}
}

// What was deleted before the API server had it is never sent, and all the rest is, each once.
func TestClearOfWhatWasNotSent(t *testing.T) {
	dir := t.TempDir()
	up := &memory{}
	log := openTest(t, dir, up, limits{fileSize: 2000, kept: 1, unsentMax: 50})
	appendNumbered(t, log, 1, 10)
	run(t, log, "ten are sent", func() bool { return log.acknowledged() == 10 })
	up.err = errors.New("connection refused")
	appendNumbered(t, log, 11, 40)
	clearAll(t, log, pressedOn("uid", until(1, 30)))
	up.err = nil
	run(t, log, "the rest is sent", func() bool { return slices.Contains(up.keys(), "entry-40") })
	appendNumbered(t, log, 41, 45)
	run(t, log, "what comes then is sent", func() bool { return slices.Contains(up.keys(), "entry-45") })
	want := slices.Concat(numberedKeys(1, 10), numberedKeys(31, 40), []string{"LogCleared/host/uid/1"}, numberedKeys(41, 45))
	if diff := cmp.Diff(want, up.keys()); diff != "" {
		t.Errorf("sent were (-want +got):\n%s", diff)
	}
}

// Whatever an agent left behind that was killed while it deleted, the next one comes to the same end.
func TestClearAfterACrash(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, dir string, log *HostLog){
		"a file half written": func(t *testing.T, dir string, _ *HostLog) {
			if err := os.WriteFile(current(dir)+".new", []byte(`{"sequence":1,`), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"one file of several": func(t *testing.T, dir string, log *HostLog) {
			file, _, err := rewrite(filepath.Join(dir, rotatedName(log.rotated[1])), []v1alpha1.LogClear{until(1, 20)})
			if err != nil || file == nil {
				t.Fatal(err)
			}
			_ = file.Close()
		},
		"all files, and no word of it": func(t *testing.T, _ string, log *HostLog) {
			if err := log.strip([]v1alpha1.LogClear{until(1, 20)}); err != nil {
				t.Fatal(err)
			}
		},
		"all but the note of what was done": func(t *testing.T, dir string, log *HostLog) {
			clearAll(t, log, pressedOn("uid", until(1, 20)))
			if err := os.Remove(filepath.Join(dir, doneFile)); err != nil {
				t.Fatal(err)
			}
		},
		"a note that cannot be read": func(t *testing.T, dir string, log *HostLog) {
			clearAll(t, log, pressedOn("uid", until(1, 20)))
			if err := os.WriteFile(filepath.Join(dir, doneFile), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			log := openTest(t, dir, &memory{}, limits{fileSize: 1500, kept: 50, unsentMax: 50})
			appendNumbered(t, log, 1, 25)
			leave(t, dir, log)
			if err := log.Close(); err != nil {
				t.Fatal(err)
			}
			next := openTest(t, dir, &memory{}, roomy)
			clearAll(t, next, pressedOn("uid", until(1, 20)))
			got := recordedKeys(t, dir)
			slices.Sort(got)
			want := append([]string{"LogCleared/host/uid/1"}, numberedKeys(21, 25)...)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("what is left differs (-want +got):\n%s", diff)
			}
			if _, err := os.Stat(current(dir) + ".new"); !errors.Is(err, fs.ErrNotExist) && name != "a file half written" {
				t.Errorf("a file is left over: %v", err)
			}
		})
	}
}

// An assignment that was made anew counts from the beginning, and clears that came while the agent was away are done
// together, each with a word.
func TestClearsOfAnotherAssignment(t *testing.T) {
	dir := t.TempDir()
	log := openTest(t, dir, &memory{}, roomy)
	appendNumbered(t, log, 1, 9)
	clearAll(t, log, pressedOn("first", until(7, 3)))
	clearAll(t, log, pressedOn("second", until(2, 6), v1alpha1.LogClear{Number: 1, Policy: "others", Until: until(1, 9).Until}))
	want := append(numberedKeys(7, 9), "LogCleared/host/first/7", "LogCleared/host/second/1", "LogCleared/host/second/2")
	if diff := cmp.Diff(want, recordedKeys(t, dir)); diff != "" {
		t.Errorf("what is left differs (-want +got):\n%s", diff)
	}
}

// Entries that come while others are deleted are neither lost nor sent twice.
func TestClearWhileEntriesCome(t *testing.T) {
	dir := t.TempDir()
	up := &memory{}
	log := openTest(t, dir, up, limits{fileSize: 3000, kept: 1000, unsentMax: 1000})
	const entries = 600
	run(t, log, "all were sent and all clears done", func() bool {
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := 1; i <= entries; i++ {
				if err := log.Append(numbered(i)); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			eventually(t, "ten entries are there", func() bool { log.mu.Lock(); defer log.mu.Unlock(); return log.last >= 10 })
			for n := int64(1); n <= 50; n++ {
				log.Clear(pressedOn("uid", v1alpha1.LogClear{Number: n, Task: "another", Until: metav1.NewMicroTime(time.Now().AddDate(10, 0, 0))}))
			}
			log.Clear(pressedOn("uid", until(51, 10)))
		})
		wg.Wait()
		eventually(t, "the queue is empty", func() bool {
			_, due := log.due()
			return len(due) == 0 && slices.Contains(up.keys(), numbered(entries).Key)
		})
		return true
	})
	isNote := func(key string) bool { return strings.HasPrefix(key, v1alpha1.EventLogCleared) }
	sent := slices.DeleteFunc(up.keys(), isNote)
	if got, want := sent[len(sent)-entries+10:], numberedKeys(11, entries); !slices.Equal(got, want) {
		t.Errorf("sent were %v", sent)
	}
	if diff := cmp.Diff(numberedKeys(11, entries), entryKeys(t, dir)); diff != "" {
		t.Errorf("what is left differs (-want +got):\n%s", diff)
	}
}

// A disk that does not take the new file leaves the old one, and what is logged later comes after it.
func TestClearThatIsNotOnDisk(t *testing.T) {
	dir := t.TempDir()
	log := openTest(t, dir, &memory{}, roomy)
	mixed(t, log, 1, 2)
	if err := os.Symlink(os.DevNull, current(dir)+".new"); err != nil { // it takes everything, and cannot be synced
		t.Fatal(err)
	}
	log.Clear(pressedOn("uid", until(1, 1)))
	if err := log.clear(); err == nil {
		t.Error("What is not on disk counts as deleted")
	}
	mixed(t, log, 3, 3)
	if diff := cmp.Diff(numberedKeys(1, 3), recordedKeys(t, dir)); diff != "" {
		t.Errorf("the log differs (-want +got):\n%s", diff)
	}
	if err := log.clear(); err != nil {
		t.Errorf("the second try: %v", err)
	}
	mixed(t, log, 4, 4)
	if diff := cmp.Diff(numberedKeys(2, 4), entryKeys(t, dir)); diff != "" {
		t.Errorf("what is left differs (-want +got):\n%s", diff)
	}
}

// The files of a log have a bound in bytes, also while the API server takes nothing.
func TestBoundInBytes(t *testing.T) {
	dir := t.TempDir()
	bounds := limits{fileSize: 64 << 10, kept: 2, unsentMax: 4}
	log := openTest(t, dir, &memory{err: errors.New("connection refused")}, bounds)
	for i := range 100 {
		entry := numbered(i)
		entry.Message = strings.Repeat("<é>", maxMessage)
		if err := log.Append(entry); err != nil {
			t.Fatal(err)
		}
	}
	total := int64(0)
	files, err := filepath.Glob(filepath.Join(dir, "patch*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if most := bounds.fileSize * int64(bounds.unsentMax+1); total > most || total < most/4 {
		t.Errorf("%d files have %d bytes, of %d at most", len(files), total, most)
	}
}

// current is the file that entries go to.
func current(dir string) string { return filepath.Join(dir, currentFile) }
