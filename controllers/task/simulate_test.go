package task

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// FuzzRun lets whatever happens to a cluster happen to a run, and checks after
// each look what must hold of every run.
func FuzzRun(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{3, 1, 0, 0, 200, 0, 0, 17, 0, 0})
	for seed := range uint64(8) {
		f.Add(script(seed, 200))
	}
	f.Fuzz(func(t *testing.T, script []byte) { simulate(t, script) })
}

// TestRunsAlwaysEnd goes through many random scripts, as a plain test runs a
// fuzz target with its seeds only.
func TestRunsAlwaysEnd(t *testing.T) {
	for seed := range uint64(2000) {
		simulate(t, script(seed, 40+int(seed%200)))
		if t.Failed() {
			t.Fatalf("with the script of seed %d", seed)
		}
	}
}

func script(seed uint64, length int) []byte {
	random := rand.New(rand.NewPCG(seed, seed))
	bytes := make([]byte, length)
	for i := range bytes {
		bytes[i] = byte(random.Uint32())
	}
	return bytes
}

// world is a cluster that a run goes through.
type world struct {
	t        *testing.T
	in       Input
	limit    int
	made     int
	assigned map[string]bool
	given    int
}

func simulate(t *testing.T, script []byte) {
	next := func() int {
		if len(script) == 0 {
			return 0
		}
		value := int(script[0])
		script = script[1:]
		return value
	}
	w := &world{t: t, in: newInput(), assigned: map[string]bool{}}
	w.in.Now = epoch
	w.limit = 1 + next()%3
	w.in.Task.Status.Template.Rollout.MaxParallelScans = int32(w.limit)
	for range 1 + next()%8 {
		w.add()
	}
	for len(script) > 0 && !w.in.Task.Finished() && !t.Failed() {
		if action := next(); action%4 == 0 {
			w.look(next())
		} else {
			w.happen(action, next())
		}
	}
	w.settle()
}

// happen is something that other parts of a cluster do.
func (w *world) happen(action, argument int) {
	if action%16 == 1 && w.made < 12 {
		w.add()
		return
	}
	if len(w.in.Nodes) == 0 {
		return
	}
	i := argument % len(w.in.Nodes)
	node := &w.in.Nodes[i]
	assignment := w.in.Assignments[node.Name]
	switch action % 16 {
	case 2, 3:
		w.in.Now = w.in.Now.Add(time.Duration(argument) * 20 * time.Second)
	case 5:
		flip(node)
	case 6:
		presences := []v1alpha1.AgentPresence{v1alpha1.AgentReady, v1alpha1.AgentNotReady, v1alpha1.AgentAbsent}
		assignment.Status.Controller.Agent = presences[argument%3]
	case 7, 9, 10:
		w.answer(assignment, v1alpha1.StepDone)
	case 11:
		w.answer(assignment, v1alpha1.StepFailed)
	case 13:
		if occupant(assignment) == "" && w.in.Assignments[node.Name].Spec.Operation == nil {
			assignment.Spec.Operation = operation(otherUID, "other", w.in.Now)
		}
	case 14:
		w.in.Policies[0].Spec.Suspend = !w.in.Policies[0].Spec.Suspend
	case 15:
		delete(w.in.Assignments, node.Name)
		w.in.Nodes = append(w.in.Nodes[:i:i], w.in.Nodes[i+1:]...)
	}
}

func (w *world) add() {
	w.made++
	node := newNode(fmt.Sprintf("node-%d", w.made))
	node.CreationTimestamp = metav1.NewTime(w.in.Now)
	w.in.Nodes = append(w.in.Nodes, node)
	w.in.Assignments[node.Name] = newAssignment(node.Name)
}

func flip(node *corev1.Node) {
	ready := &node.Status.Conditions[0]
	if ready.Status == corev1.ConditionTrue {
		ready.Status = corev1.ConditionUnknown
	} else {
		ready.Status = corev1.ConditionTrue
	}
}

// answer has the agent end its operation, and keep the outcome of the one before.
func (w *world) answer(assignment *v1alpha1.PatchAssignment, step v1alpha1.Step) {
	operation := assignment.Spec.Operation
	if operation == nil || outcomeOf(assignment, operation.ID) != nil {
		return
	}
	agent := &v1alpha1.AgentStatus{OperationID: operation.ID, Task: operation.Task, Step: step, Reason: "Because"}
	if before := assignment.Status.Agent; before != nil {
		agent.Earlier = []v1alpha1.EndedOperation{{OperationID: before.OperationID, Step: before.Step, Reason: before.Reason}}
	}
	assignment.Status.Agent = agent
}

func occupant(assignment *v1alpha1.PatchAssignment) string {
	operation := assignment.Spec.Operation
	if operation == nil || outcomeOf(assignment, operation.ID) != nil {
		return ""
	}
	return operation.ID
}

