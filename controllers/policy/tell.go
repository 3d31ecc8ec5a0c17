package policy

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// namedNodes is how many nodes an entry of the patch log names.
const namedNodes = 5

// keep brings a policy's status up to date. What turned in it goes into the patch
// log first: from the status on it is no news any more, and a manager that dies in
// between writes the same entry again.
func (r *Reconciler) keep(ctx context.Context, seen observation) error {
	status := seen.status()
	for _, entry := range seen.news(status) {
		if err := r.Log.Write(ctx, entry); err != nil {
			return err
		}
	}
	return r.write(ctx, seen.policy, status)
}

// news are the entries for what a new status says otherwise than the stored one.
// That a new policy is Ready, or not suspended, is none.
func (o observation) news(status v1alpha1.PatchPolicyStatus) []patchlog.Entry {
	var entries []patchlog.Entry
	if turn, is := o.turn(status, v1alpha1.ConditionSuspended, metav1.ConditionTrue); is != nil {
		if is.Status == metav1.ConditionTrue {
			entries = append(entries, patchlog.PolicySuspended(o.now, turn, o.concerned()))
		} else {
			entries = append(entries, patchlog.PolicyResumed(o.now, turn, o.concerned()))
		}
	}
	if turn, is := o.turn(status, v1alpha1.ConditionReady, metav1.ConditionFalse); is != nil {
		if is.Status == metav1.ConditionFalse {
			entries = append(entries, patchlog.PolicyNotReady(o.now, turn, is.Reason, is.Message))
		} else {
			entries = append(entries, patchlog.PolicyReady(o.now, turn, is.Message))
		}
	}
	return entries
}

// turn is how a condition becomes what is worth telling, or ceases to be; is is
// nil if it does neither.
func (o observation) turn(status v1alpha1.PatchPolicyStatus, kind string, worth metav1.ConditionStatus) (turn patchlog.Turn, is *metav1.Condition) {
	before, is := meta.FindStatusCondition(o.policy.Status.Conditions, kind), meta.FindStatusCondition(status.Conditions, kind)
	if was := before != nil && before.Status == worth; was == (is.Status == worth) {
		return patchlog.Turn{}, nil
	}
	return patchlog.Turn{Policy: o.policy.Name, UID: o.policy.UID, Before: before}, is
}

// concerned names the governed nodes, such as "2 nodes: a, b".
func (o observation) concerned() string {
	governed := o.members().Governed
	if len(governed) == 0 {
		return "no node, as it governs none now"
	}
	return fmt.Sprintf("%s: %s", count(len(governed), "node"), list(governed[:min(len(governed), namedNodes)], len(governed)))
}
