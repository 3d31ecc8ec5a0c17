package maintenance

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// What the neighbours read of a node that is worked on.
const (
	// ScaleDownDisabledAnnotation keeps the cluster autoscaler from removing a node:
	// https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md
	ScaleDownDisabledAnnotation = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
	// DoNotDisruptAnnotation keeps Karpenter from disrupting a node:
	// https://karpenter.sh/docs/concepts/disruption/
	DoNotDisruptAnnotation = "karpenter.sh/do-not-disrupt"
)

const (
	// maxBroken bounds the DaemonSets that a record names. More are waited for.
	maxBroken = 32
	// maxContainers bounds the containers that a record names. Of more, what the
	// kubelet said before a reboot is taken for true until it says something else.
	maxContainers = 128
	// shortID is how much of a container's ID a record has, as much as crictl shows.
	shortID = 13
)

const yes = "true"

// Begin writes the record, and tells the neighbours to leave the node alone.
// Broken are DaemonSets, as namespace/name, whose pod on the node is not ready.
func Begin(node *corev1.Node, subject Subject, now time.Time, broken []string) *Record {
	record := &Record{
		Version: version, Subject: subject, Since: metav1.NewMicroTime(now), BootID: node.Status.NodeInfo.BootID,
		Annotations: map[string]Change{}, Broken: broken[:min(len(broken), maxBroken)],
	}
	for _, key := range []string{ScaleDownDisabledAnnotation, DoNotDisruptAnnotation} {
		record.Annotations[key] = Change{Set: yes, Before: value(node.Annotations, key)}
		metav1.SetMetaDataAnnotation(&node.ObjectMeta, key, yes)
	}
	record.write(node)
	return record
}

// Rebuild writes the record anew of a node whose disruption has begun and whose
// record is gone or damaged. What nodepatch changed is told from who owns the
// fields of the Node: values that annotations and labels had before are lost,
// and they are taken for new. The boot ID is left out, as the node may have
// rebooted since.
func Rebuild(node *corev1.Node, subject Subject, now time.Time) *Record {
	record := &Record{
		Version: version, Subject: subject, Since: metav1.NewMicroTime(now),
		Annotations: map[string]Change{}, Labels: map[string]Change{},
	}
	for _, key := range []string{ScaleDownDisabledAnnotation, DoNotDisruptAnnotation} {
		if node.Annotations[key] == yes && !foreign(node, "f:metadata", "f:annotations", "f:"+key) {
			record.Annotations[key] = Change{Set: yes}
		}
	}
	if key := corev1.LabelNodeExcludeBalancers; node.Labels[key] == yes && !foreign(node, "f:metadata", "f:labels", "f:"+key) {
		record.Labels[key] = Change{Set: yes}
	}
	if node.Spec.Unschedulable && !foreign(node, "f:spec", "f:unschedulable") {
		record.Cordoned = &record.Since
	}
	record.write(node)
	return record
}

// Changed says whether a Node is known to have what nodepatch set for a disruption.
// Without a record that is a disruption whose record somebody deleted.
func Changed(node *corev1.Node) bool {
	for _, key := range []string{ScaleDownDisabledAnnotation, DoNotDisruptAnnotation} {
		if node.Annotations[key] == yes && ours(node, "f:metadata", "f:annotations", "f:"+key) {
			return true
		}
	}
	if key := corev1.LabelNodeExcludeBalancers; node.Labels[key] == yes && ours(node, "f:metadata", "f:labels", "f:"+key) {
		return true
	}
	return node.Spec.Unschedulable && ours(node, "f:spec", "f:unschedulable")
}

// Preparation is what a node needs in a stage.
type Preparation struct {
	Stage Stage
	// Cordon keeps pods from being scheduled to the node.
	Cordon bool
	// Exclude takes the node out of external load balancers.
	Exclude bool
	// Containers are the IDs of those that a reboot will end.
	Containers []string
}

// Enter begins a stage. A node that is cordoned already stays somebody else's to
// uncordon, and one that nodepatch cordoned before and somebody uncordoned since is
// not cordoned again.
func (r *Record) Enter(node *corev1.Node, preparation Preparation, now time.Time) {
	at := metav1.NewMicroTime(now)
	r.Stage, r.StageSince = preparation.Stage, &at
	if preparation.Stage == StageReboot {
		r.BootID = node.Status.NodeInfo.BootID
		r.Containers = nil
		for _, id := range preparation.Containers[:min(len(preparation.Containers), maxContainers)] {
			r.Containers = append(r.Containers, short(id))
		}
	}
	if preparation.Cordon && !node.Spec.Unschedulable && r.Cordoned == nil {
		node.Spec.Unschedulable = true
		r.Cordoned = &at
	}
	key := corev1.LabelNodeExcludeBalancers
	if _, done := r.Labels[key]; preparation.Exclude && !done {
		if r.Labels == nil {
			r.Labels = map[string]Change{}
		}
		// Load balancers look at the label's presence, whatever its value: one that
		// is there serves as it is.
		if before := value(node.Labels, key); before == nil {
			r.Labels[key] = Change{Set: yes}
			metav1.SetMetaDataLabel(&node.ObjectMeta, key, yes)
		}
	}
	r.write(node)
}

// Restore puts the Node back to what it was. An annotation or a label that has
// not the value that it was given is somebody else's by now, and left alone; so
// is a cordon that is no longer nodepatch's: see foreign. The record stays,
// until Forget, as the memory of the outcome.
func (r *Record) Restore(node *corev1.Node, now time.Time, outcome *Outcome) {
	if r.Restored == nil {
		node.Annotations = undo(node.Annotations, r.Annotations)
		node.Labels = undo(node.Labels, r.Labels)
		if r.Cordoned != nil && node.Spec.Unschedulable && !foreign(node, "f:spec", "f:unschedulable") {
			node.Spec.Unschedulable = false
			r.Uncordoned = true
		}
		at := metav1.NewMicroTime(now)
		r.Restored = &at
	}
	r.Outcome = outcome
	r.write(node)
}

// Forget takes the record off a Node that was restored.
func Forget(node *corev1.Node) {
	delete(node.Annotations, v1alpha1.MaintenanceAnnotation)
}

// WasBroken says whether a DaemonSet's pod was not ready before the disruption.
func (r *Record) WasBroken(daemonSet string) bool {
	return slices.Contains(r.Broken, daemonSet)
}

// RanBefore says whether a container, by its ID in a pod's status, ran before the
// node's reboot.
func (r *Record) RanBefore(containerID string) bool {
	return containerID != "" && slices.Contains(r.Containers, short(containerID))
}

// short is the beginning of a container's ID, without the name of its runtime.
func short(containerID string) string {
	if _, id, found := strings.Cut(containerID, "://"); found {
		containerID = id
	}
	return containerID[:min(len(containerID), shortID)]
}

// undo takes back changes of annotations or labels.
func undo(values map[string]string, changes map[string]Change) map[string]string {
	for key, change := range changes {
		if now, found := values[key]; !found || now != change.Set {
			continue
		}
		if change.Before == nil {
			delete(values, key)
		} else {
			values[key] = *change.Before
		}
	}
	return values
}

func value(values map[string]string, key string) *string {
	if text, found := values[key]; found {
		return &text
	}
	return nil
}
