package dnf_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/test/rpmrepo"
)

// TestScan finds every kind of patch, on a machine that has an update of each.
func TestScan(t *testing.T) {
	m, repo := with(t, "toy-security", "toy-between", "toy-bugfix", "toy-enhancement", "toy-recommended", "toy-plain",
		"toy-needs", "toy-unmet", "toy-old", "toy-locked", "toy-excluded", "toy-current",
		"toy-with-a-name-that-is-far-longer-than-the-column-of-a-plan")
	needs, unmet, successor := rpmrepo.Good("toy-needs", "2.0-1"), rpmrepo.Good("toy-unmet", "2.0-1"), rpmrepo.Good("toy-new", "2.0-1")
	needs.Requires, unmet.Requires, successor.Obsoletes = []string{"toy-extra"}, []string{"toy-nowhere"}, []string{"toy-old < 2"}
	repo.Add(
		rpmrepo.Good("toy-between", "1.5-1"), rpmrepo.Good("toy-between", "2.0-1"), rpmrepo.Good("toy-security", "1:0.9~rc1-1.el9_4"),
		rpmrepo.Good("toy-bugfix", "2.0-1"), rpmrepo.Good("toy-enhancement", "2.0-1"), rpmrepo.Good("toy-recommended", "2.0-1"),
		rpmrepo.Good("toy-plain", "2.0-1"), needs, unmet, successor, rpmrepo.Good("toy-extra", "1-1"),
		rpmrepo.Good("toy-locked", "2.0-1"), rpmrepo.Good("toy-excluded", "2.0-1"),
		rpmrepo.Good("toy-with-a-name-that-is-far-longer-than-the-column-of-a-plan", "2.0-1"),
	)
	repo.Advise(
		rpmrepo.Advisory{ID: "TOY-2026:1", Type: "security", Severity: "Critical", CVEs: []string{"CVE-2026-0002", "CVE-2026-0001"}, Packages: []string{"toy-security-1:0.9~rc1-1.el9_4"}},
		rpmrepo.Advisory{ID: "TOY-2026:2", Type: "security", Severity: "Moderate", CVEs: []string{"CVE-2026-0003"}, Packages: []string{"toy-between-1.5-1"}},
		rpmrepo.Advisory{ID: "TOY-2026:3", Type: "bugfix", Packages: []string{"toy-between-2.0-1", "toy-bugfix-2.0-1"}},
		rpmrepo.Advisory{ID: "TOY-2026:4", Type: "enhancement", Packages: []string{"toy-enhancement-2.0-1"}},
		rpmrepo.Advisory{ID: "TOY-2026:5", Type: "recommended", Severity: "moderate", Packages: []string{"toy-recommended-2.0-1"}},
	)
	m.layer.Write(t, "/etc/dnf/dnf.conf", m.layer.Read(t, "/etc/dnf/dnf.conf")+"excludepkgs=toy-excluded\n")
	m.layer.Run(t, "dnf", "-q", "versionlock", "add", "toy-locked")
	m.layer.Write(t, "/etc/os-release", "ID=toys\nVERSION_ID=9\nPRETTY_NAME=\"Toys 9\"\n")
	before := time.Now().Add(-time.Second)
	m.offer(t, repo)
	scan := m.scan(t)

	if scan.OS.ID != "toys" || scan.Installed != 14 || len(scan.Problems) != 0 || scan.ManagerVersion == "" {
		t.Errorf("the scan is of %+v with %d packages by %q, with problems %v", scan.OS, scan.Installed, scan.ManagerVersion, scan.Problems)
	}
	if scan.MetadataRefreshed.Before(before) || scan.MetadataRefreshed.After(time.Now()) {
		t.Errorf("metadata was refreshed at %s, want after %s", scan.MetadataRefreshed, before)
	}
	type want struct {
		to             string
		state          packages.State
		classification packages.Classification
		severity       string
		advisories     string
		cves           string
		reason         string
	}
	for name, w := range map[string]want{
		"toy-security":    {"1:0.9~rc1-1.el9_4", packages.Missing, packages.Security, "Critical", "TOY-2026:1", "CVE-2026-0001 CVE-2026-0002", ""},
		"toy-between":     {"2.0-1", packages.Missing, packages.Security, "Moderate", "TOY-2026:2 TOY-2026:3", "CVE-2026-0003", ""},
		"toy-bugfix":      {"2.0-1", packages.Missing, packages.Bugfix, "", "TOY-2026:3", "", ""},
		"toy-enhancement": {"2.0-1", packages.Missing, packages.Enhancement, "", "TOY-2026:4", "", ""},
		"toy-recommended": {"2.0-1", packages.Missing, packages.Other, "", "TOY-2026:5", "", ""},
		"toy-plain":       {"2.0-1", packages.Missing, packages.Other, "", "", "", ""},
		"toy-needs":       {"2.0-1", packages.Missing, packages.Other, "", "", "", ""},
		"toy-new":         {"2.0-1", packages.Missing, packages.Other, "", "", "", ""},
		"toy-unmet":       {"2.0-1", packages.KeptBack, packages.Other, "", "", "", "nothing provides toy-nowhere"},
		"toy-locked":      {"2.0-1", packages.Held, packages.Other, "", "", "", "locks"},
		"toy-excluded":    {"2.0-1", packages.Held, packages.Other, "", "", "", "excludes"},
		"toy-with-a-name-that-is-far-longer-than-the-column-of-a-plan": {"2.0-1", packages.Missing, packages.Other, "", "", "", ""},
	} {
		p := find(t, scan, name)
		got := want{p.AvailableVersion, p.State, p.Classification, p.Severity, strings.Join(p.Advisories, " "), strings.Join(p.CVEs, " "), w.reason}
		if got != w || !strings.Contains(p.Reason, w.reason) || w.reason == "" && p.Reason != "" {
			t.Errorf("%s is %+v, want %+v", name, p, w)
		}
		if p.InstalledVersion != "1.0-1" || p.Architecture != "noarch" || p.Origin != "toys" || p.DownloadSize < 1000 || p.SourceVersion != "1.0-1" || p.Downloaded {
			t.Errorf("%s is %+v", name, p)
		}
	}
	if len(scan.Patches) != 12 {
		t.Errorf("there are %d patches, want 12", len(scan.Patches))
	}
	if !slices.IsSortedFunc(scan.Patches, func(a, b packages.Patch) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("patches are not sorted")
	}
	if len(scan.NewPackages) != 1 || scan.NewPackages[0].Name != "toy-extra" || scan.NewPackages[0].Version != "1-1" || scan.NewPackages[0].DownloadSize < 1000 {
		t.Errorf("new packages are %+v", scan.NewPackages)
	}

	m.download(t, toy("toy-plain", "2.0-1"))
	scan = m.scan(t)
	if p, other := find(t, scan, "toy-plain"), find(t, scan, "toy-bugfix"); !p.Downloaded || other.Downloaded {
		t.Errorf("downloaded are %+v and %+v", p, other)
	}
}

