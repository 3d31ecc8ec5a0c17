package zypper_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/test/rpmrepo"
)

type wanted struct {
	from, to       string
	classification packages.Classification
	severity       string
	state          packages.State
	advisories     string
}

// TestScan has a real zypper look at a machine on which every kind of package is
// outdated.
func TestScan(t *testing.T) {
	t.Parallel()
	m := newMachine(t, packages.Locks{})
	repo := rpmrepo.New()
	var old []rpmrepo.Package
	for _, name := range []string{
		"toy-security", "toy-critical", "toy-reboot", "toy-recommended", "toy-optional", "toy-strange", "toy-silent",
		"toy-held", "toy-lonely", "toy-conflict", "toy-needs", "toy-current", "toy-source", "toy-vendor",
	} {
		old = append(old, rpmrepo.Good(name, "1.0-1"))
	}
	old = append(old, rpmrepo.Good("toy-epoch", "1:3.0-1"))
	old[12].Source = "toy-origin-0.9-2.src.rpm"
	m.older(t, repo, old...)
	m.layer.Run(t, "zypper", "-n", "addlock", "toy-held")

	repo.Advise(
		rpmrepo.Advisory{ID: "TOY-2026-1", Type: "security", Severity: "moderate", CVEs: []string{"CVE-2026-2", "CVE-2026-1"},
			Packages: []string{"toy-security-1.1-1", "toy-critical-1.1-1"}},
		rpmrepo.Advisory{ID: "TOY-2026-2", Type: "security", Severity: "critical", CVEs: []string{"CVE-2026-3"}, Packages: []string{"toy-critical-1.2-1"}},
		rpmrepo.Advisory{ID: "TOY-2026-3", Type: "security", Severity: "important", RebootSuggested: true, Packages: []string{"toy-reboot-1.1-1"}},
		rpmrepo.Advisory{ID: "TOY-2026-4", Type: "recommended", Severity: "low", Packages: []string{"toy-recommended-1.1-1", "toy-epoch-2:1.0-1"}},
		rpmrepo.Advisory{ID: "TOY-2026-5", Type: "optional", Packages: []string{"toy-optional-1.1-1"}},
		rpmrepo.Advisory{ID: "TOY-2026-6", Type: "strange", Severity: "odd", Packages: []string{"toy-strange-1.1-1"}},
		rpmrepo.Advisory{ID: "TOY-2026-7", Type: "security", Severity: "low", RestartSuggested: true, Packages: []string{"toy-held-1.1-1"}},
		// Of an edition that is there already.
		rpmrepo.Advisory{ID: "TOY-2026-0", Type: "security", Severity: "critical", Packages: []string{"toy-silent-1.0-1"}},
	)
	repo.Add(
		rpmrepo.Good("toy-security", "1.1-1"), rpmrepo.Good("toy-critical", "1.1-1"), rpmrepo.Good("toy-critical", "1.2-1"),
		rpmrepo.Good("toy-reboot", "1.1-1"), rpmrepo.Good("toy-recommended", "1.1-1"), rpmrepo.Good("toy-optional", "1.1-1"),
		rpmrepo.Good("toy-strange", "1.1-1"), rpmrepo.Good("toy-silent", "1.1-1"), rpmrepo.Good("toy-held", "1.1-1"),
		rpmrepo.Good("toy-epoch", "2:1.0-1"), rpmrepo.Good("toy-source", "1.1-1"), rpmrepo.Good("toy-extra", "3.0-1"),
		rpmrepo.Package{Name: "toy-lonely", Version: "1.1-1", Requires: []string{"toy-nowhere"}},
		rpmrepo.Package{Name: "toy-conflict", Version: "1.1-1", Conflicts: []string{"toy-current"}},
		rpmrepo.Package{Name: "toy-vendor", Version: "1.1-1", Vendor: "Somebody else"},
		rpmrepo.Package{Name: "toy-needs", Version: "1.1-1", Requires: []string{"toy-extra >= 3"}},
	)
	m.newer(t, repo)

	want := map[string]wanted{
		"toy-security":    {"1.0-1", "1.1-1", packages.Security, "moderate", packages.Missing, "TOY-2026-1"},
		"toy-critical":    {"1.0-1", "1.2-1", packages.Security, "critical", packages.Missing, "TOY-2026-1 TOY-2026-2"},
		"toy-reboot":      {"1.0-1", "1.1-1", packages.Security, "important", packages.Missing, "TOY-2026-3"},
		"toy-recommended": {"1.0-1", "1.1-1", packages.Bugfix, "low", packages.Missing, "TOY-2026-4"},
		"toy-epoch":       {"1:3.0-1", "2:1.0-1", packages.Bugfix, "low", packages.Missing, "TOY-2026-4"},
		"toy-optional":    {"1.0-1", "1.1-1", packages.Enhancement, "", packages.Missing, "TOY-2026-5"},
		"toy-strange":     {"1.0-1", "1.1-1", packages.Other, "odd", packages.Missing, "TOY-2026-6"},
		"toy-silent":      {"1.0-1", "1.1-1", packages.Other, "", packages.Missing, ""},
		"toy-source":      {"1.0-1", "1.1-1", packages.Other, "", packages.Missing, ""},
		"toy-needs":       {"1.0-1", "1.1-1", packages.Other, "", packages.Missing, ""},
		"toy-held":        {"1.0-1", "1.1-1", packages.Security, "low", packages.Held, "TOY-2026-7"},
		"toy-lonely":      {"1.0-1", "1.1-1", packages.Other, "", packages.KeptBack, ""},
		"toy-vendor":      {"1.0-1", "1.1-1", packages.Other, "", packages.KeptBack, ""},
		"toy-conflict":    {"1.0-1", "1.1-1", packages.Other, "", packages.KeptBack, ""},
	}
	scan := m.scan(t)
	for name, w := range want {
		p, found := find(scan, name)
		if !found {
			t.Errorf("%s is not found missing", name)
			continue
		}
		got := wanted{p.InstalledVersion, p.AvailableVersion, p.Classification, p.Severity, p.State, strings.Join(p.Advisories, " ")}
		if got != w {
			t.Errorf("%s is %+v, want %+v", name, got, w)
		}
		if (p.Reason == "") != (p.State == packages.Missing) {
			t.Errorf("%s is %s with reason %q", name, p.State, p.Reason)
		}
		if p.Architecture != "noarch" || p.Origin != "Toy repository" || p.Downloaded || p.Broken {
			t.Errorf("%s is %+v", name, p)
		}
	}
	if len(scan.Patches) != len(want) {
		t.Errorf("%d patches, want %d: %+v", len(scan.Patches), len(want), scan.Patches)
	}
	if p, _ := find(scan, "toy-critical"); !slices.Equal(p.CVEs, []string{"CVE-2026-1", "CVE-2026-2", "CVE-2026-3"}) {
		t.Errorf("toy-critical fixes %q", p.CVEs)
	}
	if p, _ := find(scan, "toy-source"); p.SourcePackage != "toy-origin" || p.SourceVersion != "0.9-2" {
		t.Errorf("toy-source is from %s %s", p.SourcePackage, p.SourceVersion)
	}
	if len(scan.NewPackages) != 1 || scan.NewPackages[0] != (packages.NewPackage{Name: "toy-extra", Architecture: "noarch", Version: "3.0-1"}) {
		t.Errorf("newly required are %+v, want toy-extra", scan.NewPackages)
	}
	if scan.Installed != len(old)+1 || !strings.HasPrefix(scan.ManagerVersion, "1.") || scan.OS.ID == "" || scan.Kernel.Running == "" {
		t.Errorf("the machine is %d packages, zypper %q, %+v, %+v", scan.Installed, scan.ManagerVersion, scan.OS, scan.Kernel)
	}
	if len(scan.Problems) != 0 || scan.Reboot.Required {
		t.Errorf("a machine in order has %+v and %+v", scan.Problems, scan.Reboot)
	}
	if age := time.Since(scan.MetadataRefreshed); age < -2*time.Second || age > time.Minute {
		t.Errorf("metadata was refreshed at %s, want just now", scan.MetadataRefreshed)
	}

	if d := m.download(t, target("toy-security", "1.1-1")); len(d.Ready) != 1 {
		t.Fatalf("download is %+v", d)
	}
	if p, _ := find(m.scan(t), "toy-security"); !p.Downloaded || p.DownloadSize == 0 {
		t.Errorf("after its download toy-security is %+v", p)
	}
	m.layer.Write(t, "/run/reboot-needed", "")
	if reboot := m.scan(t).Reboot; !reboot.Required || !strings.Contains(strings.Join(reboot.Reasons, " "), "/run/reboot-needed") {
		t.Errorf("with zypper's flag file, reboot is %+v", reboot)
	}
}

