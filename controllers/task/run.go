package task

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// run is what Decide derives from its input about a task that was accepted.
type run struct {
	in       Input
	id       string
	policy   *v1alpha1.PatchPolicy
	selector labels.Selector
	template v1alpha1.TaskTemplate
	started  time.Time
	deadline *time.Time
	stop     *v1alpha1.TaskStop
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
	if run.stop = in.Task.Status.Stop; run.stop == nil {
		run.stop = run.interrupted()
	}
	return run
}

// nodes derives where each node of the run stands: the nodes that the policy
// governs and the task selects, and those that have their part of the task
// already, as long as they exist.
func (r *run) nodes() []Node {
	var nodes []Node
	if members := r.in.Membership.Policies[r.in.Task.Spec.Policy]; members != nil {
		nodes = make([]Node, 0, len(members.Governed))
	}
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
	free := r.slots() - plan.working()
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
			node.Place, node.Assign = PlaceWorking, r.operation()
			r.wake(node.Assign.Deadline.Time)
		}
	}
}

// operation is a node's part of the task, if the node gets it now.
func (r *run) operation() *v1alpha1.Operation {
	limits := r.policy.Spec.RetryLimits
	if limits.Download == 0 {
		limits.Download = defaultDownloadLimit
	}
	if limits.Install == 0 {
		limits.Install = defaultInstallLimit
	}
	return &v1alpha1.Operation{
		ID:          r.id,
		Task:        r.in.Task.Name,
		Step:        ceiling(r.template.Action),
		Patches:     r.template.Patches.DeepCopy(),
		RetryLimits: &limits,
		AssignedAt:  metav1.NewTime(r.in.Now),
		Deadline:    metav1.NewTime(r.in.Now.Add(timeout(&r.template))),
	}
}

// ceiling is the step that an action goes up to.
func ceiling(action v1alpha1.Action) v1alpha1.Step {
	switch action {
	case v1alpha1.ActionDownload:
		return v1alpha1.StepDownloading
	case v1alpha1.ActionDeploy:
		return v1alpha1.StepInstalling
	default:
		return v1alpha1.StepScanning
	}
}

// timeout is how long a node may take for an action: as long as for all its
// steps together, as what one of them does not need the next may have.
func timeout(template *v1alpha1.TaskTemplate) time.Duration {
	sum := template.Scan.Timeout.Duration
	if template.Action != v1alpha1.ActionScan {
		sum += template.Download.Timeout.Duration
	}
	if template.Action == v1alpha1.ActionDeploy {
		sum += template.Install.Timeout.Duration
	}
	return sum
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
