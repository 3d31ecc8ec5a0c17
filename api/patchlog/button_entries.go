package patchlog

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// Pressed is a press of a button: what it is on, and which of the presses there.
type Pressed struct {
	// Node is the name of the node, if the button is on its PatchReport.
	Node string
	// Task is the name of the PatchTask that the button is on, if it is on one.
	Task string
	// Policy is the name of the PatchPolicy that the button is on, or that governs what it is on; then it may be empty.
	Policy string
	// UID is that of the object with the button, and Number counts its presses: each is answered with an entry of its
	// own, however often that is written.
	UID    types.UID
	Number int64
}

// LogCleared answers a person who had entries of the patch log deleted.
func LogCleared(at time.Time, pressed Pressed, message string) Entry {
	return pressed.answer(at, v1alpha1.EventLogCleared, false, message)
}

// hostLogCleared says that a part of the log on a host was deleted because people wanted so. It belongs to no task: it is
// to stay.
func hostLogCleared(at time.Time, wanted *clearing, clear v1alpha1.LogClear) Entry {
	what := "all entries"
	switch {
	case clear.Task != "":
		what = "the entries of the task " + clear.Task
	case clear.Policy != "":
		what = "the entries of the policy " + clear.Policy
	}
	return Entry{
		Time: at, Reason: v1alpha1.EventLogCleared, Node: wanted.node, Policy: wanted.policy,
		Message: fmt.Sprintf("Deleted from the log on the host: %s until %s", what, clear.Until.UTC().Format(time.RFC3339)),
		Key:     fmt.Sprintf("%s/host/%s/%d", v1alpha1.EventLogCleared, wanted.uid, clear.Number),
	}
}

// PatchDataRequested answers a person who asked for fresh patch data.
func PatchDataRequested(at time.Time, pressed Pressed, message string) Entry {
	return pressed.answer(at, v1alpha1.EventPatchDataRequested, false, message)
}

// AllRetriesCleared answers a person who cleared counts on all nodes of a policy.
func AllRetriesCleared(at time.Time, pressed Pressed, message string) Entry {
	return pressed.answer(at, v1alpha1.EventRetriesCleared, false, message)
}

// ButtonRefused answers a person who pressed a button in vain; message says what to do instead.
func ButtonRefused(at time.Time, pressed Pressed, message string) Entry {
	return pressed.answer(at, v1alpha1.EventButtonRefused, true, message)
}

func (p Pressed) answer(at time.Time, reason string, warning bool, message string) Entry {
	entry := Entry{
		Time: at, Reason: reason, Warning: warning, Message: message, Node: p.Node, Task: p.Task, Policy: p.Policy,
		Key: fmt.Sprintf("%s/%s/%d", reason, p.UID, p.Number),
	}
	switch {
	case p.Node != "":
	case p.Task != "":
		entry.TaskUID = p.UID
	default:
		entry.PolicyUID = p.UID
	}
	return entry
}
