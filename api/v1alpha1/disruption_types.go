package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DrainWhen says at which point a node is drained.
//
// +kubebuilder:validation:Enum=Never;BeforeReboot;BeforeInstall
type DrainWhen string

const (
	// DrainNever leaves the pods where they are.
	DrainNever DrainWhen = "Never"
	// DrainBeforeReboot drains a node that has to reboot.
	DrainBeforeReboot DrainWhen = "BeforeReboot"
	// DrainBeforeInstall drains every node before packages are installed.
	DrainBeforeInstall DrainWhen = "BeforeInstall"
)

// DrainOptions say when and how a node is drained. By default a drain does no
// more than kubectl drain: it evicts with respect to PodDisruptionBudgets, and
// fails where pods would lose what they cannot get back.
type DrainOptions struct {
	// when the node is drained: BeforeReboot drains one that has to reboot,
	// BeforeInstall every one before packages are installed on it, Never leaves
	// the pods where they are. It is BeforeReboot by default.
	// +optional
	// +kubebuilder:default=BeforeReboot
	When DrainWhen `json:"when,omitempty"`
	// timeout after which the drain is undone and the node counted as failed: a
	// duration such as 30m, of at least 10s. It is 15m by default.
	// +optional
	// +kubebuilder:default="15m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s')",message="a drain's timeout is at least 10s; durations are written like 15m"
	Timeout metav1.Duration `json:"timeout,omitzero"`
	// gracePeriodSeconds is how many seconds pods get to end, up to 86400. If it
	// is left out, each gets what it asks for itself.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=86400
	GracePeriodSeconds *int64 `json:"gracePeriodSeconds,omitempty"`
	// skipPods selects pods of any namespace that are left where they are. If it
	// is left out, none are.
	// +optional
	SkipPods *metav1.LabelSelector `json:"skipPods,omitempty"`
	// waitForPods selects pods of any namespace that are not evicted: the drain
	// waits until they have ended by themselves, as with jobs. If it is left out,
	// it waits for none.
	// +optional
	WaitForPods *metav1.LabelSelector `json:"waitForPods,omitempty"`
	// emptyDirData says what happens to pods with emptyDir volumes, whose content
	// goes with them: Refuse fails the node and names the pods, Evict evicts them
	// like any others. It is Refuse by default.
	// +optional
	// +kubebuilder:default=Refuse
	EmptyDirData DrainRisk `json:"emptyDirData,omitempty"`
	// unmanagedPods says what happens to pods that no controller makes anew:
	// Refuse fails the node and names the pods, Evict evicts them like any others.
	// It is Refuse by default.
	// +optional
	// +kubebuilder:default=Refuse
	UnmanagedPods DrainRisk `json:"unmanagedPods,omitempty"`
}

// DrainRisk says what a drain does where something would be lost for good.
//
// +kubebuilder:validation:Enum=Refuse;Evict
type DrainRisk string

const (
	// DrainRefuse fails the node, and names the pods.
	DrainRefuse DrainRisk = "Refuse"
	// DrainEvict evicts them like any others.
	DrainEvict DrainRisk = "Evict"
)

// RebootWhen says in which case a node is rebooted.
//
// +kubebuilder:validation:Enum=Never;IfRequired;Always
type RebootWhen string

const (
	// RebootNever leaves a node that needs a reboot waiting for one.
	RebootNever RebootWhen = "Never"
	// RebootIfRequired reboots a node that needs it.
	RebootIfRequired RebootWhen = "IfRequired"
	// RebootAlways reboots every node on which something was installed, and those that need it.
	RebootAlways RebootWhen = "Always"
)

// RebootOptions say when a node is rebooted.
type RebootOptions struct {
	// when the node is rebooted: IfRequired reboots one that needs it, Always also
	// one on which something was installed, Never leaves one that needs it waiting
	// for another task, or a person. It is IfRequired by default.
	// +optional
	// +kubebuilder:default=IfRequired
	When RebootWhen `json:"when,omitempty"`
	// timeout after which a node that has not come back is counted as failed: a
	// duration such as 30m, of at least 1m. It is 20m by default.
	// +optional
	// +kubebuilder:default="20m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m')",message="a reboot's timeout is at least 1m; durations are written like 20m"
	Timeout metav1.Duration `json:"timeout,omitzero"`
}

