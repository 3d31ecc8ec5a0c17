package assignment

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/maintenance"
)

// Leaver takes leave of Nodes that carry a record and that no operation disrupts
// any more: because the verdict was given, or because the operation or the whole
// assignment went away. The record alone says what is to be undone.
type Leaver struct {
	*Reconciler
}

// Reconcile looks at one Node.
func (l Leaver) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	seen := &corev1.Node{}
	if err := l.Client.Get(ctx, req.NamespacedName, seen); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !carriesRecord(seen) {
		return ctrl.Result{}, nil
	}
	node := &corev1.Node{}
	if err := l.Live.Get(ctx, req.NamespacedName, node); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !carriesRecord(node) {
		return ctrl.Result{}, nil
	}
	record, recordErr := maintenance.Read(node)
	assignment := &v1alpha1.PatchAssignment{}
	err := l.Live.Get(ctx, req.NamespacedName, assignment)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return ctrl.Result{}, fmt.Errorf("reading the assignment of node %s: %w", node.Name, err)
	case err == nil && admitted(assignment) && (record == nil || record.OperationID == assignment.Spec.Operation.ID):
		return ctrl.Result{}, nil
	}
	if recordErr != nil {
		klog.FromContext(ctx).Error(recordErr, "The Node's record cannot be relied on, what is known to be nodepatch's is undone", "node", klog.KObj(node))
	}
	if changed, err := l.applyConditions(ctx, node, maintenance.Idle, ""); changed || err != nil {
		// The Node is another now.
		return ctrl.Result{RequeueAfter: time.Millisecond}, err
	}
	if err := l.leave(ctx, node, record); err != nil {
		if gone(err) {
			return ctrl.Result{RequeueAfter: afterConflict}, nil
		}
		return ctrl.Result{}, err
	}
	klog.FromContext(ctx).Info("Took leave of a node", "node", klog.KObj(node))
	return ctrl.Result{}, nil
}

// leave undoes what is left of a disruption. The record goes last: until then
// this is done again.
func (l Leaver) leave(ctx context.Context, node *corev1.Node, record *maintenance.Record) error {
	changed := node.DeepCopy()
	if record == nil {
		record = maintenance.Rebuild(changed, maintenance.Subject{}, l.Clock.Now())
	}
	unfinished := record.Restored == nil
	if unfinished {
		record.Restore(changed, l.Clock.Now(), nil)
	}
	maintenance.Forget(changed)
	if record.OperationID != "" {
		if err := l.tidy(ctx, node.Name, record.OperationID); err != nil {
			return err
		}
		run := patchlog.Run{Task: record.Task, UID: types.UID(record.OperationID), Policy: record.Policy}
		entries := recordEntries(record, run, node.Name, "Disruption begins for the task "+record.Task)
		if unfinished {
			entries = append(entries, patchlog.NodeStopped(l.Clock.Now(), run, node.Name, "The operation went away, and the node was put back to what it was"))
		}
		if err := l.record(ctx, node.Name, record.OperationID, entries); err != nil {
			return err
		}
	}
	patch := client.MergeFromWithOptions(node, client.MergeFromWithOptimisticLock{})
	if err := l.Client.Patch(ctx, changed, patch, client.FieldOwner(v1alpha1.ManagerFieldOwner)); err != nil {
		return fmt.Errorf("putting the node %s back: %w", node.Name, err)
	}
	l.forget(node.Name)
	return nil
}

// carriesRecord says whether a Node carries a record, readable or not.
func carriesRecord(node client.Object) bool {
	_, found := node.GetAnnotations()[v1alpha1.MaintenanceAnnotation]
	return found
}
