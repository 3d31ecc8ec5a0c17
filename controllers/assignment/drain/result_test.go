package drain

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestMessage(t *testing.T) {
	for name, test := range map[string]struct {
		result Result
		want   string
	}{
		"drained": {Result{}, "No pods are left to drain"},
		"evicted now and before": {
			Result{Remaining: 2, Evicted: []string{"shop/a"}, Ending: []string{"shop/b"}},
			"Waits for pods to go: shop/a, shop/b",
		},
		"blocked go first": {
			Result{Remaining: 2, Blocked: []string{"shop/z (PodDisruptionBudget web)"}, Ending: []string{"shop/b"}},
			"Waits for pods to go: shop/z (PodDisruptionBudget web), shop/b",
		},
		"not asked for yet": {
			Result{Remaining: 30, Evicted: []string{"a/1", "a/2", "a/3", "a/4", "a/5"}},
			"Waits for pods to go: a/1, a/2, a/3, a/4 and 26 more",
		},
		"none asked for yet": {Result{Remaining: 3}, "Waits for pods to go: 3"},
		"refused": {
			Result{Remaining: 3, Refused: []string{"shop/cache (emptyDir data: set drain.emptyDirData=Evict)"}, Ending: []string{"shop/b"}},
			"Not drained, as a person has to decide about shop/cache (emptyDir data: set drain.emptyDirData=Evict)",
		},
		"refused, many": {
			Result{Remaining: 9, Refused: []string{"a/1", "a/2", "a/3", "a/4", "a/5", "a/6"}},
			"Not drained, as a person has to decide about a/1, a/2, a/3, a/4 and 2 more",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.result.Message(); got != test.want {
				t.Errorf("Message is %q, want %q", got, test.want)
			}
		})
	}
}

// The message is written to a field that takes 1,024 bytes of UTF-8.
func TestMessageFits(t *testing.T) {
	long := strings.Repeat("ä", 400)
	got := Result{Remaining: 4, Blocked: []string{long, long, long, long}}.Message()
	if len(got) > maxMessage || len(got) < maxMessage-4 || !utf8.ValidString(got) {
		t.Errorf("Message has %d bytes, valid UTF-8: %t", len(got), utf8.ValidString(got))
	}
}
