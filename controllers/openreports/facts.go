package openreports

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/policy"
)

// form is the number of the form in which ClusterReports are written. Whoever
// changes what a ClusterReport says of the same findings adds one, so that
// existing ones are written anew.
const form = 1

// digestAnnotation is on PatchReports in the manager's cache, and there only: it
// stands for the security patches that the cache drops.
const digestAnnotation = "nodepatch.io/security-patches"

// Remember notes on a report, before the manager's cache drops its patches, what
// tells whether its ClusterReport is up to date. So that is known without reading
// the report again, also by a manager that has just been started.
func Remember(report *v1alpha1.PatchReport) {
	if _, done := report.Annotations[digestAnnotation]; done && report.Status.Patches == nil {
		return // the cache may hand in what was stripped before
	}
	metav1.SetMetaDataAnnotation(&report.ObjectMeta, digestAnnotation, digest(report.Status.Patches))
}

// digest differs where the security patches do, in what a ClusterReport says of
// them.
func digest(patches []v1alpha1.Patch) string {
	hash := sha256.New()
	lines := json.NewEncoder(hash)
	for i := range patches {
		if patches[i].Classification != v1alpha1.ClassificationSecurity {
			continue
		}
		said := patches[i]
		said.DownloadBytes = 0
		_ = lines.Encode(&said) // strings and numbers, into a hash: neither fails
	}
	return hex.EncodeToString(hash.Sum(nil)[:12])
}

// facts are all that a ClusterReport is made of, but for the patches themselves,
// for which the digest stands. None of them changes with each scan: the same
// findings make the same facts.
type facts struct {
	Form   int
	Node   string
	UID    types.UID
	Policy string
	// Obstacles are why the patches cannot be relied upon.
	Obstacles []obstacle
	// Security is how many security patches are missing, listed or not.
	Security int32
	// Digest of those that are listed.
	Digest string
	// Since is when the scans began to succeed, from the condition Scanned.
	Since int64
}

// obstacle keeps a node from being judged.
type obstacle struct {
	Rule, Message string
	Since         int64 // seconds since 1970
}

// facts makes the facts of what is seen, and their marker.
func (s *sight) facts() (facts, string, error) {
	owner, err := node(s.report)
	if err != nil {
		return facts{}, "", err
	}
	status := &s.report.Status
	f := facts{
		Form: form, Node: owner.Name, UID: owner.UID, Policy: s.governor, Digest: s.digest,
		Since: s.report.CreationTimestamp.Unix(),
	}
	if status.Counts != nil {
		f.Security = status.Counts.Security
	}
	scanned := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionScanned)
	if scanned != nil {
		f.Since = scanned.LastTransitionTime.Unix()
	}
	if s.policy != nil && policy.Overdue(s.policy, s.report, s.now) {
		last := "was never scanned"
		if scan := status.Scan; scan != nil && scan.Time != nil {
			last = "was last scanned at " + scan.Time.UTC().Format(time.RFC3339)
		}
		f.add("overdue", fmt.Sprintf("The node %s and is overdue: the policy %s wants a scan every %s",
			last, s.policy.Name, s.policy.Spec.MaxScanAge.Duration), policy.OverdueAt(s.policy, s.report))
	} else if scanned == nil {
		f.add("scan", "The node was not scanned yet", s.report.CreationTimestamp.Time)
	}
	if scanned != nil && scanned.Status == metav1.ConditionFalse {
		f.add("scan", fmt.Sprintf("The last scan failed (%s): %s", scanned.Reason, scanned.Message), scanned.LastTransitionTime.Time)
	}
	if data := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionPatchDataCurrent); data != nil && data.Status == metav1.ConditionFalse {
		f.add("patch-data", fmt.Sprintf("The package metadata is old, as its last refresh failed (%s): %s", data.Reason, data.Message),
			data.LastTransitionTime.Time)
	}
	marker, err := f.marker()
	return f, marker, err
}

func (f *facts) add(rule, message string, since time.Time) {
	f.Obstacles = append(f.Obstacles, obstacle{Rule: rule, Message: message, Since: since.Unix()})
}

// marker differs where the facts do.
func (f *facts) marker() (string, error) {
	text, err := json.Marshal(f)
	if err != nil {
		return "", fmt.Errorf("marking a ClusterReport: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:12]), nil
}

// node is the Node that a report is about, as its owner.
func node(report *v1alpha1.PatchReport) (metav1.OwnerReference, error) {
	for _, owner := range report.OwnerReferences {
		if owner.Kind == "Node" && owner.APIVersion == "v1" && owner.Name == report.Name {
			return owner, nil
		}
	}
	return metav1.OwnerReference{}, errNoOwner
}
