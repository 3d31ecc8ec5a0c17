package openreports

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	reportsv1alpha1 "github.com/openreports/reports-api/apis/openreports.io/v1alpha1"
	reportsapply "github.com/openreports/reports-api/pkg/client/applyconfiguration/openreports.io/v1alpha1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// The results, from the worst to the best, with the meaning that OpenReports
// gives them.
const (
	resultError reportsv1alpha1.Result = "error" // could not be judged
	resultFail  reportsv1alpha1.Result = "fail"  // not as it should be
	resultWarn  reportsv1alpha1.Result = "warn"  // not as it should be, and not counted as a failure
	resultSkip  reportsv1alpha1.Result = "skip"  // left out, as people or the vendor have it
	resultPass  reportsv1alpha1.Result = "pass"  // as it should be
)

// What a ClusterReport holds at most. An entry has some 450 bytes, and at the
// very most, with every list and text as long as a PatchReport takes it, 4.5 KB;
// etcd takes 1.5 MiB.
const (
	maxResults = 500
	maxBytes   = 512 << 10
)

const (
	reportSource = "nodepatch"
	checked      = "security-patches" // what OpenReports calls a policy
	category     = "Node Security Patches"
)

// resultOf says what a patch that is not installed means. One that used up its
// retries is as missing as any other: nobody has decided to do without it.
// Without it by decision are those that a policy excludes or an administrator
// holds, and the vendor's that this machine is not given yet.
func resultOf(state v1alpha1.PatchState) reportsv1alpha1.Result {
	switch state {
	case v1alpha1.PatchExcluded, v1alpha1.PatchHeld, v1alpha1.PatchPhased:
		return resultSkip
	case v1alpha1.PatchKeptBack, v1alpha1.PatchInstalledPendingReboot:
		return resultWarn
	default: // Missing, Downloaded, Failed, Blocked
		return resultFail
	}
}

// severities in OpenReports' words. Where the vendor publishes no rating, as
// Debian and Ubuntu do not, there is none.
var severities = map[v1alpha1.Severity]reportsv1alpha1.ResultSeverity{
	v1alpha1.SeverityCritical:  "critical",
	v1alpha1.SeverityImportant: "high",
	v1alpha1.SeverityModerate:  "medium",
	v1alpha1.SeverityLow:       "low",
}

// tally counts results, also those that are not listed.
type tally map[reportsv1alpha1.Result]int

type results []*reportsapply.ReportResultApplyConfiguration

// resultsOf judges a node: what keeps it from being judged first, then its missing security
// patches, the worst first, up to the bounds above. The rest is counted, and one
// result says so. There is a pass if, and only if, the node is patched as far as
// it is to be.
func resultsOf(f facts, patches []v1alpha1.Patch) (results, tally) {
	counts := tally{}
	var list results
	for _, o := range f.Obstacles {
		counts[resultError]++
		list = append(list, result(resultError, o.Rule, o.Message, o.Since))
	}
	security := slices.Clone(patches)
	security = slices.DeleteFunc(security, func(p v1alpha1.Patch) bool { return p.Classification != v1alpha1.ClassificationSecurity })
	slices.SortStableFunc(security, func(a, b v1alpha1.Patch) int { return rank(a.State) - rank(b.State) })
	size, listed := 0, 0
	for i := range security {
		p := &security[i]
		counts[resultOf(p.State)]++
		if listed < i || len(list) == maxResults-1 {
			continue // once one is left out, all that follow are
		}
		one := patchResult(p, f.Since)
		if size += encoded(one); size > maxBytes {
			continue
		}
		list, listed = append(list, one), listed+1
	}
	// Of patches that the PatchReport itself only counts nothing is known but that they are missing.
	if uncounted := int(f.Security) - len(security); uncounted > 0 {
		counts[resultFail] += uncounted
	}
	if more := max(int(f.Security), len(security)) - listed; more > 0 {
		list = append(list, remainder(f, more, security[listed:]))
	}
	if counts[resultError]+counts[resultFail]+counts[resultWarn] == 0 {
		counts[resultPass]++
		message := "No security patch is missing"
		if skipped := counts[resultSkip]; skipped > 0 {
			message = fmt.Sprintf("No security patch is missing but for %d left out", skipped)
		}
		list = append(list, result(resultPass, "patched", message, f.Since))
	}
	return list, counts
}

// rank sorts patches by what they mean.
func rank(state v1alpha1.PatchState) int {
	return slices.Index([]reportsv1alpha1.Result{resultFail, resultWarn, resultSkip}, resultOf(state))
}

func patchResult(p *v1alpha1.Patch, since int64) *reportsapply.ReportResultApplyConfiguration {
	if p.FirstSeen != nil {
		since = p.FirstSeen.Unix()
	}
	message := p.Name + " " + p.Available + " is not installed"
	if p.Installed != "" {
		message = fmt.Sprintf("%s %s is to become %s", p.Name, p.Installed, p.Available)
	}
	message += " (" + string(p.State) + ")"
	if p.Reason != "" {
		message += ": " + p.Reason
	}
	one := result(resultOf(p.State), p.Name, message, since)
	if severity, rated := severities[p.Severity]; rated {
		one.Severity = &severity
	}
	properties := map[string]string{
		"installedVersion": p.Installed,
		"availableVersion": p.Available,
		"state":            string(p.State),
		"reason":           p.Reason,
		"advisories":       strings.Join(p.Advisories, ", "),
		"cves":             strings.Join(p.CVEs, ", "),
	}
	if p.CVEsOmitted > 0 {
		properties["cves"] += fmt.Sprintf(" and %d more", p.CVEsOmitted)
	}
	if p.FirstSeen != nil {
		properties["firstSeen"] = p.FirstSeen.UTC().Format(time.RFC3339)
	}
	for key, value := range properties {
		if value == "" {
			delete(properties, key)
		}
	}
	one.Properties = properties
	return one
}

// remainder says how many patches are not listed, and means what the worst of
// them does.
func remainder(f facts, more int, left []v1alpha1.Patch) *reportsapply.ReportResultApplyConfiguration {
	worst := resultFail
	if len(left) == more { // the PatchReport lists them all
		worst = resultOf(left[0].State)
	}
	one := result(worst, "more-patches", fmt.Sprintf(
		"Further security patches, which are not listed here: %d; see kubectl get patchreport %s -o yaml", more, f.Node), f.Since)
	one.Properties = map[string]string{"patches": fmt.Sprint(more)}
	return one
}

// result makes one. A timestamp is required in effect: without one dashboards
// show 1970.
func result(outcome reportsv1alpha1.Result, rule, message string, since int64) *reportsapply.ReportResultApplyConfiguration {
	one := &reportsapply.ReportResultApplyConfiguration{
		Source: new(reportSource), Policy: new(checked), Category: new(category),
		Rule: &rule, Result: &outcome, Description: &message, Timestamp: &metav1.Timestamp{Seconds: since},
	}
	if outcome == resultFail || outcome == resultPass {
		one.Scored = new(true)
	}
	return one
}

// encoded is the size of a result in bytes.
func encoded(one *reportsapply.ReportResultApplyConfiguration) int {
	text, err := json.Marshal(one)
	if err != nil {
		return maxBytes // strings and numbers: it does not fail
	}
	return len(text)
}
