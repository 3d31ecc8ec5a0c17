package task

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment"
)

// census counts the nodes of the cluster that are not available, whatever the
// cause, and those among them that nodepatch disrupts.
type census struct {
	// away are the nodes that are not available, by name.
	away map[string]bool
	// governed is how many of them belong to the policy.
	governed int
	// disrupted are the nodes that nodepatch disrupts, and controlPlane those of
	// them that belong to the control plane, by name.
	disrupted, controlPlane map[string]bool
	// quorum are the nodes of the control plane that are not Ready.
	quorum map[string]bool
	// zones counts the disrupted nodes of the policy by their value of the
	// task's topologyKey.
	zones map[string]int
}

// count takes the census as things are before the task admits anybody.
func (r *run) count() *census {
	c := &census{
		away: map[string]bool{}, disrupted: map[string]bool{}, controlPlane: map[string]bool{},
		quorum: map[string]bool{}, zones: map[string]int{},
	}
	for i := range r.in.Nodes {
		node := &r.in.Nodes[i]
		ready := assignment.NodeReady(node)
		isReady := ready != nil && ready.Status == corev1.ConditionTrue
		if !isReady && isControlPlane(node) {
			c.quorum[node.Name] = true
		}
		if r.disrupts(node) {
			r.disrupt(c, node)
		} else if !isReady || node.Spec.Unschedulable {
			r.miss(c, node)
		}
	}
	return c
}

// disrupt counts a node as disrupted.
func (r *run) disrupt(c *census, node *corev1.Node) {
	r.miss(c, node)
	if c.disrupted[node.Name] {
		return
	}
	c.disrupted[node.Name] = true
	if isControlPlane(node) {
		c.controlPlane[node.Name] = true
	}
	if r.concerns(node) {
		c.zones[r.zone(node)]++
	}
}

// miss counts a node as unavailable.
func (r *run) miss(c *census, node *corev1.Node) {
	if c.away[node.Name] {
		return
	}
	c.away[node.Name] = true
	if r.concerns(node) {
		c.governed++
	}
}

// concerns says whether a node is one of the policy's, or of the task's though
// another policy has taken it over.
func (r *run) concerns(node *corev1.Node) bool {
	if r.in.Membership.Governor[node.Name] == r.policy.Name {
		return true
	}
	given := r.in.Assignments[node.Name]
	return given != nil && given.Spec.Operation != nil && given.Spec.Operation.ID == r.id
}

// disrupts says whether nodepatch disrupts a node: an operation was admitted on
// it, the manager has not yet undone what it changed on it, or its agent installs
// or reboots, also if the manager has given it up. That an agent said so once
// counts no longer if it has gone with the last policy that governed the node.
func (r *run) disrupts(node *corev1.Node) bool {
	if _, maintained := node.Annotations[v1alpha1.MaintenanceAnnotation]; maintained {
		return true
	}
	given := r.in.Assignments[node.Name]
	if given == nil {
		return false
	}
	if operation := given.Spec.Operation; operation != nil && operation.AdmittedAt != nil {
		return true
	}
	agent := given.Status.Agent
	if agent == nil || agent.Step != v1alpha1.StepInstalling && agent.Step != v1alpha1.StepRebooting {
		return false
	}
	said := given.Status.Controller
	_, governed := r.in.Membership.Governor[node.Name]
	return governed || said != nil && said.Agent != v1alpha1.AgentAbsent
}

// checkBudget wants the policy's maxUnavailable kept, over all its tasks.
func (g *gate) checkBudget(w *waiter) *refusal {
	allowed := share(g.template.Rollout.MaxUnavailable, g.members())
	if g.others(g.census.governed, w) < allowed {
		return nil
	}
	value := "1"
	if most := g.template.Rollout.MaxUnavailable; most != nil {
		value = most.String()
	}
	return no(v1alpha1.ReasonBudget, "As many nodes of the policy %s are unavailable, for whatever cause, as rollout.maxUnavailable allows (%s)", g.policy.Name, value)
}

// checkClusterBudget wants the manager's --cluster-max-unavailable kept.
func (g *gate) checkClusterBudget(w *waiter) *refusal {
	most := g.in.ClusterMaxUnavailable
	if most == nil || g.others(len(g.census.away), w) < share(most, len(g.in.Nodes)) {
		return nil
	}
	return no(v1alpha1.ReasonClusterBudget, "As many nodes of the cluster are unavailable, for whatever cause, as the manager's --cluster-max-unavailable allows (%s)", most.String())
}

// others leaves a node that is already unavailable, as when a person cordoned it,
// out of a count.
func (g *gate) others(count int, w *waiter) int {
	if g.census.away[w.node.Name] {
		return count - 1
	}
	return count
}

// members is how many nodes the policy governs.
func (r *run) members() int {
	if members := r.in.Membership.Policies[r.policy.Name]; members != nil {
		return len(members.Governed)
	}
	return 0
}

// share is a number of nodes: a percentage is rounded down, but there is always
// one, without which nothing would ever be installed. None is one, too.
func share(value *intstr.IntOrString, of int) int {
	if value == nil {
		return 1
	}
	number, err := intstr.GetScaledValueFromIntOrPercent(value, of, false)
	if err != nil {
		return 1 // The API server lets nothing else in.
	}
	return max(number, 1)
}

// first of the names, by name, other than one of them; empty if there is none.
func first(names map[string]bool, other string) string {
	var found []string
	for name := range names {
		if name != other {
			found = append(found, name)
		}
	}
	if len(found) == 0 {
		return ""
	}
	return slices.Min(found)
}
