package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/openreports"
)

func TestTheCacheKeepsWhatIsReadAndDropsTheRest(t *testing.T) {
	meta := metav1.ObjectMeta{
		Name: "n", UID: "u", Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d"},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubelet"}},
	}
	kept := meta
	kept.ManagedFields = nil
	ready := []corev1.NodeCondition{{Type: corev1.NodeReady}}
	taints := []corev1.Taint{{Key: "t"}}
	counts := &v1alpha1.ReportCounts{PatchCounts: v1alpha1.PatchCounts{Missing: 1}}

	of := []v1alpha1.Patch{{Name: "p", Classification: v1alpha1.ClassificationSecurity}}
	noted := &v1alpha1.PatchReport{ObjectMeta: *kept.DeepCopy(), Status: v1alpha1.PatchReportStatus{Patches: of}}
	openreports.Remember(noted)

	tests := map[string]struct{ object, want any }{
		"node": {
			object: &corev1.Node{
				ObjectMeta: meta,
				Spec:       corev1.NodeSpec{Unschedulable: true, Taints: taints, ProviderID: "p", PodCIDRs: []string{"10.0.0.0/24"}},
				Status: corev1.NodeStatus{
					Conditions: ready, NodeInfo: corev1.NodeSystemInfo{BootID: "b"},
					Images: []corev1.ContainerImage{{Names: []string{"i"}}}, Addresses: []corev1.NodeAddress{{Address: "a"}},
				},
			},
			want: &corev1.Node{
				ObjectMeta: kept,
				Spec:       corev1.NodeSpec{Unschedulable: true, Taints: taints},
				Status:     corev1.NodeStatus{Conditions: ready, NodeInfo: corev1.NodeSystemInfo{BootID: "b"}},
			},
		},
		"report": {
			object: &v1alpha1.PatchReport{ObjectMeta: *meta.DeepCopy(), Status: v1alpha1.PatchReportStatus{
				Counts: counts, Patches: of, NewPackages: []v1alpha1.NewPackage{{Name: "q"}},
				Installed: &v1alpha1.InstalledPatches{Task: "t"}, Log: []v1alpha1.LogEntry{{Reason: "r"}},
			}},
			want: &v1alpha1.PatchReport{ObjectMeta: noted.ObjectMeta, Status: v1alpha1.PatchReportStatus{Counts: counts}},
		},
		"definition": {
			object: &apiextensionsv1.CustomResourceDefinition{ObjectMeta: meta,
				Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: "g", Versions: []apiextensionsv1.CustomResourceDefinitionVersion{
					{Name: "v1", Served: true, Schema: &apiextensionsv1.CustomResourceValidation{}},
				}},
			},
			want: &apiextensionsv1.CustomResourceDefinition{ObjectMeta: kept,
				Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: "g", Versions: []apiextensionsv1.CustomResourceDefinitionVersion{
					{Name: "v1", Served: true},
				}},
			},
		},
		"pod": {
			object: &corev1.Pod{ObjectMeta: meta,
				Spec:   corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "agent"}}},
				Status: corev1.PodStatus{Phase: corev1.PodRunning},
			},
			want: &corev1.Pod{ObjectMeta: kept, Spec: corev1.PodSpec{NodeName: "n"}, Status: corev1.PodStatus{Phase: corev1.PodRunning}},
		},
	}
	transforms := map[string]func(any) (any, error){}
	for object, by := range cacheOptions("ns").ByObject {
		switch object.(type) {
		case *corev1.Node:
			transforms["node"] = by.Transform
		case *v1alpha1.PatchReport:
			transforms["report"] = by.Transform
		case *apiextensionsv1.CustomResourceDefinition:
			transforms["definition"] = by.Transform
		case *corev1.Pod:
			transforms["pod"] = by.Transform
		}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := transforms[name](test.object)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
