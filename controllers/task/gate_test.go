package task

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment"
	"github.com/nodepatch/nodepatch/controllers/blockers"
)

// gateTest is what is known about nodes that wait, and which of them may go on.
// The decision is made on Saturday 21 November 2026 at 06:01 in UTC, and the
// policy has the nodes a to e.
type gateTest struct {
	most     int
	waiting  []string
	change   func(*Input)
	wantGo   []string
	wantAsks []string
	// wantWaits are the reason and message of the nodes that wait.
	wantWaits map[string]string
	wantNext  time.Time
}

func (test gateTest) run(t *testing.T) {
	in := newInput("a", "b", "c", "d", "e")
	in.run(v1alpha1.ActionDeploy)
	in.Task.Status.Template.Rollout.MaxUnavailable = ptr.To(intstr.FromInt(max(test.most, 1)))
	// Nodes that are none of the test's are done.
	for _, node := range in.Nodes {
		in.done(node.Name, 0, 0)
	}
	for _, name := range test.waiting {
		in.Assignments[name] = newAssignment(name)
		in.ready(10, name)
	}
	if test.change != nil {
		test.change(&in)
	}
	plan := in.decide()
	waits := map[string]string{}
	var admitted []string
	for _, node := range plan.Nodes {
		switch {
		case node.Admit:
			admitted = append(admitted, node.Name)
		case node.Place == PlaceWaiting && node.Reason != "":
			waits[node.Name] = node.Reason + ": " + node.Message
			if says := node.Says; says == nil || says.Reason != node.Reason || says.Message != node.Message || says.OperationID != taskUID {
				t.Errorf("the assignment of %s does not say why it waits: %+v", node.Name, says)
			}
		}
	}
	diff(t, "admitted", test.wantGo, admitted)
	diff(t, "asks", test.wantAsks, plan.Asks)
	diff(t, "waits", orEmpty(test.wantWaits), waits)
	if !plan.Next.Equal(test.wantNext) {
		t.Errorf("next look at %s, want %s", plan.Next, test.wantNext)
	}
	in.apply(&plan)
	again := in.decide()
	for _, node := range again.Nodes {
		if node.Admit {
			t.Errorf("%s is admitted by a second look at the same", node.Name)
		}
		if node.Says != nil {
			t.Errorf("a second look at the same has something else to say about %s: %+v", node.Name, node.Says)
		}
	}
}

const budgetSpent = "Budget: As many nodes of the policy workers are unavailable, for whatever cause, as rollout.maxUnavailable allows (1)"

