package task

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// selection is which of the policy's nodes a task is about.
type selection struct {
	labels labels.Selector
	// names are the only nodes, if there are any here.
	names sets.Set[string]
}

// taskSelection narrows the policy's nodes; a task that says nothing about them
// takes them all.
func taskSelection(task *v1alpha1.PatchTask) (selection, error) {
	chosen := selection{labels: labels.Everything(), names: sets.New(task.Spec.Nodes...)}
	if task.Spec.NodeSelector == nil {
		return chosen, nil
	}
	var err error
	chosen.labels, err = metav1.LabelSelectorAsSelector(task.Spec.NodeSelector)
	return chosen, err
}

// has says whether a node of the policy is one of the task's.
func (s selection) has(node *corev1.Node) bool {
	return (s.names.Len() == 0 || s.names.Has(node.Name)) && s.labels.Matches(labels.Set(node.Labels))
}
