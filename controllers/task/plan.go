// Package task carries PatchTasks out: it accepts or refuses a task, gives its
// nodes their part of it through their PatchAssignments, collects what they
// answer and ends the task. Every decision is made by Decide, which reads no
// clock and no cluster; the reconciler gathers its input and does what it says.
package task

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/blockers"
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
	// Tasks are all there are, with the task itself among them.
	Tasks []v1alpha1.PatchTask
	// OwnNode is the name of the node that this manager runs on, if it is known.
	OwnNode string
	// ClusterMaxUnavailable is how many nodes of the cluster may be unavailable
	// at once, a number or a percentage; nil for no bound.
	ClusterMaxUnavailable *intstr.IntOrString
	// Blocks are what is known about the blockers of nodes, by the name of the
	// node: nil, if nothing holds it back. A node that is not in it has to be
	// asked about first. No map means that there is nobody to ask.
	Blocks map[string]*blockers.Block
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
	// Stop is why the task has to end before its nodes do, if it has to.
	Stop *v1alpha1.TaskStop
	// Halts says that it has to from this plan on, while nodes are at work. They
	// are told by the next plan, once the status remembers why.
	Halts bool
	// Nodes of the task, by name. None before the task is accepted.
	Nodes []Node
	// Asks names the nodes that may be disrupted unless a blocker holds them
	// back, of which nothing is known yet.
	Asks []string
	// Freezes are the nodes of the first wave that are done, once it is time to
	// record what they have installed.
	Freezes []Installer
	// Pinned is what they have installed, to be recorded with this plan. Other nodes
	// begin with the next one.
	Pinned *v1alpha1.PinnedPatches
	// Next is when to decide again if nothing happens before; zero for never.
	Next time.Time

	// omitted is how many more nodes failed after they were admitted, and are gone.
	omitted     int32
	now         time.Time
	task        *v1alpha1.PatchTask
	assignments map[string]*v1alpha1.PatchAssignment
	// unfinished are the UIDs of the tasks that have not ended.
	unfinished sets.Set[string]
}

// Place is where a node stands in a task.
type Place int

// The places of a node. The first four are on the way, the others final.
const (
	// PlacePending has no part of the task yet.
	PlacePending Place = iota
	// PlaceWorking scans or downloads, which disturbs nobody.
	PlaceWorking
	// PlaceWaiting is ready to be disrupted.
	PlaceWaiting
	// PlaceDisrupted was admitted, and holds a slot until the verdict.
	PlaceDisrupted
	PlaceDone
	PlaceStopped
	// PlaceSkipped was left alone, as its preDisrupt hook failed.
	PlaceSkipped
	PlaceFailed
	PlaceUnreachable
)

// Ended says whether a place is final.
func (p Place) Ended() bool { return p > PlaceDisrupted }

// Node is one node's part of a Plan.
type Node struct {
	// Name of the node.
	Name string
	// Place where the node stands.
	Place Place
	// Step that was shown last, of a node that is on the way or was given up.
	Step v1alpha1.Step
	// Reason why it waits or failed, and Message in a sentence. A node that waits
	// without a reason has not been decided about.
	Reason, Message string
	// Since is when a node ended, or was given up.
	Since time.Time
	// Answered says that the node's agent gave the outcome itself.
	Answered bool
	// Disrupted says that the outcome is a verdict on a node that was admitted:
	// whoever gave it has written it to the patch log.
	Disrupted bool
	// Gone says that the node failed after it was admitted, and that nothing but
	// the task's status tells of that any more; News, that it does not yet.
	Gone, News bool
	// Counts of a node that answered, if it gave any.
	Counts *v1alpha1.PatchCounts
	// Assign is the operation to give to the node now.
	Assign *v1alpha1.Operation
	// Admit says that the node may be disrupted from now on.
	Admit bool
	// Stop is why the node is told now to end its operation.
	Stop string
	// Withdraw says that the node's operation has to be taken back now, and
	// Verdict what the manager decides in place of the agent's outcome.
	Withdraw bool
	Verdict  *v1alpha1.EndedOperation
	// Says is what the status of the node's assignment has to say about why the
	// node waits, if that has to change: an empty one is to go away.
	Says *v1alpha1.RolloutStatus

	object *corev1.Node
	// uid of the Node that the outcome is of.
	uid string
	// wave that takes the node, empty if none does.
	wave string
}

// writes says whether the node's assignment has to be written.
func (n *Node) writes() bool { return n.Assign != nil || n.Admit || n.Stop != "" || n.Withdraw }

