package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/maintenance"
	"github.com/nodepatch/nodepatch/controllers/policy"
)

// reportConditions are the conditions of a PatchReport that are published.
var reportConditions = []string{
	v1alpha1.ConditionScanned, v1alpha1.ConditionPatchDataCurrent, v1alpha1.ConditionPackagesConsistent,
}

// writeNodes publishes every node that a policy governs. An assignment whose node
// or policy is gone is about to go too.
func (s *snapshot) writeNodes(emit func(prometheus.Metric)) {
	for i := range s.assignments {
		assignment := &s.assignments[i]
		if s.nodes[assignment.Name] == nil || s.policies[assignment.Spec.Policy] == nil {
			continue
		}
		name, governor := assignment.Name, assignment.Spec.Policy
		agent := assignment.Status.Controller != nil && assignment.Status.Controller.Agent == v1alpha1.AgentReady
		emit(nodeAgentReady.of(truth(agent), name, governor))
		if retry := s.retries[name]; retry != nil {
			emit(nodeFailed.of(float64(retry.Status.Counted-retry.Status.Blocked), name, governor))
			emit(nodeBlocked.of(float64(retry.Status.Blocked), name, governor))
		}
		if report := s.reports[name]; report != nil {
			emit(nodeOverdue.of(truth(policy.Overdue(s.policies[governor], report, s.now)), name, governor))
			writeReport(report, governor, emit)
		}
	}
	s.writeDisruptions(emit)
}

// writeReport publishes what a node's agent found.
func writeReport(report *v1alpha1.PatchReport, governor string, emit func(prometheus.Metric)) {
	name, status := report.Name, &report.Status
	writeCounts(report, governor, emit)
	if reboot := status.Reboot; reboot != nil && (reboot.State == v1alpha1.RebootRequired || reboot.State == v1alpha1.RebootNotRequired) {
		emit(nodeRebootRequired.of(truth(reboot.State == v1alpha1.RebootRequired), name, governor))
	}
	if scan := status.Scan; scan != nil && scan.Time != nil {
		emit(nodeLastScan.of(seconds(scan.Time.Time), name, governor))
	}
	if data := status.PatchData; data != nil && data.Time != nil {
		emit(nodePatchData.of(seconds(data.Time.Time), name, governor))
	}
	for _, kind := range reportConditions {
		for i := range status.Conditions {
			condition := &status.Conditions[i]
			if condition.Type == kind && condition.Status != metav1.ConditionUnknown {
				emit(nodeCondition.of(truth(condition.Status == metav1.ConditionTrue), name, governor, kind))
			}
		}
	}
	if status.AgentVersion == "" {
		return
	}
	var os, kernel, manager string
	if status.OS != nil {
		os = status.OS.Name
	}
	if status.Kernel != nil {
		kernel = status.Kernel.Running
	}
	if status.PackageManager != nil {
		manager = status.PackageManager.Name
	}
	emit(nodeInfo.of(1, name, governor, os, kernel, manager, status.AgentVersion))
}

// writeCounts publishes the missing patches of a node that was scanned.
func writeCounts(report *v1alpha1.PatchReport, governor string, emit func(prometheus.Metric)) {
	counts := report.Status.Counts
	if counts == nil {
		return
	}
	for _, class := range []struct {
		label v1alpha1.Classification
		count int32
	}{
		{v1alpha1.ClassificationSecurity, counts.Security},
		{v1alpha1.ClassificationBugfix, counts.Bugfix},
		{v1alpha1.ClassificationEnhancement, counts.Enhancement},
		{v1alpha1.ClassificationOther, counts.Other},
	} {
		emit(nodeMissing.of(float64(class.count), report.Name, governor, string(class.label)))
	}
	unrated := counts.Missing - counts.Critical - counts.Important - counts.Moderate - counts.Low
	for _, severity := range []struct {
		label v1alpha1.Severity
		count int32
	}{
		{v1alpha1.SeverityCritical, counts.Critical},
		{v1alpha1.SeverityImportant, counts.Important},
		{v1alpha1.SeverityModerate, counts.Moderate},
		{v1alpha1.SeverityLow, counts.Low},
		{v1alpha1.SeverityUnknown, max(unrated, 0)},
	} {
		emit(nodeMissingBySeverity.of(float64(severity.count), report.Name, governor, string(severity.label)))
	}
	if counts.Security > 0 && counts.OldestSecurity != nil {
		emit(nodeOldestSecurity.of(seconds(counts.OldestSecurity.Time), report.Name, governor))
	}
}

// writeDisruptions publishes the nodes that are not yet what they were before
// their disruption, also where no policy governs them any more. What cannot be
// read of a record its own controller says.
func (s *snapshot) writeDisruptions(emit func(prometheus.Metric)) {
	for name, node := range s.nodes {
		record, _ := maintenance.Read(node)
		if record != nil && record.Restored == nil {
			emit(nodeDisruption.of(seconds(record.Since.Time), name, record.Policy, record.Task))
		}
	}
}
