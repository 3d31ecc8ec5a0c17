package task

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment"
	"github.com/nodepatch/nodepatch/controllers/blockers"
	"github.com/nodepatch/nodepatch/controllers/policy"
)

// fleet is a cluster on which several rollouts of several policies go on, with
// all that happens to one: whatever comes, what they admit is checked against the
// fleet itself, by other code than that which decided.
type fleet struct {
	t        *testing.T
	random   *rand.Rand
	now      time.Time
	own      string
	most     *intstr.IntOrString
	nodes    []corev1.Node
	given    map[string]*v1alpha1.PatchAssignment
	policies []v1alpha1.PatchPolicy
	tasks    []v1alpha1.PatchTask
	blocked  map[string]bool
	// opens is the hour of the day at which a policy's window opens for two hours.
	opens    map[string]int
	admitted map[string]bool
	visited  map[string]bool
	settling bool
}

// dice is true once in n times.
func (f *fleet) dice(n int) bool { return f.random.IntN(n) == 0 }

func newFleet(t *testing.T, seed uint64) *fleet {
	f := &fleet{
		t: t, random: rand.New(rand.NewPCG(seed, 7)), now: epoch, given: map[string]*v1alpha1.PatchAssignment{},
		blocked: map[string]bool{}, opens: map[string]int{}, admitted: map[string]bool{}, visited: map[string]bool{},
	}
	pools := []string{"workers", "databases"}
	for _, pool := range pools {
		made := newPolicy(pool)
		if f.dice(2) {
			f.opens[pool] = f.random.IntN(22)
			made.Spec.MaintenanceWindows = []v1alpha1.MaintenanceWindow{
				windowAt(fmt.Sprintf("0 %d * * *", f.opens[pool]), "UTC", 2*time.Hour),
			}
		}
		f.policies = append(f.policies, made)
	}
	for i := range 3 + f.random.IntN(12) {
		node := newNode(fmt.Sprintf("node-%02d", i))
		node.Labels = map[string]string{
			"pool": pools[f.random.IntN(2)], "zone": fmt.Sprint(f.random.IntN(3)), "wave": fmt.Sprint(f.random.IntN(3)),
		}
		if f.dice(5) {
			node.Labels[controlPlaneLabels[0]] = ""
		}
		f.nodes = append(f.nodes, node)
		f.given[node.Name] = newAssignment(node.Name)
	}
	f.own = f.nodes[f.random.IntN(len(f.nodes))].Name
	if f.dice(2) {
		f.most = ptr.To(intstr.FromInt(1 + f.random.IntN(4)))
	}
	for i := range 1 + f.random.IntN(4) {
		f.tasks = append(f.tasks, f.newTask(i, pools[f.random.IntN(2)]))
	}
	return f
}

func (f *fleet) newTask(i int, pool string) v1alpha1.PatchTask {
	template := scanTemplate()
	template.Action = v1alpha1.ActionDeploy
	template.Rollout.MaxUnavailable = ptr.To(intstr.FromInt(1 + f.random.IntN(3)))
	template.Rollout.MaxFailures = ptr.To(int32(f.random.IntN(8)))
	template.Rollout.MaxParallelScans = int32(1 + f.random.IntN(6))
	if f.dice(2) {
		template.Rollout.TopologyKey = "zone"
	}
	if f.dice(2) {
		soak := &metav1.Duration{Duration: time.Duration(f.random.IntN(90)) * time.Minute}
		first, second := labelledWave("one", "wave", "1"), labelledWave("two", "wave", "2")
		first.Soak = soak
		template.Rollout.Waves = []v1alpha1.Wave{first, second}
	}
	name := fmt.Sprintf("task-%d", i)
	return v1alpha1.PatchTask{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name), CreationTimestamp: metav1.NewTime(f.now)},
		Spec:       v1alpha1.PatchTaskSpec{Policy: pool, Template: template},
		Status: v1alpha1.PatchTaskStatus{
			Phase: v1alpha1.TaskRunning, Template: template, StartTime: ptr.To(metav1.NewTime(f.now.Add(time.Duration(f.random.IntN(2)) * time.Minute))),
		},
	}
}

// input is what a task's decision depends on; known are the answers about blockers.
func (f *fleet) input(task *v1alpha1.PatchTask, known map[string]*blockers.Block) Input {
	in := Input{
		Now: f.now, Task: task, Policies: f.policies, Nodes: f.nodes, Assignments: f.given, Tasks: f.tasks,
		Membership: policy.Govern(f.policies, f.nodes), Finished: sets.New[string](),
		OwnNode: f.own, ClusterMaxUnavailable: f.most, Blocks: known,
	}
	for i := range f.tasks {
		if f.tasks[i].Finished() {
			in.Finished.Insert(string(f.tasks[i].UID))
		}
	}
	return in
}

