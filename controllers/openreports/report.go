package openreports

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"

	corev1 "k8s.io/api/core/v1"
	metaapply "k8s.io/client-go/applyconfigurations/meta/v1"

	reportsapply "github.com/openreports/reports-api/pkg/client/applyconfiguration/openreports.io/v1alpha1"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// namePrefix is that of the names of nodepatch's ClusterReports, as all tools
// share them.
const namePrefix = "nodepatch-"

// reportName is the name of a node's ClusterReport. Names end at 253 bytes, and
// so do those of nodes.
func reportName(node string) string {
	const limit, kept = 253, 200
	if name := namePrefix + node; len(name) <= limit {
		return name
	}
	sum := sha256.Sum256([]byte(node))
	return namePrefix + node[:kept] + "-" + hex.EncodeToString(sum[:5])
}

// build makes the ClusterReport of a node.
func build(f facts, marker string, patches []v1alpha1.Patch) *reportsapply.ClusterReportApplyConfiguration {
	labels := maps.Clone(managedBy)
	labels[v1alpha1.NodeLabel] = patchlog.LabelValue(f.Node)
	if f.Policy != "" {
		labels[v1alpha1.PolicyLabel] = patchlog.LabelValue(f.Policy)
	}
	results, counts := resultsOf(f, patches)
	report := reportsapply.ClusterReport(reportName(f.Node)).
		WithLabels(labels).
		WithAnnotations(map[string]string{markerAnnotation: marker}).
		WithOwnerReferences(metaapply.OwnerReference().WithAPIVersion("v1").WithKind("Node").WithName(f.Node).WithUID(f.UID)).
		WithSource(reportSource).
		WithScope(corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: f.Node, UID: f.UID}).
		WithConfiguration(reportsapply.ReportConfiguration().WithLimits(reportsapply.Limits().WithMaxResults(maxResults))).
		WithSummary(reportsapply.ReportSummary().
			WithPass(counts[resultPass]).WithFail(counts[resultFail]).WithWarn(counts[resultWarn]).
			WithError(counts[resultError]).WithSkip(counts[resultSkip])).
		WithResults(results...)
	return report
}
