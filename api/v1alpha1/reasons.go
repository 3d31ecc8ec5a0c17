package v1alpha1

// Condition types.
const (
	// ConditionReady on a PatchPolicy: it is valid and governs its nodes.
	ConditionReady = "Ready"
	// ConditionConflicting on a PatchPolicy: another policy of the same
	// priority selects some of its nodes.
	ConditionConflicting = "Conflicting"
	// ConditionSuspended on a PatchPolicy: it starts nothing.
	ConditionSuspended = "Suspended"
	// ConditionAccepted on a PatchTask: the run was allowed to begin.
	ConditionAccepted = "Accepted"
	// ConditionComplete on a PatchTask: every node was done with success.
	ConditionComplete = "Complete"
	// ConditionFailed on a PatchTask: it was refused, or nodes failed.
	ConditionFailed = "Failed"
	// ConditionStopped on a PatchTask: a person stopped it.
	ConditionStopped = "Stopped"
	// ConditionReconciling is read by kstatus: work is under way.
	ConditionReconciling = "Reconciling"
	// ConditionStalled is read by kstatus: work cannot go on without a person.
	ConditionStalled = "Stalled"
	// ConditionScanned on a PatchReport: the last scan succeeded.
	ConditionScanned = "Scanned"
	// ConditionPatchDataCurrent on a PatchReport: the last refresh succeeded.
	ConditionPatchDataCurrent = "PatchDataCurrent"
	// ConditionPackagesConsistent on a PatchReport: no package is half
	// installed and the package database was not interrupted.
	ConditionPackagesConsistent = "PackagesConsistent"
)

// Reasons of conditions of PatchPolicies.
const (
	// ReasonGoverning: the policy governs at least one node.
	ReasonGoverning = "Governing"
	// ReasonNoNodes: the selector selects no node.
	ReasonNoNodes = "NoNodesSelected"
	// ReasonOverruled: stronger policies govern every node it selects.
	ReasonOverruled = "Overruled"
	// ReasonInvalidSelector: the selector cannot be parsed.
	ReasonInvalidSelector = "InvalidSelector"
	// ReasonInvalidSchedule: a schedule never comes true, such as 30 February.
	ReasonInvalidSchedule = "InvalidSchedule"
	// ReasonEqualPriority: another policy of equal priority selects some of the same nodes.
	ReasonEqualPriority = "EqualPriority"
	// ReasonNoConflict: no other policy of equal priority selects the same nodes.
	ReasonNoConflict = "NoConflict"
	// ReasonNotSuspended: the policy is not suspended.
	ReasonNotSuspended = "NotSuspended"
	// ReasonAdmissionMissing: the admission policies that bind an agent to its
	// node are not in place, so that no agents are made.
	ReasonAdmissionMissing = "AdmissionPolicyMissing"
)

// Reasons for which a PatchTask is accepted, refused or ended.
const (
	// ReasonAccepted: the run may begin.
	ReasonAccepted = "Accepted"
	// ReasonUnknownPolicy: no PatchPolicy has the name.
	ReasonUnknownPolicy = "UnknownPolicy"
	// ReasonUnknownTask: the policy offers no task of the name.
	ReasonUnknownTask = "UnknownTask"
	// ReasonManualTasksDenied: the policy lets only its schedule start tasks.
	ReasonManualTasksDenied = "ManualTasksDenied"
	// ReasonPolicySuspended: the policy is suspended.
	ReasonPolicySuspended = "PolicySuspended"
	// ReasonNodesFailed: nodes failed.
	ReasonNodesFailed = "NodesFailed"
	// ReasonNodesUnreachable: nodes could not be reached, none failed.
	ReasonNodesUnreachable = "NodesUnreachable"
	// ReasonAllNodesDone: every node was done with success.
	ReasonAllNodesDone = "AllNodesDone"
	// ReasonRunning: nodes are at work.
	ReasonRunning = "Running"
	// ReasonDeadlineExceeded: the task's deadline passed.
	ReasonDeadlineExceeded = "DeadlineExceeded"
	// ReasonPolicyDeleted: the policy was deleted during the run.
	ReasonPolicyDeleted = "PolicyDeleted"
	// ReasonStopped: a person stopped the run with nodepatch.io/stop.
	ReasonStopped = "Stopped"
	// ReasonStopping: the run has to end, and waits for nodes to finish what
	// they have begun.
	ReasonStopping = "Stopping"
	// ReasonHookRunning: a hook of the task runs on the node, which waits for its end.
	ReasonHookRunning = "HookRunning"
	// ReasonTooManyFailures: more nodes failed than maxFailures allows, so that
	// the rollout halted.
	ReasonTooManyFailures = "TooManyFailures"
	// ReasonNothingPinned: no node of the first wave was done, so that there is
	// nothing for the other nodes to install.
	ReasonNothingPinned = "NothingPinned"
	// ReasonNodesSkipped: preDisrupt hooks kept nodes out, none failed.
	ReasonNodesSkipped = "NodesSkipped"
)

