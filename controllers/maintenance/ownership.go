package maintenance

import (
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// beforeFirstApply owns what an object had when server-side apply first touched it:
// whoever wrote it.
const beforeFirstApply = "before-first-apply"

// foreign says whether somebody else than nodepatch is known to own a field of a
// Node. The path is written as in managed fields, such as "f:spec",
// "f:unschedulable".
//
// The API server gives a field to whoever changes it: a person who uncordoned a
// node and cordoned it again owns the cordon now, and one who applies it from
// Git owns it too. What cannot be told is a person who ran kubectl cordon on the
// node that was cordoned already: that writes nothing, and kubectl says so.
// Nor is anything known of a Node whose managed fields somebody wiped, or that
// nobody has applied anything to, as the API server does not track it then: the
// record alone counts.
func foreign(node *corev1.Node, path ...string) bool {
	for _, owner := range owners(node, path...) {
		if owner != v1alpha1.ManagerFieldOwner && owner != beforeFirstApply {
			return true
		}
	}
	return false
}

// ours says whether nodepatch is known to own a field.
func ours(node *corev1.Node, path ...string) bool {
	return slices.Contains(owners(node, path...), v1alpha1.ManagerFieldOwner)
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