// TestScanCurrent scans a machine on which nothing is missing.
func TestScanCurrent(t *testing.T) {
	t.Parallel()
	m := newMachine(t, packages.Locks{})
	repo := rpmrepo.New()
	m.older(t, repo, rpmrepo.Good("toy-current", "1.0-1"))
	scan := m.scan(t)
	if len(scan.Patches)+len(scan.NewPackages)+len(scan.Problems) != 0 || scan.Installed != 2 || scan.MetadataRefreshed.IsZero() {
		t.Errorf("a current machine has %+v", scan)
	}
}

// TestScanNeverRefreshed has a repository without metadata on the host, which
// zypper would fetch in a scan, and one whose server is away.
func TestScanNeverRefreshed(t *testing.T) {
	t.Parallel()
	m := newMachine(t, packages.Locks{})
	scan := m.scan(t)
	if len(scan.Patches) != 0 || !scan.MetadataRefreshed.IsZero() || scan.Installed != 0 {
		t.Errorf("without a repository there is %+v", scan)
	}
	repo := rpmrepo.New()
	m.older(t, repo, rpmrepo.Good("toy", "1.0-1"))
	m.newer(t, repo, rpmrepo.Good("toy", "1.1-1"))
	m.layer.Write(t, "/etc/zypp/repos.d/dead.repo", "[dead]\nname=Dead\nenabled=1\nautorefresh=1\nbaseurl="+hang(t)+"/\ngpgcheck=0\n")
	began := time.Now()
	scan = m.scan(t)
	if p, found := find(scan, "toy"); !found || p.AvailableVersion != "1.1-1" {
		t.Errorf("beside a repository without metadata, patches are %+v", scan.Patches)
	}
	if !scan.MetadataRefreshed.IsZero() {
		t.Errorf("metadata of every repository is of %s, and one has none", scan.MetadataRefreshed)
	}
	if took := time.Since(began); took > 45*time.Second {
		t.Errorf("the scan waited %s for a server", took)
	}
	// And with none that can be used.
	if err := os.RemoveAll(filepath.Join(m.layer.Path, "var/cache/zypp")); err != nil {
		t.Fatal(err)
	}
	if scan = m.scan(t); len(scan.Patches) != 0 || !scan.MetadataRefreshed.IsZero() {
		t.Errorf("without metadata there are %+v", scan.Patches)
	}
	var none *packages.RepositoryError
	if _, err := m.Download(t.Context(), targets("1.1-1", "toy")); !errors.As(err, &none) {
		t.Errorf("without metadata a download is %v, want a RepositoryError", err)
	}
}

