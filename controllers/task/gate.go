package task

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

const (
	// blockedAgain is when to ask again about nodes that blockers hold back:
	// nobody tells the manager when a blocker goes away.
	blockedAgain = 15 * time.Second
	// askAgain is when to ask about nodes for which there was no time.
	askAgain = time.Second
)

// gate decides which of the nodes that are ready to be disrupted may be.
type gate struct {
	*run
	census *census
	waves  waves
	hours  openingHours
	// fits remembers what the opening hours say about each estimate.
	fits map[time.Duration]*refusal
}

// waiter is a node at the gate.
type waiter struct {
	state        *Node
	node         *corev1.Node
	agent        *v1alpha1.AgentStatus
	wave         int
	controlPlane bool
	zone         string
}

// refusal is why a node may not go on.
type refusal struct{ reason, message string }

func no(reason, format string, args ...any) *refusal {
	return &refusal{reason: reason, message: fmt.Sprintf(format, args...)}
}

// gateChecks are asked in order; the first refusal counts. A run that has to end
// does not come here, and blockers are asked last, as the only ones that cost
// the cluster something.
var gateChecks = []func(*gate, *waiter) *refusal{
	(*gate).checkSuspended,
	(*gate).checkWindow,
	(*gate).checkReachable,
	(*gate).checkWave,
	(*gate).checkControlPlane,
	(*gate).checkTopology,
	(*gate).checkBudget,
	(*gate).checkClusterBudget,
	(*gate).checkBlockers,
}

// admit lets nodes go on that wait and may, and says of the others why not. Who
// was let in counts for those after it.
func (r *run) admit(plan *Plan, waves waves) {
	waiters := r.waiters(plan, waves)
	if len(waiters) == 0 {
		return
	}
	g := &gate{
		run: r, census: r.count(), waves: waves,
		hours: newOpeningHours(r.policy.Spec.MaintenanceWindows),
		fits:  map[time.Duration]*refusal{},
	}
	for i := range waiters {
		w := &waiters[i]
		if refusal := g.ask(w); refusal != nil {
			w.state.Reason, w.state.Message = refusal.reason, refusal.message
			continue
		}
		r.disrupt(g.census, w.node)
		if _, known := r.in.Blocks[w.node.Name]; r.in.Blocks != nil && !known {
			// Its place is kept until the answer is there.
			plan.Asks = append(plan.Asks, w.node.Name)
			r.wake(r.in.Now.Add(askAgain))
			continue
		}
		w.state.Place, w.state.Admit = PlaceDisrupted, true
		w.state.Step = disruption(r.in.Assignments[w.node.Name])
		w.state.Reason, w.state.Message = "", ""
	}
}

// waiters are the nodes that wait, in the order in which they may go: by wave, by
// zone, by name, and the manager's own node as the last of its wave.
func (r *run) waiters(plan *Plan, waves waves) []waiter {
	var waiters []waiter
	for i := range plan.Nodes {
		state := &plan.Nodes[i]
		if state.Place != PlaceWaiting || r.left(state.object) {
			continue
		}
		waiters = append(waiters, waiter{
			state: state, node: state.object, agent: r.in.Assignments[state.Name].Status.Agent,
			wave: waves.of[i], controlPlane: isControlPlane(state.object), zone: r.zone(state.object),
		})
	}
	own := func(w *waiter) int {
		if w.node.Name == r.in.OwnNode {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(waiters, func(a, b waiter) int {
		return cmp.Or(cmp.Compare(a.wave, b.wave), cmp.Compare(own(&a), own(&b)), cmp.Compare(a.zone, b.zone))
	})
	return waiters
}

// ask is the first refusal, nil if the node may go.
func (g *gate) ask(w *waiter) *refusal {
	for _, check := range gateChecks {
		if refusal := check(g, w); refusal != nil {
			return refusal
		}
	}
	return nil
}

func (g *gate) checkSuspended(*waiter) *refusal {
	if g.policy.Spec.Suspend {
		return no(v1alpha1.ReasonPolicySuspended, "The policy %s is suspended", g.policy.Name)
	}
	return nil
}

// checkWindow wants a maintenance window open for as long as the node may need.
func (g *gate) checkWindow(w *waiter) *refusal {
	if g.hours.always {
		return nil
	}
	need := g.estimate(w.agent)
	refusal, known := g.fits[need]
	if !known {
		refusal = g.window(need)
		g.fits[need] = refusal
	}
	return refusal
}

// window is what the opening hours say about an estimate.
func (g *gate) window(need time.Duration) *refusal {
	now := g.in.Now
	// Far enough to know when it will be too late for nodes that wait for something else.
	until := g.hours.openUntil(now, now.Add(need+24*time.Hour))
	if until.Sub(now) >= need {
		g.wake(until.Add(time.Second - need))
		return nil
	}
	longest, opens := g.hours.longest(now, need), ""
	if next := g.hours.next(now); !next.IsZero() {
		g.wake(next)
		opens = "; the next one opens at " + next.UTC().Format(time.RFC3339)
	}
	switch {
	case longest == 0:
		return no(v1alpha1.ReasonNoWindowFits, "No maintenance window of the policy %s ever opens; see the policy's conditions", g.policy.Name)
	case longest < need:
		return no(v1alpha1.ReasonNoWindowFits,
			"The node may need %s, and no maintenance window of the policy %s is open for longer than %s: make one longer, or lower the timeouts of drain, install and reboot",
			duration(need), g.policy.Name, duration(longest))
	case until.IsZero():
		return no(v1alpha1.ReasonWindowClosed, "No maintenance window of the policy %s is open%s", g.policy.Name, opens)
	default:
		g.wake(until)
		return no(v1alpha1.ReasonWindowTooShort, "The node may need %s, and the maintenance window closes at %s%s",
			duration(need), until.UTC().Format(time.RFC3339), opens)
	}
}

func (g *gate) checkReachable(w *waiter) *refusal {
	if w.state.Reason != "" {
		return &refusal{reason: w.state.Reason, message: w.state.Message}
	}
	if _, maintained := w.node.Annotations[v1alpha1.MaintenanceAnnotation]; maintained {
		return no(v1alpha1.ReasonBusy, "The manager has yet to undo what it changed on the node for an earlier task")
	}
	return nil
}

// checkBlockers asks what is known about the node's blockers.
func (g *gate) checkBlockers(w *waiter) *refusal {
	if block := g.in.Blocks[w.node.Name]; block != nil {
		g.wake(g.in.Now.Add(blockedAgain))
		return &refusal{reason: block.Reason, message: block.Message}
	}
	return nil
}
