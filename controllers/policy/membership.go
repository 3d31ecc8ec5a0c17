package policy

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// conflictExamples is how many nodes of a conflict are named.
const conflictExamples = 5

// Membership says which policy governs which node. It is read only: several
// controllers may share one.
type Membership struct {
	// Governor maps the name of each governed node to the name of its policy.
	// A node that no policy selects is not in it.
	Governor map[string]string
	// Policies has an entry for each policy, by name.
	Policies map[string]*Members
}

// Members is one policy's part of a Membership.
type Members struct {
	// Selected are the nodes that the policy's selector selects, by name.
	Selected []string
	// Governed are those of them that no stronger policy governs, by name.
	Governed []string
	// Conflicts are the policies of equal priority that select some of the
	// same nodes, by policy name.
	Conflicts []Conflict
	// Err says why the selector is not one; the policy then selects nothing.
	Err error
}

// Conflict is what a policy shares with another one of equal priority.
type Conflict struct {
	// Policy is the name of the other policy.
	Policy string
	// Count is how many nodes both select.
	Count int
	// Nodes are the first five of them, by name.
	Nodes []string
}

// Govern decides which policy governs which node: the one with the highest
// priority of those that select it, among equals the oldest, then the first by
// name. Nodes of another operating system than Linux are in no policy, and a
// policy that is being deleted governs nothing. Neither argument is changed.
func Govern(policies []v1alpha1.PatchPolicy, nodes []corev1.Node) Membership {
	membership := Membership{
		Governor: make(map[string]string, len(nodes)),
		Policies: make(map[string]*Members, len(policies)),
	}
	contenders := make([]contender, 0, len(policies))
	for i := range policies {
		policy := &policies[i]
		members := &Members{}
		membership.Policies[policy.Name] = members
		if !policy.DeletionTimestamp.IsZero() {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(policy.Spec.NodeSelector)
		if err != nil {
			members.Err = err
			continue
		}
		contenders = append(contenders, contender{
			policy: policy, selector: selector, members: members,
			shared: map[string]*Conflict{},
		})
	}
	slices.SortFunc(contenders, byStrength)

	var selecting []*contender
	for _, node := range byName(nodes) {
		if !linux(node) {
			continue
		}
		selecting = selecting[:0]
		for i := range contenders {
			if contenders[i].selector.Matches(labels.Set(node.Labels)) {
				selecting = append(selecting, &contenders[i])
			}
		}
		for i, c := range selecting {
			c.members.Selected = append(c.members.Selected, node.Name)
			// Sorted by strength, equals stand side by side.
			for _, other := range selecting[i+1:] {
				if other.policy.Spec.Priority != c.policy.Spec.Priority {
					break
				}
				c.share(other, node.Name)
				other.share(c, node.Name)
			}
		}
		if len(selecting) > 0 {
			governor := selecting[0]
			governor.members.Governed = append(governor.members.Governed, node.Name)
			membership.Governor[node.Name] = governor.policy.Name
		}
	}
	for i := range contenders {
		contenders[i].members.Conflicts = contenders[i].conflicts()
	}
	return membership
}

// contender is a policy with a valid selector.
type contender struct {
	policy   *v1alpha1.PatchPolicy
	selector labels.Selector
	members  *Members
	shared   map[string]*Conflict
}

func (c *contender) share(other *contender, node string) {
	conflict := c.shared[other.policy.Name]
	if conflict == nil {
		conflict = &Conflict{Policy: other.policy.Name}
		c.shared[other.policy.Name] = conflict
	}
	conflict.Count++
	if len(conflict.Nodes) < conflictExamples {
		conflict.Nodes = append(conflict.Nodes, node)
	}
}

func (c *contender) conflicts() []Conflict {
	var conflicts []Conflict
	for _, conflict := range c.shared {
		conflicts = append(conflicts, *conflict)
	}
	slices.SortFunc(conflicts, func(a, b Conflict) int { return cmp.Compare(a.Policy, b.Policy) })
	return conflicts
}

// byStrength orders the policy that wins first.
func byStrength(a, b contender) int {
	return cmp.Or(
		-cmp.Compare(a.policy.Spec.Priority, b.policy.Spec.Priority),
		a.policy.CreationTimestamp.Compare(b.policy.CreationTimestamp.Time),
		cmp.Compare(a.policy.Name, b.policy.Name),
	)
}

func byName(nodes []corev1.Node) []*corev1.Node {
	sorted := make([]*corev1.Node, len(nodes))
	for i := range nodes {
		sorted[i] = &nodes[i]
	}
	slices.SortFunc(sorted, func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
	return sorted
}

// linux takes a node that does not say its operating system for a Linux node.
func linux(node *corev1.Node) bool {
	system, known := node.Labels[corev1.LabelOSStable]
	return !known || system == string(corev1.Linux)
}
