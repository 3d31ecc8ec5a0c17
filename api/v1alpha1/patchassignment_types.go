package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PatchAssignment is what one node is asked to do, and what it is doing this
// minute, under the node's name. It is the only object that the node's agent
// watches. People read it; only nodepatch writes it.
//
// +genclient
// +genclient:nonNamespaced
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=pa,categories=nodepatch
// +kubebuilder:selectablefield:JSONPath=`.spec.policy`
// +kubebuilder:printcolumn:name="Policy",type=string,JSONPath=`.spec.policy`,description="Policy that governs the node",priority=1
// +kubebuilder:printcolumn:name="Task",type=string,JSONPath=`.spec.operation.task`,description="Task that the node was given last"
// +kubebuilder:printcolumn:name="Answered",type=string,JSONPath=`.status.agent.task`,description="Task that the agent last said something about",priority=1
// +kubebuilder:printcolumn:name="Step",type=string,JSONPath=`.status.agent.step`,description="Where the agent stands with it"
// +kubebuilder:printcolumn:name="Since",type=date,JSONPath=`.status.agent.time`,description="When the agent reached the step"
// +kubebuilder:printcolumn:name="Agent",type=string,JSONPath=`.status.controller.agent`,description="Whether the node's agent is there"
// +kubebuilder:printcolumn:name="Manager",type=string,JSONPath=`.status.controller.step`,description="What the manager does with the node"
// +kubebuilder:printcolumn:name="Waits",type=string,JSONPath=`.status.rollout.reason`,description="Why the task does not let the node go on, in one word"
// +kubebuilder:printcolumn:name="Task-Says",type=string,JSONPath=`.status.rollout.message`,description="The same in a sentence",priority=1
// +kubebuilder:printcolumn:name="Manager-Says",type=string,JSONPath=`.status.controller.message`,description="What the manager does, or why the node waits"
// +kubebuilder:printcolumn:name="Agent-Says",type=string,JSONPath=`.status.agent.message`,description="What the agent does, did, or waits for"
type PatchAssignment struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// spec is what the manager asks for.
	// +optional
	Spec PatchAssignmentSpec `json:"spec,omitzero"`
	// status is what happens on the node.
	// +optional
	Status PatchAssignmentStatus `json:"status,omitzero"`
}

// PatchAssignmentSpec is what the manager asks a node's agent for.
type PatchAssignmentSpec struct {
	// policy that governs the node.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Policy string `json:"policy,omitempty"`
	// operation is the node's part of a task. When it goes away or is replaced
	// before it ended, the agent ends it at the next safe point.
	// +optional
	Operation *Operation `json:"operation,omitempty"`
	// verdicts are what the manager decided about operations that it ended,
	// newest first: of a node that did not answer in time, and of every node that
	// was disrupted. They are written in one piece with the removal of the
	// operation, so that a node is not asked again by the same task, however
	// often the manager restarts. Those of tasks that have ended make room first.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Verdicts []EndedOperation `json:"verdicts,omitempty"`
	// outcomes are what the agent said about operations that ended while their
	// tasks go on, newest first: the manager keeps them, as the agent forgets all
	// but its last operations. They are written in one piece with the next
	// operation, and go away with the one after the end of their task.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Outcomes []EndedOperation `json:"outcomes,omitempty"`
	// retryClears is status.clears of the node's PatchRetry after the manager
	// has cleared counts there: when it changes, the agent reads its PatchRetry
	// again, which it does not watch.
	// +optional
	// +kubebuilder:validation:Minimum=0
	RetryClears int64 `json:"retryClears,omitempty"`
	// patchDataRefreshes is how often people asked for fresh patch data: when it
	// grows, the agent refreshes its package metadata and scans, without a task.
	// An operation that is under way goes first, and will do if it refreshes
	// itself.
	// +optional
	// +kubebuilder:validation:Minimum=0
	PatchDataRefreshes int64 `json:"patchDataRefreshes,omitempty"`
	// logClears are the parts of the node's patch log that people had deleted:
	// the agent deletes them from the log that it keeps on the host. There is
	// one for each task and policy, and one for the whole node, with the last
	// time each; of more than 32 the oldest are forgotten.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	LogClears []LogClear `json:"logClears,omitempty"`
}

