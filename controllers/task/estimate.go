package task

import (
	"time"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// How long an installation takes at most, as far as one can tell before the first:
// fifty small packages take seconds, a kernel with its initramfs and modules a
// minute or two.
const (
	installBase     = 5 * time.Minute
	installPerPatch = 15 * time.Second
)

// soak is how long each node is watched after its disruption.
func (r *run) soak() time.Duration {
	if soak := r.template.Rollout.Soak; soak != nil {
		return soak.Duration
	}
	return 0
}

// estimate is how long a node may be disrupted, in whole minutes. Before the first
// node of the task was, it is what the installation may take, and the time-outs
// of what may have to be done besides. Then it is what the slowest took, and half
// of that and a minute more, but never above that first bound.
func (r *run) estimate(agent *v1alpha1.AgentStatus) time.Duration {
	bound := r.bound(agent)
	if r.longest > 0 {
		bound = min(bound, r.longest+r.longest/2+time.Minute)
	}
	return (bound + time.Minute - 1).Truncate(time.Minute)
}

func (r *run) bound(agent *v1alpha1.AgentStatus) time.Duration {
	var bound time.Duration
	if agent.Reason != v1alpha1.ReasonRebootRequired {
		patches := int32(0)
		if agent.Counts != nil {
			patches = agent.Counts.Downloaded
		}
		bound += min(installBase+time.Duration(patches)*installPerPatch, r.template.Install.Timeout.Duration)
	}
	drain, reboots := &r.template.Drain, r.template.Reboot.When != v1alpha1.RebootNever
	if drain.When == v1alpha1.DrainBeforeInstall || drain.When == v1alpha1.DrainBeforeReboot && reboots {
		bound += drain.Timeout.Duration
		if balancer := r.template.LoadBalancer; balancer != nil {
			bound += balancer.Delay.Duration
		}
	}
	if reboots {
		bound += r.template.Reboot.Timeout.Duration
	}
	if hooks := r.template.Hooks; hooks != nil {
		for _, hook := range []*v1alpha1.Hook{hooks.PreDisrupt, hooks.PostInstall, hooks.PostReboot} {
			if hook != nil {
				bound += hook.Timeout.Duration
			}
		}
	}
	return bound
}
