package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PatchPolicy governs a group of nodes: which they are, when they may be
// disrupted, and which tasks run on them. It is meant to be kept in Git.
//
// +genclient
// +genclient:nonNamespaced
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=pp,categories=nodepatch
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodes.governed`,description="Nodes that this policy governs"
// +kubebuilder:printcolumn:name="Scanned",type=integer,JSONPath=`.status.nodes.scanned`,description="Nodes with a scan that is not overdue"
// +kubebuilder:printcolumn:name="Patched",type=integer,JSONPath=`.status.nodes.patched`,description="Scanned nodes on which no patch is missing"
// +kubebuilder:printcolumn:name="Security",type=integer,JSONPath=`.status.patches.security`,description="Missing security patches over all nodes"
// +kubebuilder:printcolumn:name="Oldest",type=date,JSONPath=`.status.oldestSecurity`,description="How long the oldest of them has been missing"
// +kubebuilder:printcolumn:name="Overdue",type=integer,JSONPath=`.status.nodes.overdue`,description="Nodes whose last scan is older than maxScanAge"
// +kubebuilder:printcolumn:name="Reboot",type=integer,JSONPath=`.status.nodes.rebootRequired`,description="Nodes that wait for a reboot",priority=1
// +kubebuilder:printcolumn:name="Unreachable",type=integer,JSONPath=`.status.nodes.unreachable`,description="Nodes that are not Ready or have no agent that is",priority=1
// +kubebuilder:printcolumn:name="Next",type=string,JSONPath=`.status.nextRun`,description="When the next scheduled task begins",priority=1
// +kubebuilder:printcolumn:name="Priority",type=integer,JSONPath=`.spec.priority`,description="Which policy governs a node that several select: the highest",priority=1
// +kubebuilder:printcolumn:name="Suspended",type=boolean,JSONPath=`.spec.suspend`,description="Whether everything is held back",priority=1
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether the policy can be carried out as it stands"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Why",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,description="What it governs, or why it cannot be carried out"
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="a policy's name has at most 63 characters, as it is used as a label"
// +kubebuilder:validation:XValidation:rule="!has(self.spec.tasks) || self.spec.tasks.all(t, self.metadata.name.size() + t.name.size() <= 51)",message="the names of the policy and of each of its tasks have together at most 51 characters, as a scheduled run is named after both"
type PatchPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// spec is what a person decided.
	// +required
	Spec PatchPolicySpec `json:"spec,omitzero"`
	// status is what the manager observed.
	// +optional
	// +default={"observedGeneration": -1}
	Status PatchPolicyStatus `json:"status,omitzero"`
}

// ManualTasks says who may start a task.
//
// +kubebuilder:validation:Enum=Allowed;Denied
type ManualTasks string

const (
	// ManualTasksAllowed lets people start tasks.
	ManualTasksAllowed ManualTasks = "Allowed"
	// ManualTasksDenied leaves it to the schedule alone.
	ManualTasksDenied ManualTasks = "Denied"
)

// PatchPolicySpec is what a person decided.
type PatchPolicySpec struct {
	// nodeSelector selects the nodes by label; an empty selector, written {},
	// selects all of them.
	// +required
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`
	// priority decides which policy governs a node that several select: the one
	// with the highest; among equals the oldest, then the first by name. It is 0
	// by default.
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=-1000000
	// +kubebuilder:validation:Maximum=1000000
	Priority int32 `json:"priority,omitempty"`
	// suspend holds back everything that this policy would start, while it is
	// true. Runs that fall due meanwhile are left out: they are not made up
	// afterwards. It is false by default.
	// +optional
	// +kubebuilder:default=false
	Suspend bool `json:"suspend,omitempty"`
	// manualTasks says who starts tasks: Allowed lets people do it as well as the
	// schedule, Denied leaves it to the schedule alone. It is Allowed by default.
	// +optional
	// +kubebuilder:default=Allowed
	ManualTasks ManualTasks `json:"manualTasks,omitempty"`
	// maxScanAge is the age at which a node's last scan is overdue: a duration
	// such as 720h, of at least 1h. Such a node is scanned as soon as it can be
	// reached. A node that was never scanned is as old as its PatchReport. If it
	// is left out, no scan is ever overdue.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1h')",message="maxScanAge is at least 1h; durations are written like 720h (days are not a unit)"
	MaxScanAge *metav1.Duration `json:"maxScanAge,omitempty"`
	// retryLimits are the failed attempts after which a patch is blocked, until a
	// person clears its counts.
	// +optional
	// +kubebuilder:default={}
	RetryLimits RetryLimits `json:"retryLimits,omitzero"`
	// maintenanceWindows are when nodes may be disrupted: outside of them no node
	// begins, and one that has begun is finished. Without one, nodes may be
	// disrupted at any time.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	MaintenanceWindows []MaintenanceWindow `json:"maintenanceWindows,omitempty"`
	// tasks are the policy's named tasks, which its schedule or a PatchTask
	// starts. Without one, a PatchTask with a template of its own can still run.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Tasks []NamedTask `json:"tasks,omitempty"`
	// history is how many finished tasks are kept of each that the schedule
	// starts.
	// +optional
	// +kubebuilder:default={}
	History HistoryLimits `json:"history,omitzero"`
}