// TestScanWithoutMetadata is a host whose metadata was never fetched.
func TestScanWithoutMetadata(t *testing.T) {
	m := newMachine(t, packages.Locks{})
	m.serve(t, map[string]*rpmrepo.Repository{"toys": rpmrepo.New()})
	scan := m.scan(t)
	if !scan.MetadataRefreshed.IsZero() || len(scan.Patches) != 0 {
		t.Errorf("it is %+v", scan)
	}
	m.refresh(t)
	if scan = m.scan(t); scan.MetadataRefreshed.IsZero() || len(scan.Patches) != 0 {
		t.Errorf("after a refresh it is %+v", scan)
	}
}

// TestReboot has a core package updated since the machine was booted, and a
// kernel that is newer than the running one.
func TestReboot(t *testing.T) {
	m, repo := with(t, "toy")
	if scan := m.scan(t); scan.Reboot.Required || scan.Reboot.Unknown {
		t.Errorf("a machine without any reason needs a reboot: %+v", scan.Reboot)
	}
	repo.Add(rpmrepo.Good("glibc", "2.34-100.el9"))
	m.offer(t, repo)
	m.layer.Run(t, "dnf", "-q", "-y", "install", "glibc")
	scan := m.scan(t)
	if !scan.Reboot.Required || !slices.Equal(scan.Reboot.Packages, []string{"glibc"}) {
		t.Errorf("with a new glibc it is %+v", scan.Reboot)
	}
}

