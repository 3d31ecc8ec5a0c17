package apt_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

var localAddress = regexp.MustCompile(`http://127\.0\.0\.1:\d+`)

// archives are the repositories of a Debian machine with one of a third party.
func archives() map[string]*aptrepo.Repository {
	architectures := []string{nativeArchitecture(), foreignArchitecture()}
	return map[string]*aptrepo.Repository{
		"debian":    aptrepo.New(aptrepo.Release{Origin: "Debian", Label: "Debian", Suite: "oldstable", Codename: "bookworm", Architectures: architectures}),
		"security":  aptrepo.New(aptrepo.Release{Origin: "Debian", Label: "Debian-Security", Suite: "oldstable-security", Codename: "bookworm-security", Architectures: architectures}),
		"updates":   aptrepo.New(aptrepo.Release{Origin: "Debian", Label: "Debian", Suite: "oldstable-updates", Codename: "bookworm-updates", Architectures: architectures}),
		"backports": aptrepo.New(aptrepo.Release{Origin: "Debian Backports", Label: "Debian Backports", Suite: "oldstable-backports", Codename: "bookworm-backports", Architectures: architectures}),
		"vendor":    aptrepo.New(aptrepo.Release{Origin: "Vendor, Inc.", Label: "Vendor, Inc.", Suite: "stable", Architectures: architectures}),
	}
}

// wanted is what a scan must say of a package of the scenario.
type wanted struct {
	from, to string
	class    packages.Classification
	state    packages.State
}

// scenario fills the archives with every kind of package and returns what is
// installed at first, and what a scan must find missing then.
func scenario(repos map[string]*aptrepo.Repository) (install []string, want map[string]wanted) {
	toy := func(name, version string, change func(*aptrepo.Package)) aptrepo.Package {
		p := aptrepo.Good(name, version)
		if change != nil {
			change(&p)
		}
		return p
	}
	foreign := func(p *aptrepo.Package) { p.Architecture, p.MultiArch = foreignArchitecture(), "same" }
	native := func(p *aptrepo.Package) { p.Architecture, p.MultiArch = nativeArchitecture(), "same" }
	depends := func(on string) func(*aptrepo.Package) { return func(p *aptrepo.Package) { p.Depends = on } }

	for _, name := range []string{
		"toy-security", "toy-bugfix", "toy-point", "toy-between", "toy-backport", "toy-vendor", "toy-held",
		"toy-kept", "toy-removal", "toy-new", "toy-phased", "toy-anywhere", "toy-current",
	} {
		repos["debian"].Add(aptrepo.Good(name, "1.0"))
	}
	repos["debian"].Add(
		aptrepo.Good("toy-older", "2.0"), aptrepo.Good("toy-epoch", "1:1.0-1"),
		toy("toy-twin", "1.0", native), toy("toy-twin", "1.0", foreign),
		aptrepo.Good("toy-point", "1.1"), // a point release
		toy("toy-source", "1.0", func(p *aptrepo.Package) { p.Source = "toy-origin (0.9)" }),
		aptrepo.Good("toy-extra", "3.0"),
		// Nothing needs it once toy-auto is upgraded.
		aptrepo.Good("toy-leaf", "1.0"), toy("toy-auto", "1.0", depends("toy-leaf")),
	)
	repos["security"].Add(
		aptrepo.Good("toy-security", "1.1"), aptrepo.Good("toy-between", "1.1"), aptrepo.Good("toy-older", "1.5"),
		aptrepo.Good("toy-held", "1.1"), toy("toy-twin", "1.1", native), toy("toy-twin", "1.1", foreign),
		toy("toy-source", "1.1", func(p *aptrepo.Package) { p.Source = "toy-origin (1.0)" }),
		aptrepo.Good("toy-current", "1.0"),
	)
	repos["updates"].Add(
		aptrepo.Good("toy-bugfix", "1.1"), aptrepo.Good("toy-between", "1.2"), aptrepo.Good("toy-older", "2.1"),
		toy("toy-kept", "1.1", depends("toy-absent")), toy("toy-new", "1.1", depends("toy-extra")),
		toy("toy-removal", "1.1", func(p *aptrepo.Package) { p.Conflicts = "toy-current" }),
		toy("toy-phased", "1.1", func(p *aptrepo.Package) { p.Phased = 1 }),
		aptrepo.Good("toy-epoch", "2:1.0~rc1+b2-3"), toy("toy-anywhere", "1.1", native), aptrepo.Good("toy-auto", "1.1"),
	)
	repos["backports"].Add(aptrepo.Good("toy-backport", "1.1~bpo12+1"))
	repos["vendor"].Add(aptrepo.Good("toy-vendor", "1.1"))

	missing := func(from, to string, class packages.Classification) wanted {
		return wanted{from, to, class, packages.Missing}
	}
	want = map[string]wanted{
		"toy-security":                      missing("1.0", "1.1", packages.Security),
		"toy-bugfix":                        missing("1.0", "1.1", packages.Bugfix),
		"toy-point":                         missing("1.0", "1.1", packages.Bugfix),
		"toy-between":                       missing("1.0", "1.2", packages.Security),
		"toy-older":                         missing("2.0", "2.1", packages.Bugfix),
		"toy-backport":                      missing("1.0", "1.1~bpo12+1", packages.Enhancement),
		"toy-vendor":                        missing("1.0", "1.1", packages.Other),
		"toy-new":                           missing("1.0", "1.1", packages.Bugfix),
		"toy-epoch":                         missing("1:1.0-1", "2:1.0~rc1+b2-3", packages.Bugfix),
		"toy-anywhere":                      missing("1.0", "1.1", packages.Bugfix),
		"toy-source":                        missing("1.0", "1.1", packages.Security),
		"toy-auto":                          missing("1.0", "1.1", packages.Bugfix),
		"toy-twin":                          missing("1.0", "1.1", packages.Security),
		"toy-twin:" + foreignArchitecture(): missing("1.0", "1.1", packages.Security),
		"toy-held":                          {"1.0", "1.1", packages.Security, packages.Held},
		"toy-kept":                          {"1.0", "1.1", packages.Bugfix, packages.KeptBack},
		"toy-removal":                       {"1.0", "1.1", packages.Bugfix, packages.KeptBack},
		"toy-phased":                        {"1.0", "1.1", packages.Bugfix, packages.Phased},
	}
	for name, w := range want {
		install = append(install, name+"="+w.from)
	}
	slices.Sort(install)
	return append(install, "toy-current"), want
}