// MaintenanceWindow is a recurring span of time.
type MaintenanceWindow struct {
	// schedule says when the window opens: a cron expression of minute, hour, day
	// of month, month and day of week, such as 0 1 * * SAT.
	// +required
	Schedule Schedule `json:"schedule,omitempty"`
	// duration says how long it stays open: 10m to 168h, written like 5h or 90m.
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10m') && duration(self) <= duration('168h')",message="a maintenance window stays open for 10m to 168h; durations are written like 5h or 90m"
	Duration metav1.Duration `json:"duration,omitzero"`
	// timeZone of the schedule: a name of the IANA database, such as
	// Europe/Berlin. It is UTC by default.
	// +optional
	// +kubebuilder:default=UTC
	TimeZone TimeZone `json:"timeZone,omitempty"`
}

// NamedTask is a task that a policy offers, by hand or on a schedule.
type NamedTask struct {
	// name of the task, by which a PatchTask asks for it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=50
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",message="a task's name has lower-case letters, digits and -, and begins and ends with a letter or digit"
	// +kubebuilder:validation:XValidation:rule="self != 'overdue'",message="overdue is what the scans of overdue nodes are named; give the task another name"
	Name string `json:"name,omitempty"`
	// schedule starts the task: a cron expression of minute, hour, day of month,
	// month and day of week, such as 30 1 * * SAT. Without one the task is only
	// started by hand. One run goes at a time: a run that falls due while another
	// one of this task has not ended waits for that. Of several that wait the last
	// one begins.
	//
	// Where the clock on the wall is put back, a run at a fixed hour happens once;
	// where it is put forward over that hour, it happens at the first moment
	// after. A schedule for any hour (* in the second field) goes on as time goes
	// by.
	// +optional
	Schedule *Schedule `json:"schedule,omitempty"`
	// timeZone of the schedule: a name of the IANA database, such as
	// Europe/Berlin. It is UTC by default.
	// +optional
	// +kubebuilder:default=UTC
	TimeZone TimeZone `json:"timeZone,omitempty"`
	// jitter is by how much runs begin later than the schedule says, at most: a
	// duration such as 30m, up to 24h. Each is later by a part of it of its own,
	// which does not change, and begins before the next run. If it is left out,
	// runs begin on time.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('24h')",message="jitter is between 0s and 24h; durations are written like 90s or 30m"
	Jitter *metav1.Duration `json:"jitter,omitempty"`
	// startingDeadline is how late a run may begin that could not in time, because
	// no manager was there or an earlier run went on: a duration such as 4h, of at
	// least 1m. Of several runs that were missed one is made up, the last.
	//
	// If it is left out, a run may begin however late, but for a Deploy of a
	// policy without maintenanceWindows: nothing else holds that one back, so that
	// it may be 4h late. A longer startingDeadline allows more.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m')",message="startingDeadline is at least 1m; durations are written like 90m or 4h (days are not a unit)"
	StartingDeadline *metav1.Duration `json:"startingDeadline,omitempty"`
	// template is what the task does.
	// +required
	Template TaskTemplate `json:"template,omitzero"`
}

