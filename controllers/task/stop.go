package task

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// interrupted says why a run has to end before its nodes do, if it has to from
// now on. The status remembers it before anything is done about it: from then on
// the run ends for this cause, whatever a person or Git does to it afterwards.
func (r *run) interrupted() *v1alpha1.TaskStop {
	cause := func(reason, message string) *v1alpha1.TaskStop {
		return &v1alpha1.TaskStop{Time: metav1.NewTime(r.in.Now), Reason: reason, Message: limit(message, maxMessage)}
	}
	if why, stopped := stopped(r.in.Task); stopped {
		return cause(v1alpha1.ReasonStopped, why)
	}
	if r.policy == nil {
		return cause(v1alpha1.ReasonPolicyDeleted, "The policy "+r.in.Task.Spec.Policy+" was deleted during the run")
	}
	if r.deadline != nil && !r.in.Now.Before(*r.deadline) {
		return cause(v1alpha1.ReasonDeadlineExceeded, "The deadline of "+duration(r.template.Deadline.Duration)+" passed")
	}
	return nil
}

// latched says that the status remembers that the run has to end, so that nodes
// may be told.
func (r *run) latched() bool { return r.in.Task.Status.Stop != nil }

// halt brings a run to its end that has to end: no node begins, those at work
// are told to end, and the run waits for them. What they have begun is never cut
// in two, so that they alone know what they did; the verdict on a node that was
// admitted is waited for.
func (r *run) halt(plan *Plan) {
	plan.Reason, plan.Cause = v1alpha1.ReasonStopping, r.stop.Message
	switch {
	case plan.atWork() == 0:
		plan.Phase, plan.Reason = v1alpha1.TaskFailed, r.stop.Reason
		if r.stop.Reason == v1alpha1.ReasonStopped {
			plan.Phase = v1alpha1.TaskStopped
		}
		return
	case !r.latched():
		plan.Halts = true
		return
	}
	words := r.stop.Message
	if words == "" {
		words = r.stop.Reason
	}
	for i := range plan.Nodes {
		node := &plan.Nodes[i]
		if node.Place == PlacePending || node.Place.Ended() {
			continue
		}
		node.Stop = ""
		if r.in.Assignments[node.Name].Spec.Operation.Stop == "" {
			node.Stop = words
		}
	}
}

// waitingFor says which nodes a run that has to end waits for, and what they do.
func (p *Plan) waitingFor() string {
	var named []string
	for i := range p.Nodes {
		if node := &p.Nodes[i]; node.Place != PlacePending && !node.Place.Ended() && len(named) < waitersShown {
			named = append(named, node.Name+", which "+windingUp(node.Step))
		}
	}
	text := "waiting for " + strings.Join(named, "; ")
	if more := p.atWork() - len(named); more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

// windingUp is what a node at a step does that was told to end.
func windingUp(step v1alpha1.Step) string {
	switch step {
	case v1alpha1.StepInstalling:
		return "finishes its transaction"
	case v1alpha1.StepVerifying:
		return "verifies what it installed"
	case v1alpha1.StepDownloading:
		return "ends its download"
	case v1alpha1.StepWaiting:
		return "gives up its turn"
	case v1alpha1.StepDraining:
		return "is let in service again"
	case v1alpha1.StepRebooting:
		return "comes back from its reboot"
	default:
		return "ends its scan"
	}
}

// stoppedAfter says how many nodes were stopped, and how far they had come.
func (p *Plan) stoppedAfter() string {
	var nodes, done, chosen int32
	for i := range p.Nodes {
		if p.Nodes[i].Place != PlaceStopped {
			continue
		}
		nodes++
		counts := p.Nodes[i].Counts
		if counts == nil {
			continue
		}
		// What the task chose is what it installed, and what it could yet have.
		chosen += counts.Installed + counts.Missing - counts.Held - counts.KeptBack - counts.Phased - counts.Excluded - counts.Blocked
		if p.action() == v1alpha1.ActionDeploy {
			done += counts.Installed
		} else {
			done += counts.Downloaded
		}
	}
	if p.action() == v1alpha1.ActionScan || chosen <= 0 {
		return fmt.Sprintf("%d stopped", nodes)
	}
	return fmt.Sprintf("%d stopped after %d of %s", nodes, done, plural(int(chosen), "patch", "patches"))
}
