package task

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// zone is a node's value of the task's topologyKey. Nodes without it are one group.
func (r *run) zone(node *corev1.Node) string {
	if key := r.template.Rollout.TopologyKey; key != "" {
		return node.Labels[key]
	}
	return ""
}

// checkTopology keeps a node back while nodes of the policy with another value
// of the topologyKey are disrupted, by whichever task.
func (g *gate) checkTopology(w *waiter) *refusal {
	zones := len(g.census.zones)
	if g.census.zones[w.zone] > 0 {
		zones--
	}
	if g.template.Rollout.TopologyKey == "" || zones == 0 {
		return nil
	}
	return no(v1alpha1.ReasonTopology, "Nodes with another value of %s are disrupted", g.template.Rollout.TopologyKey)
}
