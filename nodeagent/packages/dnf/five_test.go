package dnf

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// replay answers each command with what is recorded under its name.
type replay struct {
	results map[string]packages.Result
	ran     []packages.Command
}

func (r *replay) Run(_ context.Context, c packages.Command) (packages.Result, error) {
	r.ran = append(r.ran, c)
	result, found := r.results[c.Name]
	if !found {
		return packages.Result{}, fmt.Errorf("nothing is recorded of %s: %q", c.Name, c.Argv)
	}
	return result, nil
}

func link(to string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte(to), Mode: fs.ModeSymlink}
}

// hostFive is a host as Fedora makes it.
func hostFive() fstest.MapFS {
	return fstest.MapFS{
		"usr/bin/rpm": {}, "usr/bin/dnf": link("dnf5"), "usr/bin/dnf5": {},
		"usr/lib64/dnf5/plugins/needs_restarting_cmd_plugin.so": {},
		"etc/os-release":            {Data: []byte("ID=fedora\nVERSION_ID=42\n")},
		"proc/sys/kernel/osrelease": {Data: []byte("6.14.0-63.fc42.x86_64\n")},
		"proc/stat":                 {Data: []byte("btime 1700000000\n")},
		"var/cache/libdnf5/toys-0123456789abcdef/repodata/repomd.xml":                  {ModTime: time.Unix(1700000000, 0)},
		"var/cache/libdnf5/toys-0123456789abcdef/packages/toy-bugfix-2.0-1.noarch.rpm": {Data: make([]byte, 1428)},
	}
}

func TestInstalled(t *testing.T) {
	for name, c := range map[string]struct {
		files           fstest.MapFS
		installed, five bool
		program         string
	}{
		"Fedora 42":   {hostFive(), true, true, "dnf"},
		"Fedora 40":   {fstest.MapFS{"usr/bin/rpm": {}, "usr/bin/dnf": link("dnf-3"), "usr/bin/dnf5": {}}, true, false, "dnf"},
		"RHEL 9":      {fstest.MapFS{"usr/bin/rpm": {}, "usr/bin/dnf": link("dnf-3")}, true, false, "dnf"},
		"dnf 5 alone": {fstest.MapFS{"usr/bin/rpm": {}, "usr/bin/dnf5": {}}, true, true, "dnf5"},
		"no rpm":      {fstest.MapFS{"usr/bin/dnf": {}}, false, false, "dnf"},
		"Debian":      {fstest.MapFS{"usr/bin/apt-get": {}}, false, true, "dnf5"},
	} {
		m := New(nil, c.files, packages.Locks{})
		if got := Installed(c.files); got != c.installed || m.five() != c.five || m.program() != c.program {
			t.Errorf("%s: installed is %t, dnf 5 %t, by %s", name, got, m.five(), m.program())
		}
	}
}

// TestScanFive is a scan of a host with dnf 5, by output that was written from its
// sources (see testdata/README.md).
func TestScanFive(t *testing.T) {
	runner := &replay{results: map[string]packages.Result{
		"rpm-installed": {Stdout: []byte(strings.ReplaceAll(
			"dnf5|5.2.8.1-1.fc42\ntoy-arch|1.0-1\ntoy-bugfix|1.0-1\ntoy-security|1.0-1\ntoy-old|1.0-1\n", "\n", "|x|1600000000|1600000000|\n"))},
		"dnf-needs-restarting": recorded(t, "dnf-5/needs-restarting"),
		"dnf-offers":           recorded(t, "dnf-5/offers"),
		"dnf-plan":             recorded(t, "dnf-5/plan"),
		"dnf-sizes":            {Stdout: []byte("toy-extra|1-1|noarch|1400|toys|\ntoy-new|2.0-1|noarch|1500|toys|\n")},
		"dnf-advisories":       recorded(t, "dnf-5/advisories"),
		"dnf-cves":             recorded(t, "dnf-5/cves"),
	}}
	rpmLines := runner.results["rpm-installed"]
	rpmLines.Stdout = []byte(strings.NewReplacer("|5.2", "|0:5.2", "|1.0-1|x", "|0:1.0-1|noarch|x", "fc42|x", "fc42|x86_64|x").Replace(string(rpmLines.Stdout)))
	runner.results["rpm-installed"] = rpmLines
	for name, code := range map[string]int{"dnf-needs-restarting": 1, "dnf-plan": 1} {
		result := runner.results[name]
		result.ExitCode = code
		runner.results[name] = result
	}

	scan, err := New(runner, hostFive(), packages.Locks{}).Scan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range scan.Patches {
		got = append(got, fmt.Sprintf("%s %s %s>%s %s %s %d %t", p.Name, p.State, p.InstalledVersion, p.AvailableVersion, p.Classification, strings.Join(p.CVEs, ","), p.DownloadSize, p.Downloaded))
	}
	want := []string{
		"toy-arch Missing 1.0-1>2.0-1 Other  0 false",
		"toy-bugfix Missing 1.0-1>2.0-1 Bugfix  1428 true",
		"toy-new Missing 1.0-1>2.0-1 Other  1500 false",
		"toy-security Missing 1.0-1>1:0.9~rc1-1.el9_4 Security CVE-2026-0001,CVE-2026-0002 1515 false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("patches are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(scan.NewPackages) != 1 || scan.NewPackages[0].Name != "toy-extra" || scan.ManagerVersion != "5.2.8.1-1.fc42" || !scan.MetadataRefreshed.Equal(time.Unix(1700000000, 0)) {
		t.Errorf("it is %+v", scan)
	}
	if !scan.Reboot.Required || !slices.Equal(scan.Reboot.Packages, []string{"glibc", "kernel-core"}) {
		t.Errorf("a reboot is %+v", scan.Reboot)
	}
	for _, c := range runner.ran {
		if line := strings.Join(c.Argv, " "); strings.Contains(line, "exit_on_lock") || strings.Contains(line, "updateinfo") {
			t.Errorf("dnf 5 does not know what is in %q", line)
		}
	}
}

// TestDeployFive downloads and installs with a dnf 5.
func TestDeployFive(t *testing.T) {
	download := recorded(t, "dnf-5/download")
	download.ExitCode = 1
	preview := recorded(t, "dnf-5/plan")
	preview.ExitCode = 1
	install := recorded(t, "dnf-5/install")
	install.ExitCode = 1
	runner := &replay{results: map[string]packages.Result{
		"dnf-download": download, "dnf-preview": preview, "dnf-install": install,
		"rpm-installed": {Stdout: []byte("toy-good|0:1.0-1|noarch|x|1600000000|1600000000|\n")},
		"dnf-clean":     {},
	}}
	m := New(runner, hostFive(), packages.Locks{})
	got, err := m.Download(t.Context(), []packages.Target{toy("toy-missing", "2.0-1")})
	if err != nil || failureNames(got.Failed) != "toy-missing" {
		t.Errorf("downloaded is %+v, %v", got, err)
	}
	done, err := m.Install(t.Context(), []packages.Target{toy("toy-good", "2.0-1"), toy("toy-pre", "2.0-1"), toy("toy-post", "1:2.0-1")})
	if err != nil || failureNames(done.Failed) != "toy-pre" || failureNames(done.Warned) != "toy-post" {
		t.Errorf("installed is %+v, %v", done, err)
	}
	for _, c := range runner.ran {
		if transaction := c.Name == "dnf-install"; c.Transaction != transaction || transaction && !slices.Contains(c.Argv, "-C") {
			t.Errorf("it ran %+v", c)
		}
	}
}
