package task

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment"
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
	// old says that agents do not know what a stop is.
	old bool
	// told counts the stops that each node was told, and stop is the first that
	// the status remembered.
	told map[string]int
	stop *v1alpha1.TaskStop
}

// newWorld is a cluster in which a run of any action begins, on at most some
// nodes at once.
func newWorld(t *testing.T, action v1alpha1.Action, limit int) *world {
	w := &world{t: t, in: newInput(), assigned: map[string]bool{}, told: map[string]int{}, limit: limit}
	w.in.Now = epoch
	w.in.run(action)
	w.in.Task.Status.Template.Rollout.MaxParallelScans = int32(limit)
	return w
}

var actions = []v1alpha1.Action{v1alpha1.ActionScan, v1alpha1.ActionDownload, v1alpha1.ActionDeploy}

func simulate(t *testing.T, script []byte) {
	next := func() int {
		if len(script) == 0 {
			return 0
		}
		value := int(script[0])
		script = script[1:]
		return value
	}
	w := newWorld(t, actions[next()%3], 1+next()%3)
	w.old = next()%8 == 0
	if hours := next() % 16; hours >= 12 {
		w.in.Task.Status.Template.Deadline = &metav1.Duration{Duration: time.Duration(hours-11) * time.Hour}
	}
	for range 1 + next()%8 {
		w.add()
	}
	for len(script) > 0 && !w.in.Task.Finished() && !t.Failed() {
		if action := next(); action%4 == 0 {
			w.look(next(), next())
		} else {
			w.happen(action, next())
		}
	}
	w.settle()
}

// happen is something that other parts of a cluster do.
func (w *world) happen(action, argument int) {
	switch {
	case action%16 == 1 && w.made < 12:
		w.add()
		return
	case action%16 == 14 && argument%8 == 0:
		w.cut(argument / 8)
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
	case 7:
		w.answer(assignment, v1alpha1.StepDone)
	case 9:
		w.show(assignment, argument)
	case 10:
		w.obey()
	case 11:
		w.answer(assignment, v1alpha1.StepFailed)
	case 13:
		if occupant(assignment) == "" && w.in.Assignments[node.Name].Spec.Operation == nil {
			assignment.Spec.Operation = operation(otherUID, "other", w.in.Now)
			assignment.Spec.Operation.Step = []v1alpha1.Step{v1alpha1.StepScanning, v1alpha1.StepInstalling}[argument%2]
		}
	case 14:
		for i := range w.in.Policies {
			w.in.Policies[i].Spec.Suspend = !w.in.Policies[i].Spec.Suspend
		}
	case 15:
		delete(w.in.Assignments, node.Name)
		w.in.Nodes = append(w.in.Nodes[:i:i], w.in.Nodes[i+1:]...)
	}
}

// cut is what a person, or Git, does to the task itself.
func (w *world) cut(argument int) {
	switch argument % 4 {
	case 0, 1:
		w.in.press(fmt.Sprint("reason ", argument))
	case 2:
		w.in.Task.Annotations = nil
	case 3:
		if len(w.in.Policies) > 0 {
			w.in.Policies = nil
		} else {
			w.in.Policies = []v1alpha1.PatchPolicy{newPolicy("workers")}
		}
	}
}

// show has the agent go on to another step, if it has not ended.
func (w *world) show(assignment *v1alpha1.PatchAssignment, argument int) {
	if id := occupant(assignment); id != "" {
		steps := []v1alpha1.Step{v1alpha1.StepPending, v1alpha1.StepScanning, v1alpha1.StepDownloading, v1alpha1.StepDownloading}
		earlier := w.earlier(assignment)
		assignment.Status.Agent = &v1alpha1.AgentStatus{OperationID: id, Step: steps[argument%4], Earlier: earlier}
	}
}

