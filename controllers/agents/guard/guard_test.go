package guard

import (
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestGap(t *testing.T) {
	type (
		vap     = admissionv1.ValidatingAdmissionPolicy
		binding = admissionv1.ValidatingAdmissionPolicyBinding
	)
	ignore, fail, now := admissionv1.Ignore, admissionv1.Fail, metav1.Now()
	workers := &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "workers"}}
	rule := []admissionv1.NamedRuleWithOperations{{}}

	tests := map[string]struct {
		policy  func(*vap)
		binding func(*binding)
		noVAP   bool
		noBind  bool
		want    string
	}{
		"in place": {},
		"in place, as the API server fills it in": {
			policy: func(p *vap) {
				p.Spec.MatchConstraints.NamespaceSelector = &metav1.LabelSelector{}
				p.Spec.MatchConstraints.ObjectSelector = &metav1.LabelSelector{}
			},
			binding: func(b *binding) {
				b.Spec.MatchResources = &admissionv1.MatchResources{
					NamespaceSelector: &metav1.LabelSelector{}, ObjectSelector: &metav1.LabelSelector{},
				}
			},
		},
		"failurePolicy not given means Fail": {policy: func(p *vap) { p.Spec.FailurePolicy = nil }},
		"Warn beside Deny": {
			binding: func(b *binding) {
				b.Spec.ValidationActions = []admissionv1.ValidationAction{admissionv1.Audit, admissionv1.Deny}
			},
		},
		"no policy":               {noVAP: true, want: "does not exist"},
		"a policy on its way out": {policy: func(p *vap) { p.DeletionTimestamp = &now }, want: "does not exist"},
		"fails open":              {policy: func(p *vap) { p.Spec.FailurePolicy = &ignore }, want: "failurePolicy Ignore"},
		"validates nothing":       {policy: func(p *vap) { p.Spec.Validations = nil }, want: "no validations"},
		"policy for some objects": {
			policy: func(p *vap) { p.Spec.MatchConstraints.ObjectSelector = workers }, want: "leaves out some",
		},
		"policy with exceptions": {
			policy: func(p *vap) { p.Spec.MatchConstraints.ExcludeResourceRules = rule }, want: "leaves out some",
		},
		"no binding":               {noBind: true, want: "Binding guard does not exist"},
		"a binding on its way out": {binding: func(b *binding) { b.DeletionTimestamp = &now }, want: "does not exist"},
		"binding of another":       {binding: func(b *binding) { b.Spec.PolicyName = "x" }, want: `binds "x"`},
		"audit only": {
			binding: func(b *binding) { b.Spec.ValidationActions = []admissionv1.ValidationAction{admissionv1.Audit} },
			want:    "does not have Deny",
		},
		"binding with parameters": {
			binding: func(b *binding) { b.Spec.ParamRef = &admissionv1.ParamRef{Name: "x"} }, want: "paramRef",
		},
		"binding for some resources": {
			binding: func(b *binding) { b.Spec.MatchResources = &admissionv1.MatchResources{ResourceRules: rule} },
			want:    "matchResources",
		},
		"binding for some objects": {
			binding: func(b *binding) { b.Spec.MatchResources = &admissionv1.MatchResources{ObjectSelector: workers} },
			want:    "matchResources",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := &vap{Spec: admissionv1.ValidatingAdmissionPolicySpec{
				FailurePolicy:    &fail,
				MatchConstraints: &admissionv1.MatchResources{ResourceRules: rule},
				Validations:      []admissionv1.Validation{{Expression: "false"}},
			}}
			b := &binding{Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
				PolicyName: "guard", ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
			}}
			if test.policy != nil {
				test.policy(p)
			}
			if test.binding != nil {
				test.binding(b)
			}
			if test.noVAP {
				p = nil
			}
			if test.noBind {
				b = nil
			}
			got := gap("guard", p, b)
			if test.want == "" && got != "" {
				t.Errorf("the guard is taken for broken: %s", got)
			}
			if test.want != "" && !strings.Contains(got, test.want) {
				t.Errorf("got %q, want it to say %q", got, test.want)
			}
		})
	}
}
