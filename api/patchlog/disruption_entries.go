package patchlog

import (
	"fmt"
	"time"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// NodeWaiting says for what a node waits that is ready to be disrupted; reason is one of the reasons of v1alpha1, and has
// one entry.
func NodeWaiting(at time.Time, run Run, node, reason, message string) Entry {
	entry := regardingNode(at, run, node, v1alpha1.EventNodeWaiting, false, "Ready, and waits ("+reason+"): "+message)
	entry.Key += "/" + reason
	return entry
}

// NodeAdmitted says that a node's disruption begins; message says what is to be done.
func NodeAdmitted(at time.Time, run Run, node, message string) Entry {
	return regardingNode(at, run, node, v1alpha1.EventNodeAdmitted, false, message)
}

// NodeCordoned says that no pod is scheduled to a node any more.
func NodeCordoned(at time.Time, run Run, node string) Entry {
	return regardingNode(at, run, node, v1alpha1.EventNodeCordoned, false, "No pod is scheduled to the node until it is done")
}

// DrainBlocked says which pods cannot be evicted now, each with its cause. Part tells the passes of a drain apart.
func DrainBlocked(at time.Time, run Run, node, part string, pods []string) []Entry {
	return packed(regardingNode(at, run, node, v1alpha1.EventDrainBlocked, true, ""), part, "Drain waits for pods that cannot be evicted now: ", pods)
}

// NodeDrained says how many pods a drain evicted, and how long it took.
func NodeDrained(at time.Time, run Run, node string, evicted int, took time.Duration) Entry {
	return regardingNode(at, run, node, v1alpha1.EventNodeDrained, false,
		fmt.Sprintf("%s evicted in %s", count(evicted, "pod", "pods"), round(took)))
}

// RebootRequired says why a node needs a reboot. Part tells the reboots of an operation apart, here and below.
func RebootRequired(at time.Time, run Run, node, part, why string) Entry {
	entry := regardingNode(at, run, node, v1alpha1.EventRebootRequired, false, "Reboot required: "+why)
	entry.Key += "/" + part
	return entry
}

// NodeRebooting says that a node's host was asked to reboot.
func NodeRebooting(at time.Time, run Run, node, part, why string) Entry {
	entry := regardingNode(at, run, node, v1alpha1.EventNodeRebooting, false, "Reboots: "+why)
	entry.Key += "/" + part
	return entry
}

// NodeRebooted says that a node is back, and how long its reboot took.
func NodeRebooted(at time.Time, run Run, node, part string, took time.Duration) Entry {
	entry := regardingNode(at, run, node, v1alpha1.EventNodeRebooted, false, "Back after "+round(took))
	entry.Key += "/" + part
	return entry
}

// HookSucceeded says that a hook's pod ran to completion; hook is its field's name, such as preDisrupt.
func HookSucceeded(at time.Time, run Run, node, hook string, took time.Duration) Entry {
	entry := regardingNode(at, run, node, v1alpha1.EventHookSucceeded, false, fmt.Sprintf("Hook %s succeeded in %s", hook, round(took)))
	entry.Key += "/" + hook
	return entry
}

// HookFailed says that a hook's pod failed, or did not end in time.
func HookFailed(at time.Time, run Run, node, hook, message string) Entry {
	entry := regardingNode(at, run, node, v1alpha1.EventHookFailed, true, "Hook "+hook+" failed: "+message)
	entry.Key += "/" + hook
	return entry
}

// NodeUncordoned says that pods may be scheduled to a node again.
func NodeUncordoned(at time.Time, run Run, node string) Entry {
	return regardingNode(at, run, node, v1alpha1.EventNodeUncordoned, false, "Pods may be scheduled to the node again")
}

// NodeDone says that a node went through its disruption, and how long that took from its admission.
func NodeDone(at time.Time, run Run, node string, took time.Duration) Entry {
	return regardingNode(at, run, node, v1alpha1.EventNodeDone, false, "In service again after "+round(took))
}

// NodeSkipped says why a node was left alone.
func NodeSkipped(at time.Time, run Run, node, message string) Entry {
	return regardingNode(at, run, node, v1alpha1.EventNodeSkipped, true, message)
}

// NodeFailed says why a node's disruption failed; reason is one of the reasons of v1alpha1.
func NodeFailed(at time.Time, run Run, node, reason, message string) Entry {
	return regardingNode(at, run, node, v1alpha1.EventNodeFailed, true, because(reason, message))
}

// NodeStopped says why the manager ended a node's disruption before it was done.
func NodeStopped(at time.Time, run Run, node, message string) Entry {
	return regardingNode(at, run, node, v1alpha1.EventNodeStopped, false, message)
}
