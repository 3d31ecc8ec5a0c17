package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

const (
	// namedPolicies is how many other policies a message names.
	namedPolicies = 5
	// messageLimit is the length of a message in bytes: what a person reads.
	messageLimit = 1024
)

// observation is everything that a policy's status follows from.
type observation struct {
	policy     *v1alpha1.PatchPolicy
	membership Membership
	// nodes, reports and assignments by the name of their node; a node may have
	// no report and no assignment.
	nodes       map[string]*corev1.Node
	reports     map[string]*v1alpha1.PatchReport
	assignments map[string]*v1alpha1.PatchAssignment
	// guardGaps is what keeps the agents away; see package guard.
	guardGaps []string
	now       time.Time
}

// verdict is what a check says of the condition Ready.
type verdict struct {
	reason, message string
	// stalled says that a person has to act.
	stalled bool
}

// checks stand in the order in which a person has to mend what they find; the
// first that finds something is what the policy says.
//
// A policy that governs nothing, because no node is there or stronger policies
// take them all, is valid and has done its work: it is Ready. Were it not,
// kstatus would have Flux and kubectl wait for it for ever.
var checks = []func(observation) (verdict, bool){
	invalidSelector,
	invalidSchedule,
	admissionMissing,
	noNodes,
	overruled,
}

// status is the policy's status as it should be. What others write in it stays.
func (o observation) status() v1alpha1.PatchPolicyStatus {
	status := *o.policy.Status.DeepCopy()
	status.ObservedGeneration = o.policy.Generation
	status.Nodes, status.Patches, status.OldestSecurity = o.totals()

	verdict := o.verdict()
	o.set(&status, v1alpha1.ConditionReady, !verdict.stalled, verdict.reason, verdict.message)
	o.set(&status, v1alpha1.ConditionStalled, verdict.stalled, verdict.reason, verdict.message)
	o.set(&status, v1alpha1.ConditionReconciling, false, verdict.reason, "The status is about the present spec")
	if conflicts := o.members().Conflicts; len(conflicts) > 0 {
		o.set(&status, v1alpha1.ConditionConflicting, true, v1alpha1.ReasonEqualPriority, o.conflictMessage(conflicts))
	} else {
		o.set(&status, v1alpha1.ConditionConflicting, false, v1alpha1.ReasonNoConflict,
			"No other policy of this priority selects the same nodes")
	}
	if o.policy.Spec.Suspend {
		o.set(&status, v1alpha1.ConditionSuspended, true, v1alpha1.ReasonPolicySuspended, "The policy starts nothing while spec.suspend is true")
	} else {
		o.set(&status, v1alpha1.ConditionSuspended, false, v1alpha1.ReasonNotSuspended, "The policy is not suspended")
	}
	return status
}

func (o observation) members() *Members {
	if members := o.membership.Policies[o.policy.Name]; members != nil {
		return members
	}
	return &Members{}
}

func (o observation) set(status *v1alpha1.PatchPolicyStatus, condition string, is bool, reason, message string) {
	value := metav1.ConditionFalse
	if is {
		value = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type: condition, Status: value, Reason: reason, Message: shorten(message),
		ObservedGeneration: o.policy.Generation, LastTransitionTime: metav1.NewTime(o.now),
	})
}

func (o observation) verdict() verdict {
	for _, check := range checks {
		if verdict, found := check(o); found {
			return verdict
		}
	}
	members := o.members()
	message := "Governs " + count(len(members.Governed), "node")
	if others := len(members.Selected) - len(members.Governed); others > 0 {
		message = fmt.Sprintf("Governs %d of the %s it selects; the others belong to %s",
			len(members.Governed), count(len(members.Selected), "node"), o.governors())
	}
	if o.policy.Spec.Suspend {
		message += "; suspended, so that it starts nothing"
	}
	return verdict{reason: v1alpha1.ReasonGoverning, message: message}
}

func invalidSelector(o observation) (verdict, bool) {
	err := o.members().Err
	if err == nil {
		return verdict{}, false
	}
	return verdict{
		reason: v1alpha1.ReasonInvalidSelector, stalled: true,
		message: fmt.Sprintf("spec.nodeSelector is not a selector, so that the policy selects no node: %v", err),
	}, true
}

func invalidSchedule(o observation) (verdict, bool) {
	faults := scheduleFaults(&o.policy.Spec, o.now)
	if len(faults) == 0 {
		return verdict{}, false
	}
	return verdict{
		reason: v1alpha1.ReasonInvalidSchedule, stalled: true, message: strings.Join(faults, "; "),
	}, true
}

func admissionMissing(o observation) (verdict, bool) {
	if len(o.guardGaps) == 0 {
		return verdict{}, false
	}
	return verdict{
		reason: v1alpha1.ReasonAdmissionMissing, stalled: true,
		message: strings.Join(o.guardGaps, "; ") +
			"; without it an agent could write other nodes' objects, so that no agents run: apply config/admission (kubectl apply -k config/admission)",
	}, true
}

