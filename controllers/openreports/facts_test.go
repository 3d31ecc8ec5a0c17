package openreports

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// A ClusterReport is written when what it says changes, and only then.
func TestTheMarkerFollowsWhatIsSaid(t *testing.T) {
	fresh := func() *sight {
		return &sight{
			report: &v1alpha1.PatchReport{
				ObjectMeta: metav1.ObjectMeta{Name: "one", OwnerReferences: []metav1.OwnerReference{
					{APIVersion: "v1", Kind: "Node", Name: "one", UID: "u"},
				}},
				Status: scanned(begun.Add(time.Hour), patch("curl", v1alpha1.PatchMissing, v1alpha1.SeverityLow)),
			},
			governor: "workers", now: begun.Add(2 * time.Hour),
			policy: &v1alpha1.PatchPolicy{
				ObjectMeta: metav1.ObjectMeta{Name: "workers"},
				Spec:       v1alpha1.PatchPolicySpec{MaxScanAge: &metav1.Duration{Duration: 3 * time.Hour}},
			},
		}
	}
	marker := func(s *sight) string {
		t.Helper()
		s.digest = digest(s.report.Status.Patches)
		f, marker, err := s.facts()
		if err != nil {
			t.Fatal(err)
		}
		if len(f.Obstacles) > 0 {
			t.Logf("%+v", f.Obstacles)
		}
		return marker
	}
	before := marker(fresh())
	condition := func(kind string, status metav1.ConditionStatus) metav1.Condition {
		return metav1.Condition{Type: kind, Status: status, Reason: "MirrorUnreachable", Message: "no route", LastTransitionTime: seen}
	}
	for name, test := range map[string]struct {
		change func(*sight)
		same   bool
	}{
		"another scan with the same findings": {func(s *sight) { s.report.Status.Scan.Time = &metav1.Time{Time: begun.Add(90 * time.Minute)} }, true},
		"a bug that is to be mended": {func(s *sight) {
			p := patch("vim", v1alpha1.PatchMissing, "")
			p.Classification = v1alpha1.ClassificationBugfix
			s.report.Status.Patches = append(s.report.Status.Patches, p)
			s.report.Status.Counts.Missing++
		}, true},
		"a size":         {func(s *sight) { s.report.Status.Patches[0].DownloadBytes++ }, true},
		"fresh metadata": {func(s *sight) { s.report.Status.PatchData = &v1alpha1.PatchData{Time: &seen} }, true},
		"a good refresh": {func(s *sight) {
			s.report.Status.Conditions = append(s.report.Status.Conditions, condition(v1alpha1.ConditionPatchDataCurrent, metav1.ConditionTrue))
		}, true},
		"time":                {func(s *sight) { s.now = s.now.Add(time.Hour) }, true},
		"overdue":             {func(s *sight) { s.now = s.now.Add(2 * time.Hour) }, false},
		"a state":             {func(s *sight) { s.report.Status.Patches[0].State = v1alpha1.PatchBlocked }, false},
		"a version":           {func(s *sight) { s.report.Status.Patches[0].Available = "1.2" }, false},
		"a reason":            {func(s *sight) { s.report.Status.Patches[0].Reason = "r" }, false},
		"a vulnerability":     {func(s *sight) { s.report.Status.Patches[0].CVEs = []string{"CVE-2026-1"} }, false},
		"one that is counted": {func(s *sight) { s.report.Status.Counts.Security++ }, false},
		"one less":            {func(s *sight) { s.report.Status.Patches = nil }, false},
		"a policy":            {func(s *sight) { s.governor = "others" }, false},
		"another node":        {func(s *sight) { s.report.OwnerReferences[0].UID = "v" }, false},
		"a scan that failed": {func(s *sight) {
			s.report.Status.Conditions[0] = condition(v1alpha1.ConditionScanned, metav1.ConditionFalse)
		}, false},
		"a failed refresh": {func(s *sight) {
			s.report.Status.Conditions = append(s.report.Status.Conditions, condition(v1alpha1.ConditionPatchDataCurrent, metav1.ConditionFalse))
		}, false},
		"conditions forgotten": {func(s *sight) { s.report.Status.Conditions = nil }, false},
	} {
		t.Run(name, func(t *testing.T) {
			changed := fresh()
			test.change(changed)
			if same := marker(changed) == before; same != test.same {
				t.Errorf("the ClusterReport stays: %t, want %t", same, test.same)
			}
		})
	}
	orphan := fresh()
	orphan.report.OwnerReferences = nil
	if _, _, err := orphan.facts(); err == nil {
		t.Error("a report that would go with no node has facts")
	}
}