// LogClear is a part of a node's patch log that a person had deleted: the
// entries of a task, those of a policy, or all.
type LogClear struct {
	// number grows with every clear of the node's log: what the agent has not
	// seen has a higher one than what it has.
	// +required
	// +kubebuilder:validation:Minimum=1
	Number int64 `json:"number,omitempty"`
	// task whose entries are deleted.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Task string `json:"task,omitempty"`
	// policy whose entries are deleted.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Policy string `json:"policy,omitempty"`
	// until is when the button was pressed: what happened later stays.
	// +required
	Until metav1.MicroTime `json:"until,omitzero"`
}

// MaxLogClears is how many clears an assignment remembers.
const MaxLogClears = 32

// OperationPin says who decides what an operation installs.
//
// +kubebuilder:validation:Enum=Task
type OperationPin string

// OperationPinTask has the operation install what its task has pinned.
const OperationPinTask OperationPin = "Task"

// Operation is one node's part of a task.
type Operation struct {
	// id of the operation: the UID of the task, as a task visits a node once.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	ID string `json:"id,omitempty"`
	// task that the operation belongs to.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Task string `json:"task,omitempty"`
	// step that the agent may go up to: Scanning, Downloading, Installing or
	// Rebooting. What lies before it is done first, and Verifying follows
	// Installing and Rebooting. The manager raises it, and never lowers it.
	// +required
	Step Step `json:"step,omitempty"`
	// action of the task: Scan, Download or Deploy. An agent that deploys and has
	// come to its step, with something left to install or a reboot to do, waits
	// until the step is raised.
	// +optional
	Action Action `json:"action,omitempty"`
	// reboot says when the agent asks to reboot: IfRequired where the node needs
	// it, Always also where something was installed, Never. It is Never, if it is
	// left out.
	// +optional
	Reboot RebootWhen `json:"reboot,omitempty"`
	// admittedAt is since when the node may be disrupted: it holds one of the
	// rollout's slots from then on, until the manager has ended the operation.
	// +optional
	AdmittedAt *metav1.Time `json:"admittedAt,omitempty"`
	// patches chooses what is downloaded and installed: all but the packages
	// of Kubernetes itself, if it is left out.
	// +optional
	Patches *PatchSelection `json:"patches,omitempty"`
	// pin says what is installed in place of what patches chooses: with Task,
	// exactly status.pinned of the task, which was recorded before.
	// +optional
	Pin OperationPin `json:"pin,omitempty"`
	// retryLimits of the policy.
	// +optional
	RetryLimits *RetryLimits `json:"retryLimits,omitempty"`
	// stop says why the operation has to end at the next safe point: a scan and
	// a download at once, a package transaction when it is finished.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Stop string `json:"stop,omitempty"`
	// assignedAt is when the manager asked.
	// +required
	AssignedAt metav1.Time `json:"assignedAt,omitzero"`
	// deadline is when the manager stops waiting for the agent to come to the
	// step; an agent that comes back later does not begin. It is set anew with
	// the step. A node that waits at its step has none to fear.
	// +required
	Deadline metav1.Time `json:"deadline,omitzero"`
}

// Step is a step of a node's way through a task.
//
// +kubebuilder:validation:Enum=Pending;Scanning;Downloading;Waiting;Draining;Installing;Rebooting;Verifying;Done;Failed;Stopped
type Step string

const (
	// StepPending has not begun.
	StepPending Step = "Pending"
	// StepScanning looks for missing patches.
	StepScanning Step = "Scanning"
	// StepDownloading stages packages.
	StepDownloading Step = "Downloading"
	// StepWaiting is ready to be disrupted.
	StepWaiting Step = "Waiting"
	// StepDraining has pods moved away.
	StepDraining Step = "Draining"
	// StepInstalling installs packages.
	StepInstalling Step = "Installing"
	// StepRebooting is on the way down or up.
	StepRebooting Step = "Rebooting"
	// StepVerifying is checked.
	StepVerifying Step = "Verifying"
	// StepDone ended with success.
	StepDone Step = "Done"
	// StepFailed ended without success.
	StepFailed Step = "Failed"
	// StepStopped was ended by the manager.
	StepStopped Step = "Stopped"
)

