package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
)

// family is a metric that is read from the cache.
type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

// families are all that a collector describes.
var families []*family

// gauge makes a family; the labels come in the order in which their values are given.
func gauge(name, help string, labels ...string) *family {
	f := &family{desc: prometheus.NewDesc("nodepatch_"+name, help, labels, nil), kind: prometheus.GaugeValue}
	families = append(families, f)
	return f
}

// counter is gauge for a number that only grows.
func counter(name, help string, labels ...string) *family {
	f := gauge(name, help, labels...)
	f.kind = prometheus.CounterValue
	return f
}

// of is a sample.
func (f *family) of(value float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(f.desc, f.kind, value, labels...)
}

var managerLeader = gauge("manager_leader", "1 on the manager that leads; no other one has it.")

// Of a node, under the policy that governs it.
var (
	nodeMissing = gauge("node_missing_patches",
		"Patches that the node's package manager offers, by classification, also those that are held back or excluded.",
		"node", "policy", "classification")
	nodeMissingBySeverity = gauge("node_missing_patches_by_severity",
		"The same patches by the vendor's rating; Unknown where there is none, as with apt.",
		"node", "policy", "severity")
	nodeFailed = gauge("node_failed_patches",
		"Patches with failed attempts that are tried again.", "node", "policy")
	nodeBlocked = gauge("node_blocked_patches",
		"Patches that used up their retries, and are not tried until a person clears their counts.", "node", "policy")
	nodeOldestSecurity = gauge("node_oldest_missing_security_patch_timestamp_seconds",
		"When a scan first offered the security patch that has been missing for the longest. A node that misses none does not have it.",
		"node", "policy")
	nodeRebootRequired = gauge("node_reboot_required",
		"1 if the node has to be rebooted. A node of which that is not known does not have it.", "node", "policy")
	nodeOverdue = gauge("node_overdue",
		"1 if the node's last scan is older than the policy's maxScanAge.", "node", "policy")
	nodeLastScan = gauge("node_last_scan_timestamp_seconds",
		"When the node's last successful scan ended.", "node", "policy")
	nodePatchData = gauge("node_patch_data_timestamp_seconds",
		"When the node's package metadata was last refreshed.", "node", "policy")
	nodeCondition = gauge("node_condition",
		"1 if a condition of the node's PatchReport is True, 0 if it is False: Scanned, PatchDataCurrent, PackagesConsistent.",
		"node", "policy", "condition")
	nodeAgentReady = gauge("node_agent_ready",
		"1 if the node's agent is ready.", "node", "policy")
	nodeInfo = gauge("node_info",
		"The value 1, labelled by what the node runs, as its agent says.",
		"node", "policy", "os", "kernel", "package_manager", "agent_version")
	nodeDisruption = gauge("node_disruption_start_timestamp_seconds",
		"Since when the node is disrupted, until it was put back to what it was before.", "node", "policy", "task")
)

// Of a policy.
var (
	nodesByStep = gauge("nodes",
		"Nodes that the policy governs, by the step of the task that they are in; Idle if in none.", "policy", "step")
	nodesWaiting = gauge("nodes_waiting",
		"Nodes in a task that wait for something, by step and reason.", "policy", "step", "reason")
	policyNodes = gauge("policy_nodes",
		"Nodes of the policy, by what they are; a node may be several of these.", "policy", "state")
	policyReady = gauge("policy_ready",
		"1 if the policy can be carried out as it stands.", "policy")
	policySuspended = gauge("policy_suspended",
		"1 if the policy is suspended.", "policy")
	policyNextRun = gauge("policy_next_run_timestamp_seconds",
		"When the policy's next scheduled task begins.", "policy")
	policyMissedRuns = counter("policy_missed_runs_total",
		"Runs of the policy's schedules that did not begin, and will not.", "policy")
	policyLastRun = gauge("policy_last_run_timestamp_seconds",
		"When the policy's last run of an action ended, and how. Runs that were refused, and tasks that were deleted, do not count.",
		"policy", "action", "task", "result", "reason")
)

// Of a task that has begun and not ended.
var (
	taskStart = gauge("task_start_timestamp_seconds",
		"When the run began.", "task", "policy", "action")
	taskNodes = gauge("task_nodes",
		"Nodes of the run, by step.", "task", "policy", "step")
)