// obey has the agents answer that were told to end, if they know what that is.
func (w *world) obey() {
	for _, assignment := range w.in.Assignments {
		if occupant(assignment) != "" && assignment.Spec.Operation.Stop != "" && !w.old {
			w.answer(assignment, v1alpha1.StepStopped)
		}
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
func (w *world) answer(given *v1alpha1.PatchAssignment, step v1alpha1.Step) {
	operation := given.Spec.Operation
	if operation == nil || assignment.Outcome(given, operation.ID) != nil {
		return
	}
	given.Status.Agent = &v1alpha1.AgentStatus{
		OperationID: operation.ID, Task: operation.Task, Step: step, Reason: "Because", Earlier: w.earlier(given),
		Counts: &v1alpha1.PatchCounts{Installed: 1, Missing: 2, Failed: 1},
	}
}

// earlier are the outcomes that an agent keeps when it says something new.
func (w *world) earlier(assignment *v1alpha1.PatchAssignment) []v1alpha1.EndedOperation {
	before := assignment.Status.Agent
	if before == nil {
		return nil
	}
	if !before.Step.Ended() {
		return before.Earlier
	}
	last := v1alpha1.EndedOperation{OperationID: before.OperationID, Step: before.Step, Reason: before.Reason}
	return append([]v1alpha1.EndedOperation{last}, before.Earlier...)
}

func occupant(given *v1alpha1.PatchAssignment) string {
	operation := given.Spec.Operation
	if operation == nil || assignment.Outcome(given, operation.ID) != nil {
		return ""
	}
	return operation.ID
}

// look decides and carries out, except for the writes that lost tells to fail. A
// manager that is killed in the middle leaves some of the writes and no status.
func (w *world) look(lost, killed int) {
	plan := w.in.decide()
	writes := len(plan.Nodes) + 1
	if killed%4 == 1 {
		writes = killed / 4 % writes
	}
	for i := range plan.Nodes {
		node := &plan.Nodes[i]
		if node.Assign == nil && node.Stop == "" && !node.Withdraw {
			continue
		}
		if writes--; writes < 0 {
			break
		}
		given := w.in.Assignments[node.Name]
		if lost>>(i%8)&1 == 1 {
			plan.undo(i, v1alpha1.ReasonNotAssigned)
			continue
		}
		if node.Withdraw {
			assignment.Conclude(&given.Spec, node.Verdict)
			continue
		}
		if node.Stop != "" {
			w.tell(node, given)
			continue
		}
		w.given++
		switch {
		case w.stop != nil:
			w.t.Errorf("node %s was given the task after it had to end", node.Name)
		case w.assigned[node.Name]:
			w.t.Errorf("node %s was given the task twice", node.Name)
		case occupant(given) != "":
			w.t.Errorf("node %s was taken from the task %s", node.Name, occupant(given))
		case w.in.node(node.Name).Status.Conditions[0].Status != corev1.ConditionTrue:
			w.t.Errorf("node %s was given the task while it was not Ready", node.Name)
		case w.in.Policies[0].Spec.Suspend:
			w.t.Errorf("node %s was given the task while the policy was suspended", node.Name)
		}
		w.assigned[node.Name] = true
		assignment.Give(given, node.Assign, plan.unfinished)
	}
	w.checkLimit()
	if killed%4 == 1 {
		return
	}
	w.in.Task.Status = plan.Status(w.in.Task.Status)
	w.check(&plan)
}

// tell has a node told that it has to end.
func (w *world) tell(node *Node, assignment *v1alpha1.PatchAssignment) {
	if w.told[node.Name]++; w.told[node.Name] > 1 {
		w.t.Errorf("node %s was told %d times", node.Name, w.told[node.Name])
	}
	if w.stop == nil || w.stop.Message != node.Stop {
		w.t.Errorf("node %s was told %q, and the status remembers %+v", node.Name, node.Stop, w.stop)
	}
	assignment.Spec.Operation.Stop = node.Stop
}

// check is what must hold after each look.
func (w *world) check(plan *Plan) {
	counts := *w.in.Task.Status.Nodes
	sum := counts.Pending + counts.Scanning + counts.Downloading + counts.Waiting + counts.Draining +
		counts.Installing + counts.Rebooting + counts.Verifying + counts.Done + counts.Stopped + counts.Skipped + counts.Failed + counts.Unreachable
	if sum != counts.Total {
		w.t.Errorf("the steps add up to %d, not to the total: %+v", sum, counts)
	}
	if w.stop == nil {
		w.stop = w.in.Task.Status.Stop.DeepCopy()
	}
	if !equality.Semantic.DeepEqual(w.stop, w.in.Task.Status.Stop) {
		w.t.Errorf("the run had to end for %+v, now it has to for %+v", w.stop, w.in.Task.Status.Stop)
	}
	if plan.Ended() && w.stop != nil && (plan.Reason != w.stop.Reason || plan.Cause != w.stop.Message) {
		w.t.Errorf("the run had to end for %+v, and ended for %s: %s", w.stop, plan.Reason, plan.Cause)
	}
	if !plan.Ended() && !plan.Next.IsZero() && !plan.Next.After(w.in.Now) {
		w.t.Errorf("the next look at %s is not in the future of %s", plan.Next, w.in.Now)
	}
	if working := counts.Scanning + counts.Downloading + counts.Installing + counts.Verifying; plan.Ended() && working > 0 {
		w.t.Errorf("the task ended while nodes are at work: %+v", counts)
	}
	if text := plan.Message(); text == "" || len(text) > maxMessage {
		w.t.Errorf("message %q", text)
	}
}

// checkLimit wants no more nodes at work than allowed.
func (w *world) checkLimit() {
	working := 0
	for _, assignment := range w.in.Assignments {
		operation := assignment.Spec.Operation
		if operation != nil && operation.ID == taskUID && occupant(assignment) != "" && w.in.Now.Before(operation.Deadline.Time) {
			working++
		}
	}
	if working > w.limit {
		w.t.Errorf("%d nodes are at work at once, %d may", working, w.limit)
	}
}

// settle lets nothing happen any more but time, with half of the nodes away, and
// wants the run to end when its time-outs say so.
func (w *world) settle() {
	for i := range w.in.Policies {
		w.in.Policies[i].Spec.Suspend = false
	}
	for i := range w.in.Nodes {
		assignment := w.in.Assignments[w.in.Nodes[i].Name]
		if occupant(assignment) == otherUID {
			w.answer(assignment, v1alpha1.StepDone)
		}
		if i%2 == 0 {
			assignment.Status.Controller.Agent = v1alpha1.AgentAbsent
		}
	}
	each := timeout(w.in.Task.Status.Template)
	bound := w.in.Now.Add(each * time.Duration(2+len(w.in.Nodes)))
	for range 10 * (len(w.in.Nodes) + 1) {
		if w.in.Task.Finished() || w.t.Failed() {
			break
		}
		w.look(0, 0)
		w.obey()
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
		w := newWorld(t, actions[seed%3], 1+random.IntN(4))
		nodes := 1 + random.IntN(30)
		for range nodes {
			w.add()
		}
		for range 100 * nodes {
			if w.in.Task.Finished() {
				break
			}
			w.look(random.IntN(256), random.IntN(256))
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
