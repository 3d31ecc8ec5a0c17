package hooks

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// patience is how long after its deadline a pod may take to be ended by the
	// kubelet, which counts from when it first saw the pod. A kubelet that is away
	// never ends it.
	patience = 15 * time.Second
	// maxMessage bounds a message, in bytes.
	maxMessage = 512
)

// read says how a hook stands whose pod is there.
func (r *Runner) read(ctx context.Context, hook Hook, pod *corev1.Pod) State {
	late := r.clock.Since(pod.CreationTimestamp.Time) > hook.timeout()+patience
	state := State{Phase: Running, Message: fmt.Sprintf("waits for its pod %s%s", pod.Name, obstacle(pod))}
	switch {
	case pod.Status.Phase == corev1.PodSucceeded:
		state = State{Phase: Succeeded}
	case pod.Status.Phase == corev1.PodFailed && pod.Status.Reason == "DeadlineExceeded":
		state = r.timeout(ctx, hook, pod)
	case pod.Status.Phase == corev1.PodFailed:
		state = failed("its pod %s failed%s", pod.Name, failure(pod))
	case pod.DeletionTimestamp != nil:
		state = failed("its pod %s was deleted before it ended", pod.Name)
	case late:
		state = r.timeout(ctx, hook, pod)
	}
	if state.Phase != Running {
		end := ended(pod)
		if end.IsZero() {
			end = r.clock.Now()
		}
		state.Took = max(0, end.Sub(pod.CreationTimestamp.Time))
	}
	return state
}

// timeout says why a pod has not ended in time, as far as that can be known.
func (r *Runner) timeout(ctx context.Context, hook Hook, pod *corev1.Pod) State {
	cause := obstacle(pod)
	node := &corev1.Node{}
	if cause == "" && r.live.Get(ctx, client.ObjectKey{Name: hook.Node}, node) == nil && !ready(node) {
		cause = ": its node is not Ready"
	}
	return failed("its pod %s did not end within %s%s", pod.Name, hook.timeout(), cause)
}

func ready(node *corev1.Node) bool {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == corev1.NodeReady {
			return node.Status.Conditions[i].Status == corev1.ConditionTrue
		}
	}
	return false
}

// obstacle says what a container waits for. The kubelet goes to and fro between
// ErrImagePull and ImagePullBackOff, which are one obstacle here.
func obstacle(pod *corev1.Pod) string {
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range statuses {
			waiting := statuses[i].State.Waiting
			if waiting == nil {
				continue
			}
			switch waiting.Reason {
			case "", "ContainerCreating", "PodInitializing":
			case "ErrImagePull", "ImagePullBackOff":
				return fmt.Sprintf(": the image %s cannot be pulled", statuses[i].Image)
			default:
				return ": " + waiting.Reason
			}
		}
	}
	return ""
}

// failure says why a pod failed: the words of the first container that did, or
// those of the kubelet, which refuses a pod that does not fit its node.
func failure(pod *corev1.Pod) string {
	if pod.Status.Reason != "" {
		return fmt.Sprintf(" (%s): %s", pod.Status.Reason, pod.Status.Message)
	}
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range statuses {
			terminated := statuses[i].State.Terminated
			if terminated == nil || terminated.ExitCode == 0 {
				continue
			}
			text := fmt.Sprintf(": container %s ended with status %d", statuses[i].Name, terminated.ExitCode)
			if terminated.Reason != "" && terminated.Reason != "Error" {
				text += " (" + terminated.Reason + ")"
			}
			if terminated.Message != "" {
				text += ": " + tail(terminated.Message)
			}
			return text
		}
	}
	return ""
}

// tail is the end of what a container said, in one line: its last words are the
// ones that matter.
func tail(said string) string {
	const most = 256
	line := strings.Join(strings.Fields(strings.ToValidUTF8(said, "�")), " ")
	if len(line) > most {
		line = "…" + strings.ToValidUTF8(line[len(line)-most:], "")
	}
	return line
}

// failed makes the state of a hook that can no longer succeed.
func failed(format string, args ...any) State {
	message := strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage-len("…")], "") + "…"
	}
	return State{Phase: Failed, Message: message}
}
