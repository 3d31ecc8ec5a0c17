package task

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// run is what Decide derives from its input about a task that was accepted.
type run struct {
	in       Input
	id       string
	policy   *v1alpha1.PatchPolicy
	chosen   selection
	template v1alpha1.TaskTemplate
	started  time.Time
	deadline *time.Time
	stop     *v1alpha1.TaskStop
	next     time.Time
	// longest is how long the disruption of a node took that ended well.
	longest time.Duration
	// rivals are the deployments that began before this one, if it is one.
	rivals []rival
}

func newRun(in Input) *run {
	run := &run{
		in:       in,
		id:       string(in.Task.UID),
		policy:   findPolicy(in.Policies, in.Task.Spec.Policy),
		template: withDefaults(*in.Task.Status.Template),
		started:  in.Task.Status.StartTime.Time,
	}
	// A selector that was refused at the start cannot occur here, as the spec never changes.
	run.chosen, _ = taskSelection(in.Task)
	if run.template.Deadline != nil {
		deadline := run.started.Add(run.template.Deadline.Duration)
		run.deadline = &deadline
	}
	run.rivals = findRivals(in)
	if run.stop = in.Task.Status.Stop; run.stop == nil {
		run.stop = run.interrupted()
	}
	return run
}

// nodes derives where each node of the run stands: the nodes that the policy
// governs and the task selects, and those that have their part of the task
// already, as long as they exist; of those that failed after they were admitted,
// also after that.
func (r *run) nodes() []Node {
	var nodes []Node
	if members := r.in.Membership.Policies[r.in.Task.Spec.Policy]; members != nil {
		nodes = make([]Node, 0, len(members.Governed))
	}
	remembered := r.remembered()
	for i := range r.in.Nodes {
		node := &r.in.Nodes[i]
		assignment, before := r.in.Assignments[node.Name], remembered[node.Name]
		delete(remembered, node.Name)
		state, has := r.trace(node, assignment)
		if !has && before != nil {
			if gone, failed := r.gone(before, node); failed {
				nodes = append(nodes, gone)
				continue
			}
		}
		if !has && !r.member(node) {
			continue
		}
		if !has {
			state = r.pending(node, assignment)
		}
		state.object, state.uid = node, string(node.UID)
		if before != nil && before.UID != "" {
			state.uid = before.UID // What it says may be of the Node that was there before.
		}
		nodes = append(nodes, state)
	}
	for _, before := range remembered {
		if gone, failed := r.gone(before, nil); failed {
			nodes = append(nodes, gone)
		}
	}
	slices.SortFunc(nodes, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	return nodes
}

// member says whether a node without a part of the task is to get one. A node
// that is younger than the run may join it only as long as the run waits for
// nodes at all: otherwise a cluster that keeps growing would keep it going.
func (r *run) member(node *corev1.Node) bool {
	return r.in.Membership.Governor[node.Name] == r.in.Task.Spec.Policy &&
		r.chosen.has(node) &&
		!node.CreationTimestamp.After(r.started.Add(r.template.Scan.Timeout.Duration))
}

// wake asks for a decision at a time in the future.
func (r *run) wake(at time.Time) { r.next = earlier(r.next, at) }

// earlier of two times, of which the zero one means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
