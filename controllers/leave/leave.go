// Package leave gets a cluster ready to have nodepatch taken away: the manager puts back
// every node that it works on, and then it and the agents end. Without that a node
// would stay cordoned for ever. It is the program of the Job in config/leave, which
// Helm runs before it uninstalls, and of hack/undeploy.
package leave

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/agents"
	"github.com/nodepatch/nodepatch/controllers/openreports"
)

const (
	// manager is the name of the manager's Deployment and of its Lease.
	manager = "nodepatch-manager"
	// pause between two looks.
	pause = time.Second
	// answer is how long the API server may take for one look.
	answer = 30 * time.Second
	// overtime is how long after its grace period a pod that was deleted may still run.
	// A manager that cannot renew its Lease has ended itself by then.
	overtime = time.Minute
	// named is how many objects of a kind a message names.
	named = 10
)

// Options say how to leave.
type Options struct {
	// Namespace of the manager and the agents.
	Namespace string
	// KeepPolicies leaves the policies, and with them each node's report and retry
	// counts. The tasks go.
	KeepPolicies bool
	// Patience is how long the nodes may take to be put back. Up to then nothing is
	// lost: the manager goes on, and leaving can be tried again.
	Patience time.Duration
}

// Run deletes the tasks and the policies, waits until the manager has put back all
// nodes and has removed its objects, and ends the manager and the agents. It can be
// run again at any time, also where parts of nodepatch are gone already.
func Run(ctx context.Context, c client.Client, o Options) error {
	l := &leaving{Client: c, Options: o}
	if err := l.until(ctx, "nodepatch still works on the cluster", l.withdraw); err != nil {
		return err
	}
	replicas, err := l.scale(ctx, 0)
	if err != nil {
		return err
	}
	if err := l.until(ctx, "the manager has not ended", l.managers); err != nil {
		_, back := l.scale(ctx, replicas)
		return errors.Join(err, back)
	}
	// With the policies kept, their schedules could start a run until just now.
	if held, err := l.held(ctx); err != nil || len(held) > 0 {
		_, back := l.scale(ctx, replicas)
		return errors.Join(err, back, fmt.Errorf("a run began on %s meanwhile: try again", enumerate(held)))
	}
	if err := l.remove(ctx); err != nil {
		return err
	}
	klog.FromContext(ctx).Info("Every node is as it was, and the manager and the agents have ended")
	return nil
}

type leaving struct {
	client.Client
	Options
}

// until calls look until it finds nothing more, or until the patience is over.
// What it finds is logged when it changes. An API server that is away is waited for.
func (l *leaving) until(ctx context.Context, trouble string, look func(context.Context) ([]string, error)) error {
	var last string
	err := wait.PollUntilContextTimeout(ctx, pause, l.Patience, true, func(context.Context) (bool, error) {
		// A look that has begun is finished: cut short by the end of the patience, it would not say what it waits for.
		looking, cancel := context.WithTimeout(ctx, answer)
		defer cancel()
		found, err := look(looking)
		if apierrors.IsForbidden(err) {
			return false, err
		}
		if err != nil {
			found = []string{err.Error()}
		}
		if now := strings.Join(found, "; "); now != last && now != "" {
			klog.FromContext(ctx).Info("Waiting", "for", now)
			last = now
		}
		return len(found) == 0, nil
	})
	if wait.Interrupted(err) && ctx.Err() == nil {
		return fmt.Errorf(`after %s %s: %s. Nothing else was taken away: see "kubectl get patchassignments" and `+
			`"kubectl -n %s logs deployment/%s", and try again with more patience. If the manager cannot run any more, put each node back yourself `+
			`(kubectl uncordon NODE; kubectl annotate node NODE %s-)`, l.Patience, trouble, last, l.Namespace, manager, v1alpha1.MaintenanceAnnotation)
	}
	return err
}

