package drain

import (
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/kubectl/pkg/drain"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// stuckAfter is how long after its grace period a pod that is still there is
// said to be stuck.
const stuckAfter = 30 * time.Second

// ownPods selects nodepatch's own pods, in its own namespace. Hooks end by
// themselves, and agents are pods of a DaemonSet like any others. A manager goes
// down with its node, and another takes over: one that was evicted would come
// back to the same node where there is no other, again and again.
var ownPods = labels.SelectorFromSet(labels.Set{"app.kubernetes.io/name": "nodepatch"})

// sorter tells apart what kubectl drain would evict. What it lets through is to
// be evicted now.
type sorter struct {
	options    *v1alpha1.DrainOptions
	namespace  string
	now        time.Time
	skip, wait labels.Selector
	// unreadable says what is wrong with a selector. Which pods it means is not
	// known then, so that every pod is refused.
	unreadable string

	ending, refused []string
}

func newSorter(options *v1alpha1.DrainOptions, namespace string, now time.Time) *sorter {
	s := &sorter{options: options, namespace: namespace, now: now}
	s.skip = s.selector("drain.skipPods", options.SkipPods)
	s.wait = s.selector("drain.waitForPods", options.WaitForPods)
	return s
}

// selector reads a selector; one that is not there selects no pod.
func (s *sorter) selector(field string, selector *metav1.LabelSelector) labels.Selector {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		s.unreadable = fmt.Sprintf("%s cannot be read: %v", field, err)
		return labels.Nothing()
	}
	return parsed
}

// sort is the last filter of kubectl's: pods of DaemonSets that are there, and
// mirror pods, do not come here.
func (s *sorter) sort(pod corev1.Pod) drain.PodDeleteStatus {
	set := labels.Set(pod.Labels)
	own := pod.Namespace == s.namespace && ownPods.Matches(set)
	switch {
	case pod.Status.Phase == corev1.PodSucceeded, pod.Status.Phase == corev1.PodFailed, own, s.skip.Matches(set):
	case pod.DeletionTimestamp != nil:
		s.ending = append(s.ending, name(&pod)+s.stuck(&pod))
	case s.unreadable != "":
		s.refused = append(s.refused, fmt.Sprintf("%s (%s)", name(&pod), s.unreadable))
	case s.wait.Matches(set):
		s.ending = append(s.ending, name(&pod)+" (drain.waitForPods)")
	default:
		cause := s.risk(&pod)
		if cause == "" {
			return drain.MakePodDeleteStatusOkay()
		}
		s.refused = append(s.refused, fmt.Sprintf("%s (%s)", name(&pod), cause))
	}
	return drain.MakePodDeleteStatusSkip()
}

// risk says what would be lost for good with a pod, and how each is allowed.
// kubectl says the first only.
func (s *sorter) risk(pod *corev1.Pod) string {
	var causes []string
	if volume := emptyDir(pod); volume != "" && s.options.EmptyDirData != v1alpha1.DrainEvict {
		causes = append(causes, "emptyDir "+volume+": set drain.emptyDirData=Evict")
	}
	if s.options.UnmanagedPods != v1alpha1.DrainEvict {
		switch controller := metav1.GetControllerOf(pod); {
		case controller == nil:
			causes = append(causes, "no controller makes it anew: set drain.unmanagedPods=Evict")
		case daemonSet(controller):
			// kubectl has looked for it in vain.
			causes = append(causes, "its DaemonSet "+controller.Name+" is gone: set drain.unmanagedPods=Evict")
		}
	}
	return strings.Join(causes, "; ")
}

func daemonSet(owner *metav1.OwnerReference) bool {
	return owner.Kind == "DaemonSet" && owner.APIVersion == appsv1.SchemeGroupVersion.String()
}

// emptyDir is the name of a pod's first emptyDir volume.
func emptyDir(pod *corev1.Pod) string {
	for i := range pod.Spec.Volumes {
		if pod.Spec.Volumes[i].EmptyDir != nil {
			return pod.Spec.Volumes[i].Name
		}
	}
	return ""
}

// stuck says why a pod that is being deleted is still there, once its grace
// period, which its deletion timestamp includes, is over.
func (s *sorter) stuck(pod *corev1.Pod) string {
	switch {
	case s.now.Before(pod.DeletionTimestamp.Add(stuckAfter)):
		return ""
	case len(pod.Finalizers) > 0:
		return " (held by its finalizer " + pod.Finalizers[0] + ")"
	}
	return " (still there after its grace period)"
}
