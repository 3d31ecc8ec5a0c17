// Package assignment keeps what the manager says about one node in its
// PatchAssignment: whether the node's agent is there, and that it works on no
// operation whose task is gone.
package assignment

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// Presence says whether a node's agent is there, from the Node and the agent's
// pods on it: during a rollout of the DaemonSet there may be two. A Node that is
// not Ready goes before everything else, as the kubelet then knows nothing
// about its pods. The messages hold nothing that changes while nothing happens.
func Presence(node *corev1.Node, pods []corev1.Pod) v1alpha1.ControllerStatus {
	status := v1alpha1.ControllerStatus{Agent: v1alpha1.AgentAbsent}
	var candidate *corev1.Pod
	for i := range pods {
		pod := &pods[i]
		if pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
			continue
		}
		if ready(pod) {
			status.Agent = v1alpha1.AgentReady
			candidate = pod
			break
		}
		status.Agent = v1alpha1.AgentNotReady
		if candidate == nil || candidate.DeletionTimestamp != nil {
			candidate = pod
		}
	}
	condition := NodeReady(node)
	switch {
	case condition == nil:
		status.Reason = v1alpha1.ReasonNodeNotReady
		status.Message = fmt.Sprintf("The node has not said that it is Ready; see kubectl describe node %s", node.Name)
	case condition.Status != corev1.ConditionTrue:
		status.Reason = v1alpha1.ReasonNodeNotReady
		status.Message = fmt.Sprintf("The node is not Ready (%s); see kubectl describe node %s", condition.Reason, node.Name)
	case status.Agent == v1alpha1.AgentAbsent:
		status.Reason = v1alpha1.ReasonAgentAbsent
		status.Message = "No agent runs on the node; see the events of the DaemonSet nodepatch-agent"
	case status.Agent == v1alpha1.AgentNotReady:
		status.Reason = v1alpha1.ReasonAgentNotReady
		status.Message = fmt.Sprintf("The agent's pod %s/%s is not ready%s", candidate.Namespace, candidate.Name, obstacle(candidate))
	}
	return status
}

// ready says whether a pod is ready and means to stay.
func ready(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp != nil {
		return false
	}
	for i := range pod.Status.Conditions {
		if condition := &pod.Status.Conditions[i]; condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// NodeReady is the Ready condition of a node, nil if the kubelet has not written
// one yet. It is the node's own, not a copy.
func NodeReady(node *corev1.Node) *corev1.NodeCondition {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == corev1.NodeReady {
			return &node.Status.Conditions[i]
		}
	}
	return nil
}

// obstacle says what a pod waits for. The kubelet goes to and fro between
// ErrImagePull and ImagePullBackOff, and between CrashLoopBackOff and a new
// attempt: each pair is one obstacle here.
func obstacle(pod *corev1.Pod) string {
	if pod.DeletionTimestamp != nil {
		return ": it is being deleted"
	}
	for i := range pod.Status.ContainerStatuses {
		container := &pod.Status.ContainerStatuses[i]
		waiting := ""
		if container.State.Waiting != nil {
			waiting = container.State.Waiting.Reason
		}
		switch {
		case waiting == "ErrImagePull" || waiting == "ImagePullBackOff":
			return fmt.Sprintf(": its image %s cannot be pulled", container.Image)
		case container.RestartCount > 0:
			return ": its container was restarted; see its log"
		case waiting != "" && waiting != "ContainerCreating" && waiting != "PodInitializing":
			return ": " + waiting
		}
	}
	return ""
}
