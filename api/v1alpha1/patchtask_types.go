package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PatchTask is one run: applying it starts the run, and its status tells how
// it goes. Its spec never changes.
//
// +genclient
// +genclient:nonNamespaced
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=pt,categories=nodepatch
// +kubebuilder:selectablefield:JSONPath=`.spec.policy`
// +kubebuilder:selectablefield:JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Policy",type=string,JSONPath=`.spec.policy`,description="Policy whose nodes the task is about"
// +kubebuilder:printcolumn:name="Action",type=string,JSONPath=`.status.template.action`,description="What the task does"
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`,description="Where the task stands"
// +kubebuilder:printcolumn:name="Trigger",type=string,JSONPath=`.status.trigger`,description="What started the task",priority=1
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodes.total`,description="Nodes that the task is about",priority=1
// +kubebuilder:printcolumn:name="Waiting",type=integer,JSONPath=`.status.nodes.waiting`,description="Nodes that are ready to be disrupted and wait",priority=1
// +kubebuilder:printcolumn:name="Done",type=integer,JSONPath=`.status.nodes.done`,description="Nodes that went through with success",priority=1
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.nodes.failed`,description="Nodes that failed",priority=1
// +kubebuilder:printcolumn:name="Unreachable",type=integer,JSONPath=`.status.nodes.unreachable`,description="Nodes that could not be reached",priority=1
// +kubebuilder:printcolumn:name="Missing",type=integer,JSONPath=`.status.patches.missing`,description="Patches that are missing at the end",priority=1
// +kubebuilder:printcolumn:name="Security",type=integer,JSONPath=`.status.patches.security`,description="Security patches found missing",priority=1
// +kubebuilder:printcolumn:name="Installed",type=integer,JSONPath=`.status.patches.installed`,description="Patches that were installed",priority=1
// +kubebuilder:printcolumn:name="Blocked",type=integer,JSONPath=`.status.patches.blocked`,description="Patches that used up their retries",priority=1
// +kubebuilder:printcolumn:name="Started",type=date,JSONPath=`.status.startTime`,description="When the task was accepted",priority=1
// +kubebuilder:printcolumn:name="Finished",type=date,JSONPath=`.status.completionTime`,description="When it ended, in whatever way",priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.message`,description="How the task goes, or why it was refused"
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="a task's name has at most 63 characters, as it is used as a label"
type PatchTask struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// spec is what to run. It never changes.
	// +required
	Spec PatchTaskSpec `json:"spec,omitzero"`
	// status tells how the run goes.
	// +optional
	// +default={"observedGeneration": -1}
	Status PatchTaskStatus `json:"status,omitzero"`
}

