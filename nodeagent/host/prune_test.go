package host

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestPrune(t *testing.T) {
	h := newChroot(t)
	now := time.Now()
	for i := range 9 {
		dir := h.Path(runDir, "operation-"+strconv.Itoa(i), "scan", "0001-apt")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "stdout"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		when := now.Add(time.Duration(i) * time.Minute)
		if err := os.Chtimes(h.Path(runDir, "operation-"+strconv.Itoa(i)), when, when); err != nil {
			t.Fatal(err)
		}
	}
	left := func() string {
		entries, err := os.ReadDir(h.Path(runDir))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, strings.TrimPrefix(e.Name(), "operation-"))
		}
		return strings.Join(names, "")
	}
	if err := h.Prune("operation-0"); err != nil {
		t.Fatal(err)
	}
	if got := left(); got != "045678" {
		t.Errorf("Kept %s, want the current one and the newest five", got)
	}
	if err := os.Truncate(filepath.Join(h.Path(runDir, "operation-7"), "scan", "0001-apt", "stdout"), 65<<20); err != nil {
		t.Fatal(err)
	}
	if err := h.Prune("operation-0"); err != nil {
		t.Fatal(err)
	}
	if got := left(); got != "08" {
		t.Errorf("Kept %s, want the current one and the newest", got)
	}
}
