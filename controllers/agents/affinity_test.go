package agents

import (
	"fmt"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/policy"
)

// selectors by what they say.
var selectors = map[string]*metav1.LabelSelector{
	"nil":          nil,
	"empty":        {},
	"label":        {MatchLabels: map[string]string{"pool": "workers"}},
	"two labels":   {MatchLabels: map[string]string{"pool": "workers", "zone": "b"}},
	"empty value":  {MatchLabels: map[string]string{"pool": ""}},
	"in":           expression("pool", metav1.LabelSelectorOpIn, "workers", "canary"),
	"not in":       expression("pool", metav1.LabelSelectorOpNotIn, "workers", "canary"),
	"exists":       expression("pool", metav1.LabelSelectorOpExists),
	"not there":    expression("pool", metav1.LabelSelectorOpDoesNotExist),
	"never":        {MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "pool", Operator: metav1.LabelSelectorOpExists}, {Key: "pool", Operator: metav1.LabelSelectorOpDoesNotExist}}},
	"label and in": {MatchLabels: map[string]string{"zone": "a"}, MatchExpressions: expression("pool", metav1.LabelSelectorOpIn, "canary").MatchExpressions},
	"same twice":   {MatchLabels: map[string]string{"pool": "workers"}, MatchExpressions: expression("pool", metav1.LabelSelectorOpIn, "workers").MatchExpressions},
	"os":           {MatchLabels: map[string]string{corev1.LabelOSStable: "linux"}},
	"windows":      {MatchLabels: map[string]string{corev1.LabelOSStable: "windows"}},
	"invalid":      expression("pool", "Near", "workers"),
	"in nothing":   expression("pool", metav1.LabelSelectorOpIn),
}

func expression(key string, operator metav1.LabelSelectorOperator, values ...string) *metav1.LabelSelector {
	return &metav1.LabelSelector{
		MatchExpressions: []metav1.LabelSelectorRequirement{{Key: key, Operator: operator, Values: values}},
	}
}

// nodes with every combination of the labels above, as a kubelet labels them.
func nodes() []corev1.Node {
	var nodes []corev1.Node
	for _, system := range []string{"linux", "windows"} {
		for _, pool := range []string{"-", "", "workers", "canary", "other"} {
			for _, zone := range []string{"-", "a", "b"} {
				labels := map[string]string{corev1.LabelOSStable: system}
				if pool != "-" {
					labels["pool"] = pool
				}
				if zone != "-" {
					labels["zone"] = zone
				}
				nodes = append(nodes, corev1.Node{ObjectMeta: metav1.ObjectMeta{
					Name: fmt.Sprintf("%s-%s-%s", system, pool, zone), Labels: labels,
				}})
			}
		}
	}
	return nodes
}

func policyOf(name string, selector *metav1.LabelSelector) v1alpha1.PatchPolicy {
	return v1alpha1.PatchPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.PatchPolicySpec{NodeSelector: selector},
	}
}

// matched asks the scheduler's own code which nodes the agents run on.
func matched(t *testing.T, policies []v1alpha1.PatchPolicy) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	terms := nodeSelectorTerms(policies)
	if len(terms) == 0 {
		return names // no DaemonSet
	}
	selector, err := nodeaffinity.NewNodeSelector(&corev1.NodeSelector{NodeSelectorTerms: terms})
	if err != nil {
		t.Fatalf("the scheduler refuses the terms: %v", err)
	}
	for _, node := range nodes() {
		if selector.Match(&node) {
			names[node.Name] = true
		}
	}
	return names
}

func governed(policies []v1alpha1.PatchPolicy) map[string]bool {
	names := map[string]bool{}
	for name := range policy.Govern(policies, nodes()).Governor {
		names[name] = true
	}
	return names
}

func TestAgentsRunOnExactlyTheSelectedNodes(t *testing.T) {
	for name, selector := range selectors {
		t.Run(name, func(t *testing.T) {
			policies := []v1alpha1.PatchPolicy{policyOf("a", selector)}
			if diff := cmp.Diff(governed(policies), matched(t, policies)); diff != "" {
				t.Errorf("nodes with a policy (-) and with an agent (+):\n%s", diff)
			}
		})
		for other, second := range selectors {
			t.Run(name+" or "+other, func(t *testing.T) {
				policies := []v1alpha1.PatchPolicy{policyOf("a", selector), policyOf("b", second)}
				if diff := cmp.Diff(governed(policies), matched(t, policies)); diff != "" {
					t.Errorf("nodes with a policy (-) and with an agent (+):\n%s", diff)
				}
			})
		}
	}
	// The table is of use only if some selectors select and some do not.
	if n := len(governed([]v1alpha1.PatchPolicy{policyOf("a", selectors["in"])})); n != 6 {
		t.Errorf("pool in (workers, canary) selects %d nodes and not the 6 of Linux", n)
	}
}

func TestTermsDoNotDependOnNamesAndOrder(t *testing.T) {
	workers, canary := selectors["label"], expression("pool", metav1.LabelSelectorOpIn, "x", "canary")
	same := expression("pool", metav1.LabelSelectorOpIn, "canary", "x")
	first := nodeSelectorTerms([]v1alpha1.PatchPolicy{policyOf("a", workers), policyOf("b", canary)})
	second := nodeSelectorTerms([]v1alpha1.PatchPolicy{
		policyOf("x", same), policyOf("y", workers), policyOf("z", canary), policyOf("none", selectors["invalid"]),
	})
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("the same nodes give other terms, which restarts every agent (-first +second):\n%s", diff)
	}
	if len(first) != 2 {
		t.Errorf("two selectors give %d terms", len(first))
	}
}

func TestAPolicyThatIsBeingDeletedHasNoAgents(t *testing.T) {
	going := policyOf("going", selectors["empty"])
	going.DeletionTimestamp = new(metav1.Now())
	if terms := nodeSelectorTerms([]v1alpha1.PatchPolicy{going}); len(terms) != 0 {
		t.Errorf("it has the terms %v", terms)
	}
}

func TestLabelsOfTheDaemonSetAreNotShared(t *testing.T) {
	before := maps.Clone(PodLabels)
	daemonSet(Options{Namespace: "ns", Image: "image"}, nil).WithLabels(map[string]string{"x": "y"})
	if diff := cmp.Diff(before, PodLabels); diff != "" {
		t.Errorf("a DaemonSet changed the labels of all (-before +after):\n%s", diff)
	}
}
