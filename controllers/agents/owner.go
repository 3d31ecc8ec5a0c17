package agents

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// owner makes a node the owner, so that its objects go with it. It does not
// block the node's deletion: that would take the right to finalize nodes.
func owner(node *corev1.Node) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}
}

func owned(object client.Object, by metav1.OwnerReference) bool {
	for _, reference := range object.GetOwnerReferences() {
		if reference.UID == by.UID {
			return true
		}
	}
	return false
}

// ofAnotherNode says that an object belongs to a node of the same name that is
// not this one.
func ofAnotherNode(object client.Object, node *corev1.Node) bool {
	if owned(object, owner(node)) {
		return false
	}
	for _, reference := range object.GetOwnerReferences() {
		if reference.Kind == "Node" && reference.APIVersion == "v1" {
			return true
		}
	}
	return false
}

// kind of an object in words, as typed objects do not carry it.
func kind(object client.Object) string {
	name := fmt.Sprintf("%T", object)
	return name[strings.LastIndex(name, ".")+1:]
}
