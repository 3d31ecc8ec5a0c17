package drain

import (
	"fmt"
	"slices"
	"strings"
)

const (
	// maxNames bounds the pods that a message names.
	maxNames = 4
	// maxCause bounds what is said about one of them, in bytes.
	maxCause = 200
	// maxMessage is what the API takes for a message.
	maxMessage = 1024
)

// Result is what a pass found and did. The slices hold namespace/name of pods,
// most with a cause in parentheses, and are sorted.
type Result struct {
	// Remaining is the number of pods that the drain waits for, 0 when the node is
	// drained: those of Evicted, Blocked, Ending and Refused, and those that were
	// not asked for yet. Finished pods, and those that are left alone, are not
	// among them.
	Remaining int
	// Evicted are the pods whose eviction was accepted in this pass.
	Evicted []string
	// Blocked are the pods that may not be evicted now, such as
	// "shop/web-1 (PodDisruptionBudget web)".
	Blocked []string
	// Ending are the pods that are being deleted, and those that the drain waits
	// for, such as "shop/load (drain.waitForPods)".
	Ending []string
	// Refused are the pods about which a person has to decide, such as
	// "shop/cache (emptyDir data: set drain.emptyDirData=Evict)".
	Refused []string
}

// Message says in one sentence what the drain waits for. It names the pods that
// are blocked first.
func (r Result) Message() string {
	switch {
	case len(r.Refused) > 0:
		return limit("Not drained, as a person has to decide about "+some(r.Refused, len(r.Refused)), maxMessage)
	case r.Remaining <= 0:
		return "No pods are left to drain"
	}
	going := slices.Concat(r.Ending, r.Evicted)
	slices.Sort(going)
	return limit("Waits for pods to go: "+some(slices.Concat(r.Blocked, going), r.Remaining), maxMessage)
}

// some names the first pods and counts the others, of all.
func some(names []string, all int) string {
	named := names[:min(len(names), maxNames)]
	all = max(all, len(names))
	switch {
	case len(named) == 0:
		return fmt.Sprint(all)
	case all > len(named):
		return fmt.Sprintf("%s and %d more", strings.Join(named, ", "), all-len(named))
	}
	return strings.Join(named, ", ")
}

// limit cuts a text to a number of bytes, between two characters, with a mark.
func limit(text string, most int) string {
	const mark = "…"
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len(mark)], "") + mark
}