// TestScan has a real apt plan a machine on which every kind of package is
// outdated, and compares with what apt says by itself.
func TestScan(t *testing.T) {
	m := newMachine(t, packages.Locks{})
	m.layer.Run(t, "dpkg", "--add-architecture", foreignArchitecture())
	before := m.installedPackages(t)
	repos := archives()
	install, want := scenario(repos)
	m.serve(t, repos)
	m.install(t, install...)
	m.layer.Run(t, "apt-mark", "hold", "toy-held")

	scan := m.scan(t)
	for name, w := range want {
		p, found := find(scan, name)
		if !found {
			t.Errorf("%s is not found missing", name)
			continue
		}
		got := wanted{p.InstalledVersion, p.AvailableVersion, p.Classification, p.State}
		if got != w {
			t.Errorf("%s is %+v, want %+v", name, got, w)
		}
		if p.DownloadSize == 0 {
			t.Errorf("%s has no size", name)
		}
		if (p.Reason == "") != (p.State == packages.Missing) {
			t.Errorf("%s is %s with reason %q", name, p.State, p.Reason)
		}
	}
	if len(scan.Patches) != len(want) {
		t.Errorf("%d patches, want %d: %+v", len(scan.Patches), len(want), scan.Patches)
	}
	if p, _ := find(scan, "toy-source"); p.SourcePackage != "toy-origin" || p.SourceVersion != "0.9" {
		t.Errorf("toy-source is from %s %s, want toy-origin 0.9", p.SourcePackage, p.SourceVersion)
	}
	if p, _ := find(scan, "toy-vendor"); p.Origin != "Vendor, Inc. stable" {
		t.Errorf("toy-vendor comes from %q", p.Origin)
	}
	if p, _ := find(scan, "toy-phased"); !strings.Contains(p.Reason, "1%") {
		t.Errorf("toy-phased does not say to how many it is offered: %q", p.Reason)
	}
	if len(scan.NewPackages) != 1 || scan.NewPackages[0].Name != "toy-extra" || scan.NewPackages[0].Version != "3.0" ||
		scan.NewPackages[0].Architecture != "all" || scan.NewPackages[0].DownloadSize == 0 {
		t.Errorf("newly required are %+v, want toy-extra 3.0", scan.NewPackages)
	}
	if wantInstalled := before + len(want) + 2; scan.Installed != wantInstalled { // and toy-current, toy-leaf
		t.Errorf("%d packages are installed, want %d", scan.Installed, wantInstalled)
	}
	if scan.OS.ID == "" || scan.OS.PrettyName == "" || scan.Kernel.Running == "" || scan.ManagerVersion == "" {
		t.Errorf("the machine is %+v, %+v, apt %q", scan.OS, scan.Kernel, scan.ManagerVersion)
	}
	if scan.Reboot.Required || scan.Reboot.Unknown || len(scan.Problems) != 0 {
		t.Errorf("a machine in order has %+v and %+v", scan.Reboot, scan.Problems)
	}
	if age := time.Since(scan.MetadataRefreshed); age < -time.Second || age > time.Minute {
		t.Errorf("metadata was refreshed at %s, want just now", scan.MetadataRefreshed)
	}
	m.compareWithApt(t, scan)

	// On disk already, apt would not print it.
	m.layer.Run(t, "apt-get", "-q", "-y", "--download-only", "install", "toy-security")
	size := func(s packages.Scan) int64 { p, _ := find(s, "toy-security"); return p.DownloadSize }
	if got, want := size(m.scan(t)), size(scan); got != want {
		t.Errorf("after its download toy-security has %d bytes, before %d", got, want)
	}
}

