package agents

import (
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	appsac "k8s.io/client-go/applyconfigurations/apps/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
)

const (
	// Name of the DaemonSet of the agents and of their ServiceAccount.
	Name = "nodepatch-agent"
	// healthPort is where an agent answers /readyz.
	healthPort = 8081
	// readinessPeriod, in seconds, is how long a task waits at most for an agent
	// that has just started.
	readinessPeriod = 1
)

// PodLabels are those of the DaemonSet and its pods.
var PodLabels = map[string]string{
	"app.kubernetes.io/name":      "nodepatch",
	"app.kubernetes.io/component": "agent",
}

// daemonSet is the DaemonSet as it should be. The agents run on the nodes that
// match one of the terms, tainted or not.
func daemonSet(options Options, terms []corev1.NodeSelectorTerm) *appsac.DaemonSetApplyConfiguration {
	labels := maps.Clone(PodLabels)
	return appsac.DaemonSet(Name, options.Namespace).
		WithLabels(labels).
		WithSpec(appsac.DaemonSetSpec().
			WithSelector(metav1ac.LabelSelector().WithMatchLabels(labels)).
			WithUpdateStrategy(appsac.DaemonSetUpdateStrategy().
				WithType(appsv1.RollingUpdateDaemonSetStrategyType).
				WithRollingUpdate(appsac.RollingUpdateDaemonSet().WithMaxUnavailable(intstr.FromString("10%")))).
			WithTemplate(corev1ac.PodTemplateSpec().
				WithLabels(labels).
				WithSpec(podSpec(options).WithAffinity(affinity(terms)))))
}

// podSpec is the agent's pod. It is privileged and sees the host's processes
// and its whole file system, because it has the host's systemd run commands.
func podSpec(options Options) *corev1ac.PodSpecApplyConfiguration {
	pod := corev1ac.PodSpec()
	if options.PriorityClass != "" {
		pod.WithPriorityClassName(options.PriorityClass)
	}
	return pod.
		WithServiceAccountName(Name).
		WithTerminationGracePeriodSeconds(30).
		WithHostPID(true).
		WithTolerations(corev1ac.Toleration().WithOperator(corev1.TolerationOpExists)).
		WithVolumes(corev1ac.Volume().WithName("host").
			WithHostPath(corev1ac.HostPathVolumeSource().WithPath("/").WithType(corev1.HostPathDirectory))).
		WithContainers(corev1ac.Container().
			WithName("agent").
			WithImage(options.Image).
			WithImagePullPolicy(corev1.PullIfNotPresent).
			WithCommand("/agent").
			WithEnv(corev1ac.EnvVar().WithName("NODE_NAME").WithValueFrom(corev1ac.EnvVarSource().
				WithFieldRef(corev1ac.ObjectFieldSelector().WithAPIVersion("v1").WithFieldPath("spec.nodeName")))).
			WithPorts(corev1ac.ContainerPort().WithName("health").WithContainerPort(healthPort).
				WithProtocol(corev1.ProtocolTCP)).
			WithReadinessProbe(corev1ac.Probe().WithHTTPGet(corev1ac.HTTPGetAction().
				WithPath("/readyz").WithPort(intstr.FromString("health"))).
				WithPeriodSeconds(readinessPeriod)).
			WithResources(corev1ac.ResourceRequirements().
				WithRequests(options.Resources.Requests).
				WithLimits(options.Resources.Limits)).
			WithSecurityContext(corev1ac.SecurityContext().
				WithPrivileged(true).WithRunAsUser(0).WithRunAsGroup(0)).
			WithTerminationMessagePolicy(corev1.TerminationMessageFallbackToLogsOnError).
			WithVolumeMounts(corev1ac.VolumeMount().WithName("host").WithMountPath("/host").
				WithMountPropagation(corev1.MountPropagationHostToContainer)))
}

func affinity(terms []corev1.NodeSelectorTerm) *corev1ac.AffinityApplyConfiguration {
	selector := corev1ac.NodeSelector()
	for _, term := range terms {
		translated := corev1ac.NodeSelectorTerm()
		for _, requirement := range term.MatchExpressions {
			translated.WithMatchExpressions(corev1ac.NodeSelectorRequirement().
				WithKey(requirement.Key).
				WithOperator(requirement.Operator).
				WithValues(slices.Clone(requirement.Values)...))
		}
		selector.WithNodeSelectorTerms(translated)
	}
	return corev1ac.Affinity().WithNodeAffinity(
		corev1ac.NodeAffinity().WithRequiredDuringSchedulingIgnoredDuringExecution(selector))
}
