package task

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment"
)

// TestRolloutsOfAFleet lets anything happen to fleets while rollouts go over them.
// Nothing may be admitted that must not be, and once all is well and windows open,
// every node has its turn.
func TestRolloutsOfAFleet(t *testing.T) {
	looks, admissions := 0, 0
	for seed := range uint64(400) {
		f := newFleet(t, seed)
		for range 50 + f.random.IntN(300) {
			if task := &f.tasks[f.random.IntN(len(f.tasks))]; f.dice(3) && !task.Finished() {
				f.look(task)
				looks++
			} else {
				f.happen()
			}
		}
		f.settle()
		admissions += len(f.admitted)
		if t.Failed() {
			t.Fatalf("in the fleet of seed %d", seed)
		}
	}
	t.Logf("%d looks in disorder, %d admissions", looks, admissions)
	if admissions < 400 {
		t.Errorf("only %d admissions: the fleets are too unlucky to show anything", admissions)
	}
}

// happen is something that anybody else does to the fleet.
func (f *fleet) happen() {
	if len(f.nodes) == 0 {
		return
	}
	i := f.random.IntN(len(f.nodes))
	node := &f.nodes[i]
	given := f.given[node.Name]
	switch f.random.IntN(24) {
	case 0, 1, 2:
		f.now = f.now.Add(time.Duration(1+f.random.IntN(40)) * time.Minute)
	case 3:
		f.setUp(node, f.dice(2))
	case 4:
		node.Spec.Unschedulable = f.dice(3)
	case 5:
		presences := []v1alpha1.AgentPresence{v1alpha1.AgentReady, v1alpha1.AgentReady, v1alpha1.AgentNotReady, v1alpha1.AgentAbsent}
		given.Status.Controller.Agent = presences[f.random.IntN(4)]
	case 6:
		f.blocked[node.Name] = f.dice(3)
	case 7:
		f.policies[f.random.IntN(2)].Spec.Suspend = f.dice(3)
	case 8:
		if task := &f.tasks[f.random.IntN(len(f.tasks))]; f.dice(30) {
			task.Annotations = map[string]string{v1alpha1.StopAnnotation: "enough"}
		}
	case 9:
		if f.dice(10) && len(f.nodes) > 2 {
			delete(f.given, node.Name)
			f.nodes = slices.Delete(f.nodes, i, i+1)
		} else if f.dice(10) {
			node.Labels["pool"] = "databases"
		}
	default:
		f.advance(node, given)
	}
}

func (f *fleet) setUp(node *corev1.Node, up bool) {
	status := corev1.ConditionUnknown
	if up {
		status = corev1.ConditionTrue
	}
	if ready := &node.Status.Conditions[0]; ready.Status != status {
		ready.Status, ready.LastTransitionTime = status, metav1.NewTime(f.now)
	}
}

// advance lets a node's agent, or the part of the manager that disrupts the node,
// go one step on.
func (f *fleet) advance(node *corev1.Node, given *v1alpha1.PatchAssignment) {
	operation := given.Spec.Operation
	switch {
	case operation == nil:
		if f.settling {
			f.setUp(node, true) // a reboot that took too long
		}
		// An agent whose operation was taken back ends at its next safe point.
		if agent := given.Status.Agent; agent != nil && !agent.Step.Ended() && given.Status.Controller.Agent == v1alpha1.AgentReady {
			agent.Step = v1alpha1.StepStopped
		}
		return
	case operation.AdmittedAt != nil:
		f.disrupt(node, given)
		return
	case given.Status.Controller.Agent != v1alpha1.AgentReady || !isUp(node):
		return
	}
	agent := given.Status.Agent
	if agent == nil || agent.OperationID != operation.ID {
		f.show(given, v1alpha1.StepScanning)
		return
	}
	switch {
	case agent.Step.Ended():
	case operation.Stop != "":
		f.show(given, v1alpha1.StepStopped)
	case agent.Step == v1alpha1.StepScanning:
		f.show(given, v1alpha1.StepDownloading)
	case agent.Step == v1alpha1.StepDownloading && f.dice(6):
		f.show(given, v1alpha1.StepDone) // nothing to install
	case agent.Step == v1alpha1.StepDownloading && f.dice(12):
		f.show(given, v1alpha1.StepFailed)
	case agent.Step == v1alpha1.StepDownloading:
		f.show(given, v1alpha1.StepWaiting)
		given.Status.Agent.Reason = v1alpha1.ReasonReadyToInstall
	}
}

