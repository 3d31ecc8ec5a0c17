package policy

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// OverdueAt is when the node of a report becomes overdue: when its last scan, or
// if it was never scanned its report, is as old as the policy's maxScanAge. It is
// zero if the node never does, or has no report.
func OverdueAt(policy *v1alpha1.PatchPolicy, report *v1alpha1.PatchReport) time.Time {
	if policy.Spec.MaxScanAge == nil || report == nil {
		return time.Time{}
	}
	since := report.CreationTimestamp
	if scan := report.Status.Scan; scan != nil && scan.Time != nil {
		since = *scan.Time
	}
	return since.Add(policy.Spec.MaxScanAge.Duration)
}

// Overdue says whether the node of a report is overdue.
func Overdue(policy *v1alpha1.PatchPolicy, report *v1alpha1.PatchReport, now time.Time) bool {
	due := OverdueAt(policy, report)
	return !due.IsZero() && !now.Before(due)
}

// Reachable says whether a node is Ready and has an agent that is. Either may be nil.
func Reachable(node *corev1.Node, assignment *v1alpha1.PatchAssignment) bool {
	return node != nil && ready(node) && assignment != nil &&
		assignment.Status.Controller != nil && assignment.Status.Controller.Agent == v1alpha1.AgentReady
}

func ready(node *corev1.Node) bool {
	for i := range node.Status.Conditions {
		if condition := &node.Status.Conditions[i]; condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}
