package operation

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

var (
	monday  = time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)
	tuesday = monday.Add(24 * time.Hour)
)

func observe(scan *packages.Scan) observation {
	return observation{
		Scan: scan, PackageManager: "apt", FirstSeen: firstSeen{}.update(scan, monday), AgentVersion: "v1",
		Record:  &record{Operation: v1alpha1.Operation{ID: "1", Task: "scan-now"}, Policy: "workers"},
		Refresh: &finding{OK: true, Reason: v1alpha1.ReasonRefreshed, Time: monday}, Now: monday, Took: 1234 * time.Millisecond,
		Criteria: &criteria{},
	}
}

func TestReportListsTheMostImportant(t *testing.T) {
	scan := &packages.Scan{}
	for i := range 5000 {
		p := packages.Patch{
			Name: fmt.Sprintf("p%04d", i), Architecture: "all", InstalledVersion: "1", AvailableVersion: "2",
			Classification: packages.Other, State: packages.Missing, DownloadSize: 10,
		}
		switch {
		case i >= 4990:
			p.Classification = packages.Security
			p.Severity = []string{"low", "", "Critical", "medium", "Important"}[i%5]
		case i >= 4980:
			p.Classification, p.Severity = packages.Bugfix, "critical"
		case i >= 4970:
			p.State = packages.Held
		}
		scan.Patches = append(scan.Patches, p)
	}
	s := succeed(&v1alpha1.PatchReportStatus{}, observe(scan))
	if len(s.Patches) != v1alpha1.MaxReportedPatches || s.PatchesOmitted != 4000 {
		t.Errorf("Lists %d and omits %d", len(s.Patches), s.PatchesOmitted)
	}
	if s.Counts.Missing != 5000 || s.Counts.Security != 10 || s.Counts.Bugfix != 10 || s.Counts.Held != 10 ||
		s.Counts.Critical != 12 || s.Counts.Important != 2 || s.Counts.Moderate != 2 || s.Counts.Low != 2 || s.Counts.DownloadBytes != 49900 {
		t.Errorf("Counts are %+v", s.Counts)
	}
	var first []string
	for _, p := range s.Patches[:12] {
		first = append(first, p.Name)
	}
	want := []string{"p4992", "p4997", "p4994", "p4999", "p4993", "p4998", "p4990", "p4995", "p4991", "p4996", "p4980", "p4981"}
	if !slices.Equal(first, want) {
		t.Errorf("The first are %v, want %v", first, want)
	}
	if s.Summary != "4990 not installed yet, 10 on hold" {
		t.Errorf("Summary is %q", s.Summary)
	}
}

func TestReportIsBounded(t *testing.T) {
	long := strings.Repeat("ä", 10000)
	p := packages.Patch{Name: long, Architecture: "all", InstalledVersion: long, AvailableVersion: long, Reason: long, State: packages.KeptBack, Classification: packages.Other}
	for i := range 40 {
		p.CVEs = append(p.CVEs, fmt.Sprintf("CVE-2026-%04d", i))
		p.Advisories = append(p.Advisories, fmt.Sprintf("DSA-%d", i))
	}
	scan := &packages.Scan{
		Patches: []packages.Patch{p}, OS: packages.OS{PrettyName: long, ID: long, VersionID: long},
		Kernel: packages.Kernel{Running: long, NewestInstalled: long}, Reboot: packages.Reboot{Required: true},
		Problems: []packages.Problem{{Kind: packages.BrokenPackage, Message: long}},
	}
	for range 150 {
		scan.NewPackages = append(scan.NewPackages, packages.NewPackage{Name: long, Version: long, DownloadSize: 1})
		scan.Reboot.Reasons = append(scan.Reboot.Reasons, long)
	}
	s := succeed(&v1alpha1.PatchReportStatus{}, observe(scan))
	got := s.Patches[0]
	if len(got.CVEs) != 16 || got.CVEsOmitted != 24 || len(got.Advisories) != 8 || len(got.Name) > 256 || len(got.Reason) > 512 {
		t.Errorf("Patch is %+v", got)
	}
	if len(s.NewPackages) != 100 || s.NewPackagesOmitted != 50 || s.Counts.NewPackages != 150 || s.Counts.DownloadBytes != 150 || len(s.Reboot.Reasons) != 20 {
		t.Errorf("%d new packages, %d omitted, %d reasons", len(s.NewPackages), s.NewPackagesOmitted, len(s.Reboot.Reasons))
	}
	if len(s.Summary) > 1024 || len(s.OS.Name) > 256 || len(s.OS.ID) > 64 {
		t.Errorf("Summary of %d bytes, OS %+v", len(s.Summary), s.OS)
	}
	if !strings.HasSuffix(got.Name, "ä…") {
		t.Errorf("Name is cut within a character: %q", got.Name[len(got.Name)-6:])
	}
}

