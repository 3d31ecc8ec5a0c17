package v1alpha1

// The buttons: annotations that a person sets with kubectl annotate.
const (
	// StopAnnotation on a PatchTask ends the task at the next safe point; its
	// value is the reason in the person's own words.
	StopAnnotation = "nodepatch.io/stop"
	// ClearRetriesAnnotation on a PatchRetry or a PatchPolicy clears retry
	// counts: "all", or patch names separated by commas.
	ClearRetriesAnnotation = "nodepatch.io/clear-retries"
	// ClearLogAnnotation on a PatchTask, PatchReport or PatchPolicy deletes
	// that part of the patch log.
	ClearLogAnnotation = "nodepatch.io/clear-log"
	// UpdatePatchDataAnnotation on a PatchReport or a PatchPolicy makes the
	// agents refresh their package metadata.
	UpdatePatchDataAnnotation = "nodepatch.io/update-patch-data"
)

// StoppedByAnnotation on a PatchTask is the name of the user who set StopAnnotation.
// Admission writes it where the cluster has MutatingAdmissionPolicy and the component
// config/admission/optional is applied, and lets nobody write another's.
const StoppedByAnnotation = "nodepatch.io/stopped-by"

// MaintenanceAnnotation on a Node remembers what nodepatch changed on it, so that
// exactly that is undone; its value is JSON and nobody's business but the
// manager's. It is there as long as nodepatch disrupts the node.
const MaintenanceAnnotation = "nodepatch.io/maintenance"

// Labels on what nodepatch creates.
const (
	// TaskLabel names the PatchTask that a log entry belongs to.
	TaskLabel = "nodepatch.io/task"
	// NodeLabel names the Node that a log entry belongs to.
	NodeLabel = "nodepatch.io/node"
	// PolicyLabel names the PatchPolicy that a task or a log entry belongs to.
	PolicyLabel = "nodepatch.io/policy"
)

// Field managers of server-side apply, one per writer.
const (
	// ManagerFieldOwner is the manager's.
	ManagerFieldOwner = "nodepatch-manager"
	// RolloutFieldOwner is that of the manager's part which plans rollouts.
	RolloutFieldOwner = "nodepatch-rollout"
	// AgentFieldOwner is the node agent's.
	AgentFieldOwner = "nodepatch-agent"
)
