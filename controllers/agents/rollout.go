package agents

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/agents/guard"
	"github.com/nodepatch/nodepatch/controllers/policy"
)

// untilIdle is when to look again at agents that are to go and are at work.
const untilIdle = 2 * time.Second

// Rollout keeps the DaemonSet of the agents: on exactly the nodes that policies
// select, and only while the admission policies bind each agent to its node.
type Rollout struct {
	// Client reads from the manager's cache.
	Client client.Client
	// Options say what the agents are.
	Options
}

func (r *Rollout) setup(mgr ctrl.Manager) error {
	guardOnly := predicate.NewPredicateFuncs(func(o client.Object) bool {
		return slices.Contains(guard.Policies, o.GetName())
	})
	ownOnly := predicate.NewPredicateFuncs(func(o client.Object) bool {
		return o.GetNamespace() == r.Namespace && o.GetName() == Name
	})
	// All that happens leads to the one DaemonSet.
	toDaemonSet := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: r.Namespace, Name: Name}}}
	})
	return ctrl.NewControllerManagedBy(mgr).
		Named("agents-daemonset").
		// Its status changes with every pod of it, and tells nothing here.
		Watches(&appsv1.DaemonSet{}, toDaemonSet,
			builder.WithPredicates(ownOnly, predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.PatchPolicy{}, toDaemonSet, builder.WithPredicates(selectionChanged())).
		Watches(&admissionv1.ValidatingAdmissionPolicy{}, toDaemonSet, builder.WithPredicates(guardOnly)).
		Watches(&admissionv1.ValidatingAdmissionPolicyBinding{}, toDaemonSet, builder.WithPredicates(guardOnly)).
		Complete(r)
}

// Reconcile applies the DaemonSet, or deletes it if no agent may run.
func (r *Rollout) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	policies := &v1alpha1.PatchPolicyList{}
	if err := r.Client.List(ctx, policies, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing the policies: %w", err)
	}
	gaps, err := guard.Gaps(ctx, r.Client)
	if err != nil {
		return reconcile.Result{}, err
	}
	if len(gaps) > 0 {
		return reconcile.Result{}, r.remove(ctx, strings.Join(gaps, "; "))
	}
	if abandons, err := r.abandons(ctx, policies.Items); err != nil || abandons {
		return reconcile.Result{RequeueAfter: untilIdle}, err
	}
	terms := nodeSelectorTerms(policies.Items)
	switch {
	case len(terms) == 0:
		return reconcile.Result{}, r.remove(ctx, "no policy selects nodes")
	}
	err = r.Client.Apply(ctx, daemonSet(r.Options, terms),
		client.FieldOwner(v1alpha1.ManagerFieldOwner), client.ForceOwnership)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("applying the DaemonSet of the agents: %w", err)
	}
	return reconcile.Result{}, nil
}

// abandons says whether a node is at work that no policy selects any more: its
// agent stays until it has ended what it was told to end. The task and the
// assignment controllers see to it that this does not take for ever.
func (r *Rollout) abandons(ctx context.Context, policies []v1alpha1.PatchPolicy) (bool, error) {
	var assignments v1alpha1.PatchAssignmentList
	if err := r.Client.List(ctx, &assignments, client.UnsafeDisableDeepCopy); err != nil {
		return false, fmt.Errorf("listing the assignments: %w", err)
	}
	var busy []corev1.Node
	for i := range assignments.Items {
		if !assignments.Items[i].Busy() {
			continue
		}
		node := &corev1.Node{}
		if err := r.Client.Get(ctx, client.ObjectKey{Name: assignments.Items[i].Name}, node); client.IgnoreNotFound(err) != nil {
			return false, fmt.Errorf("reading the node %s: %w", assignments.Items[i].Name, err)
		} else if err == nil {
			busy = append(busy, *node)
		}
	}
	return len(policy.Govern(policies, busy).Governor) < len(busy), nil
}

func (r *Rollout) remove(ctx context.Context, why string) error {
	existing := &appsv1.DaemonSet{}
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: Name}, existing)
	if err != nil {
		if client.IgnoreNotFound(err) == nil {
			return nil
		}
		return fmt.Errorf("reading the DaemonSet of the agents: %w", err)
	}
	if !existing.DeletionTimestamp.IsZero() {
		return nil
	}
	err = r.Client.Delete(ctx, existing, client.Preconditions{UID: &existing.UID},
		client.PropagationPolicy(metav1.DeletePropagationBackground))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting the DaemonSet of the agents: %w", err)
	}
	klog.FromContext(ctx).Info("Removed the agents", "daemonSet", klog.KObj(existing), "reason", why)
	return nil
}

// selectionChanged lets a policy through when it comes, goes, or selects or
// governs otherwise.
func selectionChanged() predicate.Predicate {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, after := e.ObjectOld.(*v1alpha1.PatchPolicy), e.ObjectNew.(*v1alpha1.PatchPolicy)
			return before.UID != after.UID ||
				before.Spec.Priority != after.Spec.Priority ||
				before.DeletionTimestamp.IsZero() != after.DeletionTimestamp.IsZero() ||
				!equality.Semantic.DeepEqual(before.Spec.NodeSelector, after.Spec.NodeSelector)
		},
	}
}