// Ended says whether a step is the last of its operation.
func (s Step) Ended() bool {
	return s == StepDone || s == StepFailed || s == StepStopped
}

// PatchAssignmentStatus is what happens on a node, by its two writers.
type PatchAssignmentStatus struct {
	// agent is the half that the node's agent writes.
	// +optional
	Agent *AgentStatus `json:"agent,omitempty"`
	// controller is the half that the manager writes.
	// +optional
	Controller *ControllerStatus `json:"controller,omitempty"`
	// rollout is why the node's task does not let it go on, as long as the node
	// is ready to be disrupted and waits.
	// +optional
	Rollout *RolloutStatus `json:"rollout,omitempty"`
}

// RolloutStatus is why a node that is ready to be disrupted waits.
type RolloutStatus struct {
	// operationID that waits.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	OperationID string `json:"operationID,omitempty"`
	// reason in one word, one of the reasons of this API.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Reason string `json:"reason,omitempty"`
	// message in a sentence.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// AgentStatus is what a node's agent says.
type AgentStatus struct {
	// operationID that the agent works on, or worked on last.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	OperationID string `json:"operationID,omitempty"`
	// task of that operation.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Task string `json:"task,omitempty"`
	// step that the operation has reached.
	// +optional
	Step Step `json:"step,omitempty"`
	// time at which it reached the step.
	// +optional
	Time *metav1.Time `json:"time,omitempty"`
	// reason in one word, one of the reasons of this API.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Reason string `json:"reason,omitempty"`
	// message in a sentence.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
	// counts of the node's patches, once the operation has ended or waits.
	// +optional
	Counts *PatchCounts `json:"counts,omitempty"`
	// reboots is how often the agent has rebooted the node in this operation.
	// +optional
	Reboots int32 `json:"reboots,omitempty"`
	// version of the agent.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Version string `json:"version,omitempty"`
	// earlier are the last operations that ended before this one, newest
	// first, so that a task finds its outcome after the node went on to the next.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	Earlier []EndedOperation `json:"earlier,omitempty"`
}

// EndedOperation is the outcome of an operation.
type EndedOperation struct {
	// operationID that ended.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	OperationID string `json:"operationID,omitempty"`
	// step with which it ended: Done, Failed or Stopped.
	// +required
	Step Step `json:"step,omitempty"`
	// time at which it ended.
	// +optional
	Time *metav1.Time `json:"time,omitempty"`
	// reason in one word.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Reason string `json:"reason,omitempty"`
	// message in a sentence.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
	// counts of the node's patches at that time.
	// +optional
	Counts *PatchCounts `json:"counts,omitempty"`
	// admittedAt is since when the operation was allowed to disrupt the node; a
	// verdict with it is the last word, whatever the agent says.
	// +optional
	AdmittedAt *metav1.Time `json:"admittedAt,omitempty"`
}

// AgentPresence says whether a node's agent is there.
//
// +kubebuilder:validation:Enum=Ready;NotReady;Absent
type AgentPresence string

const (
	// AgentReady says that the agent's pod is ready.
	AgentReady AgentPresence = "Ready"
	// AgentNotReady says that the agent's pod is not ready.
	AgentNotReady AgentPresence = "NotReady"
	// AgentAbsent says that there is no agent's pod on the node.
	AgentAbsent AgentPresence = "Absent"
)

// ControllerStatus is what the manager says about a node.
type ControllerStatus struct {
	// agent says whether the node's agent is there: Ready, NotReady if its pod is
	// not ready, or Absent if there is no such pod.
	// +optional
	Agent AgentPresence `json:"agent,omitempty"`
	// operationID that the manager disrupts the node for, if it does.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	OperationID string `json:"operationID,omitempty"`
	// step of the disruption: Draining, Installing, Rebooting or Verifying.
	// +optional
	Step Step `json:"step,omitempty"`
	// since when the disruption is in this step.
	// +optional
	Since *metav1.Time `json:"since,omitempty"`
	// reason for which the node waits, in one word.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Reason string `json:"reason,omitempty"`
	// message says what the manager does with the node, or why the node waits.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// PatchAssignmentList is a list of PatchAssignments.
//
// +kubebuilder:object:root=true
type PatchAssignmentList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []PatchAssignment `json:"items"`
}