func TestConditions(t *testing.T) {
	scan := &packages.Scan{Problems: []packages.Problem{
		{Kind: packages.BrokenPackage, Name: "egg", Message: "egg is half configured"},
		{Kind: packages.InterruptedTransaction, Message: "dpkg was interrupted"},
	}}
	o := observe(scan)
	o.Refresh = &finding{Reason: v1alpha1.ReasonLocked, Message: "held by apt (process 7)", Time: monday}
	s := succeed(&v1alpha1.PatchReportStatus{}, o)
	for kind, want := range map[string]string{
		v1alpha1.ConditionScanned:            "True Scanned The last scan succeeded",
		v1alpha1.ConditionPatchDataCurrent:   "False Locked held by apt (process 7)",
		v1alpha1.ConditionPackagesConsistent: "False Interrupted dpkg was interrupted (and 1 more)",
	} {
		c := meta.FindStatusCondition(s.Conditions, kind)
		if c == nil || fmt.Sprintf("%s %s %s", c.Status, c.Reason, c.Message) != want {
			t.Errorf("%s is %+v, want %s", kind, c, want)
		}
	}
	if s.Summary != "Nothing is missing, patch data is old (Locked), dpkg was interrupted (and 1 more)" {
		t.Errorf("Summary is %q", s.Summary)
	}

	o.Now, o.Refresh = tuesday, &finding{OK: true, Reason: v1alpha1.ReasonRefreshed}
	o.Scan = &packages.Scan{}
	next := succeed(s, o)
	if c := meta.FindStatusCondition(next.Conditions, v1alpha1.ConditionScanned); !c.LastTransitionTime.Time.Equal(monday) {
		t.Errorf("Scanned changed at %s although it did not change", c.LastTransitionTime)
	}
	if c := meta.FindStatusCondition(next.Conditions, v1alpha1.ConditionPackagesConsistent); c.Status != metav1.ConditionTrue || !c.LastTransitionTime.Time.Equal(tuesday) {
		t.Errorf("PackagesConsistent is %+v", c)
	}
}

func TestFailedScanKeepsTheLastReport(t *testing.T) {
	scan := &packages.Scan{Patches: []packages.Patch{{Name: "ham", Architecture: "all", AvailableVersion: "2", State: packages.Missing, Classification: packages.Security}}}
	former := succeed(&v1alpha1.PatchReportStatus{}, observe(scan))
	o := observe(scan)
	o.Now = tuesday
	s := fail(former, o, finding{Reason: v1alpha1.ReasonScanFailed, Message: "apt is broken"})
	if len(s.Patches) != 1 || s.Counts.Missing != 1 || !s.Scan.Time.Time.Equal(monday) {
		t.Errorf("What was found is gone: %+v", s)
	}
	if s.Summary != "Scan failed, so this is as of 2026-11-23T06:00:00Z: apt is broken" {
		t.Errorf("Summary is %q", s.Summary)
	}
	if c := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionScanned); c.Status != metav1.ConditionFalse || c.Reason != v1alpha1.ReasonScanFailed {
		t.Errorf("Condition is %+v", c)
	}
	if c := meta.FindStatusCondition(former.Conditions, v1alpha1.ConditionScanned); c.Status != metav1.ConditionTrue {
		t.Error("The former report was changed")
	}
}

