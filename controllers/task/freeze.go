package task

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// freeze asks the nodes' reports what they have installed, if it is time to
// record that. They are read from the API server itself, once in a run: the
// manager's cache leaves their lists out. A node whose report is gone has none.
func (r *Reconciler) freeze(ctx context.Context, plan *Plan) error {
	if len(plan.Freezes) == 0 {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelWrites)
	for i := range plan.Freezes {
		installer := &plan.Freezes[i]
		group.Go(func() error {
			report := &v1alpha1.PatchReport{}
			err := r.Reports.Get(ctx, client.ObjectKey{Name: installer.Node}, report)
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("reading what the node %s has installed: %w", installer.Node, err)
			}
			installer.Installed = report.Status.Installed
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	plan.Pinned = pin(string(plan.task.UID), plan.Freezes, plan.now)
	return nil
}
