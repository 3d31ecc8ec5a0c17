package blockers

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// pods finds pods on a node that hold it back. Those that have ended do not.
func (c *Checker) pods(ctx context.Context, node string, blockers []v1alpha1.PodBlocker) *Block {
	for i := range blockers {
		blocker := &blockers[i]
		selector, err := metav1.LabelSelectorAsSelector(blocker.Selector)
		if err != nil {
			return blocked(v1alpha1.ReasonBlockerUnknown, "The selector of blockers.pods[%d] cannot be read: %v", i, err)
		}
		var pods corev1.PodList
		err = c.live.List(ctx, &pods, client.InNamespace(blocker.Namespace), client.MatchingLabelsSelector{Selector: selector},
			client.MatchingFieldsSelector{Selector: fields.AndSelectors(
				fields.OneTermEqualSelector("spec.nodeName", node),
				fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
				fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
			)})
		if err != nil {
			return blocked(v1alpha1.ReasonBlockerUnknown, "The pods of blockers.pods[%d] could not be listed: %s", i, plain(err))
		}
		var names []string
		for j := range pods.Items {
			names = append(names, pods.Items[j].Namespace+"/"+pods.Items[j].Name)
		}
		if len(names) > 0 {
			return blocked(v1alpha1.ReasonBlockedByPod, "Pods on the node hold it back until they have ended: %s", some(names))
		}
	}
	return nil
}

// conditions finds conditions of a node that hold it back. One that the node does
// not have is not there; one of which nobody knows how it stands might be.
func conditions(node *corev1.Node, blockers []v1alpha1.NodeConditionBlocker) *Block {
	for i := range blockers {
		want := blockers[i].Status
		if want == "" {
			want = corev1.ConditionTrue
		}
		for j := range node.Status.Conditions {
			condition := &node.Status.Conditions[j]
			if string(condition.Type) != blockers[i].Type {
				continue
			}
			switch condition.Status {
			case want:
				return blocked(v1alpha1.ReasonBlockedByCondition, "The node's condition %s is %s (%s)", condition.Type, want, condition.Reason)
			case corev1.ConditionUnknown:
				return blocked(v1alpha1.ReasonBlockerUnknown, "The node's condition %s is Unknown (%s), so that it might be %s",
					condition.Type, condition.Reason, want)
			}
		}
	}
	return nil
}
