// Package agents brings nodepatch to the nodes that policies select: the
// DaemonSet of the agents, and the objects of each node that its agent works on.
package agents

import (
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
)

// lag is how long the cache is given to catch up with a write.
const lag = time.Second

// Options say what the agents are.
type Options struct {
	// Namespace of the agents' DaemonSet, which is the manager's.
	Namespace string
	// Image of the agents.
	Image string
}

// SetupWithManager adds the controllers of this package to a manager.
func SetupWithManager(mgr ctrl.Manager, options Options) error {
	rollout := &Rollout{Client: mgr.GetClient(), Namespace: options.Namespace, Image: options.Image}
	if err := rollout.setup(mgr); err != nil {
		return err
	}
	objects := &Objects{Client: mgr.GetClient()}
	return objects.setup(mgr)
}