// Reasons for which a node waits, failed or could not be reached.
const (
	// ReasonNodeNotReady: the Node's Ready condition is not True.
	ReasonNodeNotReady = "NodeNotReady"
	// ReasonAgentAbsent: no agent's pod runs on the node.
	ReasonAgentAbsent = "AgentAbsent"
	// ReasonAgentNotReady: the agent's pod is not ready.
	ReasonAgentNotReady = "AgentNotReady"
	// ReasonBusy: the node works on another task.
	ReasonBusy = "Busy"
	// ReasonParallelLimit: as many nodes as allowed are at work.
	ReasonParallelLimit = "ParallelLimit"
	// ReasonNotPinned: what it is to install is known once the first wave is done.
	ReasonNotPinned = "NotPinned"
	// ReasonNotAssigned: its PatchAssignment could not be written, which is
	// tried again.
	ReasonNotAssigned = "NotAssigned"
	// ReasonTimeout: the node did not answer in time.
	ReasonTimeout = "Timeout"
	// ReasonAborted: the manager took the operation back.
	ReasonAborted = "Aborted"
)

// Reasons for which a node that is ready to be disrupted waits, in the order in
// which they are asked for. The first that applies is the one that is shown.
const (
	// ReasonWindowClosed: no maintenance window of the policy is open.
	ReasonWindowClosed = "WindowClosed"
	// ReasonWindowTooShort: the node would need longer than the window stays open.
	ReasonWindowTooShort = "WindowTooShort"
	// ReasonNoWindowFits: no maintenance window of the policy ever opens, or none for as
	// long as the node would need. It waits for the policy to be changed.
	ReasonNoWindowFits = "NoWindowFits"
	// ReasonWave: nodes of an earlier wave are not done, or the wave soaks.
	ReasonWave = "Wave"
	// ReasonControlPlane: control-plane nodes go last, one by one, alone, and only
	// while the others are Ready.
	ReasonControlPlane = "ControlPlane"
	// ReasonTopology: a node with another value of the topologyKey is disrupted.
	ReasonTopology = "Topology"
	// ReasonBudget: as many of the policy's nodes as allowed are unavailable.
	ReasonBudget = "Budget"
	// ReasonClusterBudget: as many of the cluster's nodes as allowed are unavailable.
	ReasonClusterBudget = "ClusterBudget"
	// ReasonBlockedByPod: a pod on the node holds it back.
	ReasonBlockedByPod = "BlockedByPod"
	// ReasonBlockedByCondition: a condition of the node holds it back.
	ReasonBlockedByCondition = "BlockedByCondition"
	// ReasonBlockedByAlert: alerts fire, or Prometheus could not be asked.
	ReasonBlockedByAlert = "BlockedByAlert"
	// ReasonBlockedByCoordinator: another reboot coordinator (kured's lock, a
	// Lease of medik8s) holds the node.
	ReasonBlockedByCoordinator = "BlockedByCoordinator"
	// ReasonBlockerUnknown: it could not be found out whether a blocker is there.
	ReasonBlockerUnknown = "BlockerUnknown"
)

// Reasons for which the agent itself waits at its step.
const (
	// ReasonReadyToInstall: the chosen patches lie ready on the node's disk.
	ReasonReadyToInstall = "ReadyToInstall"
	// ReasonRebootRequired: what was installed takes effect with a reboot.
	ReasonRebootRequired = "RebootRequired"
)