func TestWhatKeepsANodeFromBeingJudged(t *testing.T) {
	policy := &v1alpha1.PatchPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "workers"},
		Spec:       v1alpha1.PatchPolicySpec{MaxScanAge: &metav1.Duration{Duration: 48 * time.Hour}},
	}
	made := metav1.NewTime(begun.Add(-time.Hour))
	for name, test := range map[string]struct {
		status v1alpha1.PatchReportStatus
		now    time.Time
		want   []obstacle
	}{
		"not scanned yet":   {v1alpha1.PatchReportStatus{}, begun, []obstacle{{"scan", "The node was not scanned yet", made.Unix()}}},
		"never scanned":     {v1alpha1.PatchReportStatus{}, begun.Add(47 * time.Hour), []obstacle{{"overdue", "The node was never scanned and is overdue: the policy workers wants a scan every 48h0m0s", made.Unix() + 48*3600}}},
		"scanned":           {scanned(begun), begun.Add(47 * time.Hour), nil},
		"scanned long ago":  {scanned(begun), begun.Add(48 * time.Hour), []obstacle{{"overdue", "The node was last scanned at 2026-11-01T06:00:00Z and is overdue: the policy workers wants a scan every 48h0m0s", begun.Unix() + 48*3600}}},
		"scanned a bit ago": {scanned(begun), begun.Add(48*time.Hour - time.Second), nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := &sight{policy: policy, now: test.now, report: &v1alpha1.PatchReport{
				ObjectMeta: metav1.ObjectMeta{Name: "one", CreationTimestamp: made, OwnerReferences: []metav1.OwnerReference{
					{APIVersion: "v1", Kind: "Node", Name: "one", UID: "u"},
				}},
				Status: test.status,
			}}
			f, _, err := s.facts()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, f.Obstacles); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if waits := s.wake().RequeueAfter > 0; waits != (len(f.Obstacles) == 0 || f.Obstacles[0].Rule != "overdue") {
				t.Errorf("it is looked at again: %t", waits)
			}
		})
	}
}

// The cache may hand a report in a second time, without its patches.
func TestADigestOutlivesThePatches(t *testing.T) {
	report := &v1alpha1.PatchReport{Status: scanned(begun, patch("curl", v1alpha1.PatchMissing, ""))}
	Remember(report)
	want := report.Annotations[digestAnnotation]
	report.Status.Patches = nil
	Remember(report)
	if got := report.Annotations[digestAnnotation]; got != want || got == digest(nil) {
		t.Errorf("the digest %s became %s", want, got)
	}
	report.Status.Patches = []v1alpha1.Patch{patch("ham", v1alpha1.PatchMissing, "")}
	Remember(report)
	if report.Annotations[digestAnnotation] == want {
		t.Error("other patches have the same digest")
	}
}

func TestNamesFit(t *testing.T) {
	long := strings.Repeat("a", 240)
	for node, want := range map[string]int{"one": 13, strings.Repeat("b", 243): 253, long + "1234": 221, long + "1235": 221} {
		if got := reportName(node); len(got) != want || !strings.HasPrefix(got, "nodepatch-") {
			t.Errorf("the ClusterReport of %s is called %s, of %d bytes", node, got, len(got))
		}
	}
	if reportName(long+"1234") == reportName(long+"1235") {
		t.Error("two nodes share a ClusterReport")
	}
}