// disrupt goes on with a node that was admitted: it is marked, installed, rebooted,
// and judged once it is back, in whatever state its agent is.
func (f *fleet) disrupt(node *corev1.Node, given *v1alpha1.PatchAssignment) {
	agent, operation := given.Status.Agent, given.Spec.Operation
	judge := func(step v1alpha1.Step, reason string) {
		if !isUp(node) && !f.dice(4) {
			return
		}
		node.Annotations = nil
		assignment.Conclude(&given.Spec, &v1alpha1.EndedOperation{
			OperationID: operation.ID, Step: step, Reason: reason, Time: ptr.To(metav1.NewTime(f.now)), AdmittedAt: operation.AdmittedAt,
		})
	}
	switch {
	case node.Annotations == nil && f.dice(10):
		judge(v1alpha1.StepStopped, v1alpha1.ReasonHookFailed)
	case node.Annotations == nil:
		node.Annotations = map[string]string{v1alpha1.MaintenanceAnnotation: "{}"}
	case operation.Stop != "" && agent.Step == v1alpha1.StepWaiting:
		judge(v1alpha1.StepStopped, v1alpha1.ReasonStopped)
	case agent.Step == v1alpha1.StepWaiting:
		f.show(given, v1alpha1.StepInstalling)
	case f.dice(12):
		judge(v1alpha1.StepFailed, v1alpha1.ReasonRebootTimeout)
	case agent.Step == v1alpha1.StepInstalling && f.dice(2):
		f.show(given, v1alpha1.StepRebooting)
		f.setUp(node, false)
	case agent.Step == v1alpha1.StepInstalling, agent.Step == v1alpha1.StepRebooting && isUp(node):
		f.show(given, v1alpha1.StepDone)
	case agent.Step == v1alpha1.StepRebooting:
		f.setUp(node, true)
	default:
		judge(v1alpha1.StepDone, v1alpha1.ReasonVerified)
	}
}

// show has a node's agent say where it stands, and remember what it ended before,
// but not for long.
func (f *fleet) show(given *v1alpha1.PatchAssignment, step v1alpha1.Step) {
	var earlier []v1alpha1.EndedOperation
	if before := given.Status.Agent; before != nil {
		earlier = before.Earlier
		if before.Step.Ended() && before.OperationID != given.Spec.Operation.ID {
			earlier = []v1alpha1.EndedOperation{{OperationID: before.OperationID, Step: before.Step}}
		}
	}
	given.Status.Agent = &v1alpha1.AgentStatus{
		OperationID: given.Spec.Operation.ID, Step: step, Time: ptr.To(metav1.NewTime(f.now)), Earlier: earlier,
		Counts: &v1alpha1.PatchCounts{Downloaded: 3},
	}
}

// settle makes all well and lets time pass: every task has to end, and no node of
// one that nobody stopped may have been left out.
func (f *fleet) settle() {
	f.settling = true
	f.blocked = map[string]bool{}
	for i := range f.policies {
		f.policies[i].Spec.Suspend = false
	}
	for i := range f.nodes {
		f.setUp(&f.nodes[i], true)
		f.nodes[i].Spec.Unschedulable = false
		f.given[f.nodes[i].Name].Status.Controller.Agent = v1alpha1.AgentReady
	}
	left := 0
	for range 40 * (len(f.nodes) + 2) * len(f.tasks) {
		left = 0
		next := f.now.Add(24 * time.Hour)
		for i := range f.tasks {
			if f.tasks[i].Finished() {
				continue
			}
			left++
			if at := f.look(&f.tasks[i]); !at.IsZero() && at.Before(next) {
				next = at
			}
		}
		if left == 0 || f.t.Failed() {
			break
		}
		for i := range f.nodes {
			f.advance(&f.nodes[i], f.given[f.nodes[i].Name])
		}
		if f.dice(3) {
			f.now = next
		} else {
			f.now = f.now.Add(time.Minute)
		}
	}
	for i := range f.tasks {
		task := &f.tasks[i]
		counts := task.Status.Nodes
		switch {
		case f.t.Failed():
		case !task.Finished():
			f.t.Errorf("%s does not end: %s", task.Name, task.Status.Message)
		case task.Status.Stop == nil && counts.Pending+counts.Waiting > 0:
			f.t.Errorf("%s left nodes out: %s", task.Name, task.Status.Message)
		}
	}
}