// look decides and carries out, except for the writes that lost tells to fail.
func (w *world) look(lost int) {
	plan := w.in.decide()
	for i := range plan.Nodes {
		node := &plan.Nodes[i]
		if node.Assign == nil && !node.Withdraw {
			continue
		}
		assignment := w.in.Assignments[node.Name]
		if lost>>(i%8)&1 == 1 {
			plan.undo(i, v1alpha1.ReasonNotAssigned)
			continue
		}
		if node.Withdraw {
			withdraw(assignment, node.Verdict)
			continue
		}
		w.given++
		switch {
		case w.assigned[node.Name]:
			w.t.Errorf("node %s was given the task twice", node.Name)
		case occupant(assignment) != "":
			w.t.Errorf("node %s was taken from the task %s", node.Name, occupant(assignment))
		case w.in.node(node.Name).Status.Conditions[0].Status != corev1.ConditionTrue:
			w.t.Errorf("node %s was given the task while it was not Ready", node.Name)
		case w.in.Policies[0].Spec.Suspend:
			w.t.Errorf("node %s was given the task while the policy was suspended", node.Name)
		}
		w.assigned[node.Name] = true
		assignment.Spec.Operation = node.Assign
	}
	w.in.Task.Status = plan.Status(w.in.Task.Status)
	w.check(&plan)
}

// check is what must hold after each look.
func (w *world) check(plan *Plan) {
	counts := *w.in.Task.Status.Nodes
	sum := counts.Pending + counts.Scanning + counts.Downloading + counts.Waiting + counts.Draining +
		counts.Installing + counts.Rebooting + counts.Verifying + counts.Done + counts.Failed + counts.Unreachable
	if sum != counts.Total {
		w.t.Errorf("the steps add up to %d, not to the total: %+v", sum, counts)
	}
	working := 0
	for _, assignment := range w.in.Assignments {
		if operation := assignment.Spec.Operation; operation != nil && operation.ID == taskUID &&
			occupant(assignment) != "" && w.in.Now.Before(operation.Deadline.Time) {
			working++
		}
	}
	if working > w.limit {
		w.t.Errorf("%d nodes scan at once, %d may", working, w.limit)
	}
	if !plan.Ended() && !plan.Next.IsZero() && !plan.Next.After(w.in.Now) {
		w.t.Errorf("the next look at %s is not in the future of %s", plan.Next, w.in.Now)
	}
	if plan.Ended() && counts.Scanning > 0 {
		w.t.Errorf("the task ended while nodes scan: %+v", counts)
	}
}

// settle lets nothing happen any more but time, with half of the nodes away, and
// wants the run to end when its time-outs say so.
func (w *world) settle() {
	w.in.Policies[0].Spec.Suspend = false
	for i := range w.in.Nodes {
		assignment := w.in.Assignments[w.in.Nodes[i].Name]
		if occupant(assignment) == otherUID {
			w.answer(assignment, v1alpha1.StepDone)
		}
		if i%2 == 0 {
			assignment.Status.Controller.Agent = v1alpha1.AgentAbsent
		}
	}
	bound := w.in.Now.Add(scanTimeout * time.Duration(2+len(w.in.Nodes)))
	for range 10 * (len(w.in.Nodes) + 1) {
		if w.in.Task.Finished() || w.t.Failed() {
			break
		}
		w.look(0)
		plan := w.in.decide()
		if plan.Next.After(w.in.Now) {
			w.in.Now = plan.Next
		}
	}
	switch {
	case w.t.Failed():
	case !w.in.Task.Finished():
		w.t.Errorf("the run does not end: %s", w.in.Task.Status.Message)
	case w.in.Now.After(bound):
		w.t.Errorf("the run ended at %s, after %s", w.in.Now, bound)
	}
}

// TestNoNodeStarves lets every node answer after a while, in any order, and wants
// each of them to have had its turn.
func TestNoNodeStarves(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		w := &world{t: t, in: newInput(), assigned: map[string]bool{}, limit: 1 + random.IntN(4)}
		w.in.Now = epoch
		w.in.Task.Status.Template.Rollout.MaxParallelScans = int32(w.limit)
		nodes := 1 + random.IntN(30)
		for range nodes {
			w.add()
		}
		for range 100 * nodes {
			if w.in.Task.Finished() {
				break
			}
			w.look(random.IntN(256))
			node := w.in.Nodes[random.IntN(nodes)]
			w.answer(w.in.Assignments[node.Name], v1alpha1.StepDone)
			w.in.Now = w.in.Now.Add(time.Second)
		}
		if w.in.Task.Status.Phase != v1alpha1.TaskComplete || w.given != nodes {
			t.Fatalf("seed %d: %s after %d of %d nodes had their turn: %s",
				seed, w.in.Task.Status.Phase, w.given, nodes, w.in.Task.Status.Message)
		}
	}
}
