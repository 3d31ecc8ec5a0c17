package v1alpha1

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestSummarize(t *testing.T) {
	tests := map[string]struct {
		patches     []PatchAttempts
		wantCounted int32
		wantBlocked int32
		wantSummary string
	}{
		"nothing failed": {wantSummary: "No failed attempt"},
		"a failed download": {
			patches:     []PatchAttempts{{Name: "ham", Version: "2.0", DownloadFailures: 1}},
			wantCounted: 1,
			wantSummary: "1 failed: ham 2.0 (1 download)",
		},
		"the blocked first, each by name and version": {
			patches: []PatchAttempts{
				{Name: "spam", Version: "3.0", DownloadFailures: 2},
				{Name: "ham", Version: "2.0", DownloadFailures: 11, Blocked: BlockedAtDownload},
				{Name: "egg", Version: "1.2", InstallFailures: 3},
				{Name: "egg", Version: "1.1", DownloadFailures: 1, InstallFailures: 4, Blocked: BlockedAtInstall},
			},
			wantCounted: 4,
			wantBlocked: 2,
			wantSummary: "2 blocked: egg 1.1 (1 download, 4 installs), ham 2.0 (11 downloads); " +
				"2 failed: egg 1.2 (3 installs), spam 3.0 (2 downloads)",
		},
		"only blocked": {
			patches:     []PatchAttempts{{Name: "ham", Version: "2.0", InstallFailures: 4, Blocked: BlockedAtInstall}},
			wantCounted: 1,
			wantBlocked: 1,
			wantSummary: "1 blocked: ham 2.0 (4 installs)",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			// What stood there before tells nothing about what is there now.
			status := PatchRetryStatus{Counted: 9, Blocked: 9, Summary: "of old", Patches: test.patches}
			status.Summarize()
			if status.Counted != test.wantCounted || status.Blocked != test.wantBlocked {
				t.Errorf("%d counted, %d blocked, want %d and %d", status.Counted, status.Blocked, test.wantCounted, test.wantBlocked)
			}
			if status.Summary != test.wantSummary {
				t.Errorf("summary\n  %q, want\n  %q", status.Summary, test.wantSummary)
			}
		})
	}
}

func TestSummaryIsCutBetweenCharacters(t *testing.T) {
	for shift := range 4 {
		status := PatchRetryStatus{}
		for i := range 1000 {
			status.Patches = append(status.Patches, PatchAttempts{
				Name: fmt.Sprintf("pa%cet-%03d", 'ü', i), Version: strings.Repeat("1", 1+shift), InstallFailures: 1,
			})
		}
		status.Summarize()
		if len(status.Summary) > 1024 || !utf8.ValidString(status.Summary) {
			t.Errorf("%d bytes, valid: %v", len(status.Summary), utf8.ValidString(status.Summary))
		}
		if !strings.HasPrefix(status.Summary, "1000 failed: paüet-000 1") || !strings.HasSuffix(status.Summary, "…") {
			t.Errorf("summary %q", status.Summary)
		}
	}
}
