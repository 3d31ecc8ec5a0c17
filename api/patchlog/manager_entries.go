package patchlog

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// RunFinished says that a download or a deployment was done on all its nodes; sentence is that of the
// task's status, with the numbers.
func RunFinished(at time.Time, run Run, sentence string, took time.Duration) Entry {
	return regardingTask(at, run, v1alpha1.EventTaskFinished, false, fmt.Sprintf("Done in %s: %s", round(took), sentence))
}

// RunFailed says that a download or a deployment ended with nodes that failed or stayed away, or was cut
// short; sentence is that of the task's status, with the numbers.
func RunFailed(at time.Time, run Run, sentence, cause string) Entry {
	return regardingTask(at, run, v1alpha1.EventTaskFailed, true, sentence+": "+cause)
}

// PatchesPinned says what the first wave of a run has installed, and with it what the others install.
func PatchesPinned(at time.Time, run Run, message string) Entry {
	return regardingTask(at, run, v1alpha1.EventPatchesPinned, false, message)
}

// RetriesCleared answers a person who cleared counts of a node's PatchRetry. The message is the answer; uid is
// the PatchRetry's and clears how often its counts were cleared, this time among them: each answer is an entry
// of its own, however often it is written. Policy governs the node, and is empty if none does.
func RetriesCleared(at time.Time, node, policy string, uid types.UID, clears int64, message string) Entry {
	entry := regardingNode(at, Run{Policy: policy}, node, v1alpha1.EventRetriesCleared, false, message)
	entry.Key = fmt.Sprintf("%s/%s/%d", entry.Reason, uid, clears)
	return entry
}
