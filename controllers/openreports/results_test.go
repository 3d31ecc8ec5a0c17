package openreports

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	reportsapply "github.com/openreports/reports-api/pkg/client/applyconfiguration/openreports.io/v1alpha1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// lineOf is a result in a line.
func lineOf(r *reportsapply.ReportResultApplyConfiguration) string {
	line := fmt.Sprintf("%s %s", *r.Result, *r.Rule)
	if r.Severity != nil {
		line += " " + string(*r.Severity)
	}
	if r.Scored != nil {
		line += " scored"
	}
	return line + ": " + *r.Description
}

func TestResults(t *testing.T) {
	bugfix := patch("vim", v1alpha1.PatchMissing, v1alpha1.SeverityCritical)
	bugfix.Classification = v1alpha1.ClassificationBugfix
	blocked := patch("curl", v1alpha1.PatchBlocked, v1alpha1.SeverityImportant)
	blocked.Reason = "installation failed 4 times"
	obstacles := []obstacle{{Rule: "scan", Message: "The last scan failed (MirrorUnreachable): no route", Since: 7}}

	tests := map[string]struct {
		facts   facts
		patches []v1alpha1.Patch
		want    []string
		counts  tally
	}{
		"nothing": {
			want:   []string{"pass patched scored: No security patch is missing"},
			counts: tally{resultPass: 1},
		},
		"bugs alone": {
			patches: []v1alpha1.Patch{bugfix},
			want:    []string{"pass patched scored: No security patch is missing"},
			counts:  tally{resultPass: 1},
		},
		"decisions": {
			facts: facts{Security: 3},
			patches: []v1alpha1.Patch{
				patch("a", v1alpha1.PatchExcluded, v1alpha1.SeverityLow), patch("b", v1alpha1.PatchHeld, ""),
				patch("c", v1alpha1.PatchPhased, v1alpha1.SeverityUnknown),
			},
			want: []string{
				"skip a low: a 1.0 is to become 1.1 (Excluded)", "skip b: b 1.0 is to become 1.1 (Held)",
				"skip c: c 1.0 is to become 1.1 (Phased)",
				"pass patched scored: No security patch is missing but for 3 left out",
			},
			counts: tally{resultSkip: 3, resultPass: 1},
		},
		"all states, the worst first": {
			facts: facts{Security: 8},
			patches: []v1alpha1.Patch{
				patch("a", v1alpha1.PatchHeld, v1alpha1.SeverityCritical),
				patch("b", v1alpha1.PatchKeptBack, v1alpha1.SeverityCritical),
				patch("c", v1alpha1.PatchInstalledPendingReboot, v1alpha1.SeverityCritical),
				patch("d", v1alpha1.PatchMissing, v1alpha1.SeverityCritical), bugfix, blocked,
				patch("f", v1alpha1.PatchDownloaded, v1alpha1.SeverityModerate),
				patch("g", v1alpha1.PatchFailed, v1alpha1.SeverityLow),
			},
			want: []string{
				"fail d critical scored: d 1.0 is to become 1.1 (Missing)",
				"fail curl high scored: curl 1.0 is to become 1.1 (Blocked): installation failed 4 times",
				"fail f medium scored: f 1.0 is to become 1.1 (Downloaded)",
				"fail g low scored: g 1.0 is to become 1.1 (Failed)",
				"warn b critical: b 1.0 is to become 1.1 (KeptBack)",
				"warn c critical: c 1.0 is to become 1.1 (InstalledPendingReboot)",
				"skip a critical: a 1.0 is to become 1.1 (Held)",
				"fail more-patches scored: Further security patches, which are not listed here: 1; see kubectl get patchreport one -o yaml",
			},
			counts: tally{resultFail: 5, resultWarn: 2, resultSkip: 1},
		},
		"a scan that failed, over what is known": {
			facts:   facts{Security: 1, Obstacles: obstacles},
			patches: []v1alpha1.Patch{patch("a", v1alpha1.PatchMissing, "")},
			want: []string{
				"error scan: The last scan failed (MirrorUnreachable): no route",
				"fail a scored: a 1.0 is to become 1.1 (Missing)",
			},
			counts: tally{resultError: 1, resultFail: 1},
		},
		"a scan that failed is no pass": {
			facts:  facts{Obstacles: obstacles},
			want:   []string{"error scan: The last scan failed (MirrorUnreachable): no route"},
			counts: tally{resultError: 1},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.facts.Node, test.facts.Since = "one", 42
			list, counts := resultsOf(test.facts, test.patches)
			var got []string
			for _, r := range list {
				got = append(got, lineOf(r))
				if r.Timestamp == nil || r.Timestamp.Seconds == 0 {
					t.Errorf("%s has no time", *r.Rule)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("results -want +got:\n%s", diff)
			}
			if diff := cmp.Diff(test.counts, counts); diff != "" {
				t.Errorf("counts -want +got:\n%s", diff)
			}
		})
	}
}

