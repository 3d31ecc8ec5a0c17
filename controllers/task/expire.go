package task

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// expire deletes a finished task when its ttlAfterFinished is over.
func (r *Reconciler) expire(ctx context.Context, task *v1alpha1.PatchTask) (ctrl.Result, error) {
	if task.Spec.TTLAfterFinished == nil || task.Status.CompletionTime == nil {
		return ctrl.Result{}, nil
	}
	due := task.Status.CompletionTime.Add(task.Spec.TTLAfterFinished.Duration)
	if now := r.Clock.Now(); now.Before(due) {
		return ctrl.Result{RequeueAfter: until(due, now)}, nil
	}
	if err := r.Client.Delete(ctx, task, client.Preconditions{UID: ptr.To(task.UID)}); err != nil {
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, fmt.Errorf("deleting the task %s after its ttlAfterFinished: %w", task.Name, err)
	}
	klog.FromContext(ctx).Info("Deleted a finished task after its ttlAfterFinished", "task", klog.KObj(task))
	return ctrl.Result{}, nil
}
