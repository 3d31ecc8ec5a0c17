package assignment

import (
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/maintenance"
)

// blocked is when to look again at a drain that waits for others: no watch brings
// what PodDisruptionBudgets allow.
const blocked = 5 * time.Second

// drainedForInstall drains the node before packages are installed, where the task
// wants that. Where only a reboot is left to do, that one's drain serves.
func (v *visit) drainedForInstall() *Decision {
	if v.raised() || v.outcome != nil || v.waitsToReboot() || v.Template.Drain.When != v1alpha1.DrainBeforeInstall {
		return nil
	}
	return v.prepared(maintenance.StageInstall)
}

// drainedForReboot drains the node before it reboots. One that was drained to
// install is drained as long as nobody uncordoned it, and looked at once more.
func (v *visit) drainedForReboot() *Decision {
	if !v.waitsToReboot() {
		return nil
	}
	return v.prepared(maintenance.StageReboot)
}

// prepared gets a node ready for a stage: cordon, load balancers, drain. Every
// pass over a node that waits for something later looks at its pods again, so
// that it never goes on with pods that came in the meantime.
func (v *visit) prepared(stage maintenance.Stage) *Decision {
	drains := v.Template.Drain.When != v1alpha1.DrainNever
	if v.Record.Stage != stage {
		if stage == maintenance.StageReboot && v.Answers.DaemonPods == nil {
			return &Decision{Ask: AskDaemonPods}
		}
		return &Decision{Move: MoveEnter, Preparation: maintenance.Preparation{
			Stage: stage, Cordon: drains, Exclude: v.Template.LoadBalancer != nil, Containers: allContainers(v.Answers.DaemonPods),
		}}
	}
	if delayed := v.Record.StageSince.Add(v.loadBalancerDelay()); !v.past(delayed) {
		return wait(v1alpha1.StepDraining, "", fmt.Sprintf("Load balancers get %s to take the node out", v.loadBalancerDelay()), v.until(delayed))
	}
	if !drains {
		return nil
	}
	if !v.Node.Spec.Unschedulable {
		message := fmt.Sprintf("Somebody uncordoned the node. It is drained when it is cordoned again (kubectl cordon %s); stop the task if it is not to be", v.Node.Name)
		if v.past(v.drainDeadline()) {
			return v.fail(v1alpha1.ReasonDrainTimeout, message)
		}
		return wait(v1alpha1.StepDraining, "", message, v.until(v.drainDeadline()))
	}
	result := v.Answers.Drain
	switch {
	case result == nil:
		return &Decision{Ask: AskDrain}
	case len(result.Refused) > 0:
		return v.fail(v1alpha1.ReasonDrainRefused, "The node cannot be drained: "+strings.Join(capped(result.Refused), "; "))
	case result.Remaining == 0:
		return nil
	}
	var entries []patchlog.Entry
	if len(result.Blocked) > 0 {
		entries = patchlog.DrainBlocked(v.Now, v.run, v.Node.Name, fingerprint(result.Blocked), result.Blocked)
	}
	if v.past(v.drainDeadline()) {
		decision := v.fail(v1alpha1.ReasonDrainTimeout, fmt.Sprintf("Not drained within %s: %s",
			or(v.Template.Drain.Timeout, drainTimeout), result.Message()))
		decision.Entries = entries
		return decision
	}
	after := soon
	if len(result.Blocked) > 0 && len(result.Evicted) == 0 && len(result.Ending) == 0 {
		after = blocked
	}
	decision := wait(v1alpha1.StepDraining, "", result.Message(), min(after, v.until(v.drainDeadline())))
	decision.Entries = entries
	return decision
}

// drainDeadline is counted from the cordon, without the time that load balancers
// get.
func (v *visit) drainDeadline() time.Time {
	return v.Record.StageSince.Add(v.loadBalancerDelay() + or(v.Template.Drain.Timeout, drainTimeout))
}

func (v *visit) loadBalancerDelay() time.Duration {
	if v.Template.LoadBalancer == nil {
		return 0
	}
	return v.Template.LoadBalancer.Delay.Duration
}

// fingerprint tells sets of pods apart.
func fingerprint(pods []string) string {
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(strings.Join(pods, "\x00"))) // A hash takes everything.
	return fmt.Sprintf("%08x", sum.Sum32())
}

// capped shortens a list for people.
func capped(items []string) []string {
	const shown = 5
	if len(items) <= shown {
		return items
	}
	return append(items[:shown:shown], fmt.Sprintf("and %d more", len(items)-shown))
}
