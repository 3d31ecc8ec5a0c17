package buttons

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// page is how many entries are asked for at once.
const page = 500

// noteLog notes up to where the log is to be cleared. A task's own copy of it is
// emptied in the same write.
func (p *Presses) noteLog(ctx context.Context, object client.Object, press *v1alpha1.ButtonPress) error {
	events := &metav1.PartialObjectMetadataList{}
	events.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("EventList"))
	if err := p.Entries.List(ctx, events, client.InNamespace(patchlog.Namespace), client.Limit(1)); err != nil {
		return fmt.Errorf("looking where the patch log ends: %w", err)
	}
	press.LogVersion = events.ResourceVersion
	if task, ok := object.(*v1alpha1.PatchTask); ok {
		task.Status.Log = nil
		remember(task, press)
	}
	return nil
}

// clearLog deletes the entries of a task, a node or a policy that were there when
// the button was pressed. First the agents are told, so that none sends what is to
// go; then the tasks forget their copies.
func (p *Presses) clearLog(ctx context.Context, object client.Object, press *v1alpha1.ButtonPress) (said answer, again time.Duration, err error) {
	hosts, again, err := p.clearHosts(ctx, object, press)
	if err != nil || again > 0 {
		return said, again, err
	}
	if again, err := p.emptyTasks(ctx, object, press); err != nil || again > 0 {
		return said, again, err
	}
	label, whose := scope(object)
	labels := client.MatchingLabels{label: patchlog.LabelValue(object.GetName())}
	deleted, next := 0, ""
	for {
		events := &corev1.EventList{}
		err := p.Entries.List(ctx, events, client.InNamespace(patchlog.Namespace), labels, client.Limit(page), client.Continue(next))
		switch {
		case apierrors.IsResourceExpired(err):
			return said, afterPart, nil // begin again with the first page
		case err != nil:
			return said, 0, fmt.Errorf("listing entries of the patch log: %w", err)
		}
		older, err := notLater(events.Items, press.LogVersion)
		if err != nil {
			return said, 0, err
		}
		if again, err := each(ctx, older, p.deleteEntry); err != nil || again > 0 {
			return said, again, err
		}
		deleted += len(older)
		if next = events.Continue; next == "" {
			break
		}
		if deleted >= part {
			return said, afterPart, nil
		}
	}
	return answer{patchlog.LogCleared, fmt.Sprintf("Entries of this %s until %s were deleted; %s",
		whose, press.Time.UTC().Format(time.RFC3339), onHosts(object, hosts))}, 0, nil
}

func (p *Presses) deleteEntry(ctx context.Context, event *corev1.Event) error {
	err := p.Entries.Delete(ctx, event, client.Preconditions{UID: &event.UID})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting an entry of the patch log: %w", outdated(err))
	}
	return nil
}

// notLater are the entries of the patch log that are not later than a resourceVersion.
// Nobody changes an entry, so that its own says when it came. Events of others,
// whatever their labels, are none.
func notLater(events []corev1.Event, version string) ([]*corev1.Event, error) {
	var older []*corev1.Event
	for i := range events {
		event := &events[i]
		switch patchlog.Component(event.ReportingController) {
		case patchlog.AgentComponent, patchlog.ManagerComponent:
		default:
			continue
		}
		order, err := resourceversion.CompareResourceVersion(event.ResourceVersion, version)
		if err != nil {
			return nil, fmt.Errorf("comparing the age of an entry of the patch log: %w", err)
		}
		if order <= 0 {
			older = append(older, event)
		}
	}
	return older, nil
}

// scope is the label that the entries of an object bear under its name, and what a
// person calls it.
func scope(object client.Object) (label, whose string) {
	switch object.(type) {
	case *v1alpha1.PatchPolicy:
		return v1alpha1.PolicyLabel, "policy"
	case *v1alpha1.PatchReport:
		return v1alpha1.NodeLabel, "node"
	default:
		return v1alpha1.TaskLabel, "task"
	}
}

// emptyTasks empties the logs in the status of a policy's tasks, and takes a node's
// entries out of those of all tasks. A task's own was emptied with its press.
func (p *Presses) emptyTasks(ctx context.Context, object client.Object, press *v1alpha1.ButtonPress) (again time.Duration, err error) {
	if _, task := object.(*v1alpha1.PatchTask); task {
		return 0, nil
	}
	_, ofPolicy := object.(*v1alpha1.PatchPolicy)
	goes := func(entry v1alpha1.LogEntry) bool {
		return !entry.Time.After(press.Time.Time) && (ofPolicy || entry.Node == object.GetName())
	}
	list := &v1alpha1.PatchTaskList{}
	if err := p.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return 0, fmt.Errorf("listing the tasks whose log to clear for %s: %w", object.GetName(), err)
	}
	var full []*v1alpha1.PatchTask
	for i := range list.Items {
		task := &list.Items[i]
		if task.DeletionTimestamp.IsZero() && (!ofPolicy || task.Spec.Policy == object.GetName()) && slices.ContainsFunc(task.Status.Log, goes) {
			full = append(full, task)
		}
	}
	return each(ctx, full, func(ctx context.Context, before *v1alpha1.PatchTask) error {
		task := before.DeepCopy()
		task.Status.Log = slices.DeleteFunc(task.Status.Log, goes)
		if ofPolicy {
			remember(task, press)
		}
		patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
		if err := p.Client.Status().Patch(ctx, task, patch, client.FieldOwner(v1alpha1.ManagerFieldOwner)); err != nil {
			return fmt.Errorf("emptying the log of the task %s: %w", task.Name, outdated(err))
		}
		return nil
	})
}

// remember has a task's status say until when its log was cleared. What the task
// controller derives again from what happened before does not come back.
func remember(task *v1alpha1.PatchTask, press *v1alpha1.ButtonPress) {
	if task.Status.Handled == nil {
		task.Status.Handled = &v1alpha1.HandledButtons{}
	}
	task.Status.Handled.LogClearedAt = press.Time.DeepCopy()
}
