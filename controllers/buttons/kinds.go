package buttons

import (
	"context"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// Policies acts on the buttons of PatchPolicies: on all nodes that a policy governs.
type Policies struct{ Presses }

// Reports acts on the buttons of PatchReports.
type Reports struct{ Presses }

// Tasks acts on those buttons of PatchTasks that are no state of theirs.
type Tasks struct{ Presses }

// The buttons that each kind has, in the order in which they are acted on.
var (
	policyButtons = []string{v1alpha1.ClearRetriesAnnotation, v1alpha1.ClearLogAnnotation, v1alpha1.UpdatePatchDataAnnotation}
	reportButtons = []string{v1alpha1.ClearLogAnnotation, v1alpha1.UpdatePatchDataAnnotation}
	taskButtons   = []string{v1alpha1.ClearLogAnnotation}
)

// Reconcile looks at one policy.
func (r *Policies) Reconcile(ctx context.Context, policy *v1alpha1.PatchPolicy) (ctrl.Result, error) {
	return r.reconcile(ctx, policy, patchlog.Pressed{Policy: policy.Name}, []button{
		{annotation: v1alpha1.ClearRetriesAnnotation, act: r.clearRetries},
		{annotation: v1alpha1.ClearLogAnnotation, note: r.noteLog, act: r.clearLog},
		{annotation: v1alpha1.UpdatePatchDataAnnotation, note: r.noteRefreshes, act: r.updatePatchData},
	})
}

// Reconcile looks at one node's report.
func (r *Reports) Reconcile(ctx context.Context, report *v1alpha1.PatchReport) (ctrl.Result, error) {
	return r.reconcile(ctx, report, patchlog.Pressed{Node: report.Name, Policy: report.Status.Policy}, []button{
		{annotation: v1alpha1.ClearLogAnnotation, note: r.noteLog, act: r.clearLog},
		{annotation: v1alpha1.UpdatePatchDataAnnotation, note: r.noteRefreshes, act: r.updatePatchData},
	})
}

// Reconcile looks at one task.
func (r *Tasks) Reconcile(ctx context.Context, task *v1alpha1.PatchTask) (ctrl.Result, error) {
	return r.reconcile(ctx, task, patchlog.Pressed{Task: task.Name, Policy: task.Spec.Policy}, []button{
		{annotation: v1alpha1.ClearLogAnnotation, note: r.noteLog, act: r.clearLog},
	})
}