// TestKernels has a new kernel installed beside the old one, with an upgrade that
// removes the oldest.
func TestKernels(t *testing.T) {
	m, repo := with(t, "toy")
	for _, version := range []string{"5.14.0-1.el9", "5.14.0-2.el9", "5.14.0-3.el9"} {
		m.offer(t, repo, rpmrepo.Kernel(version))
		m.layer.Run(t, "dnf", "-q", "-y", "install", "kernel-core-"+version)
	}
	m.offer(t, repo, rpmrepo.Kernel("5.14.0-10.el9"))
	p := find(t, m.scan(t), "kernel-core")
	if p.InstalledVersion != "5.14.0-3.el9" || p.AvailableVersion != "5.14.0-10.el9" || p.State != packages.Missing || p.Architecture != "x86_64" {
		t.Errorf("the kernel is %+v", p)
	}
	target := packages.Target{Name: p.Name, Architecture: p.Architecture, Version: p.AvailableVersion}
	if got := m.download(t, target); len(got.Ready) != 1 {
		t.Fatalf("downloaded is %+v", got)
	}
	if got := m.install(t, target); len(got.Failed) != 0 {
		t.Fatalf("installed is %+v", got)
	}
	if got := strings.Fields(m.layer.Run(t, "rpm", "-q", "--qf", "%{VERSION}-%{RELEASE} ", "kernel-core")); !slices.Equal(got, []string{"5.14.0-2.el9", "5.14.0-3.el9", "5.14.0-10.el9"}) {
		t.Errorf("installed kernels are %q", got)
	}
	if scan := m.scan(t); len(scan.Patches) != 0 || len(scan.Problems) != 0 {
		t.Errorf("afterwards there are the patches %+v and the problems %+v", scan.Patches, scan.Problems)
	}
}

// TestRefresh has one of two repositories down: the other is refreshed.
func TestRefresh(t *testing.T) {
	m := newMachine(t, packages.Locks{})
	good, bad := rpmrepo.New(), rpmrepo.New()
	good.Add(rpmrepo.Good("toy", "1.0-1"))
	bad.Add(rpmrepo.Good("toy-other", "1.0-1"))
	m.serve(t, map[string]*rpmrepo.Repository{"a-bad": bad, "b-good": good})
	if got := m.refresh(t); got.Indexes != 2 || got.Changed != 2 {
		t.Errorf("a first refresh is %+v", got)
	}
	m.layer.Run(t, "dnf", "-q", "-y", "install", "toy")

	bad.SetDown(true)
	good.Add(rpmrepo.Good("toy", "2.0-1"))
	publish(t, good)
	_, err := m.Refresh(t.Context())
	var failed *packages.RefreshError
	if !errors.As(err, &failed) || len(failed.Failures) != 1 || failed.Failures[0].Repository != "a-bad" || !failed.Unreachable() {
		t.Fatalf("with a repository that is down it returns %#v", err)
	}
	if !strings.Contains(err.Error(), "Curl error") {
		t.Errorf("it does not say why: %v", err)
	}
	if p := find(t, m.scan(t), "toy"); p.AvailableVersion != "2.0-1" {
		t.Errorf("the other repository was not refreshed: %+v", p)
	}
	bad.SetDown(false)
	m.refresh(t)

	// A server that is there and has no repository is not unreachable.
	m.layer.Write(t, "/etc/yum.repos.d/c-gone.repo", strings.Replace(m.layer.Read(t, "/etc/yum.repos.d/a-bad.repo"), "a-bad/", "nothing/", 1))
	m.layer.Write(t, "/etc/yum.repos.d/c-gone.repo", strings.ReplaceAll(m.layer.Read(t, "/etc/yum.repos.d/c-gone.repo"), "a-bad", "c-gone"))
	_, err = m.Refresh(t.Context())
	if !errors.As(err, &failed) || len(failed.Failures) != 1 || failed.Failures[0].Repository != "c-gone" || failed.Unreachable() {
		t.Fatalf("with a repository that is gone it returns %#v", err)
	}
}
