// Package task carries PatchTasks out: it accepts or refuses a task, gives its
// nodes their part of it through their PatchAssignments, collects what they
// answer and ends the task. Every decision is made by Decide, which reads no
// clock and no cluster; the reconciler gathers its input and does what it says.
package task

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/policy"
)

// Input is everything that a decision about a task depends on. Decide changes
// nothing of it.
type Input struct {
	// Now is the time of the decision. The API keeps whole seconds.
	Now time.Time
	// Task to decide about.
	Task *v1alpha1.PatchTask
	// Policies are all there are.
	Policies []v1alpha1.PatchPolicy
	// Membership says which of them governs which node.
	Membership policy.Membership
	// Nodes are all there are, in any order.
	Nodes []corev1.Node
	// Assignments by the name of their node.
	Assignments map[string]*v1alpha1.PatchAssignment
	// Finished are the UIDs of the tasks that have ended.
	Finished sets.Set[string]
}

// Plan is what is to be done about a task, and what is to be said about it.
type Plan struct {
	// Phase that the task is in now.
	Phase v1alpha1.TaskPhase
	// Reason for the phase in one word, one of the reasons of v1alpha1.
	Reason string
	// Cause in a sentence: why the task waits, was refused or was cut short.
	// Empty where the numbers say it all.
	Cause string
	// Accepts says that the task begins with this plan; Template and Trigger
	// are then what its status has to remember.
	Accepts  bool
	Template *v1alpha1.TaskTemplate
	Trigger  v1alpha1.Trigger
	// Nodes of the task, by name. None before the task is accepted.
	Nodes []Node
	// Next is when to decide again if nothing happens before; zero for never.
	Next time.Time

	now  time.Time
	task *v1alpha1.PatchTask
	cut  bool
}

// Place is where a node stands in a task.
type Place int

// The places of a node. The first two are on the way, the others final.
const (
	PlacePending Place = iota
	PlaceScanning
	PlaceDone
	PlaceFailed
	PlaceUnreachable
)

// Node is one node's part of a Plan.
type Node struct {
	// Name of the node.
	Name string
	// Place where the node stands.
	Place Place
	// Reason why it waits or failed, and Message in a sentence.
	Reason, Message string
	// Since is when a node that failed or was given up did so.
	Since time.Time
	// LastStep is the last word of the agent of a node that timed out.
	LastStep v1alpha1.Step
	// Answered says that the node's agent gave the outcome itself.
	Answered bool
	// Counts of a node that is done.
	Counts *v1alpha1.PatchCounts
	// Assign is the operation to give to the node now.
	Assign *v1alpha1.Operation
	// Withdraw says that the node's operation has to be taken back now, and
	// Verdict what the manager decides in place of the agent's outcome; nil
	// where the task itself ends.
	Withdraw bool
	Verdict  *v1alpha1.EndedOperation
}

// Decide makes the plan for a task. The zero Plan is for a task that has ended.
func Decide(in Input) Plan {
	in.Now = in.Now.UTC().Truncate(time.Second)
	switch {
	case in.Task.Finished():
		return Plan{}
	case in.Task.Status.StartTime != nil && in.Task.Status.Template != nil:
		return proceed(in)
	default:
		return admit(in)
	}
}

// proceed makes the plan for a task that was accepted.
func proceed(in Input) Plan {
	run := newRun(in)
	plan := Plan{Phase: v1alpha1.TaskRunning, Reason: v1alpha1.ReasonRunning, now: in.Now, task: in.Task}
	plan.Nodes = run.nodes()
	if reason, cause := run.interrupted(); reason != "" {
		plan.cutShort(reason, cause)
		return plan
	}
	run.fill(&plan)
	plan.finish()
	plan.Next = run.next
	if run.deadline != nil {
		plan.Next = earlier(plan.Next, *run.deadline)
	}
	return plan
}

// interrupted says why a run has to end before its nodes did, if so.
func (r *run) interrupted() (reason, cause string) {
	if why, stopped := stopped(r.in.Task); stopped {
		return v1alpha1.ReasonStopped, why
	}
	if r.policy == nil {
		return v1alpha1.ReasonPolicyDeleted, "The policy " + r.in.Task.Spec.Policy + " was deleted during the run"
	}
	if r.deadline != nil && !r.in.Now.Before(*r.deadline) {
		return v1alpha1.ReasonDeadlineExceeded, "The deadline of " + duration(r.template.Deadline.Duration) + " passed"
	}
	return "", ""
}

