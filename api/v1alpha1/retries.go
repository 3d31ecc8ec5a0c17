package v1alpha1

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxRetrySummary is how many bytes a PatchRetry's summary may have.
const maxRetrySummary = 1024

// Summarize makes counted, blocked and summary say what patches says. Whoever
// changes the patches calls it before the status is written.
func (s *PatchRetryStatus) Summarize() {
	var blocked, failed []PatchAttempts
	for i := range s.Patches {
		if s.Patches[i].Blocked != "" {
			blocked = append(blocked, s.Patches[i])
		} else {
			failed = append(failed, s.Patches[i])
		}
	}
	s.Counted, s.Blocked = int32(len(s.Patches)), int32(len(blocked))
	s.Summary = "No failed attempt"
	var groups []string
	for _, group := range []struct {
		patches []PatchAttempts
		name    string
	}{{blocked, "blocked"}, {failed, "failed"}} {
		if len(group.patches) > 0 {
			groups = append(groups, fmt.Sprintf("%d %s: %s", len(group.patches), group.name, names(group.patches)))
		}
	}
	if len(groups) > 0 {
		s.Summary = cutSummary(strings.Join(groups, "; "))
	}
}

// names lists patches with their counts, by name and version: the order of the
// list in the object is not one that a reader can rely on.
func names(patches []PatchAttempts) string {
	slices.SortFunc(patches, func(a, b PatchAttempts) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
	words := make([]string, 0, len(patches))
	for i := range patches {
		words = append(words, patches[i].Words())
	}
	return strings.Join(words, ", ")
}

// Words names the patch with its counts, such as "ham 2.0 (11 downloads, 1 install)".
func (a *PatchAttempts) Words() string {
	var counts []string
	for _, count := range []struct {
		failures int32
		name     string
	}{{a.DownloadFailures, "download"}, {a.InstallFailures, "install"}} {
		switch {
		case count.failures == 1:
			counts = append(counts, "1 "+count.name)
		case count.failures > 1:
			counts = append(counts, fmt.Sprintf("%d %ss", count.failures, count.name))
		}
	}
	if len(counts) == 0 {
		return a.Name + " " + a.Version
	}
	return fmt.Sprintf("%s %s (%s)", a.Name, a.Version, strings.Join(counts, ", "))
}

// cutSummary cuts between two characters and marks the cut.
func cutSummary(text string) string {
	const mark = "…"
	if len(text) <= maxRetrySummary {
		return text
	}
	end := maxRetrySummary - len(mark)
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + mark
}