// look decides about a task and carries it out, as the reconciler does: it asks
// about blockers as often as it may, and may be killed between any two writes.
func (f *fleet) look(task *v1alpha1.PatchTask) (next time.Time) {
	known := map[string]*blockers.Block{}
	plan := Decide(f.input(task, known))
	for range 5 {
		for _, name := range plan.Asks {
			known[name] = nil
			if f.blocked[name] {
				known[name] = &blockers.Block{Reason: v1alpha1.ReasonBlockedByPod, Message: "A pod"}
			}
		}
		plan = Decide(f.input(task, known))
	}
	killed := -1
	if !f.settling && f.dice(4) {
		killed = f.random.IntN(len(plan.Nodes) + 1)
	}
	for i := range plan.Nodes {
		if killed == i {
			return time.Time{}
		}
		node := &plan.Nodes[i]
		if node.writes() && !f.settling && f.dice(10) {
			plan.undo(i, v1alpha1.ReasonNotAssigned)
			continue
		}
		f.write(task, &plan, node)
	}
	if killed == len(plan.Nodes) {
		return time.Time{}
	}
	task.Status = plan.Status(task.Status)
	f.check(task, &plan)
	return plan.Next
}

// write does one node's part of a plan.
func (f *fleet) write(task *v1alpha1.PatchTask, plan *Plan, node *Node) {
	given := f.given[node.Name]
	switch {
	case node.Assign != nil:
		key := string(task.UID) + node.Name
		if f.visited[key] {
			f.t.Errorf("%s visits %s for the second time", task.Name, node.Name)
		}
		f.visited[key] = true
		assignment.Give(given, node.Assign, plan.unfinished)
	case node.Admit:
		f.checkAdmission(task, plan, node)
		given.Spec.Operation.AdmittedAt = ptr.To(metav1.NewTime(f.now))
	case node.Stop != "":
		given.Spec.Operation.Stop = node.Stop
	case node.Withdraw:
		if given.Spec.Operation.AdmittedAt != nil {
			f.t.Errorf("%s: the operation of %s was taken back though it was admitted", task.Name, node.Name)
		}
		assignment.Conclude(&given.Spec, node.Verdict)
	}
	if node.Says != nil {
		given.Status.Rollout = nil
		if node.Says.OperationID != "" {
			given.Status.Rollout = node.Says
		}
	}
}

// checkAdmission wants everything true that an admission depends on.
func (f *fleet) checkAdmission(task *v1alpha1.PatchTask, plan *Plan, admitted *Node) {
	fail := func(format string, args ...any) {
		f.t.Errorf("%s admitted %s at %s: %s", task.Name, admitted.Name, f.now.Format(time.RFC3339), fmt.Sprintf(format, args...))
	}
	node, options := f.node(admitted.Name), &task.Status.Template.Rollout
	key := string(task.UID) + node.Name
	if f.admitted[key] {
		fail("for the second time")
	}
	f.admitted[key] = true
	if task.Status.Stop != nil || task.Annotations != nil {
		fail("though the task has to end")
	}
	for i := range f.policies {
		if f.policies[i].Name == task.Spec.Policy && f.policies[i].Spec.Suspend {
			fail("though the policy is suspended")
		}
	}
	if hour, has := f.opens[task.Spec.Policy]; has {
		opened := f.now.Truncate(24 * time.Hour).Add(time.Duration(hour) * time.Hour)
		if until := opened.Add(2 * time.Hour); f.now.Before(opened) || f.now.Add(f.needs(task)).After(until) {
			fail("the window opens at %d:00 for two hours, and it may need %s", hour, f.needs(task))
		}
	}
	if node.Labels["pool"] != task.Spec.Policy || !isUp(node) || f.given[node.Name].Status.Controller.Agent != v1alpha1.AgentReady || f.blocked[node.Name] {
		fail("though it is away, blocked or none of the policy's: %+v", node.Status.Conditions)
	}
	cluster, governed := 0, 0
	for i := range f.nodes {
		other := &f.nodes[i]
		busy := f.disrupted(other)
		if other.Name == node.Name || !busy && isUp(other) && !other.Spec.Unschedulable {
			continue
		}
		cluster++
		ofPolicy := other.Labels["pool"] == task.Spec.Policy
		if ofPolicy {
			governed++
		}
		_, ofControlPlane := other.Labels[controlPlaneLabels[0]]
		_, isOne := node.Labels[controlPlaneLabels[0]]
		switch {
		case busy && (isOne || ofControlPlane):
			fail("though %s is disrupted, and one of them belongs to the control plane", other.Name)
		case isOne && ofControlPlane && !isUp(other):
			fail("though %s of the control plane is not Ready", other.Name)
		case busy && ofPolicy && options.TopologyKey != "" && other.Labels["zone"] != node.Labels["zone"]:
			fail("though %s of another zone is disrupted", other.Name)
		}
	}
	if governed+1 > options.MaxUnavailable.IntValue() {
		fail("though %d others of the policy are away, of %s", governed, options.MaxUnavailable)
	}
	if f.most != nil && cluster+1 > f.most.IntValue() {
		fail("though %d others of the cluster are away, of %s", cluster, f.most)
	}
	f.checkOrder(task, plan, node, fail)
}

