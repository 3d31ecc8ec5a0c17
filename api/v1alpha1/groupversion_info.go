// Package v1alpha1 is the vocabulary of nodepatch: the five kinds of the API
// group nodepatch.io, the annotations that people set on them and the reasons
// that conditions and log entries carry. It holds no logic beyond small
// predicates, so that the manager and the agent can both afford to import it.
//
// +kubebuilder:object:generate=true
// +kubebuilder:ac:generate=true
// +groupName=nodepatch.io
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of every kind in this package.
const GroupName = "nodepatch.io"

// GroupVersion is the group and version of every kind in this package.
var GroupVersion = schema.GroupVersion{Group: GroupName, Version: "v1alpha1"}

// SchemeGroupVersion is GroupVersion under the name that generated code expects.
var SchemeGroupVersion = GroupVersion

var schemeBuilder = runtime.NewSchemeBuilder(func(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&PatchPolicy{}, &PatchPolicyList{},
		&PatchTask{}, &PatchTaskList{},
		&PatchReport{}, &PatchReportList{},
		&PatchRetry{}, &PatchRetryList{},
		&PatchAssignment{}, &PatchAssignmentList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
})

// AddToScheme registers the kinds of this package with a scheme.
var AddToScheme = schemeBuilder.AddToScheme