// VerifyOptions are the options of the verifying step.
type VerifyOptions struct {
	// timeout after which a node counts as failed that is not Ready, or whose
	// DaemonSet pods are not, after its packages were installed: a duration such
	// as 15m, of at least 10s. It is 10m by default.
	// +optional
	// +kubebuilder:default="10m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s')",message="a verification's timeout is at least 10s; durations are written like 10m"
	Timeout metav1.Duration `json:"timeout,omitzero"`
}

// Blockers hold a node back before its disruption, as long as one is there.
// Where it cannot be told whether it is, it is.
type Blockers struct {
	// pods that hold back the node on which one of them runs. If it is left out,
	// none do.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Pods []PodBlocker `json:"pods,omitempty"`
	// nodeConditions that hold back the node that has one of them. If it is left
	// out, none do.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	NodeConditions []NodeConditionBlocker `json:"nodeConditions,omitempty"`
	// prometheus holds all nodes back while alerts fire. If it is left out, no
	// alert does.
	// +optional
	Prometheus *PrometheusBlocker `json:"prometheus,omitempty"`
}

// PodBlocker selects pods that hold their node back.
type PodBlocker struct {
	// namespace of the pods. If it is left out, those of all namespaces count.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
	// selector of the pods by label; an empty one selects all of the namespace.
	// +required
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// NodeConditionBlocker is a condition that holds its node back.
type NodeConditionBlocker struct {
	// type of the condition, such as MemoryPressure.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=316
	Type string `json:"type,omitempty"`
	// status of the condition that holds the node back: True, False or Unknown. It
	// is True by default.
	// +optional
	// +kubebuilder:default="True"
	// +kubebuilder:validation:Enum=True;False;Unknown
	Status corev1.ConditionStatus `json:"status,omitempty"`
}

// PrometheusBlocker holds nodes back while alerts fire.
type PrometheusBlocker struct {
	// url of the Prometheus server, with http or https, such as
	// http://prometheus.monitoring:9090.
	// +required
	// +kubebuilder:validation:MinLength=8
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern="^https?://[^ ]+$"
	URL string `json:"url,omitempty"`
	// alerts that hold nodes back: label matchers in the words of Prometheus, such
	// as {severity="critical",alertname!="Watchdog"}. All that fire, if it is left
	// out.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Alerts string `json:"alerts,omitempty"`
}

// Hooks are pods that run on a node around its disruption, to completion. Each
// comes from a PodTemplate in the operator's own namespace: who may write
// there decides what may run on nodes.
type Hooks struct {
	// preDisrupt runs before anything happens to the node. If it fails, the node
	// is left alone and the task goes on to the next. If it is left out, nothing
	// runs then.
	// +optional
	PreDisrupt *Hook `json:"preDisrupt,omitempty"`
	// postInstall runs after the packages were installed, before a reboot. If it
	// fails, the node has failed. If it is left out, nothing runs then.
	// +optional
	PostInstall *Hook `json:"postInstall,omitempty"`
	// postReboot runs after a reboot, before pods are let in again. If it fails,
	// the node has failed. If it is left out, nothing runs then.
	// +optional
	PostReboot *Hook `json:"postReboot,omitempty"`
}

// Hook is a pod that runs on a node to completion.
type Hook struct {
	// podTemplate is the name of a PodTemplate (v1) in the namespace that
	// nodepatch itself runs in.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	PodTemplate string `json:"podTemplate,omitempty"`
	// timeout after which a pod that has not ended has failed: a duration such as
	// 90s, between 1s and 24h. It is 5m by default.
	// +optional
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('24h')",message="a hook's timeout is between 1s and 24h; durations are written like 90s or 5m"
	Timeout metav1.Duration `json:"timeout,omitzero"`
}

// LoadBalancerOptions say how a node is taken out of load balancers.
type LoadBalancerOptions struct {
	// delay between the label
	// node.kubernetes.io/exclude-from-external-load-balancers and the first
	// eviction, as long as load balancers need to see it: a duration such as 90s,
	// between 0s and 1h. It is 30s by default.
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('1h')",message="a load balancer's delay is between 0s and 1h; durations are written like 90s"
	Delay metav1.Duration `json:"delay,omitzero"`
}
