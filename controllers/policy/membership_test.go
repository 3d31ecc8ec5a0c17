package policy

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

var epoch = metav1.NewTime(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC))

type policyOption func(*v1alpha1.PatchPolicy)

func priority(p int32) policyOption {
	return func(policy *v1alpha1.PatchPolicy) { policy.Spec.Priority = p }
}

func createdAfter(age time.Duration) policyOption {
	return func(policy *v1alpha1.PatchPolicy) {
		policy.CreationTimestamp = metav1.NewTime(epoch.Add(age))
	}
}

func deleting(policy *v1alpha1.PatchPolicy) { policy.DeletionTimestamp = &epoch }

func newPolicy(name string, matchLabels map[string]string, options ...policyOption) v1alpha1.PatchPolicy {
	policy := v1alpha1.PatchPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: epoch},
		Spec: v1alpha1.PatchPolicySpec{
			NodeSelector: &metav1.LabelSelector{MatchLabels: matchLabels},
			MaxScanAge:   &metav1.Duration{Duration: 720 * time.Hour},
		},
	}
	for _, option := range options {
		option(&policy)
	}
	return policy
}

func newNode(name string, labels map[string]string) corev1.Node {
	return corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
}

func TestGovern(t *testing.T) {
	pool := func(name string) map[string]string { return map[string]string{"pool": name} }
	everything := map[string]string(nil)
	tests := map[string]struct {
		policies     []v1alpha1.PatchPolicy
		nodes        []corev1.Node
		wantGovernor map[string]string
		wantPolicies map[string]*Members
	}{
		"no policy governs nothing": {
			nodes: []corev1.Node{newNode("a", nil)},
		},
		"an empty selector selects every node, in the order of names": {
			policies:     []v1alpha1.PatchPolicy{newPolicy("all", everything)},
			nodes:        []corev1.Node{newNode("b", nil), newNode("a", pool("x"))},
			wantGovernor: map[string]string{"a": "all", "b": "all"},
			wantPolicies: map[string]*Members{
				"all": {Selected: []string{"a", "b"}, Governed: []string{"a", "b"}},
			},
		},
		"a missing selector selects nothing": {
			policies:     []v1alpha1.PatchPolicy{{ObjectMeta: metav1.ObjectMeta{Name: "none"}}},
			nodes:        []corev1.Node{newNode("a", nil)},
			wantPolicies: map[string]*Members{"none": {}},
		},
		"nodes of another operating system are in no policy": {
			policies: []v1alpha1.PatchPolicy{newPolicy("all", everything)},
			nodes: []corev1.Node{
				newNode("linux", map[string]string{corev1.LabelOSStable: "linux"}),
				newNode("windows", map[string]string{corev1.LabelOSStable: "windows"}),
				newNode("silent", nil),
			},
			wantGovernor: map[string]string{"linux": "all", "silent": "all"},
			wantPolicies: map[string]*Members{
				"all": {Selected: []string{"linux", "silent"}, Governed: []string{"linux", "silent"}},
			},
		},
		"the highest priority governs, however old the other is": {
			policies: []v1alpha1.PatchPolicy{
				newPolicy("all", everything),
				newPolicy("workers", pool("workers"), priority(10), createdAfter(time.Hour)),
			},
			nodes:        []corev1.Node{newNode("a", pool("workers")), newNode("b", nil)},
			wantGovernor: map[string]string{"a": "workers", "b": "all"},
			wantPolicies: map[string]*Members{
				"all":     {Selected: []string{"a", "b"}, Governed: []string{"b"}},
				"workers": {Selected: []string{"a"}, Governed: []string{"a"}},
			},
		},
		"among equals the oldest governs, and both conflict": {
			policies: []v1alpha1.PatchPolicy{
				newPolicy("a-young", everything, createdAfter(time.Hour)),
				newPolicy("z-old", pool("workers")),
			},
			nodes:        []corev1.Node{newNode("a", pool("workers")), newNode("b", nil)},
			wantGovernor: map[string]string{"a": "z-old", "b": "a-young"},
			wantPolicies: map[string]*Members{
				"a-young": {
					Selected: []string{"a", "b"}, Governed: []string{"b"},
					Conflicts: []Conflict{{Policy: "z-old", Count: 1, Nodes: []string{"a"}}},
				},
				"z-old": {
					Selected: []string{"a"}, Governed: []string{"a"},
					Conflicts: []Conflict{{Policy: "a-young", Count: 1, Nodes: []string{"a"}}},
				},
			},
		},
		"among equals of one age the first name governs": {
			policies:     []v1alpha1.PatchPolicy{newPolicy("b", everything), newPolicy("a", everything)},
			nodes:        []corev1.Node{newNode("n", nil)},
			wantGovernor: map[string]string{"n": "a"},
			wantPolicies: map[string]*Members{
				"a": {
					Selected: []string{"n"}, Governed: []string{"n"},
					Conflicts: []Conflict{{Policy: "b", Count: 1, Nodes: []string{"n"}}},
				},
				"b": {
					Selected:  []string{"n"},
					Conflicts: []Conflict{{Policy: "a", Count: 1, Nodes: []string{"n"}}},
				},
			},
		},
		"a policy between two equals is no part of their conflict": {
			policies: []v1alpha1.PatchPolicy{
				newPolicy("low", everything, priority(-1)),
				newPolicy("b", everything),
				newPolicy("a", everything),
			},
			nodes:        []corev1.Node{newNode("n", nil)},
			wantGovernor: map[string]string{"n": "a"},
			wantPolicies: map[string]*Members{
				"a": {
					Selected: []string{"n"}, Governed: []string{"n"},
					Conflicts: []Conflict{{Policy: "b", Count: 1, Nodes: []string{"n"}}},
				},
				"b": {
					Selected:  []string{"n"},
					Conflicts: []Conflict{{Policy: "a", Count: 1, Nodes: []string{"n"}}},
				},
				"low": {Selected: []string{"n"}},
			},
		},
		"a conflict counts all nodes and names the first five": {
			policies: []v1alpha1.PatchPolicy{newPolicy("a", everything), newPolicy("b", pool("x"))},
			nodes: []corev1.Node{
				newNode("7", pool("x")), newNode("6", pool("x")), newNode("5", pool("x")),
				newNode("4", pool("x")), newNode("3", pool("x")), newNode("2", pool("x")),
			},
			wantGovernor: map[string]string{"2": "a", "3": "a", "4": "a", "5": "a", "6": "a", "7": "a"},
			wantPolicies: map[string]*Members{
				"a": {
					Selected:  []string{"2", "3", "4", "5", "6", "7"},
					Governed:  []string{"2", "3", "4", "5", "6", "7"},
					Conflicts: []Conflict{{Policy: "b", Count: 6, Nodes: []string{"2", "3", "4", "5", "6"}}},
				},
				"b": {
					Selected:  []string{"2", "3", "4", "5", "6", "7"},
					Conflicts: []Conflict{{Policy: "a", Count: 6, Nodes: []string{"2", "3", "4", "5", "6"}}},
				},
			},
		},
		"a policy that is being deleted governs nothing": {
			policies: []v1alpha1.PatchPolicy{
				newPolicy("going", everything, priority(5), deleting),
				newPolicy("staying", everything),
			},
			nodes:        []corev1.Node{newNode("n", nil)},
			wantGovernor: map[string]string{"n": "staying"},
			wantPolicies: map[string]*Members{
				"going":   {},
				"staying": {Selected: []string{"n"}, Governed: []string{"n"}},
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := Govern(test.policies, test.nodes)
			if diff := cmp.Diff(test.wantGovernor, got.Governor, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("governors (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.wantPolicies, got.Policies, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("policies (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGovernReportsAnInvalidSelector(t *testing.T) {
	broken := newPolicy("broken", nil, priority(10))
	broken.Spec.NodeSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "pool", Operator: "Near"}}
	got := Govern([]v1alpha1.PatchPolicy{broken, newPolicy("all", nil)}, []corev1.Node{newNode("n", nil)})
	if got.Policies["broken"].Err == nil {
		t.Error("a selector with an operator that does not exist was taken for valid")
	}
	if got.Governor["n"] != "all" {
		t.Errorf("the node is governed by %q, and not by the policy that is valid", got.Governor["n"])
	}
}
