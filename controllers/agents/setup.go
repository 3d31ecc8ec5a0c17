// Package agents brings nodepatch to the nodes that policies select: the
// DaemonSet of the agents, and the objects of each node that its agent works on.
package agents

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/nodepatch/nodepatch/api/patchlog"
)

// lag is how long the cache is given to catch up with a write.
const lag = time.Second

// Options say what the agents are.
type Options struct {
	// Namespace of the agents' DaemonSet, which is the manager's.
	Namespace string
	// Image of the agents.
	Image string
	// PriorityClass of the agents; "" for the cluster's default.
	PriorityClass string
	// Resources that an agent requests and is limited to.
	Resources corev1.ResourceRequirements
}

// DefaultPriorityClass is the agents' own, of config/manager.
const DefaultPriorityClass = "nodepatch-agent"

// DefaultResources are from measurement: an idle agent is 6 MiB resident, and one
// that deploys 300 patches 18 MiB at most. What the package manager takes is the
// host's, and not the agent's. CPU is not limited, as that would only slow it down.
func DefaultResources() corev1.ResourceRequirements {
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("10m"),
			corev1.ResourceMemory: resource.MustParse("24Mi"),
		},
		Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("128Mi")},
	}
}

// SetupWithManager adds the controllers of this package to a manager; log takes
// the manager's entries of the patch log.
func SetupWithManager(mgr ctrl.Manager, log patchlog.Sink, options Options) error {
	rollout := &Rollout{Client: mgr.GetClient(), Options: options}
	if err := rollout.setup(mgr); err != nil {
		return err
	}
	objects := &Objects{Client: mgr.GetClient(), Log: log, Clock: clock.RealClock{}}
	return objects.setup(mgr)
}