// Reasons with which the manager ends the disruption of a node.
const (
	// ReasonHookFailed: a hook's pod failed or did not end in time.
	ReasonHookFailed = "HookFailed"
	// ReasonDrainRefused: pods would lose what they cannot get back.
	ReasonDrainRefused = "DrainRefused"
	// ReasonDrainTimeout: pods were still there after drain.timeout.
	ReasonDrainTimeout = "DrainTimeout"
	// ReasonInstallTimeout: the packages were not installed within install.timeout.
	ReasonInstallTimeout = "InstallTimeout"
	// ReasonRebootTimeout: the node was not back within reboot.timeout.
	ReasonRebootTimeout = "RebootTimeout"
	// ReasonRebootFailed: the host refused to reboot.
	ReasonRebootFailed = "RebootFailed"
	// ReasonRebootUnknown: whether a reboot is required could not be found out.
	ReasonRebootUnknown = "RebootUnknown"
	// ReasonRebootStillRequired: the node rebooted, and wants to again for the same reason.
	ReasonRebootStillRequired = "RebootStillRequired"
	// ReasonVerifyTimeout: the node, or a DaemonSet's pod on it, was not Ready
	// within verify.timeout.
	ReasonVerifyTimeout = "VerifyTimeout"
	// ReasonNodeDeleted: the Node was deleted while it was disrupted.
	ReasonNodeDeleted = "NodeDeleted"
	// ReasonSoakFailed: the node did not stay Ready while it soaked.
	ReasonSoakFailed = "SoakFailed"
	// ReasonVerified: the node went through its disruption and is in service again.
	ReasonVerified = "Verified"
)

// Reasons of a node's agent: for the result of an operation, for conditions of
// PatchReports, and as a cause of failure.
const (
	// ReasonScanned: the scan succeeded.
	ReasonScanned = "Scanned"
	// ReasonScanFailed: the package manager failed.
	ReasonScanFailed = "ScanFailed"
	// ReasonOutputNotUnderstood: the package manager printed something that
	// the agent cannot parse; the message has the line.
	ReasonOutputNotUnderstood = "OutputNotUnderstood"
	// ReasonLocked: another program holds the package manager's lock; the
	// message names it.
	ReasonLocked = "Locked"
	// ReasonRefreshed: the package metadata was refreshed.
	ReasonRefreshed = "Refreshed"
	// ReasonRepositoryUnreachable: a repository could not be reached, so that
	// the scan ran on older metadata.
	ReasonRepositoryUnreachable = "RepositoryUnreachable"
	// ReasonRefreshFailed: the refresh failed for another cause.
	ReasonRefreshFailed = "RefreshFailed"
	// ReasonConsistent: the package database is in order.
	ReasonConsistent = "Consistent"
	// ReasonHalfConfigured: packages are half installed or not configured.
	ReasonHalfConfigured = "HalfConfigured"
	// ReasonInterrupted: the package manager, or an operation on the host, was interrupted.
	ReasonInterrupted = "Interrupted"
	// ReasonHostUnavailable: commands cannot be run on the host.
	ReasonHostUnavailable = "HostUnavailable"
	// ReasonUnmetDependencies: installed packages lack what they depend on, so
	// that the package manager makes no plan; the message names them.
	ReasonUnmetDependencies = "UnmetDependencies"
	// ReasonAPIUnavailable: the agent waits for the API server before it goes on.
	ReasonAPIUnavailable = "APIUnavailable"
	// ReasonDownloaded: all chosen patches lie ready on the node's disk.
	ReasonDownloaded = "Downloaded"
	// ReasonInstalled: all chosen patches were installed.
	ReasonInstalled = "Installed"
	// ReasonNothingToDo: none of the missing patches was to be downloaded or
	// installed; the report says why for each.
	ReasonNothingToDo = "NothingToDo"
	// ReasonPatchesFailed: patches failed to download or install; their counts
	// stand in the node's PatchRetry.
	ReasonPatchesFailed = "PatchesFailed"
	// ReasonPatchesDeferred: chosen patches were left undone for causes that are
	// not theirs; nothing was counted.
	ReasonPatchesDeferred = "PatchesDeferred"
	// ReasonDiskFull: the node's disk has no room for the packages.
	ReasonDiskFull = "DiskFull"
	// ReasonRepairFailed: an interrupted package database could not be put right.
	ReasonRepairFailed = "RepairFailed"
	// ReasonDownloadFailed: the package manager could not download, for a cause
	// that is no patch's.
	ReasonDownloadFailed = "DownloadFailed"
	// ReasonInstallFailed: the package manager could not install, for a cause
	// that is no patch's.
	ReasonInstallFailed = "InstallFailed"
	// ReasonPinUnknown: the task no longer says what it has pinned.
	ReasonPinUnknown = "PinUnknown"
	// ReasonUnsupportedSystem: the node has no package manager that nodepatch knows.
	ReasonUnsupportedSystem = "UnsupportedSystem"
	// ReasonUnsupportedStep: the agent does not know the step that the
	// manager asked for; it is older than the manager.
	ReasonUnsupportedStep = "UnsupportedStep"
)

