package assignment

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

func TestPresence(t *testing.T) {
	node := func(status corev1.ConditionStatus, reason string) *corev1.Node {
		return &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "n"},
			Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
				{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse},
				{Type: corev1.NodeReady, Status: status, Reason: reason},
			}},
		}
	}
	up := node(corev1.ConditionTrue, "KubeletReady")
	pod := func(name string, ready corev1.ConditionStatus, change ...func(*corev1.Pod)) corev1.Pod {
		pod := corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "system", Name: name},
			Status: corev1.PodStatus{
				Phase:      corev1.PodRunning,
				Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}},
			},
		}
		for _, c := range change {
			c(&pod)
		}
		return pod
	}
	container := func(restarts int32, waiting string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			status := corev1.ContainerStatus{Image: "nodepatch:dev", RestartCount: restarts}
			if waiting != "" {
				status.State.Waiting = &corev1.ContainerStateWaiting{Reason: waiting}
			}
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{status}
		}
	}
	deleted := func(pod *corev1.Pod) { pod.DeletionTimestamp = ptr.To(metav1.Now()) }
	evicted := func(pod *corev1.Pod) { pod.Status.Phase = corev1.PodFailed }
	notReady := func(message string) v1alpha1.ControllerStatus {
		return v1alpha1.ControllerStatus{Agent: v1alpha1.AgentNotReady, Reason: v1alpha1.ReasonAgentNotReady, Message: message}
	}
	absent := v1alpha1.ControllerStatus{
		Agent: v1alpha1.AgentAbsent, Reason: v1alpha1.ReasonAgentAbsent,
		Message: "No agent runs on the node; see the events of the DaemonSet nodepatch-agent",
	}
	tests := map[string]struct {
		node *corev1.Node
		pods []corev1.Pod
		want v1alpha1.ControllerStatus
	}{
		"there":                {node: up, pods: []corev1.Pod{pod("x", corev1.ConditionTrue)}, want: v1alpha1.ControllerStatus{Agent: v1alpha1.AgentReady}},
		"no pod":               {node: up, want: absent},
		"a pod that was ended": {node: up, pods: []corev1.Pod{pod("x", corev1.ConditionTrue, evicted)}, want: absent},
		"a pod that is not ready": {
			node: up, pods: []corev1.Pod{pod("x", corev1.ConditionFalse)},
			want: notReady("The agent's pod system/x is not ready"),
		},
		"a pod that has said nothing yet": {
			node: up, pods: []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "system", Name: "x"}}},
			want: notReady("The agent's pod system/x is not ready"),
		},
		"an image that cannot be pulled": {
			node: up, pods: []corev1.Pod{pod("x", corev1.ConditionFalse, container(0, "ErrImagePull"))},
			want: notReady("The agent's pod system/x is not ready: its image nodepatch:dev cannot be pulled"),
		},
		"the same, while the kubelet waits": {
			node: up, pods: []corev1.Pod{pod("x", corev1.ConditionFalse, container(0, "ImagePullBackOff"))},
			want: notReady("The agent's pod system/x is not ready: its image nodepatch:dev cannot be pulled"),
		},
		"an agent that crashes": {
			node: up, pods: []corev1.Pod{pod("x", corev1.ConditionFalse, container(3, "CrashLoopBackOff"))},
			want: notReady("The agent's pod system/x is not ready: its container was restarted; see its log"),
		},
		"the same, between two crashes": {
			node: up, pods: []corev1.Pod{pod("x", corev1.ConditionFalse, container(4, ""))},
			want: notReady("The agent's pod system/x is not ready: its container was restarted; see its log"),
		},
		"a pod that just begins": {
			node: up, pods: []corev1.Pod{pod("x", corev1.ConditionFalse, container(0, "ContainerCreating"))},
			want: notReady("The agent's pod system/x is not ready"),
		},
		"a pod that cannot be made": {
			node: up, pods: []corev1.Pod{pod("x", corev1.ConditionFalse, container(0, "CreateContainerConfigError"))},
			want: notReady("The agent's pod system/x is not ready: CreateContainerConfigError"),
		},
		"a pod that goes away, though it is still ready": {
			node: up, pods: []corev1.Pod{pod("x", corev1.ConditionTrue, deleted)},
			want: notReady("The agent's pod system/x is not ready: it is being deleted"),
		},
		"an update: the new pod counts": {
			node: up, pods: []corev1.Pod{pod("old", corev1.ConditionTrue, deleted), pod("new", corev1.ConditionTrue)},
			want: v1alpha1.ControllerStatus{Agent: v1alpha1.AgentReady},
		},
		"an update: the new pod is the one to look at": {
			node: up, pods: []corev1.Pod{pod("old", corev1.ConditionFalse, deleted), pod("new", corev1.ConditionFalse)},
			want: notReady("The agent's pod system/new is not ready"),
		},
		"a node that is not ready, whatever its pods": {
			node: node(corev1.ConditionUnknown, "NodeStatusUnknown"), pods: []corev1.Pod{pod("x", corev1.ConditionTrue)},
			want: v1alpha1.ControllerStatus{
				Agent: v1alpha1.AgentReady, Reason: v1alpha1.ReasonNodeNotReady,
				Message: "The node is not Ready (NodeStatusUnknown); see kubectl describe node n",
			},
		},
		"a node that has said nothing yet": {
			node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}},
			want: v1alpha1.ControllerStatus{
				Agent: v1alpha1.AgentAbsent, Reason: v1alpha1.ReasonNodeNotReady,
				Message: "The node has not said that it is Ready; see kubectl describe node n",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, Presence(test.node, test.pods)); diff != "" {
				t.Errorf("presence differs (-want +got):\n%s", diff)
			}
		})
	}
}
