package hooks

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

const (
	// operationAnnotation on a hook's pod says which operation made it.
	operationAnnotation = "nodepatch.io/operation"
	// hookLabel on a hook's pod says at which point of the operation it runs.
	hookLabel = "nodepatch.io/hook"
)

// The environment of a hook's containers.
const (
	nodeVariable  = "NODEPATCH_NODE"  // name of the node
	taskVariable  = "NODEPATCH_TASK"  // name of the PatchTask
	pointVariable = "NODEPATCH_POINT" // preDisrupt, postInstall or postReboot
)

// podLabels are those of all pods of hooks. Drains leave them alone.
func podLabels() map[string]string {
	return map[string]string{"app.kubernetes.io/name": "nodepatch", "app.kubernetes.io/component": "hook"}
}

// podName is the name of a hook's pod, the same whenever it is asked for; at most
// 63 bytes, so that it can be the pod's host name.
func podName(hook Hook) string {
	const maxNode = 32
	node := strings.ReplaceAll(hook.Node, ".", "-")
	node = strings.TrimRight(node[:min(len(node), maxNode)], "-")
	sum := sha256.Sum256([]byte(strings.Join([]string{hook.Node, hook.OperationID, string(hook.Point)}, "\x00")))
	return strings.ToLower(string(hook.Point)) + "-" + node + "-" + hex.EncodeToString(sum[:5])
}

// hookPod is the hook's pod: that of the template, bound to the node without a
// scheduler, as a cordoned or tainted node takes it then.
func hookPod(hook Hook, template *corev1.PodTemplate, namespace string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   namespace,
			Name:        podName(hook),
			Labels:      map[string]string{},
			Annotations: map[string]string{},
		},
		Spec: *template.Template.Spec.DeepCopy(),
	}
	maps.Copy(pod.Labels, template.Template.Labels)
	maps.Copy(pod.Labels, podLabels())
	maps.Copy(pod.Labels, map[string]string{
		hookLabel:          string(hook.Point),
		v1alpha1.NodeLabel: patchlog.LabelValue(hook.Node),
		v1alpha1.TaskLabel: patchlog.LabelValue(hook.Task),
	})
	maps.Copy(pod.Annotations, template.Template.Annotations)
	pod.Annotations[operationAnnotation] = hook.OperationID

	seconds := max(1, int64(math.Ceil(hook.timeout().Seconds())))
	spec := &pod.Spec
	spec.NodeName = hook.Node
	spec.RestartPolicy = corev1.RestartPolicyNever
	spec.ActiveDeadlineSeconds = &seconds
	spec.Tolerations = append(spec.Tolerations, corev1.Toleration{Operator: corev1.TolerationOpExists})
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			prepare(&containers[i], hook)
		}
	}
	return pod
}

// prepare tells a container where it runs. What it prints last is what a person
// reads if it fails, unless it has a word of its own for that.
func prepare(container *corev1.Container, hook Hook) {
	variables := []corev1.EnvVar{
		{Name: nodeVariable, Value: hook.Node},
		{Name: taskVariable, Value: hook.Task},
		{Name: pointVariable, Value: string(hook.Point)},
	}
	container.Env = slices.DeleteFunc(container.Env, func(variable corev1.EnvVar) bool {
		return slices.ContainsFunc(variables, func(ours corev1.EnvVar) bool { return ours.Name == variable.Name })
	})
	// First, so that the template's own can refer to them.
	container.Env = append(variables, container.Env...)
	if container.TerminationMessagePolicy == "" || container.TerminationMessagePolicy == corev1.TerminationMessageReadFile {
		container.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	}
}

// ended is when the last container of a pod ended, or the pod itself was given
// up; zero if that is not known.
func ended(pod *corev1.Pod) time.Time {
	var last time.Time
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range statuses {
			if terminated := statuses[i].State.Terminated; terminated != nil && terminated.FinishedAt.After(last) {
				last = terminated.FinishedAt.Time
			}
		}
	}
	return last
}
