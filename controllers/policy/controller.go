// Package policy says which policy governs which node, and keeps the status of
// PatchPolicies: how many nodes they govern, how many of them are scanned and
// patched, and what a person has to mend.
package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/agents/guard"
)

// settle is how long changes of nodes and reports are gathered before the
// policies are looked at: each status is written at most once in that time,
// however many nodes report.
const settle = time.Second

// pass is the one request of the controller: look at all policies together, as
// each depends on the others.
type pass struct{}

// Reconciler keeps the status of PatchPolicies.
type Reconciler struct {
	// Client reads from the manager's cache.
	Client client.Client
	// Log takes the manager's entries of the patch log.
	Log patchlog.Sink
	// Clock tells the age of scans.
	Clock clock.PassiveClock
}

// SetupWithManager adds the controller to a manager; log takes the manager's
// entries of the patch log.
func SetupWithManager(mgr ctrl.Manager, log patchlog.Sink) error {
	r := &Reconciler{Client: mgr.GetClient(), Log: log, Clock: clock.RealClock{}}
	return r.setup(mgr)
}

func (r *Reconciler) setup(mgr ctrl.Manager) error {
	guardOnly := predicate.NewPredicateFuncs(func(o client.Object) bool {
		return slices.Contains(guard.Policies, o.GetName())
	})
	return builder.TypedControllerManagedBy[pass](mgr).
		Named("policy").
		Watches(&v1alpha1.PatchPolicy{}, lookAfter(0), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.Node{}, lookAfter(settle), builder.WithPredicates(
			predicate.Or[client.Object](predicate.LabelChangedPredicate{}, ReadinessChanged()))).
		Watches(&v1alpha1.PatchReport{}, lookAfter(settle)).
		Watches(&v1alpha1.PatchAssignment{}, lookAfter(settle), builder.WithPredicates(PresenceChanged())).
		Watches(&admissionv1.ValidatingAdmissionPolicy{}, lookAfter(settle), builder.WithPredicates(guardOnly)).
		Watches(&admissionv1.ValidatingAdmissionPolicyBinding{}, lookAfter(settle), builder.WithPredicates(guardOnly)).
		Complete(r)
}

// ReadinessChanged leaves out the updates in which a Node neither became Ready
// nor ceased to be.
func ReadinessChanged() predicate.Funcs {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok := e.ObjectOld.(*corev1.Node)
			after, ok2 := e.ObjectNew.(*corev1.Node)
			return !ok || !ok2 || ready(before) != ready(after)
		},
	}
}

// PresenceChanged leaves out the updates of PatchAssignments that say nothing
// new about whether the node's agent is there.
func PresenceChanged() predicate.Funcs {
	agent := func(object client.Object) v1alpha1.AgentPresence {
		if given, ok := object.(*v1alpha1.PatchAssignment); ok && given.Status.Controller != nil {
			return given.Status.Controller.Agent
		}
		return ""
	}
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool { return agent(e.ObjectOld) != agent(e.ObjectNew) },
	}
}

// lookAfter asks for a pass a while after anything happened. An earlier one
// that is already asked for stays.
func lookAfter(wait time.Duration) handler.TypedEventHandler[client.Object, pass] {
	type queue = workqueue.TypedRateLimitingInterface[pass]
	return handler.TypedFuncs[client.Object, pass]{
		CreateFunc: func(_ context.Context, _ event.TypedCreateEvent[client.Object], q queue) { q.AddAfter(pass{}, wait) },
		UpdateFunc: func(_ context.Context, _ event.TypedUpdateEvent[client.Object], q queue) { q.AddAfter(pass{}, wait) },
		DeleteFunc: func(_ context.Context, _ event.TypedDeleteEvent[client.Object], q queue) { q.AddAfter(pass{}, wait) },
	}
}

// Reconcile looks at all policies and writes each status that is not as it
// should be.
func (r *Reconciler) Reconcile(ctx context.Context, _ pass) (reconcile.Result, error) {
	policies := &v1alpha1.PatchPolicyList{}
	nodes := &corev1.NodeList{}
	reports := &v1alpha1.PatchReportList{}
	assignments := &v1alpha1.PatchAssignmentList{}
	// Nothing here changes what it reads; policies are copied before the write.
	for _, list := range []client.ObjectList{policies, nodes, reports, assignments} {
		if err := r.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return reconcile.Result{}, fmt.Errorf("listing %T: %w", list, err)
		}
	}
	gaps, err := guard.Gaps(ctx, r.Client)
	if err != nil {
		return reconcile.Result{}, err
	}

	seen := observation{
		membership:  Govern(policies.Items, nodes.Items),
		nodes:       make(map[string]*corev1.Node, len(nodes.Items)),
		reports:     make(map[string]*v1alpha1.PatchReport, len(reports.Items)),
		assignments: make(map[string]*v1alpha1.PatchAssignment, len(assignments.Items)),
		guardGaps:   gaps,
		now:         r.Clock.Now(),
	}
	for i := range nodes.Items {
		seen.nodes[nodes.Items[i].Name] = &nodes.Items[i]
	}
	for i := range assignments.Items {
		seen.assignments[assignments.Items[i].Name] = &assignments.Items[i]
	}
	for i := range reports.Items {
		seen.reports[reports.Items[i].Name] = &reports.Items[i]
	}

	var result reconcile.Result
	var failures []error
	for i := range policies.Items {
		seen.policy = &policies.Items[i]
		if !seen.policy.DeletionTimestamp.IsZero() {
			continue
		}
		switch err := r.keep(ctx, seen); {
		case apierrors.IsConflict(err):
			// The cache lags behind; what it brings does not call for a pass.
			result.RequeueAfter = sooner(result.RequeueAfter, settle)
		case client.IgnoreNotFound(err) != nil:
			failures = append(failures, fmt.Errorf("keeping the status of PatchPolicy %s: %w", seen.policy.Name, err))
		}
		result.RequeueAfter = sooner(result.RequeueAfter, seen.nextOverdue())
	}
	if len(failures) > 0 {
		return reconcile.Result{}, errors.Join(failures...)
	}
	return result, nil
}

// write patches what differs, and refuses to do so on an older policy: the
// times of its conditions would be wrong.
func (r *Reconciler) write(ctx context.Context, policy *v1alpha1.PatchPolicy, status v1alpha1.PatchPolicyStatus) error {
	if equality.Semantic.DeepEqual(policy.Status, status) {
		return nil
	}
	changed := policy.DeepCopy()
	changed.Status = status
	patch := client.MergeFromWithOptions(policy, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Status().Patch(ctx, changed, patch, client.FieldOwner(v1alpha1.ManagerFieldOwner)); err != nil {
		return err
	}
	klog.FromContext(ctx).V(4).Info("Wrote the status of a policy", "policy", klog.KObj(policy))
	return nil
}

// sooner is the shorter of two waits, of which zero is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