// cutShort ends a run: what nodes work on is taken back, and those that have
// no outcome yet count as pending, since they neither failed nor were done.
func (p *Plan) cutShort(reason, cause string) {
	p.cut = true
	p.Phase, p.Reason, p.Cause = v1alpha1.TaskFailed, reason, cause
	if reason == v1alpha1.ReasonStopped {
		p.Phase = v1alpha1.TaskStopped
	}
	for i := range p.Nodes {
		node := &p.Nodes[i]
		if node.Place == PlaceScanning {
			node.Place, node.Reason, node.Withdraw = PlacePending, reason, true
		}
	}
}

// finish ends a run of which every node has an outcome.
func (p *Plan) finish() {
	counts := p.Counts()
	switch {
	case counts.Pending > 0 || counts.Scanning > 0:
		return
	case counts.Total == 0:
		p.Phase, p.Reason = v1alpha1.TaskFailed, v1alpha1.ReasonNoNodes
		p.Cause = "All nodes left the policy " + p.task.Spec.Policy + " or the cluster during the run"
	case counts.Failed > 0:
		p.Phase, p.Reason = v1alpha1.TaskFailed, v1alpha1.ReasonNodesFailed
	case counts.Unreachable > 0:
		p.Phase, p.Reason = v1alpha1.TaskFailed, v1alpha1.ReasonNodesUnreachable
	default:
		p.Phase, p.Reason = v1alpha1.TaskComplete, v1alpha1.ReasonAllNodesDone
	}
}

// undo takes back what the plan says about a node whose assignment could not
// be written: it neither works nor was it given up, and the task has not ended.
func (p *Plan) undo(i int, reason string) {
	node := &p.Nodes[i]
	switch {
	case node.Assign != nil:
		*node = Node{Name: node.Name, Place: PlacePending, Reason: reason}
	case node.Verdict != nil:
		*node = Node{Name: node.Name, Place: PlaceScanning}
	}
	if p.Ended() && !p.cut {
		p.Phase, p.Reason, p.Cause = v1alpha1.TaskRunning, v1alpha1.ReasonRunning, ""
	}
}

// Ended says whether the task ends with this plan.
func (p *Plan) Ended() bool {
	return p.Phase == v1alpha1.TaskComplete || p.Phase == v1alpha1.TaskFailed || p.Phase == v1alpha1.TaskStopped
}

// run is what Decide derives from its input about a task that was accepted.
type run struct {
	in       Input
	id       string
	policy   *v1alpha1.PatchPolicy
	selector labels.Selector
	template v1alpha1.TaskTemplate
	started  time.Time
	deadline *time.Time
	next     time.Time
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
	run.selector, _ = taskSelector(in.Task)
	if run.template.Deadline != nil {
		deadline := run.started.Add(run.template.Deadline.Duration)
		run.deadline = &deadline
	}
	return run
}

// nodes derives where each node of the run stands: the nodes that the policy
// governs and the task selects, and those that have their part of the task
// already, as long as they exist.
func (r *run) nodes() []Node {
	var nodes []Node
	for i := range r.in.Nodes {
		node := &r.in.Nodes[i]
		assignment := r.in.Assignments[node.Name]
		if state, has := r.trace(node, assignment); has {
			nodes = append(nodes, state)
		} else if r.member(node) {
			nodes = append(nodes, r.waiting(node, assignment))
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
		r.selector.Matches(labels.Set(node.Labels)) &&
		!node.CreationTimestamp.After(r.started.Add(r.template.Scan.Timeout.Duration))
}

// fill gives the free slots to the nodes that are ready for one, by name.
func (r *run) fill(plan *Plan) {
	free := int(r.template.Rollout.MaxParallelScans)
	for i := range plan.Nodes {
		if plan.Nodes[i].Place == PlaceScanning {
			free--
		}
	}
	suspended := r.policy.Spec.Suspend
	for i := range plan.Nodes {
		node := &plan.Nodes[i]
		switch {
		case node.Place != PlacePending || node.Reason != "":
		case suspended:
			node.Reason = v1alpha1.ReasonPolicySuspended
		case free <= 0:
			node.Reason = v1alpha1.ReasonParallelLimit
		default:
			free--
			deadline := r.in.Now.Add(r.template.Scan.Timeout.Duration)
			node.Place = PlaceScanning
			node.Assign = &v1alpha1.Operation{
				ID:         r.id,
				Task:       r.in.Task.Name,
				Step:       v1alpha1.StepScanning,
				AssignedAt: metav1.NewTime(r.in.Now),
				Deadline:   metav1.NewTime(deadline),
			}
			r.wake(deadline)
		}
	}
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

func (p *Plan) logRun() patchlog.Run { return patchlog.RunOf(p.task) }
