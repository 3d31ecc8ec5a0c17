package patchlog

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// numbers are those of the entries that Last returns, by their times, which numbered counts in seconds.
func numbers(t *testing.T, log *HostLog, limit int) (list []int) {
	t.Helper()
	last, err := log.Last(limit)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range last {
		list = append(list, int(entry.Time.Sub(testTime)/time.Second))
	}
	return list
}

func fromTo(from, to int) (list []int) {
	for i := from; i <= to; i++ {
		list = append(list, i)
	}
	return list
}

func TestLast(t *testing.T) {
	const limit = 20
	for name, tc := range map[string]struct {
		entries int
		files   int64 // bytes that a file has at most
		spoil   func(t *testing.T, dir string)
		want    []int
	}{
		"nothing":           {files: maxFileSize},
		"a few":             {entries: 3, files: maxFileSize, want: fromTo(1, 3)},
		"in one file":       {entries: 50, files: maxFileSize, want: fromTo(31, 50)},
		"over many files":   {entries: 50, files: 1000, want: fromTo(31, 50)},
		"one entry a file":  {entries: 50, files: 1, want: fromTo(31, 50)},
		"more than is read": {entries: 2000, files: maxFileSize, want: fromTo(1981, 2000)},
		"lines of others": {entries: 50, files: maxFileSize, want: fromTo(31, 50), spoil: func(t *testing.T, dir string) {
			if err := appendTo(current(dir), "hello\n{}\n"+`{"sequence":51,"time":"2026-11-22T05:30:01Z","reason":"`+strings.Repeat("x", 129)+
				`","node":"n","message":"m","key":"k"}`+"\n{\"seq"); err != nil {
				t.Fatal(err)
			}
		}},
		"a file is gone": {entries: 50, files: 1000, want: nil, spoil: func(t *testing.T, dir string) {
			paths, err := filepath.Glob(filepath.Join(dir, "patch*.log"))
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range paths {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, bounds := t.TempDir(), limits{fileSize: tc.files, kept: 100, unsentMax: 100}
			log := openTest(t, dir, &memory{}, bounds)
			appendNumbered(t, log, 1, tc.entries)
			if tc.spoil != nil {
				tc.spoil(t, dir)
			}
			if diff := cmp.Diff(tc.want, numbers(t, log, limit)); diff != "" {
				t.Errorf("the last entries differ (-want +got):\n%s", diff)
			}
			if tc.spoil != nil {
				return
			}
			// The next agent tells the same, and goes on.
			if err := log.Close(); err != nil {
				t.Fatal(err)
			}
			log = openTest(t, dir, &memory{}, bounds)
			appendNumbered(t, log, tc.entries+1, tc.entries+2)
			want := append(slices.Clone(tc.want), tc.entries+1, tc.entries+2)
			if diff := cmp.Diff(want[max(0, len(want)-limit):], numbers(t, log, limit)); diff != "" {
				t.Errorf("the last entries differ after a restart (-want +got):\n%s", diff)
			}
		})
	}
}

// However long the entries are, little is read and nothing is told in half.
func TestLastIsBounded(t *testing.T) {
	log := openTest(t, t.TempDir(), &memory{}, roomy)
	for i := 1; i <= 60; i++ {
		entry := numbered(i)
		entry.Message = strings.Repeat("ü", maxMessage/2)
		if err := log.Append(entry); err != nil {
			t.Fatal(err)
		}
	}
	// Four lines of 32 KiB and a bit more do not fit into what is read.
	if diff := cmp.Diff(fromTo(58, 60), numbers(t, log, 20)); diff != "" {
		t.Errorf("the last entries differ (-want +got):\n%s", diff)
	}
	last, err := log.Last(1)
	if err != nil || len(last) != 1 || len(last[0].Message) > MaxNote || !strings.HasSuffix(last[0].Message, "ü…") {
		t.Errorf("the last entry is %.2000v: %v", last, err)
	}
}

// What happened earlier is told earlier, whenever it was written.
func TestLastIsInTheOrderOfTime(t *testing.T) {
	log := openTest(t, t.TempDir(), &memory{}, roomy)
	for _, i := range []int{1, 3, 2, 4} {
		appendNumbered(t, log, i, i)
	}
	if diff := cmp.Diff(fromTo(2, 4), numbers(t, log, 3)); diff != "" {
		t.Errorf("the last entries differ (-want +got):\n%s", diff)
	}
}

// Who tells the last entries learns when some were deleted, once, and an agent after a crash finds out too.
func TestCleared(t *testing.T) {
	dir := t.TempDir()
	log := openTest(t, dir, &memory{}, roomy)
	calls := make(chan string, 10)
	log.OnCleared(func() { calls <- log.Cleared() })
	mixed(t, log, 1, 20)
	if got := log.Cleared(); got != "" {
		t.Errorf("before anything was deleted it is %q", got)
	}
	clear := v1alpha1.LogClear{Number: 1, Task: "ham", Until: until(1, 20).Until}
	clearAll(t, log, pressedOn("uid", clear))
	first := <-calls
	last, err := log.Last(20)
	if err != nil || len(last) != 11 || last[10].Reason != v1alpha1.EventLogCleared {
		t.Errorf("after the clear of ham %d entries are left: %v, %v", len(last), last, err)
	}
	clearAll(t, log, pressedOn("uid", clear))
	if len(calls) != 0 {
		t.Error("a clear that was done is told again")
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	log = openTest(t, dir, &memory{}, roomy)
	if got := log.Cleared(); got != first || first == "" {
		t.Errorf("after a restart it is %q, before %q", got, first)
	}
	clearAll(t, log, pressedOn("uid", clear, until(2, 30)))
	if got := log.Cleared(); got == first {
		t.Errorf("after another clear it is still %q", got)
	}
}
