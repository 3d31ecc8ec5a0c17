package task

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment"
)

const (
	// maxDisrupted is how many nodes the status remembers, as the API has it, and
	// maxGone how many of them may be gone: the places of the others are needed to
	// find out that they are.
	maxDisrupted = 50
	maxGone      = 20
	// maxDisruptedMessage is how much it remembers of why each of them failed.
	maxDisruptedMessage = 256
)

// remembered are the nodes that the status remembers as disrupted, by name. The
// verdict on a node goes with its assignment as soon as it leaves the cluster or
// its policy, and a kernel that boots nowhere must not be rolled out to one node
// after the other because each is deleted once it failed.
func (r *run) remembered() map[string]*v1alpha1.DisruptedNode {
	list := r.in.Task.Status.Disrupted
	nodes := make(map[string]*v1alpha1.DisruptedNode, len(list))
	for i := range list {
		nodes[list[i].Node] = &list[i]
	}
	return nodes
}

// gone says whether a node failed that was disrupted and has nothing to show for
// it any more; node is the one that has its name now, if any. One that failed
// stays so for this run, also if it comes back. One that was deleted before there
// was a verdict failed as well: what repairs clusters deletes nodes that do not
// come back, often before the manager gives them up.
func (r *run) gone(before *v1alpha1.DisruptedNode, node *corev1.Node) (Node, bool) {
	state := Node{
		Name: before.Node, Place: PlaceFailed, Disrupted: true, Gone: true, Reason: before.Reason, Message: before.Message,
		uid: before.UID, wave: before.Wave,
	}
	if before.Time != nil {
		state.Since = before.Time.UTC()
	}
	if before.Reason != "" {
		return state, true
	}
	if node != nil && (before.UID == "" || string(node.UID) == before.UID) {
		return Node{}, false // Nobody deleted it, and how it ended is not known.
	}
	state.News = true
	state.Since, state.Reason = r.in.Now, v1alpha1.ReasonNodeDeleted
	state.Message = "The Node was deleted while it was installed or rebooted; find out whether it came back, and who deleted it"
	// Its assignment outlives it for a moment, and may know more.
	if given := r.in.Assignments[before.Node]; given != nil && node == nil {
		if verdict := assignment.Verdict(given, r.id); verdict != nil && verdict.AdmittedAt != nil {
			known := r.concluded(before.Node, verdict)
			if known.Place != PlaceFailed {
				return Node{}, false
			}
			state.Since, state.Reason, state.Message = known.Since, known.Reason, known.Message
		}
	}
	return state, true
}

// disrupted is what the status has to remember: the nodes that failed before those
// at work. Of those that are gone it is enough to know how many they are.
func (p *Plan) disrupted() (nodes []v1alpha1.DisruptedNode, omitted int32) {
	var failed, gone, working []v1alpha1.DisruptedNode
	for i := range p.Nodes {
		node := &p.Nodes[i]
		entry := v1alpha1.DisruptedNode{Node: node.Name, UID: node.uid, Wave: node.wave}
		if node.Place == PlaceDisrupted {
			working = append(working, entry)
			continue
		}
		if !node.Disrupted || node.Place != PlaceFailed {
			continue
		}
		entry.Reason, entry.Message = limit(node.Reason, maxReason), limit(node.Message, maxDisruptedMessage)
		if !node.Since.IsZero() {
			entry.Time = &metav1.Time{Time: node.Since}
		}
		if node.Gone {
			gone = append(gone, entry)
		} else {
			failed = append(failed, entry)
		}
	}
	omitted = p.omitted + int32(max(0, len(gone)-maxGone))
	nodes = append(gone[:min(len(gone), maxGone)], failed...)
	nodes = append(nodes, working...)
	return nodes[:min(len(nodes), maxDisrupted)], omitted
}