// installedPackages counts them without the code under test.
func (m *machine) installedPackages(tb testing.TB) int {
	tb.Helper()
	return strings.Count(m.layer.Run(tb, "dpkg", "-l"), "\nii ")
}

// compareWithApt has apt simulate upgrades by itself and compares names and numbers.
func (m *machine) compareWithApt(tb testing.TB, scan packages.Scan) {
	tb.Helper()
	// Asked in a chroot, apt would install what is phased.
	const asHost = "Dir::Bin::ischroot=/bin/false"
	upgrade := m.layer.Run(tb, "apt-get", "-s", "-o", asHost, "--with-new-pkgs", "upgrade")
	var names []string
	for line := range strings.Lines(upgrade) {
		// "Inst name [installed] (offered …", and without the brackets for new ones.
		if fields := strings.Fields(line); len(fields) > 2 && fields[0] == "Inst" && strings.HasPrefix(fields[2], "[") {
			names = append(names, fields[1])
		}
	}
	var missing []string
	for _, p := range scan.Patches {
		if p.State == packages.Missing {
			name := p.Name
			if p.Architecture == foreignArchitecture() {
				name += ":" + p.Architecture
			}
			missing = append(missing, name)
		}
	}
	slices.Sort(names)
	slices.Sort(missing)
	if !slices.Equal(names, missing) {
		tb.Errorf("apt would upgrade %q, and these were found missing: %q", names, missing)
	}

	upgraded, added, rest := numbers(tb, upgrade)
	if got := len(missing); got != upgraded {
		tb.Errorf("%d are missing, apt would upgrade %d", got, upgraded)
	}
	if got := len(scan.NewPackages); got != added {
		tb.Errorf("%d are newly required, apt would install %d", got, added)
	}
	others := scan.Count(packages.KeptBack) + scan.Count(packages.Held) + scan.Count(packages.Phased)
	if others != rest {
		tb.Errorf("%d are held, kept back or phased, apt would not upgrade %d", others, rest)
	}
	// A dist-upgrade decides otherwise about what is kept back, and about nothing else.
	dist := m.layer.Run(tb, "apt-get", "-s", "-o", asHost, "dist-upgrade")
	distUpgraded, _, distRest := numbers(tb, dist)
	if got := len(scan.Patches); got != distUpgraded+distRest {
		tb.Errorf("%d patches, a dist-upgrade speaks of %d and %d", got, distUpgraded, distRest)
	}
}

var summaryLine = regexp.MustCompile(`(?m)^(\d+) upgraded, (\d+) newly installed, .*and (\d+) not upgraded\.$`)

func numbers(tb testing.TB, output string) (upgraded, added, rest int) {
	tb.Helper()
	match := summaryLine.FindStringSubmatch(output)
	if match == nil {
		tb.Fatalf("apt printed no summary: %s", output)
	}
	return atoi(match[1]), atoi(match[2]), atoi(match[3])
}

// TestScanCurrent scans a machine on which nothing is missing.
func TestScanCurrent(t *testing.T) {
	m := newMachine(t, packages.Locks{})
	repos := archives()
	repos["debian"].Add(aptrepo.Good("toy-current", "1.0"))
	m.serve(t, repos)
	m.install(t, "toy-current")
	scan := m.scan(t)
	if len(scan.Patches)+len(scan.NewPackages)+len(scan.Problems) != 0 || scan.Installed == 0 {
		t.Errorf("a current machine has %+v", scan)
	}
	m.compareWithApt(t, scan)
}

// TestScanNeverRefreshed scans a machine that has no metadata at all.
func TestScanNeverRefreshed(t *testing.T) {
	m := newMachine(t, packages.Locks{})
	m.serve(t, archives())
	lists := filepath.Join(m.layer.Path, "var/lib/apt/lists")
	if err := os.RemoveAll(lists); err != nil {
		t.Fatal(err)
	}
	m.layer.Write(t, "/var/lib/apt/lists/lock", "")
	scan := m.scan(t)
	if len(scan.Patches) != 0 || !scan.MetadataRefreshed.IsZero() {
		t.Errorf("without metadata there are %d patches by metadata of %s", len(scan.Patches), scan.MetadataRefreshed)
	}
}
