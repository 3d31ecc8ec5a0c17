package patchlog

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// Cleared says whether an entry is one that people had deleted by now, with nodepatch.io/clear-log: of the task, of the
// policy or of the node, and not later than the button was pressed. The clears are those of the entry's node.
func Cleared(entry Entry, clears []v1alpha1.LogClear) bool {
	return slices.ContainsFunc(clears, func(c v1alpha1.LogClear) bool {
		return !entry.Time.After(c.Until.Time) && (c.Task == "" || c.Task == entry.Task) && (c.Policy == "" || c.Policy == entry.Policy)
	})
}

// clearing is what people had deleted from a host's log, as its assignment says.
type clearing struct {
	node, policy string
	uid          types.UID
	clears       []v1alpha1.LogClear
}

// done is the file that says what was deleted: of the assignment with a UID, all clears up to a number.
type done struct {
	Assignment types.UID `json:"assignment,omitempty"`
	Number     int64     `json:"number,omitempty"`
}

// left are the clears that are not done, by their numbers.
func (c *clearing) left(done done) []v1alpha1.LogClear {
	if c == nil {
		return nil
	}
	var left []v1alpha1.LogClear
	for _, one := range c.clears {
		// An assignment that was made anew counts from the beginning.
		if done.Assignment != c.uid || one.Number > done.Number {
			left = append(left, one)
		}
	}
	slices.SortFunc(left, func(a, b v1alpha1.LogClear) int { return int(a.Number - b.Number) })
	return left
}
