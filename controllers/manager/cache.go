package main

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/agents"
	"github.com/nodepatch/nodepatch/controllers/openreports"
)

// cacheOptions keep the manager small: the cache holds what the controllers
// read and no more. What it drops is still at the API server, so that objects
// from the cache are patched and never updated as a whole.
func cacheOptions(namespace string) cache.Options {
	here := map[string]cache.Config{namespace: {}}
	definitions, one := openreports.Kind()
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Node{}:          {Transform: strip(stripNode)},
			&v1alpha1.PatchReport{}: {Transform: strip(stripReport)},
			&corev1.Pod{}: {
				Namespaces: here, Label: labels.SelectorFromSet(agents.PodLabels), Transform: strip(stripPod),
			},
			&appsv1.DaemonSet{}: {
				Namespaces: here, Field: fields.OneTermEqualSelector("metadata.name", agents.Name),
			},
			definitions: one,
		},
	}
}

// strip makes a transform of a function for one kind.
func strip[T client.Object](drop func(T)) toolscache.TransformFunc {
	return func(object any) (any, error) {
		if typed, ok := object.(T); ok {
			typed.SetManagedFields(nil)
			drop(typed)
		}
		return object, nil
	}
}

// stripNode keeps what says where a node belongs and how it is: of the status,
// the conditions and the kubelet's view of the system. Images alone are most of
// a node's size.
func stripNode(node *corev1.Node) {
	node.Spec = corev1.NodeSpec{Unschedulable: node.Spec.Unschedulable, Taints: node.Spec.Taints}
	node.Status = corev1.NodeStatus{Conditions: node.Status.Conditions, NodeInfo: node.Status.NodeInfo}
}

// stripReport drops the lists, of up to 1,000 entries; the counts stay, and a
// digest of the security patches.
func stripReport(report *v1alpha1.PatchReport) {
	openreports.Remember(report)
	report.Status.Patches = nil
	report.Status.NewPackages = nil
	report.Status.Installed = nil
	report.Status.Log = nil
}

// stripPod keeps where an agent's pod runs and how it is.
func stripPod(pod *corev1.Pod) {
	pod.Spec = corev1.PodSpec{NodeName: pod.Spec.NodeName}
}
