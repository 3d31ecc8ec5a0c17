package agents

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// nodeSelectorTerms translates the selectors of the policies, of which a node
// has to match one. No term means no node. Policies that are being deleted, and
// selectors that are none, have no term.
//
// The terms are sorted and differ: a policy that is renamed, or a second one
// for the same nodes, must not restart every agent.
func nodeSelectorTerms(policies []v1alpha1.PatchPolicy) []corev1.NodeSelectorTerm {
	var terms []corev1.NodeSelectorTerm
	for i := range policies {
		policy := &policies[i]
		if !policy.DeletionTimestamp.IsZero() || policy.Spec.NodeSelector == nil {
			continue
		}
		if _, err := metav1.LabelSelectorAsSelector(policy.Spec.NodeSelector); err != nil {
			continue
		}
		terms = append(terms, nodeSelectorTerm(policy.Spec.NodeSelector))
	}
	slices.SortFunc(terms, func(a, b corev1.NodeSelectorTerm) int {
		return slices.CompareFunc(a.MatchExpressions, b.MatchExpressions, compareRequirements)
	})
	return slices.CompactFunc(terms, func(a, b corev1.NodeSelectorTerm) bool {
		return slices.CompareFunc(a.MatchExpressions, b.MatchExpressions, compareRequirements) == 0
	})
}

// nodeSelectorTerm translates a valid selector. The requirement of Linux also
// makes a term of an empty selector: a term without requirements would match no
// node, and an empty selector matches every one.
func nodeSelectorTerm(selector *metav1.LabelSelector) corev1.NodeSelectorTerm {
	requirements := []corev1.NodeSelectorRequirement{
		{Key: corev1.LabelOSStable, Operator: corev1.NodeSelectorOpIn, Values: []string{string(corev1.Linux)}},
	}
	for key, value := range selector.MatchLabels {
		requirements = append(requirements, corev1.NodeSelectorRequirement{
			Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{value},
		})
	}
	for _, expression := range selector.MatchExpressions {
		values := slices.Clone(expression.Values)
		slices.Sort(values)
		requirements = append(requirements, corev1.NodeSelectorRequirement{
			Key: expression.Key, Operator: operators[expression.Operator], Values: slices.Compact(values),
		})
	}
	slices.SortFunc(requirements, compareRequirements)
	return corev1.NodeSelectorTerm{
		MatchExpressions: slices.CompactFunc(requirements, func(a, b corev1.NodeSelectorRequirement) bool {
			return compareRequirements(a, b) == 0
		}),
	}
}

// operators of label selectors in the words of node affinity. NotIn also
// matches a node without the label, in both.
var operators = map[metav1.LabelSelectorOperator]corev1.NodeSelectorOperator{
	metav1.LabelSelectorOpIn:           corev1.NodeSelectorOpIn,
	metav1.LabelSelectorOpNotIn:        corev1.NodeSelectorOpNotIn,
	metav1.LabelSelectorOpExists:       corev1.NodeSelectorOpExists,
	metav1.LabelSelectorOpDoesNotExist: corev1.NodeSelectorOpDoesNotExist,
}

func compareRequirements(a, b corev1.NodeSelectorRequirement) int {
	return cmp.Or(
		strings.Compare(a.Key, b.Key),
		strings.Compare(string(a.Operator), string(b.Operator)),
		slices.Compare(a.Values, b.Values),
	)
}