// HistoryLimits are how many finished tasks are kept of each named task that
// the schedule started, and of the scans of overdue nodes. What a person
// started is kept.
type HistoryLimits struct {
	// succeeded is how many successful tasks are kept, 0 to 100. It is 3 by
	// default.
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Succeeded *int32 `json:"succeeded,omitempty"`
	// failed is how many failed or stopped tasks are kept, 0 to 100. It is 3 by
	// default.
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Failed *int32 `json:"failed,omitempty"`
}

// PatchPolicyStatus is what the manager observed.
type PatchPolicyStatus struct {
	// observedGeneration is the generation of the spec that this status is
	// about; -1 before the first look.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions are Ready (the policy can be carried out as it is),
	// Conflicting (another policy of the same priority selects some of its
	// nodes), Suspended (spec.suspend holds it back), and Reconciling and
	// Stalled, by which tools tell whether to wait for it.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// nodes counts the policy's nodes.
	// +optional
	Nodes *PolicyNodeCounts `json:"nodes,omitempty"`
	// patches counts the missing patches of all the policy's nodes.
	// +optional
	Patches *PatchCounts `json:"patches,omitempty"`
	// oldestSecurity is since when the oldest missing security patch of all the
	// policy's nodes has been known to its node.
	// +optional
	OldestSecurity *metav1.Time `json:"oldestSecurity,omitempty"`
	// nextRun is when the next scheduled task begins.
	// +optional
	NextRun *metav1.Time `json:"nextRun,omitempty"`
	// tasks says of each task with a schedule when it runs, and ran.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Tasks []ScheduledTask `json:"tasks,omitempty"`
	// handled remembers the tokens of buttons that were pressed.
	// +optional
	Handled *HandledButtons `json:"handled,omitempty"`
}

// PolicyNodeCounts counts a policy's nodes.
type PolicyNodeCounts struct {
	// selected is how many nodes the selector selects.
	// +optional
	Selected int32 `json:"selected"`
	// governed is how many of the selected nodes no stronger policy governs.
	// +optional
	Governed int32 `json:"governed"`
	// scanned is how many governed nodes have a scan that is not overdue.
	// +optional
	Scanned int32 `json:"scanned"`
	// patched is how many scanned nodes miss no patch: the nodes that comply.
	// +optional
	Patched int32 `json:"patched"`
	// overdue is how many governed nodes were last scanned longer ago than
	// maxScanAge.
	// +optional
	Overdue int32 `json:"overdue"`
	// unreachable is how many governed nodes are not Ready, or have no agent that
	// is.
	// +optional
	Unreachable int32 `json:"unreachable"`
	// rebootRequired is how many governed nodes wait for a reboot.
	// +optional
	RebootRequired int32 `json:"rebootRequired"`
}

// ScheduledTask is when a named task runs, and ran.
type ScheduledTask struct {
	// name of the policy's task.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`
	// schedule is the cron expression and the time zone that next belongs to.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Schedule string `json:"schedule,omitempty"`
	// next is when the next run begins, its jitter included. It is in the past
	// while a run waits, and left out while the policy is suspended.
	// +optional
	Next *metav1.Time `json:"next,omitempty"`
	// last is the last run that began.
	// +optional
	Last *ScheduledRun `json:"last,omitempty"`
	// missed is how many runs did not begin, and will not.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Missed int32 `json:"missed,omitempty"`
	// message says why a run waits, or why the last one that fell due did not
	// begin.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// ScheduledRun is a run that a schedule started.
type ScheduledRun struct {
	// time that the schedule says, without jitter.
	// +required
	Time metav1.Time `json:"time,omitzero"`
	// task is the name of the run's PatchTask.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Task string `json:"task,omitempty"`
	// phase of that PatchTask when it was last seen: Pending, Running, Complete,
	// Failed or Stopped.
	// +optional
	Phase TaskPhase `json:"phase,omitempty"`
}

// PatchPolicyList is a list of PatchPolicies.
//
// +kubebuilder:object:root=true
type PatchPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []PatchPolicy `json:"items"`
}
