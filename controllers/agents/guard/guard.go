// Package guard says whether the admission policies that bind an agent to its
// own node are in place. RBAC alone would let every agent write all nodes'
// objects, as all of them share one ServiceAccount: without the guard there are
// no agents.
package guard

import (
	"context"
	"fmt"
	"slices"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Policies are the names of the ValidatingAdmissionPolicies that have to be in
// place, each with a binding of its own name. config/admission has them.
var Policies = []string{"nodepatch-agent-own-node", "nodepatch-agent-events"}

// Gaps reads the admission policies and their bindings and says what is amiss
// with them, a sentence without a period for each; none means that agents may run.
func Gaps(ctx context.Context, reader client.Reader) ([]string, error) {
	var gaps []string
	for _, name := range Policies {
		key := types.NamespacedName{Name: name}
		policy := &admissionv1.ValidatingAdmissionPolicy{}
		switch err := reader.Get(ctx, key, policy); {
		case apierrors.IsNotFound(err):
			policy = nil
		case err != nil:
			return nil, fmt.Errorf("reading ValidatingAdmissionPolicy %s: %w", name, err)
		}
		binding := &admissionv1.ValidatingAdmissionPolicyBinding{}
		switch err := reader.Get(ctx, key, binding); {
		case apierrors.IsNotFound(err):
			binding = nil
		case err != nil:
			return nil, fmt.Errorf("reading ValidatingAdmissionPolicyBinding %s: %w", name, err)
		}
		if found := gap(name, policy, binding); found != "" {
			gaps = append(gaps, found)
		}
	}
	return gaps, nil
}

// gap is the first thing for which one policy does not bind every agent; empty
// if it does. A nil policy or binding does not exist.
func gap(name string, policy *admissionv1.ValidatingAdmissionPolicy, binding *admissionv1.ValidatingAdmissionPolicyBinding) string {
	switch {
	case policy == nil || !policy.DeletionTimestamp.IsZero():
		return fmt.Sprintf("ValidatingAdmissionPolicy %s does not exist", name)
	case policy.Spec.FailurePolicy != nil && *policy.Spec.FailurePolicy != admissionv1.Fail:
		return fmt.Sprintf("ValidatingAdmissionPolicy %s has failurePolicy %s and not Fail", name, *policy.Spec.FailurePolicy)
	case len(policy.Spec.Validations) == 0:
		return fmt.Sprintf("ValidatingAdmissionPolicy %s has no validations", name)
	case exempts(policy.Spec.MatchConstraints):
		return fmt.Sprintf("ValidatingAdmissionPolicy %s leaves out some of what its rules name", name)
	case binding == nil || !binding.DeletionTimestamp.IsZero():
		return fmt.Sprintf("ValidatingAdmissionPolicyBinding %s does not exist", name)
	case binding.Spec.PolicyName != name:
		return fmt.Sprintf("ValidatingAdmissionPolicyBinding %s binds %q and not the policy of its name", name, binding.Spec.PolicyName)
	case !slices.Contains(binding.Spec.ValidationActions, admissionv1.Deny):
		return fmt.Sprintf("ValidatingAdmissionPolicyBinding %s does not have Deny among its validationActions", name)
	case binding.Spec.ParamRef != nil:
		return fmt.Sprintf("ValidatingAdmissionPolicyBinding %s has a paramRef, which may restrict it", name)
	case exempts(binding.Spec.MatchResources) ||
		binding.Spec.MatchResources != nil && len(binding.Spec.MatchResources.ResourceRules) > 0:
		return fmt.Sprintf("ValidatingAdmissionPolicyBinding %s has matchResources, which restrict it", name)
	}
	return ""
}

// exempts says whether a match leaves out what its rules name. The API server
// fills selectors that are not given with empty ones, which leave nothing out.
func exempts(match *admissionv1.MatchResources) bool {
	return match != nil && (len(match.ExcludeResourceRules) > 0 ||
		selective(match.NamespaceSelector) || selective(match.ObjectSelector))
}

func selective(selector *metav1.LabelSelector) bool {
	return selector != nil && len(selector.MatchLabels)+len(selector.MatchExpressions) > 0
}