// PatchTaskSpec is what to run.
//
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a task's spec never changes; create another PatchTask instead"
// +kubebuilder:validation:XValidation:rule="has(self.task) != has(self.template)",message="give exactly one of task (the name of one of the policy's tasks) and template (options of your own)"
type PatchTaskSpec struct {
	// policy is the name of the PatchPolicy that governs the nodes of this run.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Policy string `json:"policy,omitempty"`
	// task is the name of one of the policy's tasks. Give either this or a
	// template.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Task string `json:"task,omitempty"`
	// template is options of this run's own, in place of a named task. Give either
	// this or a task.
	// +optional
	Template *TaskTemplate `json:"template,omitempty"`
	// nodeSelector narrows the policy's nodes to those that it selects by label.
	// If it is left out, the run is about all of them.
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`
	// nodes narrows the policy's nodes to those with these names; with a
	// nodeSelector, to those that it selects as well. The manager names the nodes
	// here that are overdue. If it is left out, any name will do.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=5000
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	Nodes []string `json:"nodes,omitempty"`
	// ttlAfterFinished deletes the task this long after it finished: a duration
	// such as 168h. If it is left out, the task is kept. Leave it out for a task
	// that is kept in Git, which would apply it again, and so run it again.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s')",message="ttlAfterFinished is a duration such as 168h (days are not a unit)"
	TTLAfterFinished *metav1.Duration `json:"ttlAfterFinished,omitempty"`
}

// TaskPhase is where a run stands.
//
// +kubebuilder:validation:Enum=Pending;Running;Complete;Failed;Stopped
type TaskPhase string

const (
	// TaskPending has not been looked at, or waits to begin.
	TaskPending TaskPhase = "Pending"
	// TaskRunning is at work on nodes.
	TaskRunning TaskPhase = "Running"
	// TaskComplete went over all its nodes, each with success.
	TaskComplete TaskPhase = "Complete"
	// TaskFailed was refused, or ended with nodes that failed or stayed away.
	TaskFailed TaskPhase = "Failed"
	// TaskStopped was stopped by a person.
	TaskStopped TaskPhase = "Stopped"
)

// Trigger is who started a task.
//
// +kubebuilder:validation:Enum=Manual;Scheduled;Overdue
type Trigger string

const (
	// TriggerManual is a person.
	TriggerManual Trigger = "Manual"
	// TriggerScheduled is the policy's schedule: the task is owned by the policy and
	// runs one of its named tasks.
	TriggerScheduled Trigger = "Scheduled"
	// TriggerOverdue is nodes whose last scan is older than maxScanAge: the task is
	// owned by the policy and has a template of its own.
	TriggerOverdue Trigger = "Overdue"
)

// PatchTaskStatus tells how a run goes.
type PatchTaskStatus struct {
	// observedGeneration is the generation of the spec that this status is
	// about; -1 before the first look.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions are Accepted (the run may begin), Complete, Failed and Stopped,
	// of which one is True once the run has ended, and Reconciling and Stalled, by
	// which tools tell whether to wait for it.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// phase is where the run stands: Pending has not begun, Running is at work,
	// Complete went over all its nodes with success, Failed was refused or ended
	// with nodes that failed or stayed away, Stopped was stopped by a person.
	// +optional
	Phase TaskPhase `json:"phase,omitempty"`
	// message says in one sentence how the run goes, or why it was refused.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
	// trigger is what started the run: Manual a person, Scheduled the policy's
	// schedule, Overdue nodes whose last scan is older than maxScanAge.
	// +optional
	Trigger Trigger `json:"trigger,omitempty"`
	// template is what runs: the options of the named task as they were when
	// the run was accepted, or the task's own.
	// +optional
	Template *TaskTemplate `json:"template,omitempty"`
	// startTime is when the run was accepted.
	// +optional
	StartTime *metav1.Time `json:"startTime,omitempty"`
	// completionTime is when the run ended, in whatever way: refused, complete,
	// failed or stopped. Until then it is left out, so that kubectl wait
	// --for=jsonpath='{.status.completionTime}' waits for the end.
	// +optional
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
	// stop is why the run has to end before its nodes do, from when it has to.
	// What comes later does not change it: a run that was stopped never resumes.
	// +optional
	Stop *TaskStop `json:"stop,omitempty"`
	// nodes counts the run's nodes by step.
	// +optional
	Nodes *TaskNodeCounts `json:"nodes,omitempty"`
	// patches counts patches by outcome over the nodes that answered.
	// +optional
	Patches *PatchCounts `json:"patches,omitempty"`
	// pinned is what the first wave has installed, and all that the other nodes
	// install, of a run with rollout.pin. It is recorded once, before any of them
	// begins, and never changes.
	// +optional
	Pinned *PinnedPatches `json:"pinned,omitempty"`
	// failures are the first 20 nodes that failed, were skipped by a hook of
	// theirs, or could not be reached, by name.
	// +optional
	// +listType=map
	// +listMapKey=node
	// +kubebuilder:validation:MaxItems=20
	Failures []NodeFailure `json:"failures,omitempty"`
	// disrupted are up to 50 of the nodes whose disruption began and did not
	// end well so far: those that failed, and those at work. The run remembers
	// them here, so that a failure counts also when its node has left the
	// cluster or the policy since.
	// +optional
	// +listType=map
	// +listMapKey=node
	// +kubebuilder:validation:MaxItems=50
	Disrupted []DisruptedNode `json:"disrupted,omitempty"`
	// disruptedOmitted is how many more failed and have left since. They count as
	// failed, too.
	// +optional
	DisruptedOmitted int32 `json:"disruptedOmitted,omitempty"`
	// log holds the last 50 entries of the patch log for this task.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=50
	Log []LogEntry `json:"log,omitempty"`
	// handled remembers the tokens of buttons that were pressed.
	// +optional
	Handled *HandledButtons `json:"handled,omitempty"`
}

// TaskStop is why a run has to end.
type TaskStop struct {
	// time since which it has to.
	// +required
	Time metav1.Time `json:"time,omitzero"`
	// reason in one word: Stopped, DeadlineExceeded, PolicyDeleted,
	// TooManyFailures or NothingPinned.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Reason string `json:"reason,omitempty"`
	// message is the reason in the words of the person who stopped the run, or
	// of the manager.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// PinnedPatches is what the first wave of a run has installed.
type PinnedPatches struct {
	// time at which it was recorded.
	// +required
	Time metav1.Time `json:"time,omitzero"`
	// nodes is how many nodes of the first wave were done and told what they had
	// installed. With none, nothing is pinned and the run ends.
	// +optional
	Nodes int32 `json:"nodes"`
	// message says of whom it comes, and which packages these nodes have installed
	// in more than one version.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
	// patches that any of these nodes has installed, by name. Of a package that
	// they have installed in several versions it has the one that most of them
	// have, and of two that equally many have, the one that was installed last.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	Patches []InstalledPatch `json:"patches,omitempty"`
	// patchesOmitted is how many did not fit into patches. No other node installs
	// these.
	// +optional
	PatchesOmitted int32 `json:"patchesOmitted,omitempty"`
}

// TaskNodeCounts counts a run's nodes by step; the steps add up to total.
type TaskNodeCounts struct {
	// total is how many nodes the run is about.
	// +optional
	Total int32 `json:"total"`
	// pending nodes have not begun.
	// +optional
	Pending int32 `json:"pending"`
	// scanning nodes look for missing patches.
	// +optional
	Scanning int32 `json:"scanning"`
	// downloading nodes stage packages.
	// +optional
	Downloading int32 `json:"downloading"`
	// waiting nodes are ready to be disrupted.
	// +optional
	Waiting int32 `json:"waiting"`
	// draining nodes have their pods moved away.
	// +optional
	Draining int32 `json:"draining"`
	// installing nodes install packages.
	// +optional
	Installing int32 `json:"installing"`
	// rebooting nodes are on their way down or up.
	// +optional
	Rebooting int32 `json:"rebooting"`
	// verifying nodes are checked.
	// +optional
	Verifying int32 `json:"verifying"`
	// done nodes went through with success.
	// +optional
	Done int32 `json:"done"`
	// stopped nodes were at work when the run had to end, and ended before they
	// were done.
	// +optional
	Stopped int32 `json:"stopped"`
	// skipped nodes were left alone because their preDisrupt hook failed.
	// +optional
	Skipped int32 `json:"skipped"`
	// failed nodes answered that they failed, or did not answer in time.
	// +optional
	Failed int32 `json:"failed"`
	// unreachable nodes were not Ready, or had no agent, until the timeout or
	// when the run had to end.
	// +optional
	Unreachable int32 `json:"unreachable"`
}

// PatchCounts counts patches.
type PatchCounts struct {
	// missing is how many patches the package manager offers, whatever their
	// state.
	// +optional
	Missing int32 `json:"missing"`
	// security is how many of the missing are classified Security.
	// +optional
	Security int32 `json:"security"`
	// bugfix is how many of the missing are classified Bugfix.
	// +optional
	Bugfix int32 `json:"bugfix"`
	// enhancement is how many of the missing are classified Enhancement.
	// +optional
	Enhancement int32 `json:"enhancement"`
	// other is how many of the missing are classified Other.
	// +optional
	Other int32 `json:"other"`
	// held is how many of the missing an administrator put on hold.
	// +optional
	Held int32 `json:"held"`
	// keptBack is how many of the missing the package manager keeps back.
	// +optional
	KeptBack int32 `json:"keptBack"`
	// phased is how many of the missing the vendor has not yet released to
	// this machine.
	// +optional
	Phased int32 `json:"phased"`
	// excluded is how many of the missing the policy leaves out.
	// +optional
	Excluded int32 `json:"excluded"`
	// downloaded is how many of the missing lie ready on their node's disk.
	// +optional
	Downloaded int32 `json:"downloaded"`
	// installed is how many patches were installed.
	// +optional
	Installed int32 `json:"installed"`
	// failed is how many patches failed to download or install, and are tried
	// again by the next task.
	// +optional
	Failed int32 `json:"failed"`
	// blocked is how many patches used up their retries.
	// +optional
	Blocked int32 `json:"blocked"`
}

// NodeFailure is why a node failed, was skipped or could not be reached.
type NodeFailure struct {
	// node that failed.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node,omitempty"`
	// reason in one word, one of the reasons of this API.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Reason string `json:"reason,omitempty"`
	// message in a sentence that says what to do.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// DisruptedNode is a node whose disruption began and did not end well so far.
type DisruptedNode struct {
	// node whose disruption began.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node,omitempty"`
	// uid of the Node: another one of its name is another node.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid,omitempty"`
	// wave of the rollout that the node belongs to, if one takes it.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Wave string `json:"wave,omitempty"`
	// time at which it failed.
	// +optional
	Time *metav1.Time `json:"time,omitempty"`
	// reason in one word, one of the reasons of this API. A node at work has none.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Reason string `json:"reason,omitempty"`
	// message in a sentence that says what to do.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Message string `json:"message,omitempty"`
}

// LogEntry is an entry of the patch log.
type LogEntry struct {
	// time of the entry.
	// +required
	Time metav1.MicroTime `json:"time,omitzero"`
	// reason in one word.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Reason string `json:"reason,omitempty"`
	// node that the entry is about, if one.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node,omitempty"`
	// message of the entry.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// PatchTaskList is a list of PatchTasks.
//
// +kubebuilder:object:root=true
type PatchTaskList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []PatchTask `json:"items"`
}

// Finished says whether the run has ended, in whatever way.
func (t *PatchTask) Finished() bool {
	switch t.Status.Phase {
	case TaskComplete, TaskFailed, TaskStopped:
		return true
	default:
		return false
	}
}