// needs is how long a node needs at least, as far as one knows: as long as others
// did, or as long as it may drain and reboot.
func (f *fleet) needs(task *v1alpha1.PatchTask) time.Duration {
	var longest time.Duration
	for _, given := range f.given {
		if verdict := assignment.Verdict(given, string(task.UID)); verdict != nil && verdict.AdmittedAt != nil && verdict.Step == v1alpha1.StepDone {
			longest = max(longest, verdict.Time.Sub(verdict.AdmittedAt.Time))
		}
	}
	if drainAndReboot := 35 * time.Minute; longest == 0 || longest > drainAndReboot {
		return drainAndReboot
	}
	return longest
}

// checkOrder wants all nodes of earlier waves to have ended, and the last of them soaked.
func (f *fleet) checkOrder(task *v1alpha1.PatchTask, plan *Plan, node *corev1.Node, fail func(string, ...any)) {
	rank := func(node *corev1.Node) int {
		_, last := node.Labels[controlPlaneLabels[0]]
		switch {
		case last:
			return 9
		case task.Status.Template.Rollout.Waves == nil:
			return 3
		case node.Labels["wave"] == "0":
			return 3
		default:
			return int(node.Labels["wave"][0] - '0')
		}
	}
	for i := range plan.Nodes {
		other := &plan.Nodes[i]
		if other.Gone || rank(f.node(other.Name)) >= rank(node) {
			continue
		}
		verdict := assignment.Verdict(f.given[other.Name], string(task.UID))
		switch {
		case !other.Place.Ended():
			fail("though %s of an earlier wave has not ended", other.Name)
		case rank(f.node(other.Name)) == 1 && verdict != nil && verdict.AdmittedAt != nil:
			if soak := task.Status.Template.Rollout.Waves[0].Soak; soak != nil && f.now.Before(verdict.Time.Add(soak.Duration)) {
				fail("though the wave of %s soaks", other.Name)
			}
		}
	}
}

func (f *fleet) node(name string) *corev1.Node {
	for i := range f.nodes {
		if f.nodes[i].Name == name {
			return &f.nodes[i]
		}
	}
	return nil
}

func isUp(node *corev1.Node) bool { return node.Status.Conditions[0].Status == corev1.ConditionTrue }

// disrupted says whether anything is done to a node, or has yet to be undone.
func (f *fleet) disrupted(node *corev1.Node) bool {
	given := f.given[node.Name]
	agent := given.Status.Agent
	return given.Spec.Operation != nil && given.Spec.Operation.AdmittedAt != nil || node.Annotations != nil ||
		agent != nil && (agent.Step == v1alpha1.StepInstalling || agent.Step == v1alpha1.StepRebooting)
}

// check is what must hold after each look.
func (f *fleet) check(task *v1alpha1.PatchTask, plan *Plan) {
	counts := *task.Status.Nodes
	sum := counts.Pending + counts.Scanning + counts.Downloading + counts.Waiting + counts.Draining + counts.Installing +
		counts.Rebooting + counts.Verifying + counts.Done + counts.Stopped + counts.Skipped + counts.Failed + counts.Unreachable
	if sum != counts.Total {
		f.t.Errorf("%s: the steps add up to %d, not to the total: %+v", task.Name, sum, counts)
	}
	if !plan.Ended() && !plan.Next.IsZero() && !plan.Next.After(f.now) {
		f.t.Errorf("%s: the next look at %s is not in the future of %s", task.Name, plan.Next, f.now)
	}
	for i := range plan.Nodes {
		node := &plan.Nodes[i]
		if node.Gone {
			continue
		}
		operation := f.given[node.Name].Spec.Operation
		if plan.Ended() && operation != nil && operation.ID == string(task.UID) && operation.AdmittedAt != nil {
			f.t.Errorf("%s ended while %s is disrupted", task.Name, node.Name)
		}
		if said := f.given[node.Name].Status.Rollout; said != nil && said.OperationID == string(task.UID) && node.Place != PlaceWaiting {
			f.t.Errorf("%s: %s still says why it waits: %+v", task.Name, node.Name, said)
		}
	}
}
