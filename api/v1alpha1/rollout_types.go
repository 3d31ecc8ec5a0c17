package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// RolloutPin says which nodes decide what the others install.
//
// +kubebuilder:validation:Enum=FirstWave
type RolloutPin string

// PinFirstWave has later waves install what the first wave installed, and nothing else.
const PinFirstWave RolloutPin = "FirstWave"

// RolloutOptions say in which order nodes go, and how many at once.
//
// +kubebuilder:validation:XValidation:rule="!has(self.pin) || (has(self.waves) && self.waves.size() > 0)",message="pin: FirstWave needs waves: without them there is no first wave whose packages the others could install"
type RolloutOptions struct {
	// maxParallelScans is how many nodes scan or download at once, 1 to 5000. That
	// disturbs nobody: only the load on the mirrors bounds it. It is 50 by
	// default.
	// +optional
	// +kubebuilder:default=50
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=5000
	MaxParallelScans int32 `json:"maxParallelScans,omitempty"`
	// maxUnavailable is how many of the policy's nodes may be unavailable at once,
	// for any cause and over all its tasks: a number, or a percentage such as 10%,
	// rounded down but to no less than one. As many are installed and rebooted at
	// once. It is 1 by default.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=4
	// +kubebuilder:validation:Pattern="^([1-9][0-9]?|100)%$"
	// +kubebuilder:validation:XValidation:rule="type(self) != int || int(self) >= 1",message="give a number of nodes of at least 1, or a percentage such as 10%"
	MaxUnavailable *intstr.IntOrString `json:"maxUnavailable,omitempty"`
	// maxFailures is how many nodes may fail after their disruption began before
	// the rollout halts: with 0 it halts at the first of them. It is 1 by default,
	// so that the second halts it.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=5000
	MaxFailures *int32 `json:"maxFailures,omitempty"`
	// topologyKey is a node label such as topology.kubernetes.io/zone: nodes with
	// different values of it are never disrupted at the same time. Nodes without
	// it are one group. If it is left out, no label holds a node back.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	TopologyKey string `json:"topologyKey,omitempty"`
	// waves divide the nodes into groups that are disrupted one after the other. A
	// node belongs to the first that takes it; what no wave takes comes last, as a
	// wave of its own. Control-plane nodes always come after all others. Without
	// waves, all nodes are one.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	Waves []Wave `json:"waves,omitempty"`
	// soak is how long a node is watched after its disruption before it counts as
	// done and the next one may start: a duration such as 10m. If it is left out,
	// it counts as soon as it is in service again.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s')",message="soak is a duration such as 10m"
	Soak *metav1.Duration `json:"soak,omitempty"`
	// pin freezes what is installed, in a task that deploys: with FirstWave, the
	// names and versions that the nodes of the first wave have installed are
	// recorded in the task's status.pinned once all of them have ended, and all
	// other nodes install exactly these, whatever the mirrors offer by then. A
	// version that the mirrors no longer have is reported and not replaced by
	// another. The task's patches chooses for the first wave alone. If it is left
	// out, each node installs what its mirrors offer.
	// +optional
	Pin RolloutPin `json:"pin,omitempty"`
}

// Wave is a group of nodes within a rollout.
//
// +kubebuilder:validation:XValidation:rule="has(self.nodeSelector) != has(self.size)",message="a wave has either a nodeSelector or a size"
type Wave struct {
	// name of the wave, by which messages call it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`
	// nodeSelector puts the nodes that it selects into this wave. A wave has
	// either this or a size.
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`
	// size puts this many of the nodes that are left into this wave, by name: a
	// number, or a percentage of the task's nodes such as 10%, rounded down but to
	// no less than one. A wave has either this or a nodeSelector.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=4
	// +kubebuilder:validation:Pattern="^([1-9][0-9]?|100)%$"
	// +kubebuilder:validation:XValidation:rule="type(self) != int || int(self) >= 1",message="give a number of nodes of at least 1, or a percentage such as 10%"
	Size *intstr.IntOrString `json:"size,omitempty"`
	// soak is how long to wait after the wave's last node before the next wave: a
	// duration such as 24h. If it is left out, the next wave follows at once.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s')",message="soak is a duration such as 24h"
	Soak *metav1.Duration `json:"soak,omitempty"`
	// maxFailures is how many nodes of this wave may fail before the rollout
	// halts. If it is left out, the rollout's own counts, over all waves.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=5000
	MaxFailures *int32 `json:"maxFailures,omitempty"`
}