func TestGate(t *testing.T) {
	window := func(schedule string, open time.Duration) func(*Input) {
		return func(in *Input) {
			in.Policies[0].Spec.MaintenanceWindows = []v1alpha1.MaintenanceWindow{windowAt(schedule, "Europe/Berlin", open)}
		}
	}
	at := func(clock string) time.Time {
		parsed, err := time.Parse(time.RFC3339, clock)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	clusterBudget := func(in *Input, most intstr.IntOrString) { in.ClusterMaxUnavailable = &most }
	tests := map[string]gateTest{
		"as many as may be unavailable, by name": {
			most: 2, waiting: []string{"c", "a", "b"},
			wantGo: []string{"a", "b"},
			wantWaits: map[string]string{
				"c": "Budget: As many nodes of the policy workers are unavailable, for whatever cause, as rollout.maxUnavailable allows (2)",
			},
		},
		"a policy that is suspended": {
			waiting:   []string{"a"},
			change:    func(in *Input) { in.Policies[0].Spec.Suspend = true },
			wantWaits: map[string]string{"a": "PolicySuspended: The policy workers is suspended"},
		},
		"a window that is closed": {
			waiting:   []string{"a"},
			change:    window("0 1 * * SAT", 5*time.Hour),
			wantWaits: map[string]string{"a": "WindowClosed: No maintenance window of the policy workers is open; the next one opens at 2026-11-28T00:00:00Z"},
			wantNext:  at("2026-11-28T00:00:00Z"),
		},
		"a window that is open long enough": {
			waiting: []string{"a"},
			change:  window("0 7 * * SAT", 2*time.Hour),
			wantGo:  []string{"a"},
			// From then on it is too short for another node like this one.
			wantNext: at("2026-11-21T07:17:01Z"),
		},
		"a window that closes too early": {
			waiting: []string{"a"},
			change:  window("30 6 * * SAT", 50*time.Minute),
			wantWaits: map[string]string{
				"a": "WindowTooShort: The node may need 43m, and the maintenance window closes at 2026-11-21T06:20:00Z; the next one opens at 2026-11-28T05:30:00Z",
			},
			wantNext: at("2026-11-21T06:20:00Z"),
		},
		"windows that are never long enough": {
			waiting: []string{"a"},
			change:  window("0 7 * * SAT", 40*time.Minute),
			wantWaits: map[string]string{
				"a": "NoWindowFits: The node may need 43m, and no maintenance window of the policy workers is open for longer than 40m: make one longer, or lower the timeouts of drain, install and reboot",
			},
			wantNext: at("2026-11-28T06:00:00Z"),
		},
		"also while they are closed": {
			waiting: []string{"a"},
			change:  window("0 8 * * SAT", 40*time.Minute),
			wantWaits: map[string]string{
				"a": "NoWindowFits: The node may need 43m, and no maintenance window of the policy workers is open for longer than 40m: make one longer, or lower the timeouts of drain, install and reboot",
			},
			wantNext: at("2026-11-21T07:00:00Z"),
		},
		"windows that never open": {
			waiting:   []string{"a"},
			change:    window("0 8 30 2 *", 40*time.Minute),
			wantWaits: map[string]string{"a": "NoWindowFits: No maintenance window of the policy workers ever opens; see the policy's conditions"},
		},
		"a node that cannot be reached leaves its place to the next": {
			waiting: []string{"a", "b"},
			change:  func(in *Input) { in.agent("a", v1alpha1.AgentNotReady) },
			wantGo:  []string{"b"},
			wantWaits: map[string]string{
				"a": "AgentNotReady: The agent on the node is not ready; see its pod's events and log",
			},
		},
		"a node that an earlier task has yet to leave": {
			waiting:   []string{"a"},
			change:    func(in *Input) { in.maintain("a") },
			wantWaits: map[string]string{"a": "Busy: The manager has yet to undo what it changed on the node for an earlier task"},
		},
		"nodes that are unavailable use the budget up, whatever the cause: not Ready": {
			waiting: []string{"a"}, change: func(in *Input) { in.notReady("e") },
			wantWaits: map[string]string{"a": budgetSpent},
		},
		"cordoned by a person": {
			waiting: []string{"a"}, change: func(in *Input) { in.node("e").Spec.Unschedulable = true },
			wantWaits: map[string]string{"a": budgetSpent},
		},
		"not yet restored": {
			waiting: []string{"a"}, change: func(in *Input) { in.maintain("e") },
			wantWaits: map[string]string{"a": budgetSpent},
		},
		"admitted for another task, though its agent is done": {
			waiting: []string{"a"}, change: func(in *Input) { in.elsewhere("e") },
			wantWaits: map[string]string{"a": budgetSpent},
		},
		"given up while it installed": {
			waiting: []string{"a"}, change: func(in *Input) {
				in.Assignments["e"] = newAssignment("e")
				in.shows("e", v1alpha1.StepInstalling)
				assignment.Conclude(&in.Assignments["e"].Spec, &v1alpha1.EndedOperation{OperationID: taskUID, Step: v1alpha1.StepFailed, AdmittedAt: &metav1.Time{Time: epoch}})
			},
			wantWaits: map[string]string{"a": budgetSpent},
		},
		"nodes of other policies do not, nor an agent that went with its policy": {
			waiting: []string{"a"},
			change: func(in *Input) {
				for _, name := range []string{"d", "e"} {
					in.label(name, "pool", "others")
					in.Assignments[name] = newAssignment(name)
				}
				in.notReady("e")
				in.shows("d", v1alpha1.StepInstalling)
				in.Assignments["d"].Spec.Operation = nil
				in.agent("d", v1alpha1.AgentAbsent)
				clusterBudget(in, intstr.FromInt(2))
			},
			wantGo: []string{"a"},
		},
		"a node that a person cordoned does not stand in its own way": {
			waiting: []string{"a", "b"},
			change: func(in *Input) {
				in.node("a").Spec.Unschedulable = true
				clusterBudget(in, intstr.FromInt(1))
			},
			wantGo:    []string{"a"},
			wantWaits: map[string]string{"b": budgetSpent},
		},
		"a percentage of the policy's nodes": {
			waiting: []string{"a", "b", "c"},
			change: func(in *Input) {
				in.Task.Status.Template.Rollout.MaxUnavailable = ptr.To(intstr.FromString("59%"))
			},
			wantGo: []string{"a", "b"},
			wantWaits: map[string]string{
				"c": "Budget: As many nodes of the policy workers are unavailable, for whatever cause, as rollout.maxUnavailable allows (59%)",
			},
		},
		"the cluster's budget counts all nodes of the cluster": {
			most: 5, waiting: []string{"a", "b", "c"},
			change: func(in *Input) {
				in.Nodes = append(in.Nodes, newNode("x"))
				in.label("x", "pool", "others")
				in.notReady("x")
				clusterBudget(in, intstr.FromString("34%"))
			},
			wantGo: []string{"a"},
			wantWaits: map[string]string{
				"b": "ClusterBudget: As many nodes of the cluster are unavailable, for whatever cause, as the manager's --cluster-max-unavailable allows (34%)",
				"c": "ClusterBudget: As many nodes of the cluster are unavailable, for whatever cause, as the manager's --cluster-max-unavailable allows (34%)",
			},
		},
		"never two zones at once, one after the other": {
			most: 3, waiting: []string{"a", "b", "c", "d"},
			change: func(in *Input) {
				zones(in, map[string]string{"a": "2", "b": "1", "c": "2", "d": "1"})
			},
			wantGo: []string{"b", "d"},
			wantWaits: map[string]string{
				"a": "Topology: Nodes with another value of zone are disrupted",
				"c": "Topology: Nodes with another value of zone are disrupted",
			},
		},
		"also if it is another task that disrupts the other": {
			most: 3, waiting: []string{"a", "b"},
			change: func(in *Input) {
				zones(in, map[string]string{"a": "1", "e": "2"})
				in.elsewhere("e")
			},
			wantWaits: map[string]string{
				"a": "Topology: Nodes with another value of zone are disrupted",
				"b": "Topology: Nodes with another value of zone are disrupted",
			},
		},
		"the manager's own node goes last": {
			waiting: []string{"a", "b"}, change: func(in *Input) { in.OwnNode = "a" },
			wantGo: []string{"b"}, wantWaits: map[string]string{"a": budgetSpent},
		},
		"a node that left the policy is not disrupted": {
			waiting: []string{"a", "b"}, change: func(in *Input) { in.label("a", "pool", "others") },
			wantGo: []string{"b"}, wantWaits: map[string]string{"a": "Aborted: The node left the policy workers"},
		},
	}
	for name, test := range tests {
		t.Run(name, test.run)
	}
}

func TestGateAsksAboutBlockersLast(t *testing.T) {
	pod := &blockers.Block{Reason: v1alpha1.ReasonBlockedByPod, Message: "The pod batch/job-1 runs on it"}
	blocks := func(known map[string]*blockers.Block) func(*Input) {
		return func(in *Input) { in.Blocks = known }
	}
	blocked := "BlockedByPod: The pod batch/job-1 runs on it"
	tests := map[string]gateTest{
		"only about nodes that would be admitted": {
			most: 2, waiting: []string{"a", "b", "c"}, change: blocks(map[string]*blockers.Block{}),
			wantAsks: []string{"a", "b"},
			wantWaits: map[string]string{
				"c": "Budget: As many nodes of the policy workers are unavailable, for whatever cause, as rollout.maxUnavailable allows (2)",
			},
			wantNext: epoch.Add(time.Minute + time.Second),
		},
		"a node with nothing in its way goes on": {
			waiting: []string{"a", "b"}, change: blocks(map[string]*blockers.Block{"a": nil}),
			wantGo: []string{"a"}, wantWaits: map[string]string{"b": budgetSpent},
		},
		"one that is blocked leaves its place to the next, and is asked about again": {
			waiting: []string{"a", "b", "c"}, change: blocks(map[string]*blockers.Block{"a": pod}),
			wantAsks:  []string{"b"},
			wantWaits: map[string]string{"a": blocked, "c": budgetSpent},
			wantNext:  epoch.Add(time.Minute + time.Second),
		},
		"all are blocked": {
			waiting: []string{"a", "b"}, change: blocks(map[string]*blockers.Block{"a": pod, "b": pod}),
			wantWaits: map[string]string{"a": blocked, "b": blocked},
			wantNext:  epoch.Add(time.Minute + 15*time.Second),
		},
	}
	for name, test := range tests {
		t.Run(name, test.run)
	}
}

// TestWritesOfALargeRollout counts what is written about why nodes wait while the
// cause goes to and fro between the policy's budget and the cluster's.
func TestWritesOfALargeRollout(t *testing.T) {
	in := newInput("away")
	for i := range 500 {
		name := fmt.Sprintf("node-%03d", i)
		in.Nodes = append(in.Nodes, newNode(name))
		in.Assignments[name] = newAssignment(name)
		in.ready(10, name)
	}
	in.run(v1alpha1.ActionDeploy)
	in.ClusterMaxUnavailable = ptr.To(intstr.FromInt(1))
	writes := 0
	for round := range 20 {
		in.label("away", "pool", []string{"workers", "others"}[round%2])
		in.node("away").Status.Conditions[0].Status = corev1.ConditionFalse
		plan := in.decide()
		for i := range plan.Nodes {
			if plan.Nodes[i].Says != nil {
				writes++
			}
		}
		in.apply(&plan)
		if got := in.Assignments["node-000"].Status.Rollout.Reason; got != []string{v1alpha1.ReasonBudget, v1alpha1.ReasonClusterBudget}[round%2] {
			t.Fatalf("round %d: the first node in the queue says %s", round, got)
		}
	}
	if most := 500 + 20*turnsShown; writes > most {
		t.Errorf("%d writes, want no more than %d", writes, most)
	}
}

// maintain has the manager's record stand on a node.
func (in *Input) maintain(name string) {
	in.node(name).Annotations = map[string]string{v1alpha1.MaintenanceAnnotation: "{}"}
}

// elsewhere has another task disrupt a node whose agent has already ended.
func (in *Input) elsewhere(name string) {
	given := newAssignment(name)
	given.Spec.Operation = operation(otherUID, "other", epoch)
	given.Spec.Operation.AdmittedAt = &metav1.Time{Time: epoch}
	given.Status.Agent = &v1alpha1.AgentStatus{
		OperationID: otherUID, Step: v1alpha1.StepDone,
		Earlier: []v1alpha1.EndedOperation{{OperationID: taskUID, Step: v1alpha1.StepDone}},
	}
	in.Assignments[name] = given
}

// zones sets the task's topologyKey, and what the nodes have for it.
func zones(in *Input, values map[string]string) {
	in.Task.Status.Template.Rollout.TopologyKey = "zone"
	for name, value := range values {
		in.label(name, "zone", value)
	}
}

func TestControlPlane(t *testing.T) {
	controlPlane := func(in *Input, names ...string) {
		for i, name := range names {
			in.label(name, controlPlaneLabels[i%len(controlPlaneLabels)], "")
		}
	}
	tests := map[string]gateTest{
		"goes after all others": {
			most: 3, waiting: []string{"a", "b"}, change: func(in *Input) { controlPlane(in, "a") },
			wantGo:    []string{"b"},
			wantWaits: map[string]string{"a": "ControlPlane: Nodes of the control plane go after all others of the task"},
		},
		"one by one": {
			most: 3, waiting: []string{"a", "b", "c"}, change: func(in *Input) { controlPlane(in, "a", "b", "c") },
			wantGo: []string{"a"},
			wantWaits: map[string]string{
				"b": "ControlPlane: Nodes of the control plane go one by one, with no other node of the cluster disrupted",
				"c": "ControlPlane: Nodes of the control plane go one by one, with no other node of the cluster disrupted",
			},
		},
		"alone in the whole cluster": {
			most: 3, waiting: []string{"a"}, change: func(in *Input) {
				controlPlane(in, "a")
				in.label("e", "pool", "others")
				in.elsewhere("e")
			},
			wantWaits: map[string]string{"a": "ControlPlane: Nodes of the control plane go one by one, with no other node of the cluster disrupted"},
		},
		"also for other tasks": {
			most: 3, waiting: []string{"a"}, change: func(in *Input) {
				controlPlane(in, "e")
				in.elsewhere("e")
			},
			wantWaits: map[string]string{"a": "ControlPlane: A node of the control plane is disrupted, alone"},
		},
		"only while all others of it are Ready": {
			most: 3, waiting: []string{"a"}, change: func(in *Input) {
				controlPlane(in, "a", "e")
				in.label("e", "pool", "others")
				in.notReady("e")
			},
			wantWaits: map[string]string{"a": "ControlPlane: Nodes of the control plane go only while all others of it are Ready, and e is not"},
		},
		"that another node is not Ready is the budget's business": {
			most: 3, waiting: []string{"a"}, change: func(in *Input) {
				controlPlane(in, "a")
				in.node("e").Status.Conditions[0].Status = corev1.ConditionFalse
			},
			wantGo: []string{"a"},
		},
	}
	for name, test := range tests {
		t.Run(name, test.run)
	}
}
