package schedule

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/policy"
)

// Overdue has nodes scanned whose last scan is older than their policy's
// maxScanAge, as soon as they can be reached.
type Overdue struct {
	// Client reads what it wrote before.
	Client client.Client
	// Clock tells the age of scans.
	Clock clock.PassiveClock
}

// pass is the one request of the controller: look at all nodes together, so that
// those that come back together share a task.
type pass struct{}

// Reconcile makes the tasks that overdue nodes need. It stores nothing else: the
// tasks themselves say which nodes were to be scanned, and when.
func (r *Overdue) Reconcile(ctx context.Context, _ pass) (ctrl.Result, error) {
	seen, err := r.observe(ctx)
	if seen == nil || err != nil {
		return ctrl.Result{}, err
	}
	scans, wake := seen.scans()
	var failures []error
	for _, s := range scans {
		task := newScan(s)
		switch err := r.Client.Create(ctx, task); {
		case err == nil:
			klog.FromContext(ctx).Info("Began a scan of overdue nodes", "policy", klog.KObj(s.policy), "task", klog.KObj(task), "nodes", len(s.nodes))
		case apierrors.IsAlreadyExists(err):
			// Another manager made one this minute, maybe for other nodes.
			wake = earlier(wake, nextMinute(seen.now))
		default:
			failures = append(failures, fmt.Errorf("beginning the scan %s of overdue nodes: %w", s.name, err))
		}
	}
	if err := errors.Join(failures...); err != nil {
		return ctrl.Result{}, err
	}
	if wake.IsZero() {
		return ctrl.Result{}, nil
	}
	return ctrl.Result{RequeueAfter: max(wake.Sub(r.Clock.Now()), time.Millisecond)}, nil
}

// observe reads what the scans follow from. Nothing of it may be changed: it is
// the cache's own. It is nil if no policy asks for such scans.
func (r *Overdue) observe(ctx context.Context) (*fleet, error) {
	policies := &v1alpha1.PatchPolicyList{}
	if err := r.Client.List(ctx, policies, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing the policies: %w", err)
	}
	asked := false
	for i := range policies.Items {
		asked = asked || policies.Items[i].Spec.MaxScanAge != nil
	}
	if !asked {
		return nil, nil
	}
	nodes, reports := &corev1.NodeList{}, &v1alpha1.PatchReportList{}
	assignments, tasks := &v1alpha1.PatchAssignmentList{}, &v1alpha1.PatchTaskList{}
	for _, list := range []client.ObjectList{nodes, reports, assignments, tasks} {
		if err := r.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("listing what scans of overdue nodes depend on: %w", err)
		}
	}
	seen := &fleet{
		policies: policies.Items, membership: policy.Govern(policies.Items, nodes.Items),
		nodes:       make(map[string]*corev1.Node, len(nodes.Items)),
		reports:     make(map[string]*v1alpha1.PatchReport, len(reports.Items)),
		assignments: make(map[string]*v1alpha1.PatchAssignment, len(assignments.Items)),
		tasks:       tasks.Items, now: r.Clock.Now(),
	}
	for i := range nodes.Items {
		seen.nodes[nodes.Items[i].Name] = &nodes.Items[i]
	}
	for i := range reports.Items {
		seen.reports[reports.Items[i].Name] = &reports.Items[i]
	}
	for i := range assignments.Items {
		seen.assignments[assignments.Items[i].Name] = &assignments.Items[i]
	}
	return seen, nil
}