// Reasons of log entries (Events) of the patch log.
const (
	// EventTaskStarted regards a PatchTask: it was accepted and begins; the note says
	// what started it.
	EventTaskStarted = "TaskStarted"
	// EventTaskRefused regards a PatchTask: it was not accepted.
	EventTaskRefused = "TaskRefused"
	// EventPatchesPinned regards a PatchTask: what its first wave has installed is
	// all that the other nodes install; the note counts it.
	EventPatchesPinned = "PatchesPinned"
	// EventTaskFinished regards a PatchTask: all nodes were done with success.
	EventTaskFinished = "TaskFinished"
	// EventTaskFailed regards a PatchTask: it ended with nodes that failed or stayed away.
	EventTaskFailed = "TaskFailed"
	// EventTaskStopping regards a PatchTask: it has to end, and waits for its nodes to
	// finish what they have begun; the note says why.
	EventTaskStopping = "TaskStopping"
	// EventTaskStopped regards a PatchTask: a person stopped it; the note has their words.
	EventTaskStopped = "TaskStopped"
	// EventRunMissed regards a PatchPolicy: runs of its schedule did not begin when
	// they were due; the note says which, and why.
	EventRunMissed = "ScheduledRunMissed"
	// EventPolicySuspended regards a PatchPolicy: nothing of it begins any more; the note
	// says on which nodes.
	EventPolicySuspended = "PolicySuspended"
	// EventPolicyResumed regards a PatchPolicy: it is no longer suspended; the note says
	// on which nodes runs begin again.
	EventPolicyResumed = "PolicyResumed"
	// EventPolicyNotReady regards a PatchPolicy: it cannot be carried out; the note says
	// what a person has to mend.
	EventPolicyNotReady = "PolicyNotReady"
	// EventPolicyReady regards a PatchPolicy: it was not Ready, and is again.
	EventPolicyReady = "PolicyReady"
	// EventNodeTakenOver regards a Node: another policy governs it from now on; the note
	// names both.
	EventNodeTakenOver = "NodeTakenOver"
	// EventNodeUnreachable regards a Node: a task went on without it.
	EventNodeUnreachable = "NodeUnreachable"
	// EventNodeTimedOut regards a Node: it did not answer a task in time.
	EventNodeTimedOut = "NodeTimedOut"
	// EventScanStarted regards a Node: its scan begins.
	EventScanStarted = "ScanStarted"
	// EventPatchDataRefreshed regards a Node: its package metadata is fresh.
	EventPatchDataRefreshed = "PatchDataRefreshed"
	// EventPatchDataStale regards a Node: its package metadata could not be refreshed.
	EventPatchDataStale = "PatchDataStale"
	// EventScanFinished regards a Node: its scan succeeded; the note has the numbers.
	EventScanFinished = "ScanFinished"
	// EventScanFailed regards a Node: its scan failed; the note has the cause.
	EventScanFailed = "ScanFailed"
	// EventScanStopped regards a Node: its scan was ended by the manager.
	EventScanStopped = "ScanStopped"
	// EventPatchesDownloaded regards a Node: patches lie ready on its disk.
	EventPatchesDownloaded = "PatchesDownloaded"
	// EventPatchesInstalled regards a Node: patches were installed; the note has
	// them with their old and new versions.
	EventPatchesInstalled = "PatchesInstalled"
	// EventDownloadFailed regards a Node: downloads of patches failed; the note
	// has each with its count and the package manager's words.
	EventDownloadFailed = "PatchDownloadFailed"
	// EventInstallFailed regards a Node: installations of patches failed; the
	// note has each with its count and the package manager's words.
	EventInstallFailed = "PatchInstallFailed"
	// EventPatchesBlocked regards a Node: patches used up their retries.
	EventPatchesBlocked = "PatchesBlocked"
	// EventPatchesNotTried regards a Node: chosen patches were not tried, or
	// failed for a cause that is not theirs; nothing was counted.
	EventPatchesNotTried = "PatchesNotTried"
	// EventPatchesWarned regards a Node: patches were installed although a
	// script of theirs failed, which their package manager does not take for a
	// failure.
	EventPatchesWarned = "PatchesInstalledWithWarnings"
	// EventTransactionInterrupted regards a Node: it went down, or the package
	// manager was killed, in the middle of a package transaction.
	EventTransactionInterrupted = "TransactionInterrupted"
	// EventPackagesRepaired regards a Node: an interrupted or half-configured
	// package database was put right.
	EventPackagesRepaired = "PackagesRepaired"
	// EventRepairFailed regards a Node: its package database could not be put right.
	EventRepairFailed = "RepairFailed"
	// EventDownloadFinished regards a Node: its download for a task is over.
	EventDownloadFinished = "DownloadFinished"
	// EventDeployFinished regards a Node: its deployment is over, and nothing failed.
	EventDeployFinished = "DeployFinished"
	// EventDeployFailed regards a Node: its download or deployment failed, or
	// patches of it did; the note has the cause.
	EventDeployFailed = "DeployFailed"
	// EventDeployStopped regards a Node: its download or deployment was ended by
	// the manager; the note says what it had done.
	EventDeployStopped = "DeployStopped"
	// EventRetriesCleared regards a Node: a person cleared counts of its PatchRetry;
	// or a PatchPolicy: those of its nodes.
	EventRetriesCleared = "RetriesCleared"
	// EventLogCleared regards a PatchTask, a Node or a PatchPolicy: a person had its
	// entries of the patch log deleted.
	EventLogCleared = "LogCleared"
	// EventPatchDataRequested regards a Node or a PatchPolicy: a person asked for
	// fresh patch data.
	EventPatchDataRequested = "PatchDataRequested"
	// EventButtonRefused regards a PatchTask, a Node or a PatchPolicy: a button was
	// pressed that there is nothing to do for; the note says what to write.
	EventButtonRefused = "ButtonRefused"
	// EventNodeWaiting regards a Node: it is ready to be disrupted and has to wait, once
	// for each reason; the note says for what.
	EventNodeWaiting = "NodeWaiting"
	// EventNodeAdmitted regards a Node: its disruption begins, and its waiting ends.
	EventNodeAdmitted = "NodeAdmitted"
	// EventNodeCordoned regards a Node: no pod is scheduled to it any more.
	EventNodeCordoned = "NodeCordoned"
	// EventDrainBlocked regards a Node: pods on it cannot be evicted now; the note
	// names them and their PodDisruptionBudgets.
	EventDrainBlocked = "DrainBlocked"
	// EventNodeDrained regards a Node: its pods are gone; the note counts them.
	EventNodeDrained = "NodeDrained"
	// EventRebootRequired regards a Node: it waits for a reboot; the note says why.
	EventRebootRequired = "RebootRequired"
	// EventNodeRebooting regards a Node: its agent has asked the host to reboot.
	EventNodeRebooting = "NodeRebooting"
	// EventNodeRebooted regards a Node: it is back, with another boot ID.
	EventNodeRebooted = "NodeRebooted"
	// EventHookSucceeded regards a Node: a hook's pod ran to completion.
	EventHookSucceeded = "HookSucceeded"
	// EventHookFailed regards a Node: a hook's pod failed or did not end in time.
	EventHookFailed = "HookFailed"
	// EventNodeUncordoned regards a Node: pods may be scheduled to it again.
	EventNodeUncordoned = "NodeUncordoned"
	// EventNodeDone regards a Node: it went through its disruption.
	EventNodeDone = "NodeDone"
	// EventNodeSkipped regards a Node: its preDisrupt hook kept it out.
	EventNodeSkipped = "NodeSkipped"
	// EventNodeFailed regards a Node: its disruption failed and was undone.
	EventNodeFailed = "NodeFailed"
	// EventNodeStopped regards a Node: its disruption was ended by the task and undone.
	EventNodeStopped = "NodeStopped"
)
