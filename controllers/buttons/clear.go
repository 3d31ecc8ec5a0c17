// Package buttons acts on the annotations that people press once: what they ask
// for happens, the patch log says what it was, and the annotation is gone, so
// that it can be pressed again.
package buttons

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

const (
	// maxHandled is how many characters of a value a status remembers.
	maxHandled = 4096
	// Of the 1,024 bytes of an answer, these are for what was cleared and for
	// what was not found.
	clearedBytes = 640
	unknownBytes = 256
	// nameBytes is how much of one name an answer repeats.
	nameBytes = 128
)

// noClearing is the answer to a value that names nothing.
const noClearing = "No counts cleared: " + v1alpha1.ClearRetriesAnnotation + " takes all, or names of patches separated by commas"

// clearing is what a value of nodepatch.io/clear-retries asks for, on one node or
// on many.
type clearing struct {
	// all counts are to be cleared, or those of the patches named, each as NAME
	// or NAME=VERSION. Neither if the value makes no sense.
	all   bool
	names []string
	// token tells this press from an earlier one with the same names, if it has
	// to be told: Git puts the same annotation back for ever.
	token string
}

// parseClearing reads "all" or "ham,egg=1.1", and after the last @ a token.
func parseClearing(value string) clearing {
	var c clearing
	what := value
	if at := strings.LastIndex(value, "@"); at >= 0 {
		what, c.token = value[:at], strings.TrimSpace(value[at+1:])
	}
	for name := range strings.SplitSeq(what, ",") {
		if name = strings.TrimSpace(name); name != "" && !slices.Contains(c.names, name) {
			c.names = append(c.names, name)
		}
	}
	if slices.Contains(c.names, "all") {
		c.all, c.names = true, nil
	}
	return c
}

// apply takes the counts out of a node's status, and is the answer for the patch
// log.
func (c clearing) apply(status *v1alpha1.PatchRetryStatus) string {
	var kept, cleared []v1alpha1.PatchAttempts
	found := map[string]bool{}
	for _, patch := range status.Patches {
		matches := c.all
		for _, name := range c.names {
			if name == patch.Name || name == patch.Name+"="+patch.Version {
				matches, found[name] = true, true
			}
		}
		if matches {
			cleared = append(cleared, patch)
		} else {
			kept = append(kept, patch)
		}
	}
	status.Patches = kept
	status.Summarize()

	if !c.all && len(c.names) == 0 {
		return noClearing
	}
	answer := "No counts to clear"
	if len(cleared) > 0 {
		slices.SortFunc(cleared, func(a, b v1alpha1.PatchAttempts) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
		})
		words := make([]string, 0, len(cleared))
		for i := range cleared {
			words = append(words, cleared[i].Words())
		}
		answer = "Counts cleared: " + some(words, clearedBytes)
	}
	unknown := slices.DeleteFunc(slices.Clone(c.names), func(name string) bool { return found[name] })
	if len(unknown) > 0 {
		answer += "; no counts for: " + some(unknown, unknownBytes)
	}
	return answer
}

// handled is what the status remembers of a value.
func handled(value string) string {
	if utf8.RuneCountInString(value) <= maxHandled {
		return value
	}
	return string([]rune(value)[:maxHandled])
}

// some lists the first items that fit into a number of bytes, and counts the rest.
func some(items []string, most int) string {
	var text strings.Builder
	for i, item := range items {
		if len(item) > nameBytes {
			item = strings.ToValidUTF8(item[:nameBytes], "") + "…"
		}
		if i > 0 && text.Len()+len(item) > most {
			fmt.Fprintf(&text, " and %d more", len(items)-i)
			break
		}
		if i > 0 {
			text.WriteString(", ")
		}
		text.WriteString(item)
	}
	return text.String()
}
