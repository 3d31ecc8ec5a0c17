package buttons

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

func TestParseClearing(t *testing.T) {
	tests := map[string]clearing{
		"all":                {all: true},
		" all ":              {all: true},
		"all@2026-11-22":     {all: true, token: "2026-11-22"},
		"ham":                {names: []string{"ham"}},
		"ham,egg=1.1":        {names: []string{"ham", "egg=1.1"}},
		" ham , ,egg,ham,":   {names: []string{"ham", "egg"}},
		"ham,egg@t1":         {names: []string{"ham", "egg"}, token: "t1"},
		"ham@x86,egg@t1":     {names: []string{"ham@x86", "egg"}, token: "t1"},
		"ham@":               {names: []string{"ham"}},
		"ham,all":            {all: true},
		"":                   {},
		" , ,":               {},
		"@t1":                {token: "t1"},
		"libc6:i386=2.36-9+": {names: []string{"libc6:i386=2.36-9+"}},
	}
	for value, want := range tests {
		t.Run(value, func(t *testing.T) {
			if diff := cmp.Diff(want, parseClearing(value), cmp.AllowUnexported(clearing{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("it reads otherwise (-want +got):\n%s", diff)
			}
		})
	}
}

func TestClearing(t *testing.T) {
	tests := map[string]struct {
		value       string
		wantKept    []string
		wantSummary string
		wantAnswer  string
	}{
		"all": {
			value:       "all",
			wantSummary: "No failed attempt",
			wantAnswer:  "Counts cleared: egg 1.1 (4 installs), egg 1.2 (1 install), ham 2.0 (11 downloads), spam 3.0 (2 downloads)",
		},
		"a name is all its versions": {
			value:       "egg",
			wantKept:    []string{"spam", "ham"},
			wantSummary: "1 blocked: ham 2.0 (11 downloads); 1 failed: spam 3.0 (2 downloads)",
			wantAnswer:  "Counts cleared: egg 1.1 (4 installs), egg 1.2 (1 install)",
		},
		"a version alone": {
			value:       "egg=1.1@t1",
			wantKept:    []string{"spam", "ham", "egg"},
			wantSummary: "1 blocked: ham 2.0 (11 downloads); 2 failed: egg 1.2 (1 install), spam 3.0 (2 downloads)",
			wantAnswer:  "Counts cleared: egg 1.1 (4 installs)",
		},
		"unknown names are answered, and the rest is done": {
			value:       "ham,eggs,spam=4.0",
			wantKept:    []string{"spam", "egg", "egg"},
			wantSummary: "1 blocked: egg 1.1 (4 installs); 2 failed: egg 1.2 (1 install), spam 3.0 (2 downloads)",
			wantAnswer:  "Counts cleared: ham 2.0 (11 downloads); no counts for: eggs, spam=4.0",
		},
		"only unknown names": {
			value:       "eggs",
			wantKept:    []string{"spam", "ham", "egg", "egg"},
			wantSummary: "2 blocked: egg 1.1 (4 installs), ham 2.0 (11 downloads); 2 failed: egg 1.2 (1 install), spam 3.0 (2 downloads)",
			wantAnswer:  "No counts to clear; no counts for: eggs",
		},
		"a value that makes no sense": {
			value:       ",",
			wantKept:    []string{"spam", "ham", "egg", "egg"},
			wantSummary: "2 blocked: egg 1.1 (4 installs), ham 2.0 (11 downloads); 2 failed: egg 1.2 (1 install), spam 3.0 (2 downloads)",
			wantAnswer:  "No counts cleared: nodepatch.io/clear-retries takes all, or names of patches separated by commas",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			status := v1alpha1.PatchRetryStatus{Sequence: 18, Patches: []v1alpha1.PatchAttempts{
				{Name: "spam", Version: "3.0", DownloadFailures: 2},
				{Name: "ham", Version: "2.0", DownloadFailures: 11, Blocked: v1alpha1.BlockedAtDownload},
				{Name: "egg", Version: "1.2", InstallFailures: 1},
				{Name: "egg", Version: "1.1", InstallFailures: 4, Blocked: v1alpha1.BlockedAtInstall},
			}}
			if got := parseClearing(test.value).apply(&status); got != test.wantAnswer {
				t.Errorf("answer\n  %q, want\n  %q", got, test.wantAnswer)
			}
			var kept []string
			for _, patch := range status.Patches {
				kept = append(kept, patch.Name)
			}
			if diff := cmp.Diff(test.wantKept, kept); diff != "" {
				t.Errorf("kept others (-want +got):\n%s", diff)
			}
			if status.Summary != test.wantSummary || int(status.Counted) != len(test.wantKept) {
				t.Errorf("%d counted, summary\n  %q, want\n  %q", status.Counted, status.Summary, test.wantSummary)
			}
			if status.Sequence != 18 {
				t.Errorf("the agent's sequence is %d: it would count again", status.Sequence)
			}
		})
	}
}

func TestNothingToClear(t *testing.T) {
	status := v1alpha1.PatchRetryStatus{}
	if got := parseClearing("all").apply(&status); got != "No counts to clear" {
		t.Errorf("answer %q", got)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	status := v1alpha1.PatchRetryStatus{}
	var names []string
	for i := range 1000 {
		status.Patches = append(status.Patches, v1alpha1.PatchAttempts{Name: fmt.Sprintf("patch-%03d", i), Version: "1", InstallFailures: 1})
		names = append(names, fmt.Sprintf("patch-%03d", i), fmt.Sprintf("unknown-%03d%s", i, strings.Repeat("ü", 100)))
	}
	answer := parseClearing(strings.Join(names, ",")).apply(&status)
	if len(answer) > 1024 || !utf8.ValidString(answer) {
		t.Errorf("%d bytes, valid: %v", len(answer), utf8.ValidString(answer))
	}
	for _, want := range []string{"Counts cleared: patch-000 1 (1 install), patch-001", " and 975 more; no counts for: unknown-000üü", "ü… and 999 more"} {
		if !strings.Contains(answer, want) {
			t.Errorf("answer %q has no %q", answer, want)
		}
	}
}

func TestHandledFitsIntoTheStatus(t *testing.T) {
	if got := handled("all@t1"); got != "all@t1" {
		t.Errorf("remembers %q", got)
	}
	if got := handled(strings.Repeat("ü", 5000)); utf8.RuneCountInString(got) != 4096 {
		t.Errorf("remembers %d characters", utf8.RuneCountInString(got))
	}
}
