package drain

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
)

// request asks for a pod's eviction, once.
//
// kubectl's EvictPod would not do. client-go sleeps and asks up to ten times
// more where the answer says when to, as for a PodDisruptionBudget that its
// controller has not seen yet (10 s each). And without its UID, a pod of the same
// name might be evicted that was made on another node since, as of a StatefulSet.
func (d *Drainer) request(ctx context.Context, pod *corev1.Pod, grace *int64) error {
	ctx, cancel := context.WithTimeout(ctx, evictionTimeout)
	defer cancel()
	eviction := &policyv1.Eviction{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
		DeleteOptions: &metav1.DeleteOptions{
			GracePeriodSeconds: grace,
			Preconditions:      metav1.NewUIDPreconditions(string(pod.UID)),
		},
	}
	return d.client.CoreV1().RESTClient().Post().
		Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("eviction").
		Body(eviction).MaxRetries(0).
		Do(ctx).Error()
}

// verdict is what an answer to an eviction means.
type verdict string

const (
	accepted  verdict = "accepted"
	gone      verdict = "gone"
	blocked   verdict = "blocked"
	ending    verdict = "ending"
	undecided verdict = "undecided"
)

// budgets names the PodDisruptionBudgets that held evictions up, of the namespaces
// in which it had to look.
type budgets struct {
	client kubernetes.Interface
	known  map[string]budgetList
}

type budgetList []budget

type budget struct {
	name     string
	selector labels.Selector
	usedUp   bool
}

// judge says what the answer to a pod's eviction means, and what blocks the pod
// or ends it without us. An error is not about the pod.
func (b *budgets) judge(ctx context.Context, pod *corev1.Pod, answer error) (verdict verdict, cause string, err error) {
	var status apierrors.APIStatus
	switch {
	case answer == nil:
		return accepted, "", nil
	case apierrors.IsNotFound(answer):
		return gone, "", nil
	case apierrors.IsConflict(answer):
		// The pod changed this moment, or another has its name.
		return undecided, "", nil
	case apierrors.IsForbidden(answer) && apierrors.HasStatusCause(answer, corev1.NamespaceTerminatingCause):
		return ending, "its namespace is being deleted", nil
	case apierrors.IsTooManyRequests(answer) && apierrors.HasStatusCause(answer, policyv1.DisruptionBudgetCause):
		if names := b.load(ctx, pod.Namespace).of(pod); len(names) > 0 {
			return blocked, "PodDisruptionBudget " + strings.Join(names, ", "), nil
		}
		cause, _ := apierrors.StatusCause(answer, policyv1.DisruptionBudgetCause)
		return blocked, limit(cause.Message, maxCause), nil
	case errors.As(answer, &status) && refusal(status.Status().Code):
		// The eviction API answers with 500 where several budgets select a pod.
		if names := b.load(ctx, pod.Namespace).of(pod); len(names) > 1 {
			return blocked, "evictions know only one PodDisruptionBudget for a pod, not " + strings.Join(names, ", "), nil
		}
		return blocked, limit(answer.Error(), maxCause), nil
	}
	return undecided, "", answer
}

// refusal says whether a status code is the word of the API server, or of one of
// its webhooks, on a pod; the others are about the API server itself.
func refusal(code int32) bool {
	switch code {
	case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	}
	return code >= 400 && code <= http.StatusInternalServerError
}

// load reads the budgets of a namespace, if it has not yet, and has none where
// that fails: they only name what the eviction API has decided.
func (b *budgets) load(ctx context.Context, namespace string) budgetList {
	if known, found := b.known[namespace]; found {
		return known
	}
	list, err := b.client.PolicyV1().PodDisruptionBudgets(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		klog.FromContext(ctx).Info("Unable to name the PodDisruptionBudgets of blocked pods", "namespace", namespace, "cause", err.Error())
		b.known[namespace] = nil
		return nil
	}
	var loaded budgetList
	for i := range list.Items {
		item := &list.Items[i]
		// The eviction API passes over one with a bad selector as well.
		if selector, err := metav1.LabelSelectorAsSelector(item.Spec.Selector); err == nil {
			loaded = append(loaded, budget{name: item.Name, selector: selector, usedUp: item.Status.DisruptionsAllowed == 0})
		}
	}
	slices.SortFunc(loaded, func(a, b budget) int { return strings.Compare(a.name, b.name) })
	b.known[namespace] = loaded
	return loaded
}

// usedUp says which budget would refuse the eviction of a pod that was not asked
// for, from what is known already; empty if none. Pods that are not ready may go
// in spite of it.
func (b *budgets) usedUp(pod *corev1.Pod) string {
	if !ready(pod) {
		return ""
	}
	known := slices.DeleteFunc(slices.Clone(b.known[pod.Namespace]), func(one budget) bool { return !one.usedUp })
	if names := known.of(pod); len(names) > 0 {
		return "PodDisruptionBudget " + strings.Join(names, ", ")
	}
	return ""
}

// of names the budgets that select a pod, in the order of their names.
func (l budgetList) of(pod *corev1.Pod) []string {
	var names []string
	for i := range l {
		if l[i].selector.Matches(labels.Set(pod.Labels)) {
			names = append(names, l[i].name)
		}
	}
	return names
}

func ready(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(condition corev1.PodCondition) bool {
		return condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue
	})
}
