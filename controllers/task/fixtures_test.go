package task

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment"
	"github.com/nodepatch/nodepatch/controllers/policy"
)

// epoch is when the tests' tasks are created; they start at once.
var epoch = time.Date(2026, time.November, 21, 6, 0, 0, 0, time.UTC)

const (
	taskUID         = "11111111-2222-3333-4444-555555555555"
	otherUID        = "99999999-8888-7777-6666-555555555555"
	scanTimeout     = 30 * time.Minute
	downloadTimeout = time.Hour
	installTimeout  = 2 * time.Hour
	prepareTimeout  = scanTimeout + downloadTimeout
)

// newInput is a task that was accepted a minute ago on the ready nodes named.
func newInput(names ...string) Input {
	in := Input{
		Now: epoch.Add(time.Minute),
		Task: &v1alpha1.PatchTask{
			ObjectMeta: metav1.ObjectMeta{
				Name: "scan-now", UID: types.UID(taskUID), Generation: 1,
				CreationTimestamp: metav1.NewTime(epoch),
			},
			Spec: v1alpha1.PatchTaskSpec{Policy: "workers", Task: "scan"},
			Status: v1alpha1.PatchTaskStatus{
				ObservedGeneration: 1,
				Phase:              v1alpha1.TaskRunning,
				StartTime:          ptr.To(metav1.NewTime(epoch)),
				Template:           scanTemplate(),
				Trigger:            v1alpha1.TriggerManual,
			},
		},
		Policies:    []v1alpha1.PatchPolicy{newPolicy("workers")},
		Assignments: map[string]*v1alpha1.PatchAssignment{},
		Finished:    sets.New[string](),
	}
	for _, name := range names {
		in.Nodes = append(in.Nodes, newNode(name))
		in.Assignments[name] = newAssignment(name)
	}
	return in
}

func scanTemplate() *v1alpha1.TaskTemplate {
	return &v1alpha1.TaskTemplate{
		Action:   v1alpha1.ActionScan,
		Scan:     v1alpha1.ScanOptions{Timeout: metav1.Duration{Duration: scanTimeout}},
		Download: v1alpha1.DownloadOptions{Timeout: metav1.Duration{Duration: downloadTimeout}},
		Install:  v1alpha1.InstallOptions{Timeout: metav1.Duration{Duration: installTimeout}},
		Rollout:  v1alpha1.RolloutOptions{MaxParallelScans: 50},
		Drain:    v1alpha1.DrainOptions{When: v1alpha1.DrainBeforeReboot, Timeout: metav1.Duration{Duration: 15 * time.Minute}},
		Reboot:   v1alpha1.RebootOptions{When: v1alpha1.RebootIfRequired, Timeout: metav1.Duration{Duration: 20 * time.Minute}},
		Verify:   v1alpha1.VerifyOptions{Timeout: metav1.Duration{Duration: 10 * time.Minute}},
	}
}

// run makes the input's task one that downloads or deploys.
func (in *Input) run(action v1alpha1.Action) {
	in.Task.Status.Template.Action = action
}

func newPolicy(name string) v1alpha1.PatchPolicy {
	return v1alpha1.PatchPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("policy-" + name)},
		Spec: v1alpha1.PatchPolicySpec{
			NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"pool": name}},
			ManualTasks:  v1alpha1.ManualTasksAllowed,
			Tasks: []v1alpha1.NamedTask{
				{Name: "scan", Template: *scanTemplate()},
				{Name: "deploy", Template: v1alpha1.TaskTemplate{Action: v1alpha1.ActionDeploy}},
			},
		},
	}
}

func newNode(name string) corev1.Node {
	return corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, UID: types.UID("node-" + name), Labels: map[string]string{"pool": "workers"},
			CreationTimestamp: metav1.NewTime(epoch.Add(-time.Hour)),
		},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"},
		}},
	}
}

func newAssignment(name string) *v1alpha1.PatchAssignment {
	return &v1alpha1.PatchAssignment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.PatchAssignmentSpec{Policy: "workers"},
		Status: v1alpha1.PatchAssignmentStatus{
			Controller: &v1alpha1.ControllerStatus{Agent: v1alpha1.AgentReady},
		},
	}
}

func (in *Input) node(name string) *corev1.Node {
	for i := range in.Nodes {
		if in.Nodes[i].Name == name {
			return &in.Nodes[i]
		}
	}
	return nil
}

// decide derives the membership, as the reconciler does, and decides.
func (in *Input) decide() Plan {
	in.Membership = policy.Govern(in.Policies, in.Nodes)
	return Decide(*in)
}

// assigned gives the node its part of the task at a time.
func (in *Input) assigned(name string, at time.Time) {
	in.Assignments[name].Spec.Operation = operation(taskUID, "scan-now", at)
}