func noNodes(o observation) (verdict, bool) {
	if len(o.members().Selected) > 0 {
		return verdict{}, false
	}
	message := "The cluster has no Linux node"
	if selector := o.policy.Spec.NodeSelector; selector != nil && len(selector.MatchLabels)+len(selector.MatchExpressions) > 0 {
		message = "No Linux node has the labels of spec.nodeSelector: " + metav1.FormatLabelSelector(selector)
	}
	return verdict{reason: v1alpha1.ReasonNoNodes, message: message}, true
}

func overruled(o observation) (verdict, bool) {
	members := o.members()
	if len(members.Governed) > 0 {
		return verdict{}, false
	}
	return verdict{
		reason: v1alpha1.ReasonOverruled,
		message: fmt.Sprintf("Governs none of the %s it selects, as policies that come before it do: %s",
			count(len(members.Selected), "node"), o.governors()),
	}, true
}

// governors names the policies that take nodes from this one.
func (o observation) governors() string {
	var names []string
	for _, node := range o.members().Selected {
		if governor := o.membership.Governor[node]; governor != o.policy.Name {
			names = append(names, governor)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return list(names[:min(len(names), namedPolicies)], len(names))
}

func (o observation) conflictMessage(conflicts []Conflict) string {
	var parts []string
	for _, conflict := range conflicts[:min(len(conflicts), namedPolicies)] {
		parts = append(parts, fmt.Sprintf("policy %s also has priority %d and selects %s",
			conflict.Policy, o.policy.Spec.Priority, list(conflict.Nodes, conflict.Count)))
	}
	if more := len(conflicts) - namedPolicies; more > 0 {
		parts = append(parts, fmt.Sprintf("so do %d more policies", more))
	}
	message := strings.Join(parts, "; ")
	return strings.ToUpper(message[:1]) + message[1:] +
		". The oldest of them comes first; give each a priority of its own"
}

// totals counts the governed nodes and their missing patches, and finds since
// when the oldest missing security patch has been known.
func (o observation) totals() (*v1alpha1.PolicyNodeCounts, *v1alpha1.PatchCounts, *metav1.Time) {
	members := o.members()
	nodes := &v1alpha1.PolicyNodeCounts{
		Selected: int32(len(members.Selected)), Governed: int32(len(members.Governed)),
	}
	patches := &v1alpha1.PatchCounts{}
	var oldest *metav1.Time
	for _, name := range members.Governed {
		if !Reachable(o.nodes[name], o.assignments[name]) {
			nodes.Unreachable++
		}
		report := o.reports[name]
		if report == nil {
			continue
		}
		if reboot := report.Status.Reboot; reboot != nil && reboot.State == v1alpha1.RebootRequired {
			nodes.RebootRequired++
		}
		counts := report.Status.Counts
		if counts != nil {
			add(patches, counts.PatchCounts)
			if first := counts.OldestSecurity; first != nil && (oldest == nil || first.Before(oldest)) {
				oldest = first.DeepCopy()
			}
		}
		switch {
		case Overdue(o.policy, report, o.now):
			nodes.Overdue++
		case report.Status.Scan != nil && report.Status.Scan.Time != nil:
			nodes.Scanned++
			if counts != nil && counts.Missing == 0 {
				nodes.Patched++
			}
		}
	}
	return nodes, patches, oldest
}

// nextOverdue is how long until the next scan grows too old, which nothing else
// would tell; zero if there is none.
func (o observation) nextOverdue() time.Duration {
	var next time.Duration
	for _, name := range o.members().Governed {
		if due := OverdueAt(o.policy, o.reports[name]); due.After(o.now) {
			next = sooner(next, due.Sub(o.now))
		}
	}
	return next
}

func add(total *v1alpha1.PatchCounts, counts v1alpha1.PatchCounts) {
	total.Missing += counts.Missing
	total.Security += counts.Security
	total.Bugfix += counts.Bugfix
	total.Enhancement += counts.Enhancement
	total.Other += counts.Other
	total.Held += counts.Held
	total.KeptBack += counts.KeptBack
	total.Phased += counts.Phased
	total.Excluded += counts.Excluded
	total.Downloaded += counts.Downloaded
	total.Installed += counts.Installed
	total.Failed += counts.Failed
	total.Blocked += counts.Blocked
}

// list joins names and says how many more of the total there are.
func list(names []string, total int) string {
	text := strings.Join(names, ", ")
	if more := total - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// shorten cuts a message at a rune within messageLimit.
func shorten(message string) string {
	const cut = "…"
	if len(message) <= messageLimit {
		return message
	}
	return strings.ToValidUTF8(message[:messageLimit-len(cut)], "") + cut
}