func TestFirstSeen(t *testing.T) {
	patch := func(name, arch, version string) packages.Patch {
		return packages.Patch{Name: name, Architecture: arch, AvailableVersion: version}
	}
	first := firstSeen{}.update(&packages.Scan{Patches: []packages.Patch{patch("a", "amd64", "1"), patch("b", "amd64", "1"), patch("c", "amd64", "1")}}, monday)
	scan := packages.Scan{Patches: []packages.Patch{patch("a", "amd64", "1"), patch("a", "i386", "1"), patch("b", "amd64", "2")}}
	for name, test := range map[string]struct {
		metadata time.Time
		want     firstSeen
	}{
		"all metadata":     {tuesday, firstSeen{"a:amd64=1": monday, "a:i386=1": tuesday, "b:amd64=2": tuesday}},
		"some is not here": {time.Time{}, firstSeen{"a:amd64=1": monday, "a:i386=1": tuesday, "b:amd64=2": tuesday, "b:amd64=1": monday, "c:amd64=1": monday}},
	} {
		t.Run(name, func(t *testing.T) {
			scan.MetadataRefreshed = test.metadata
			if second := first.update(&scan, tuesday); fmt.Sprint(second) != fmt.Sprint(test.want) {
				t.Errorf("First seen %v, want %v", second, test.want)
			}
		})
	}
}

func TestOldestSecurity(t *testing.T) {
	patches := []packages.Patch{
		{Name: "bug", AvailableVersion: "1", Classification: packages.Bugfix},
		{Name: "new", AvailableVersion: "1", Classification: packages.Security},
		{Name: "old", AvailableVersion: "1", Classification: packages.Security},
		{Name: "never-seen", AvailableVersion: "1", Classification: packages.Security},
	}
	seen := firstSeen{
		firstSeenKey(&patches[0]): monday.Add(-time.Hour), firstSeenKey(&patches[1]): tuesday, firstSeenKey(&patches[2]): monday,
	}
	for name, test := range map[string]struct {
		missing []packages.Patch
		want    *metav1.Time
	}{
		"nothing is missing":               {},
		"no security patch":                {missing: patches[:1]},
		"one whose first day is not known": {missing: patches[3:]},
		"the oldest of several":            {missing: patches, want: &metav1.Time{Time: monday}},
	} {
		t.Run(name, func(t *testing.T) {
			o := observation{Scan: &packages.Scan{Patches: test.missing}, FirstSeen: seen}
			if got := oldestSecurity(o); !got.Equal(test.want) {
				t.Errorf("Missing since %v, want %v", got, test.want)
			}
		})
	}
}

func TestName(t *testing.T) {
	want := map[string]string{"": "libc6", "all": "libc6", "noarch": "libc6", "m68k": "libc6:m68k"}
	for _, architecture := range native {
		want[architecture] = "libc6"
	}
	if len(native) == 0 {
		t.Errorf("The package managers' names for %s are not known", runtime.GOARCH)
	}
	for architecture, want := range want {
		if got := name("libc6", architecture); got != want {
			t.Errorf("%q: %s, want %s", architecture, got, want)
		}
	}
}

func TestRebootThatIsUnknownIsNeitherYesNorNo(t *testing.T) {
	for name, test := range map[string]struct {
		found packages.Reboot
		want  v1alpha1.RebootState
	}{
		"nothing asks for it": {packages.Reboot{}, v1alpha1.RebootNotRequired},
		"required":            {packages.Reboot{Required: true, Reasons: []string{"a"}}, v1alpha1.RebootRequired},
		"unknown":             {packages.Reboot{Unknown: true, Reasons: []string{"a"}}, v1alpha1.RebootUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			if got := reboot(&test.found); got.State != test.want || len(got.Reasons) != len(test.found.Reasons) {
				t.Errorf("reboot is %+v, want %s with its reasons", got, test.want)
			}
		})
	}
}