func operation(id, task string, at time.Time) *v1alpha1.Operation {
	return &v1alpha1.Operation{
		ID: id, Task: task, Step: v1alpha1.StepScanning,
		AssignedAt: metav1.NewTime(at), Deadline: metav1.NewTime(at.Add(scanTimeout)),
	}
}

// done has the node's agent answer the operation it was given.
func (in *Input) done(name string, missing, security int32) {
	in.answer(name, v1alpha1.AgentStatus{
		Step: v1alpha1.StepDone, Reason: v1alpha1.ReasonScanned,
		Counts: &v1alpha1.PatchCounts{Missing: missing, Security: security},
	})
}

func (in *Input) failed(name, reason, message string) {
	in.answer(name, v1alpha1.AgentStatus{Step: v1alpha1.StepFailed, Reason: reason, Message: message})
}

// shows has the node's agent say at which step of its operation it is.
func (in *Input) shows(name string, step v1alpha1.Step) {
	in.answer(name, v1alpha1.AgentStatus{Step: step})
}

// stopping has the status remember that the task has to end, as of a minute
// after its start, and the nodes that are told know.
func (in *Input) stopping(reason, message string, told ...string) {
	in.Task.Status.Stop = &v1alpha1.TaskStop{Time: metav1.NewTime(epoch.Add(time.Minute)), Reason: reason, Message: message}
	for _, name := range told {
		in.Assignments[name].Spec.Operation.Stop = message
	}
}

func (in *Input) press(why string) {
	in.Task.Annotations = map[string]string{v1alpha1.StopAnnotation: why}
}

func (in *Input) answer(name string, agent v1alpha1.AgentStatus) {
	assignment := in.Assignments[name]
	if assignment.Spec.Operation == nil {
		in.assigned(name, epoch)
	}
	agent.OperationID, agent.Task = assignment.Spec.Operation.ID, assignment.Spec.Operation.Task
	agent.Time = ptr.To(metav1.NewTime(in.Now))
	assignment.Status.Agent = &agent
}

func (in *Input) notReady(name string) {
	in.node(name).Status.Conditions[0].Status = corev1.ConditionUnknown
	in.node(name).Status.Conditions[0].Reason = "NodeStatusUnknown"
}

func (in *Input) agent(name string, presence v1alpha1.AgentPresence) {
	in.Assignments[name].Status.Controller.Agent = presence
}

// apply does to the input what the reconciler does to the cluster.
func (in *Input) apply(plan *Plan) {
	for i := range plan.Nodes {
		node := &plan.Nodes[i]
		given := in.Assignments[node.Name]
		if node.Assign != nil {
			assignment.Give(given, node.Assign, plan.unfinished)
		}
		if node.Admit {
			given.Spec.Operation.AdmittedAt = ptr.To(metav1.NewTime(in.Now.UTC().Truncate(time.Second)))
		}
		if node.Stop != "" {
			given.Spec.Operation.Stop = node.Stop
		}
		if node.Withdraw {
			assignment.Conclude(&given.Spec, node.Verdict)
		}
		if node.Says != nil {
			given.Status.Rollout = nil
			if node.Says.OperationID != "" {
				given.Status.Rollout = node.Says
			}
		}
	}
	in.Task.Status = plan.Status(in.Task.Status)
}

// ready has the node's agent wait at its step with this many patches on its disk.
func (in *Input) ready(patches int32, names ...string) {
	for _, name := range names {
		in.assigned(name, epoch)
		in.Assignments[name].Spec.Operation.Step = v1alpha1.StepDownloading
		in.answer(name, v1alpha1.AgentStatus{
			Step: v1alpha1.StepWaiting, Reason: v1alpha1.ReasonReadyToInstall, Counts: &v1alpha1.PatchCounts{Missing: patches, Downloaded: patches},
		})
	}
}

// admitted lets the node's disruption begin at a time.
func (in *Input) admitted(name string, at time.Time) {
	if in.Assignments[name].Spec.Operation == nil {
		in.ready(10, name)
	}
	in.Assignments[name].Spec.Operation.AdmittedAt = ptr.To(metav1.NewTime(at))
}

// judged ends the node's disruption with a verdict, at the input's time.
func (in *Input) judged(name string, step v1alpha1.Step, reason, message string) {
	given := in.Assignments[name]
	if given.Spec.Operation == nil || given.Spec.Operation.AdmittedAt == nil {
		in.admitted(name, in.Now.Add(-10*time.Minute))
	}
	assignment.Conclude(&given.Spec, &v1alpha1.EndedOperation{
		OperationID: taskUID, Step: step, Time: ptr.To(metav1.NewTime(in.Now)), Reason: reason, Message: message,
		Counts: &v1alpha1.PatchCounts{Installed: 10}, AdmittedAt: given.Spec.Operation.AdmittedAt,
	})
}

func (in *Input) label(name, key, value string) { in.node(name).Labels[key] = value }
