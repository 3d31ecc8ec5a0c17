package dnf

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// seed adds all recorded files whose names contain a word.
func seed(f *testing.F, word string) {
	f.Helper()
	names, err := filepath.Glob("testdata/dnf-*/*" + word + "*")
	if err != nil || len(names) == 0 {
		f.Fatalf("testdata has no %s: %v", word, err)
	}
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
}

// valid says whether what a parser returns can be an argument of dnf.
func valid(t *testing.T, name, version, architecture string) {
	t.Helper()
	if !rpm.ValidName(name) || !rpm.ValidVersion(version) || !rpm.ValidArchitecture(architecture) || strings.HasPrefix(name, "-") {
		t.Errorf("%q %q %q is no package", name, version, architecture)
	}
}

func FuzzParsePlan(f *testing.F) {
	seed(f, "plan")
	seed(f, "download")
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := parsePlan(text, text)
		if err != nil {
			return
		}
		for _, rows := range [][]row{p.install, p.upgrade, p.remove, p.other, p.skipped} {
			for _, r := range rows {
				valid(t, r.name, r.version, r.architecture)
				for _, old := range r.replaces {
					valid(t, old.name, old.version, old.architecture)
				}
			}
		}
		for which := range parseTransfers(text, text, p) {
			if name, version, architecture, ok := rpm.ParseNEVRA(which); !ok {
				t.Errorf("%q is no package", which)
			} else {
				valid(t, name, version, architecture)
			}
		}
	})
}

func FuzzParseOffers(f *testing.F) {
	seed(f, "offers")
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseOffers(text)
		if err != nil {
			return
		}
		for _, o := range all {
			valid(t, o.name, o.version, o.architecture)
			if o.size < 0 || strings.Contains(o.file, "/") {
				t.Errorf("it is %+v", o)
			}
		}
	})
}

func FuzzParseAdvisories(f *testing.F) {
	seed(f, "advisories")
	seed(f, "cves")
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, read := range []func([]byte) ([]advisory, error){parseAdvisories, parseAdvisoriesJSON} {
			all, err := read(text)
			for _, a := range all {
				if valid(t, a.name, a.version, a.architecture); err == nil && a.classification == "" {
					t.Errorf("it is %+v", a)
				}
			}
		}
		for _, read := range []func([]byte) ([]cve, error){parseCVEs, parseCVEsJSON} {
			all, _ := read(text)
			for _, c := range all {
				if valid(t, c.name, c.version, c.architecture); !strings.HasPrefix(c.id, "CVE-") {
					t.Errorf("it is %+v", c)
				}
			}
		}
		_, names := parseNeedsRestartingJSON(text)
		if !slices.IsSorted(names) {
			t.Errorf("%q are not sorted", names)
		}
	})
}

func FuzzParseInstall(f *testing.F) {
	seed(f, "install")
	f.Fuzz(func(t *testing.T, text []byte) {
		targets := []packages.Target{toy("toy-pre", "2.0-1"), toy("toy-post", "2.0-1"), toy("toy-a", "2.0-1")}
		for code := range 2 {
			got, _ := parseInstall(packages.Result{ExitCode: code, Stdout: text, Stderr: text}, targets)
			for _, failure := range slices.Concat(got.Failed, got.Warned) {
				if !slices.Contains(targets, failure.Target) || failure.Message == "" {
					t.Errorf("it is %+v", failure)
				}
			}
		}
	})
}

func FuzzParseRefresh(f *testing.F) {
	seed(f, "refresh")
	f.Fuzz(func(t *testing.T, text []byte) {
		seen := map[string]bool{}
		for _, failure := range parseRefreshFailures(text, text) {
			if failure.Reason == "" || seen[failure.Repository] {
				t.Errorf("it is %+v", failure)
			}
			seen[failure.Repository] = true
		}
		if got := parseRefresh(text, text); got.Changed > got.Indexes {
			t.Errorf("it is %+v", got)
		}
	})
}

func FuzzErrors(f *testing.F) {
	f.Add([]byte("metadata already locked by 123\n"))
	f.Add([]byte("At least 5MB more space needed on the / filesystem"))
	f.Fuzz(func(t *testing.T, text []byte) {
		result := packages.Result{ExitCode: 1, Stderr: text}
		if held := lockHeld(result); held != nil && held.PID < 0 {
			t.Errorf("it is %+v", held)
		}
		if full := diskFull(result); full != nil && full.Path == "" {
			t.Errorf("it is %+v", full)
		}
	})
}
