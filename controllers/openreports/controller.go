package openreports

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/policy"
)

// keep makes a node's ClusterReport say what its PatchReport does, and removes
// the one without the other. Only of what differs the patches are read, and only
// that is written.
func (r *Reconciler) keep(ctx context.Context, copies *copies, name string) (ctrl.Result, error) {
	now := r.Clock.Now()
	existing, current, err := copies.get(ctx, name, now)
	if err != nil {
		return ctrl.Result{}, err
	}
	if !current {
		return ctrl.Result{RequeueAfter: patience}, nil
	}
	seen, err := r.look(ctx, name, now)
	if err != nil {
		return ctrl.Result{}, err
	}
	if seen == nil {
		return ctrl.Result{}, r.remove(ctx, existing)
	}
	wake := seen.wake()
	f, marker, err := seen.facts()
	if errors.Is(err, errNoOwner) {
		return wake, nil // it gets its owner back, which asks again
	}
	if err != nil || upToDate(existing, f, marker) {
		return wake, err
	}
	if err := r.Live.Get(ctx, client.ObjectKey{Name: name}, seen.report); apierrors.IsNotFound(err) {
		return ctrl.Result{}, nil // the cache is about to say so
	} else if err != nil {
		return ctrl.Result{}, fmt.Errorf("reading the PatchReport of node %s: %w", name, err)
	}
	seen.digest = digest(seen.report.Status.Patches)
	if f, marker, err = seen.facts(); err != nil || upToDate(existing, f, marker) {
		return seen.wake(), err
	}
	report := build(f, marker, seen.report.Status.Patches)
	if err := r.Client.Apply(ctx, report, client.FieldOwner(v1alpha1.ManagerFieldOwner), client.ForceOwnership); err != nil {
		return ctrl.Result{}, fmt.Errorf("writing the ClusterReport of node %s: %w", name, err)
	}
	copies.remember(reportName(name), *report.ResourceVersion, now)
	klog.FromContext(ctx).V(4).Info("Wrote a ClusterReport", "node", klog.KRef("", name),
		"fail", *report.Summary.Fail, "error", *report.Summary.Error, "results", len(report.Results))
	return seen.wake(), nil
}

// upToDate says whether a ClusterReport was made of these facts, and still goes
// with its node.
func upToDate(existing *metav1.PartialObjectMetadata, f facts, marker string) bool {
	return existing != nil && existing.Annotations[markerAnnotation] == marker && owned(existing, f.UID)
}

// remove deletes the ClusterReport of a node that no policy governs any more, if
// it has one: it has no PatchReport either.
func (r *Reconciler) remove(ctx context.Context, existing *metav1.PartialObjectMetadata) error {
	if existing == nil || !existing.DeletionTimestamp.IsZero() {
		return nil
	}
	err := r.Client.Delete(ctx, metadata(existing.Name), client.Preconditions{UID: new(existing.UID)})
	if apierrors.IsConflict(err) {
		return nil // another one has its name by now, of which the watch will tell
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting the ClusterReport %s: %w", existing.Name, err)
	}
	klog.FromContext(ctx).V(4).Info("Deleted a ClusterReport", "clusterReport", klog.KObj(existing))
	return nil
}

// RemoveAll deletes the ClusterReports of all nodes, where there is such a kind. It
// is for when no manager runs any more: one that did would make them again.
func RemoveAll(ctx context.Context, c client.Writer) error {
	err := c.DeleteAllOf(ctx, metadata(""), client.MatchingLabels(managedBy))
	if err != nil && !absent(err) {
		return fmt.Errorf("deleting the ClusterReports: %w", err)
	}
	return nil
}

// sight is what the manager sees of a node.
type sight struct {
	report *v1alpha1.PatchReport
	// digest stands for the report's security patches, which the cache drops.
	digest string
	// governor is the name of the policy that governs the node, and policy that
	// policy, if there is one.
	governor string
	policy   *v1alpha1.PatchPolicy
	now      time.Time
}

// look is what the manager's cache knows of a node; nil if nobody reports on it.
func (r *Reconciler) look(ctx context.Context, name string, now time.Time) (*sight, error) {
	key := client.ObjectKey{Name: name}
	seen := &sight{report: &v1alpha1.PatchReport{}, now: now}
	if err := r.Client.Get(ctx, key, seen.report); apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("reading the PatchReport of node %s: %w", name, err)
	}
	var noted bool
	if seen.digest, noted = seen.report.Annotations[digestAnnotation]; !noted {
		seen.digest = digest(seen.report.Status.Patches)
	}
	assignment := &v1alpha1.PatchAssignment{}
	if err := r.Client.Get(ctx, key, assignment); client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("reading the PatchAssignment of node %s: %w", name, err)
	}
	if seen.governor = assignment.Spec.Policy; seen.governor == "" {
		return seen, nil
	}
	governor := &v1alpha1.PatchPolicy{}
	switch err := r.Client.Get(ctx, client.ObjectKey{Name: seen.governor}, governor); {
	case err == nil:
		seen.policy = governor
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("reading the PatchPolicy of node %s: %w", name, err)
	}
	return seen, nil
}

// wake asks for the node again when it becomes overdue.
func (s *sight) wake() ctrl.Result {
	if s.policy == nil {
		return ctrl.Result{}
	}
	due := policy.OverdueAt(s.policy, s.report)
	if !due.After(s.now) {
		return ctrl.Result{}
	}
	return ctrl.Result{RequeueAfter: due.Sub(s.now)}
}
