package assignment

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/controllers/maintenance"
)

// DaemonPod is a DaemonSet's pod on a node, as the kubelet last told of it.
type DaemonPod struct {
	// DaemonSet is namespace/name.
	DaemonSet string
	Ready     bool
	// Containers are the IDs of its containers, such as containerd://0f3c….
	Containers []string
}

// daemonPods lists the DaemonSets' pods on a node. It is never nil without an error.
func (r *Reconciler) daemonPods(ctx context.Context, node string) ([]DaemonPod, error) {
	var list corev1.PodList
	if err := r.Live.List(ctx, &list, client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector(podNodeField, node)}); err != nil {
		return nil, fmt.Errorf("listing the pods on node %s: %w", node, err)
	}
	pods := []DaemonPod{}
	for i := range list.Items {
		pod := &list.Items[i]
		if owner := metav1.GetControllerOf(pod); owner != nil && owner.Kind == "DaemonSet" {
			pods = append(pods, DaemonPod{DaemonSet: pod.Namespace + "/" + owner.Name, Ready: ready(pod), Containers: containers(pod)})
		}
	}
	return pods, nil
}

func containers(pod *corev1.Pod) []string {
	var ids []string
	for i := range pod.Status.ContainerStatuses {
		if id := pod.Status.ContainerStatuses[i].ContainerID; id != "" {
			ids = append(ids, id)
		}
	}
	return ids
}

// allContainers are those of all pods.
func allContainers(pods []DaemonPod) []string {
	var ids []string
	for i := range pods {
		ids = append(ids, pods[i].Containers...)
	}
	return ids
}

// unready names the DaemonSets, sorted, none of whose pods is ready: during an
// update there may be two. After a reboot a kubelet that is back still tells what
// it last knew of its pods, for some seconds: one with a container of before the
// reboot, by the node's record, is not ready, whatever is said. The record is nil
// for a node that has not rebooted.
func unready(pods []DaemonPod, rebooted *maintenance.Record) []string {
	isReady := map[string]bool{}
	for i := range pods {
		pod := &pods[i]
		outdated := rebooted != nil && slices.ContainsFunc(pod.Containers, rebooted.RanBefore)
		isReady[pod.DaemonSet] = isReady[pod.DaemonSet] || pod.Ready && !outdated
	}
	var names []string
	for name, ok := range isReady {
		if !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