// TestScanWhileLocked scans while another zypper is at work: root's zypper takes
// a lock for lists too.
func TestScanWhileLocked(t *testing.T) {
	t.Parallel()
	m := newMachine(t, packages.Locks{})
	repo := rpmrepo.New()
	m.older(t, repo, rpmrepo.Good("toy", "1.0-1"))
	m.newer(t, repo, rpmrepo.Good("toy", "1.1-1"))
	release := m.lock(t)
	defer release()
	if _, found := find(m.scan(t), "toy"); !found {
		t.Error("while zypper is locked, toy is not found missing")
	}
}

// lock has another zypper hold the lock until it is released.
func (m *machine) lock(tb testing.TB) (release func()) {
	tb.Helper()
	other := m.layer.Command(tb.Context(), "zypper", "--no-refresh", "shell")
	input, err := other.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	// The processes of the machine are this one's, and zypper believes a number
	// only if a process has it.
	other.Path, other.Args = "/usr/sbin/chroot", append([]string{"chroot", m.layer.Path}, "zypper", "--no-refresh", "shell")
	if err := other.Start(); err != nil {
		tb.Fatal(err)
	}
	eventually(tb, "another zypper holds the lock", func() bool {
		pid, err := os.ReadFile(filepath.Join(m.layer.Path, "run/zypp.pid"))
		return err == nil && strings.TrimSpace(string(pid)) != "" && strings.TrimSpace(string(pid)) != "0"
	})
	return func() {
		_ = input.Close()
		_ = other.Wait()
	}
}