// withdraw takes back what nodepatch was asked to do, and says what is left of it.
func (l *leaving) withdraw(ctx context.Context) ([]string, error) {
	asked := []client.Object{&v1alpha1.PatchTask{}}
	kept := []client.ObjectList{&v1alpha1.PatchTaskList{}}
	if !l.KeepPolicies {
		asked = append(asked, &v1alpha1.PatchPolicy{})
		// The manager removes these of each node once no policy selects it. It keeps a PatchRetry that had counts.
		kept = append(kept, &v1alpha1.PatchPolicyList{}, &v1alpha1.PatchAssignmentList{}, &v1alpha1.PatchReportList{})
	}
	for _, kind := range asked {
		if err := l.DeleteAllOf(ctx, kind); err != nil && !absent(err) {
			return nil, fmt.Errorf("deleting what nodepatch was asked to do: %w", err)
		}
	}
	held, err := l.held(ctx)
	if err != nil {
		return nil, err
	}
	var found []string
	if len(held) > 0 {
		found = append(found, "the nodes "+enumerate(held)+" are put back")
	}
	for _, list := range kept {
		if err := l.List(ctx, list, client.Limit(named+1)); err != nil && !absent(err) {
			return nil, fmt.Errorf("listing what is left: %w", err)
		}
		names, err := namesOf(list)
		if err != nil {
			return nil, err
		}
		if len(names) > 0 {
			kind := strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%T", list), "*v1alpha1."), "List")
			found = append(found, "the "+kind+" "+enumerate(names)+" goes")
		}
	}
	return found, nil
}

// namesOf are the names of the objects of a list.
func namesOf(list client.ObjectList) ([]string, error) {
	var names []string
	err := meta.EachListItem(list, func(o runtime.Object) error {
		names = append(names, o.(client.Object).GetName())
		return nil
	})
	return names, err
}

// held are the nodes that carry the record of what nodepatch changed on them.
func (l *leaving) held(ctx context.Context) ([]string, error) {
	nodes := &metav1.PartialObjectMetadataList{}
	nodes.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NodeList"))
	if err := l.List(ctx, nodes); err != nil {
		return nil, fmt.Errorf("listing the nodes: %w", err)
	}
	var held []string
	for i := range nodes.Items {
		if _, found := nodes.Items[i].Annotations[v1alpha1.MaintenanceAnnotation]; found {
			held = append(held, nodes.Items[i].Name)
		}
	}
	return held, nil
}

// scale sets how many managers run, and returns how many did.
func (l *leaving) scale(ctx context.Context, replicas int32) (int32, error) {
	deployment := &appsv1.Deployment{}
	err := l.Get(ctx, client.ObjectKey{Namespace: l.Namespace, Name: manager}, deployment)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading the manager's Deployment: %w", err)
	}
	before := int32(1)
	if deployment.Spec.Replicas != nil {
		before = *deployment.Spec.Replicas
	}
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas))
	if err := l.Patch(ctx, deployment, patch); client.IgnoreNotFound(err) != nil {
		return before, fmt.Errorf("scaling the manager's Deployment to %d: %w", replicas, err)
	}
	return before, nil
}

// managers are the pods of the manager that may still run.
func (l *leaving) managers(ctx context.Context) ([]string, error) {
	pods := &corev1.PodList{}
	err := l.List(ctx, pods, client.InNamespace(l.Namespace),
		client.MatchingLabels{"app.kubernetes.io/name": "nodepatch", "app.kubernetes.io/component": "manager"})
	if err != nil {
		return nil, fmt.Errorf("listing the manager's pods: %w", err)
	}
	var found []string
	for i := range pods.Items {
		if pod := &pods.Items[i]; runs(pod, time.Now()) {
			found = append(found, "the pod "+pod.Name)
		}
	}
	return found, nil
}

// runs says whether a pod may still run. One on a node that is gone is there for
// ever: it has ended once it has had its time, and its manager has lost its Lease.
func runs(pod *corev1.Pod, now time.Time) bool {
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return false
	}
	return pod.DeletionTimestamp == nil || now.Sub(pod.DeletionTimestamp.Time) <= overtime
}

// remove deletes what the manager made and nothing else would delete. Counts of
// failed attempts are not lost with the PatchRetries: each host has its own.
func (l *leaving) remove(ctx context.Context) error {
	for _, made := range []client.Object{
		&appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: l.Namespace, Name: agents.Name}},
		&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: l.Namespace, Name: manager}},
	} {
		err := l.Delete(ctx, made, client.PropagationPolicy(metav1.DeletePropagationBackground))
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting what the manager made: %w", err)
		}
	}
	if l.KeepPolicies {
		return nil
	}
	if err := l.DeleteAllOf(ctx, &v1alpha1.PatchRetry{}); err != nil && !absent(err) {
		return fmt.Errorf("deleting the retry counts: %w", err)
	}
	// The manager deletes them too, but it may have ended before it had.
	return openreports.RemoveAll(ctx, l)
}

// absent says that the API server does not know the kind, or no longer.
func absent(err error) bool { return meta.IsNoMatchError(err) || apierrors.IsNotFound(err) }

// enumerate joins names, the first few of many.
func enumerate(names []string) string {
	slices.Sort(names)
	if len(names) > named {
		names = append(slices.Clone(names[:named]), "…")
	}
	return strings.Join(names, ", ")
}
