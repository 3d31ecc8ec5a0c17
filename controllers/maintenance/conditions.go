package maintenance

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apply "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// Reason of the conditions of nodes.
const Reason = "Nodepatch"

// Progress is how far a node's disruption is, as its conditions tell it.
type Progress string

const (
	// Idle is a node that nodepatch does not disrupt.
	Idle Progress = ""
	// Maintained is a node that is worked on and not drained.
	Maintained Progress = "Maintained"
	// Draining is a node that is being drained.
	Draining Progress = "Draining"
	// Drained is a node that was drained and is worked on.
	Drained Progress = "Drained"
)

// conditionTypes are the ones that Kubernetes reserves for maintenance.
var conditionTypes = []corev1.NodeConditionType{
	corev1.NodeMaintenanceInProgress, corev1.NodeDrainInProgress, corev1.NodeDrained,
}

// Conditions are what is to be applied to a Node's status, with
// v1alpha1.ManagerFieldOwner, so that its conditions tell the progress of a
// task's disruption; nil if they do. All that is not in the configuration and was
// applied before goes away. A condition that somebody else has set is left out.
func Conditions(node *corev1.Node, progress Progress, task string, now time.Time) *apply.NodeApplyConfiguration {
	wanted := desired(progress, task)
	status := apply.NodeStatus()
	changes := false
	for _, kind := range conditionTypes {
		message, want := wanted[kind]
		current, mine := find(node, kind), applied(node, kind)
		switch {
		case !want:
			changes = changes || mine
		case current != nil && !mine:
			// Somebody else's.
		default:
			since := metav1.NewTime(now)
			if current != nil && current.Status == corev1.ConditionTrue {
				since = current.LastTransitionTime
			}
			changes = changes || current == nil || current.Status != corev1.ConditionTrue || current.Reason != Reason || current.Message != message
			status = status.WithConditions(apply.NodeCondition().
				WithType(kind).WithStatus(corev1.ConditionTrue).WithReason(Reason).WithMessage(message).WithLastTransitionTime(since))
		}
	}
	if !changes {
		return nil
	}
	return apply.Node(node.Name).WithUID(node.UID).WithStatus(status)
}

// desired are the messages of the conditions that are to be True.
func desired(progress Progress, task string) map[corev1.NodeConditionType]string {
	if progress == Idle {
		return nil
	}
	wanted := map[corev1.NodeConditionType]string{
		corev1.NodeMaintenanceInProgress: "The node is patched by the task " + task + "; see kubectl describe patchtask " + task,
	}
	switch progress {
	case Draining:
		wanted[corev1.NodeDrainInProgress] = "Pods are moved away for the task " + task
	case Drained:
		wanted[corev1.NodeDrained] = "Pods were moved away for the task " + task
	}
	return wanted
}

func find(node *corev1.Node, kind corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == kind {
			return &node.Status.Conditions[i]
		}
	}
	return nil
}

// applied says whether nodepatch applied a condition.
func applied(node *corev1.Node, kind corev1.NodeConditionType) bool {
	for i := range node.ManagedFields {
		entry := &node.ManagedFields[i]
		if entry.Manager == v1alpha1.ManagerFieldOwner && entry.Operation == metav1.ManagedFieldsOperationApply &&
			entry.Subresource == "status" && entry.FieldsV1 != nil &&
			strings.Contains(entry.FieldsV1.GetRawString(), `\"type\":\"`+string(kind)+`\"`) {
			return true
		}
	}
	return false
}
