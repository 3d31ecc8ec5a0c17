package patchlog

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// RunMissed says that runs of a policy's schedule did not begin when they were due. The message names the task and the
// run: it tells the entry from others.
func RunMissed(at time.Time, policy string, uid types.UID, message string) Entry {
	return Entry{
		Time: at, Reason: v1alpha1.EventRunMissed, Warning: true, Message: message, Policy: policy, PolicyUID: uid,
		Key: v1alpha1.EventRunMissed + "/" + string(uid) + "/" + message,
	}
}