// Decide makes the plan for a task. The zero Plan is for a task that has ended.
func Decide(in Input) Plan {
	in.Now = in.Now.UTC().Truncate(time.Second)
	switch {
	case in.Task.Finished():
		return Plan{}
	case in.Task.Status.StartTime != nil && in.Task.Status.Template != nil:
		return proceed(in)
	default:
		return begin(in)
	}
}

// proceed makes the plan for a task that was accepted.
func proceed(in Input) Plan {
	run := newRun(in)
	plan := Plan{Phase: v1alpha1.TaskRunning, Reason: v1alpha1.ReasonRunning, now: in.Now, task: in.Task, assignments: in.Assignments}
	plan.unfinished = unfinished(in.Tasks)
	plan.omitted = in.Task.Status.DisruptedOmitted
	plan.Nodes = run.nodes()
	waves := run.divide(plan.Nodes)
	if run.stop == nil {
		run.stop = run.tooManyFailures(plan.Nodes, waves)
	}
	if run.stop == nil {
		run.stop = run.nothingPinned(&plan, waves)
	}
	plan.Stop = run.stop
	if run.stop != nil {
		run.halt(&plan)
	} else {
		run.freeze(&plan, waves)
		run.prepare(&plan, waves)
		run.admit(&plan, waves)
		plan.finish()
		if run.deadline != nil {
			run.wake(*run.deadline)
		}
	}
	run.explain(&plan)
	plan.Next = run.next
	return plan
}

// finish ends a run of which every node has an outcome.
func (p *Plan) finish() {
	counts := p.Counts()
	switch {
	case counts.Pending > 0 || p.atWork() > 0:
		return
	case counts.Total == 0:
		p.Phase, p.Reason = v1alpha1.TaskFailed, v1alpha1.ReasonNoNodes
		p.Cause = "All nodes left the policy " + p.task.Spec.Policy + " or the cluster during the run"
	case counts.Failed > 0:
		p.Phase, p.Reason = v1alpha1.TaskFailed, v1alpha1.ReasonNodesFailed
	case counts.Unreachable > 0:
		p.Phase, p.Reason = v1alpha1.TaskFailed, v1alpha1.ReasonNodesUnreachable
	case counts.Skipped > 0:
		p.Phase, p.Reason = v1alpha1.TaskFailed, v1alpha1.ReasonNodesSkipped
	default:
		p.Phase, p.Reason = v1alpha1.TaskComplete, v1alpha1.ReasonAllNodesDone
	}
}

// atWork is how many nodes have their part of the task and have not ended it.
func (p *Plan) atWork() int {
	count := 0
	for i := range p.Nodes {
		if place := p.Nodes[i].Place; place != PlacePending && !place.Ended() {
			count++
		}
	}
	return count
}

// undo takes back what the plan says about a node whose assignment could not
// be written: it neither begins nor was it given up, and the task has not ended.
func (p *Plan) undo(i int, reason string) {
	node := &p.Nodes[i]
	switch {
	case node.Assign != nil:
		*node = Node{Name: node.Name, Place: PlacePending, Reason: reason, object: node.object}
	case node.Admit:
		*node = Node{Name: node.Name, Place: PlaceWaiting, Step: v1alpha1.StepWaiting, Reason: reason, object: node.object}
	case node.Withdraw && node.Step == v1alpha1.StepWaiting:
		*node = Node{Name: node.Name, Place: PlaceWaiting, Step: node.Step, Reason: reason, object: node.object}
	case node.Withdraw:
		*node = Node{Name: node.Name, Place: PlaceWorking, Step: node.Step, object: node.object}
	}
	p.goOn()
}

// goOn takes back that the task ends with the plan, as something has yet to be
// written that nobody would write after its end.
func (p *Plan) goOn() {
	switch {
	case !p.Ended():
	case p.Stop != nil:
		p.Phase, p.Reason = v1alpha1.TaskRunning, v1alpha1.ReasonStopping
	default:
		p.Phase, p.Reason, p.Cause = v1alpha1.TaskRunning, v1alpha1.ReasonRunning, ""
	}
}

// Ended says whether the task ends with this plan.
func (p *Plan) Ended() bool {
	return p.Phase == v1alpha1.TaskComplete || p.Phase == v1alpha1.TaskFailed || p.Phase == v1alpha1.TaskStopped
}

// action is what the task does on its nodes.
func (p *Plan) action() v1alpha1.Action {
	switch {
	case p.Template != nil:
		return p.Template.Action
	case p.task.Status.Template != nil:
		return p.task.Status.Template.Action
	default:
		return ""
	}
}

func (p *Plan) logRun() patchlog.Run { return patchlog.RunOf(p.task) }