func TestAPatchTellsItsStory(t *testing.T) {
	p := patch("openssl", v1alpha1.PatchBlocked, v1alpha1.SeverityImportant)
	p.Reason, p.Advisories = "4 failures", []string{"DSA-1", "DSA-2"}
	p.CVEs, p.CVEsOmitted = []string{"CVE-2026-1", "CVE-2026-2"}, 3
	got := patchResult(&p, 42)
	want := map[string]string{
		"installedVersion": "1.0", "availableVersion": "1.1", "state": "Blocked", "reason": "4 failures",
		"advisories": "DSA-1, DSA-2", "cves": "CVE-2026-1, CVE-2026-2 and 3 more", "firstSeen": "2026-11-20T06:00:00Z",
	}
	if diff := cmp.Diff(want, got.Properties); diff != "" {
		t.Errorf("properties -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(&metav1.Timestamp{Seconds: seen.Unix()}, got.Timestamp); diff != "" {
		t.Errorf("it is found when it was first offered, -want +got:\n%s", diff)
	}
	plain := v1alpha1.Patch{Name: "a", Available: "1", State: v1alpha1.PatchMissing}
	if got := patchResult(&plain, 42); len(got.Properties) != 2 || *got.Description != "a 1 is not installed (Missing)" || got.Timestamp.Seconds != 42 {
		t.Errorf("a patch of which nothing is known is %s with %v", lineOf(got), got.Properties)
	}
}

// widest is a patch with all that a PatchReport takes.
func widest(i int) v1alpha1.Patch {
	p := patch(fmt.Sprintf("%04d", i)+strings.Repeat("n", 252), v1alpha1.PatchFailed, v1alpha1.SeverityCritical)
	p.Installed, p.Available, p.Reason = strings.Repeat("1", 256), strings.Repeat("2", 256), strings.Repeat("r", 512)
	for range 8 {
		p.Advisories = append(p.Advisories, strings.Repeat("A", 128))
	}
	for range 16 {
		p.CVEs = append(p.CVEs, strings.Repeat("C", 32))
	}
	return p
}

func TestAClusterReportIsBounded(t *testing.T) {
	usual := func(i int) v1alpha1.Patch {
		p := patch(fmt.Sprintf("package-%d", i), v1alpha1.PatchMissing, v1alpha1.SeverityImportant)
		p.CVEs = []string{"CVE-2026-10001", "CVE-2026-10002", "CVE-2026-10003"}
		return p
	}
	tests := map[string]struct {
		patch                func(int) v1alpha1.Patch
		number, security     int
		wantResults, maxSize int
		wantMore             string
	}{
		"as many as fit":                        {usual, 499, 499, 499, 300 << 10, ""},
		"one more than fit":                     {usual, 500, 500, 500, 300 << 10, "1"},
		"all that a PatchReport lists":          {usual, 1000, 1000, 500, 300 << 10, "501"},
		"more than a PatchReport lists":         {usual, 1000, 2500, 500, 300 << 10, "2001"},
		"with texts as long as a report allows": {widest, 1000, 1000, 0, 600 << 10, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var patches []v1alpha1.Patch
			for i := range test.number {
				patches = append(patches, test.patch(i))
			}
			f := facts{Node: "one", UID: "u", Security: int32(test.security), Since: 42}
			report := build(f, "m", patches)
			text, err := json.Marshal(report)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d patches: %d results, %d bytes", test.number, len(report.Results), len(text))
			if len(text) > test.maxSize {
				t.Errorf("%d bytes are more than %d", len(text), test.maxSize)
			}
			if *report.Summary.Fail != test.security {
				t.Errorf("%d patches count as %d failures", test.security, *report.Summary.Fail)
			}
			last := report.Results[len(report.Results)-1]
			if test.wantResults == 0 {
				// However many fit, those and the rest are all.
				if want := fmt.Sprint(test.number - len(report.Results) + 1); *last.Rule != "more-patches" || last.Properties["patches"] != want {
					t.Errorf("%d results end with %s, want %s more patches", len(report.Results), lineOf(&last), want)
				}
				return
			}
			if len(report.Results) != test.wantResults {
				t.Errorf("%d results, want %d", len(report.Results), test.wantResults)
			}
			if last.Properties["patches"] != test.wantMore {
				t.Errorf("%s more patches, want %q", last.Properties["patches"], test.wantMore)
			}
		})
	}
}
