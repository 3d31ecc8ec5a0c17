package maintenance

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// ours says whether nodepatch, and nobody else, owns a field of a Node. The path
// is written as in managed fields, such as "f:spec", "f:unschedulable".
func ours(node *corev1.Node, path ...string) bool {
	found := owners(node, path...)
	return len(found) == 1 && found[0] == v1alpha1.ManagerFieldOwner
}

// stillOurs says whether the cordon of a node that nodepatch cordoned is still that
// one. The API server gives the field to whoever changes it: a person who
// uncordoned the node and cordoned it again owns it now, and one who applies it
// from Git owns it too. What cannot be told is a person who ran kubectl cordon
// on the node that was cordoned already: that writes nothing, and kubectl says
// so. A Node whose managed fields somebody wiped is uncordoned.
func stillOurs(node *corev1.Node) bool {
	if len(node.ManagedFields) == 0 {
		return true
	}
	return ours(node, "f:spec", "f:unschedulable")
}

// owners are the managers of a field.
func owners(node *corev1.Node, path ...string) []string {
	var found []string
	for i := range node.ManagedFields {
		entry := &node.ManagedFields[i]
		if entry.FieldsV1 == nil {
			continue
		}
		var fields map[string]any
		if err := json.Unmarshal([]byte(entry.FieldsV1.GetRawString()), &fields); err != nil {
			// The API server writes these; one that cannot be read owns nothing.
			continue
		}
		if has(fields, path) {
			found = append(found, entry.Manager)
		}
	}
	return found
}

func has(fields map[string]any, path []string) bool {
	for _, step := range path {
		next, ok := fields[step].(map[string]any)
		if !ok {
			return false
		}
		fields = next
	}
	return true
}
