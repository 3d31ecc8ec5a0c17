package buttons

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// clearHosts has the agents delete from the logs on their hosts what a press is
// about: they watch nothing but their assignments. A node that cannot be reached
// does it once it is back. It returns how many nodes were asked.
func (p *Presses) clearHosts(ctx context.Context, object client.Object, press *v1alpha1.ButtonPress) (hosts int, again time.Duration, err error) {
	nodes, err := p.nodes(ctx, object)
	if err != nil {
		return 0, 0, err
	}
	wanted := v1alpha1.LogClear{Until: press.Time}
	switch o := object.(type) {
	case *v1alpha1.PatchPolicy:
		wanted.Policy = o.Name
	case *v1alpha1.PatchTask:
		wanted.Task = o.Name
	}
	var left []*v1alpha1.PatchAssignment
	for _, node := range nodes {
		if !slices.ContainsFunc(node.Spec.LogClears, func(c v1alpha1.LogClear) bool { return covers(c, wanted) }) {
			left = append(left, node)
		}
	}
	again, err = each(ctx, left, func(ctx context.Context, before *v1alpha1.PatchAssignment) error {
		assignment := before.DeepCopy()
		assignment.Spec.LogClears = withClear(assignment.Spec.LogClears, wanted)
		patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
		if err := p.Client.Patch(ctx, assignment, patch, client.FieldOwner(v1alpha1.ManagerFieldOwner)); err != nil {
			return fmt.Errorf("asking node %s to delete entries of its log: %w", assignment.Name, outdated(err))
		}
		return nil
	})
	return len(nodes), again, err
}

// covers says whether all that one clear deletes is deleted by another.
func covers(c, other v1alpha1.LogClear) bool {
	return !c.Until.Before(&other.Until) && (c.Task == "" || c.Task == other.Task) && (c.Policy == "" || c.Policy == other.Policy)
}

// withClear adds a clear under the next number. Those that it covers are done with it.
func withClear(clears []v1alpha1.LogClear, wanted v1alpha1.LogClear) []v1alpha1.LogClear {
	for _, c := range clears {
		wanted.Number = max(wanted.Number, c.Number)
	}
	wanted.Number++
	clears = slices.DeleteFunc(clears, func(c v1alpha1.LogClear) bool { return covers(wanted, c) })
	clears = append(clears, wanted)
	return clears[max(0, len(clears)-v1alpha1.MaxLogClears):]
}

// onHosts says in the answer what becomes of the logs on the hosts.
func onHosts(object client.Object, hosts int) string {
	_, ofNode := object.(*v1alpha1.PatchReport)
	switch {
	case hosts == 0 && ofNode:
		return "no policy governs the node, so that the log on its host stays as it is"
	case hosts == 0:
		return "its policy governs no node, so that the logs on hosts stay as they are"
	case ofNode:
		return "its agent deletes them from the log on the host, and says so"
	default:
		return fmt.Sprintf("the agents of %s delete them from the logs on the hosts, and say so", nodesOf(hosts))
	}
}
