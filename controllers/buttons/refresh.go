package buttons

import (
	"context"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// noteRefreshes notes a number that no assignment in question has reached: an agent
// that sees it was asked after the press.
func (p *Presses) noteRefreshes(ctx context.Context, object client.Object, press *v1alpha1.ButtonPress) error {
	nodes, err := p.nodes(ctx, object)
	if err != nil {
		return err
	}
	for _, node := range nodes {
		press.Refreshes = max(press.Refreshes, node.Spec.PatchDataRefreshes)
	}
	press.Refreshes++
	return nil
}

// updatePatchData asks the agents for fresh patch data. An assignment that has the
// number of the press has it of this press, or of a later one.
func (p *Presses) updatePatchData(ctx context.Context, object client.Object, press *v1alpha1.ButtonPress) (said answer, again time.Duration, err error) {
	nodes, err := p.nodes(ctx, object)
	if err != nil {
		return said, 0, err
	}
	var left []*v1alpha1.PatchAssignment
	for _, node := range nodes {
		if node.Spec.PatchDataRefreshes < press.Refreshes {
			left = append(left, node)
		}
	}
	again, err = each(ctx, left, func(ctx context.Context, before *v1alpha1.PatchAssignment) error {
		assignment := before.DeepCopy()
		assignment.Spec.PatchDataRefreshes = press.Refreshes
		patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
		if err := p.Client.Patch(ctx, assignment, patch, client.FieldOwner(v1alpha1.ManagerFieldOwner)); err != nil {
			return fmt.Errorf("asking node %s for fresh patch data: %w", assignment.Name, outdated(err))
		}
		return nil
	})
	_, isPolicy := object.(*v1alpha1.PatchPolicy)
	switch {
	case err != nil:
		return said, 0, err
	case len(nodes) == 0 && isPolicy:
		said = answer{patchlog.ButtonRefused, "Nobody was asked for fresh patch data: the policy governs no node"}
	case len(nodes) == 0:
		said = answer{patchlog.ButtonRefused, "Nobody was asked for fresh patch data: no policy governs the node, so that it has no agent"}
	case isPolicy:
		said = answer{patchlog.PatchDataRequested, fmt.Sprintf("Fresh patch data and a scan are asked for on %s; each says itself what came of it", nodesOf(len(nodes)))}
	default:
		said = answer{patchlog.PatchDataRequested, "Fresh patch data and a scan are asked for"}
	}
	return said, again, nil
}
