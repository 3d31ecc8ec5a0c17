package patchlog

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// Turn is a change of one of a policy's conditions.
type Turn struct {
	// Policy is the name of the PatchPolicy, and UID its UID.
	Policy string
	UID    types.UID
	// Before is the condition as it is stored before the change, nil if it is not there yet. It tells the entry from others:
	// it stays as it is until the change is stored, so that an entry that is written again is the same one.
	Before *metav1.Condition
}

// PolicySuspended says that nothing begins any more on a policy's nodes, such as "2 nodes: a, b".
func PolicySuspended(at time.Time, turn Turn, nodes string) Entry {
	return turn.entry(at, v1alpha1.EventPolicySuspended, false,
		"Suspended: nothing begins any more on "+nodes+"; a node that is at work finishes")
}

// PolicyResumed says that runs begin and go on again on a policy's nodes, such as "2 nodes: a, b".
func PolicyResumed(at time.Time, turn Turn, nodes string) Entry {
	return turn.entry(at, v1alpha1.EventPolicyResumed, false,
		"Resumed: runs begin and go on again on "+nodes+"; those that fell due meanwhile are not made up")
}

// PolicyNotReady says why a policy cannot be carried out; reason is one of the reasons of v1alpha1 and message says in a
// sentence what to mend.
func PolicyNotReady(at time.Time, turn Turn, reason, message string) Entry {
	return turn.entry(at, v1alpha1.EventPolicyNotReady, true, reason+": "+message)
}

// PolicyReady says that a policy can be carried out again; message is the sentence of its status.
func PolicyReady(at time.Time, turn Turn, message string) Entry {
	return turn.entry(at, v1alpha1.EventPolicyReady, false, "Ready again: "+message)
}

func (t Turn) entry(at time.Time, reason string, warning bool, message string) Entry {
	entry := Entry{Time: at, Reason: reason, Warning: warning, Message: message, Policy: t.Policy, PolicyUID: t.UID}
	// A change of the spec has a generation of its own, and one of the cluster a second of its own.
	var generation, second int64
	if t.Before != nil {
		generation, second = t.Before.ObservedGeneration, t.Before.LastTransitionTime.Unix()
	}
	entry.Key = fmt.Sprintf("%s/%s/%d/%d", reason, t.UID, generation, second)
	return entry
}

// NodeTakenOver says that another policy governs a node from now on. The assignment is the node's as it is stored before
// the change, which tells the entry from others.
func NodeTakenOver(at time.Time, assignment *v1alpha1.PatchAssignment, policy string) Entry {
	entry := regardingNode(at, Run{Policy: policy}, assignment.Name, v1alpha1.EventNodeTakenOver, false,
		fmt.Sprintf("Governed by the policy %s now, before by %s", policy, assignment.Spec.Policy))
	entry.Key = fmt.Sprintf("%s/%s/%d", entry.Reason, assignment.UID, assignment.Generation)
	return entry
}
