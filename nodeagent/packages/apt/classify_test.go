package apt

import (
	"errors"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

func TestPurpose(t *testing.T) {
	debian, ubuntu := packages.OS{ID: "debian"}, packages.OS{ID: "ubuntu", IDLike: []string{"debian"}}
	mint := packages.OS{ID: "linuxmint", IDLike: []string{"ubuntu", "debian"}}
	for name, c := range map[string]struct {
		system  packages.OS
		archive archive
		want    packages.Classification
	}{
		"Debian stable":            {debian, archive{"Debian", "Debian", "stable", "trixie"}, packages.Bugfix},
		"Debian stable-updates":    {debian, archive{"Debian", "Debian", "stable-updates", "trixie-updates"}, packages.Bugfix},
		"Debian proposed":          {debian, archive{"Debian", "Debian", "stable-proposed-updates", "trixie-proposed-updates"}, packages.Bugfix},
		"Debian security, aged":    {debian, archive{"Debian", "Debian-Security", "oldstable-security", "bookworm-security"}, packages.Security},
		"Debian security, 10":      {debian, archive{"Debian", "Debian-Security", "oldoldstable", "buster"}, packages.Security},
		"Debian backports":         {debian, archive{"Debian Backports", "Debian Backports", "stable-backports", "bookworm-backports"}, packages.Enhancement},
		"Debian sloppy backports":  {debian, archive{"Debian Backports", "Debian Backports", "oldstable-backports-sloppy", "bullseye-backports-sloppy"}, packages.Enhancement},
		"Debian experimental":      {debian, archive{"Debian", "Debian", "experimental", "rc-buggy"}, packages.Enhancement},
		"Ubuntu security":          {ubuntu, archive{"Ubuntu", "Ubuntu", "jammy-security", "jammy"}, packages.Security},
		"Ubuntu updates":           {ubuntu, archive{"Ubuntu", "Ubuntu", "jammy-updates", "jammy"}, packages.Bugfix},
		"Ubuntu backports":         {ubuntu, archive{"Ubuntu", "Ubuntu", "jammy-backports", "jammy"}, packages.Enhancement},
		"Ubuntu ESM, infra":        {ubuntu, archive{"UbuntuESM", "UbuntuESM", "focal-infra-security", "focal"}, packages.Security},
		"Ubuntu ESM, old":          {ubuntu, archive{"UbuntuESM", "UbuntuESM", "trusty", "trusty"}, packages.Security},
		"Ubuntu ESM, apps updates": {ubuntu, archive{"UbuntuESMApps", "UbuntuESMApps", "jammy-apps-updates", "jammy"}, packages.Bugfix},
		"Ubuntu's on Mint":         {mint, archive{"Ubuntu", "Ubuntu", "noble-updates", "noble"}, packages.Bugfix},
		"Ubuntu's on Debian":       {debian, archive{"Ubuntu", "Ubuntu", "noble-updates", "noble"}, packages.Other},
		"a company's mirror":       {debian, archive{". bookworm-security", ". bookworm-security", "bookworm-security", "bookworm-security"}, packages.Security},
		"a vendor":                 {debian, archive{"Docker", "Docker CE", "bookworm", ""}, packages.Other},
		"a vendor's backports":     {debian, archive{"Vendor", "Vendor", "backports", ""}, packages.Other},
		"no Release file":          {debian, archive{}, packages.Other},
	} {
		t.Run(name, func(t *testing.T) {
			if got := newClassifier(c.system, nil).purpose(c.archive); got != c.want {
				t.Errorf("%+v is %s, want %s", c.archive, got, c.want)
			}
		})
	}
}

func TestClassify(t *testing.T) {
	c := newClassifier(packages.OS{ID: "debian"}, map[string]archive{
		"main":     {"Debian", "Debian", "stable", "trixie"},
		"security": {"Debian", "Debian-Security", "stable-security", "trixie-security"},
		"vendor":   {"Vendor", "Vendor", "stable", ""},
	})
	on := func(number string, locations ...string) version { return version{number: number, locations: locations} }
	now := version{number: "1", installed: true, locations: []string{"security"}}
	for name, s := range map[string]struct {
		candidate  string
		versions   []version
		want       packages.Classification
		wantOrigin string
	}{
		"in one archive":              {"2", []version{on("2", "main"), now}, packages.Bugfix, "Debian stable"},
		"in two":                      {"2", []version{on("2", "vendor", "security"), now}, packages.Security, "Debian-Security stable-security"},
		"security in between":         {"3", []version{on("3", "vendor"), on("2", "security"), now}, packages.Security, "Vendor stable"},
		"bugfix in between":           {"3", []version{on("3", "vendor"), on("2", "main"), now}, packages.Other, "Vendor stable"},
		"security above, pinned away": {"2", []version{on("3", "security"), on("2", "main"), now}, packages.Bugfix, "Debian stable"},
		"security below":              {"2", []version{on("2", "main"), now, on("0", "security")}, packages.Bugfix, "Debian stable"},
		"in no archive":               {"2", []version{on("2", "/var/lib/dpkg/status"), now}, packages.Other, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, origin := c.classify(&offer{candidate: s.candidate, versions: s.versions})
			if got != s.want || origin != s.wantOrigin {
				t.Errorf("it is %s from %q, want %s from %q", got, origin, s.want, s.wantOrigin)
			}
		})
	}
}

// TestBetween classifies what is installed by half, by what came after the version
// that was installed in full before.
func TestBetween(t *testing.T) {
	at := func(number, location string) version { return version{number: number, locations: []string{location}} }
	o := &offer{candidate: "1.4", versions: []version{
		at("1.4", "security"), at("1.3", "main"), at("1.2", "security"), at("1.1", "main"), {number: "1.0"},
	}}
	c := newClassifier(packages.OS{ID: "debian"}, map[string]archive{
		"main": {origin: "Debian", suite: "stable"}, "security": {origin: "Debian", label: "Debian-Security", suite: "stable-security"},
	})
	for name, v := range map[string]struct {
		from, to   string
		want       packages.Classification
		wantOrigin string
	}{
		"past a security version":   {"1.1", "1.3", packages.Security, "Debian stable"},
		"no security between":       {"1.2", "1.3", packages.Bugfix, "Debian stable"},
		"never installed before":    {"", "1.3", packages.Bugfix, "Debian stable"},
		"a security version":        {"", "1.2", packages.Security, "Debian-Security stable-security"},
		"the version of before":     {"1.1", "1.1", packages.Bugfix, "Debian stable"},
		"a version nobody offers":   {"", "1.0", packages.Other, ""},
		"a version nobody knows":    {"1.0", "9", packages.Other, ""},
		"from a version in between": {"1.1.5", "1.3", packages.Security, "Debian stable"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, origin := c.between(o, v.from, v.to); got != v.want || origin != v.wantOrigin {
				t.Errorf("it is %s from %q, want %s from %q", got, origin, v.want, v.wantOrigin)
			}
		})
	}
}

func TestKernelAndReboot(t *testing.T) {
	installed := func(name, status, version string) string {
		return strings.Join([]string{name, "amd64", "install", "ok", status, version, name, version, ""}, "\t") + "\n"
	}
	const dpkg = "dpkg\tamd64\tinstall\tok\tinstalled\t1\tdpkg\t1\t\n"
	const debianBanner = "Linux version 6.1.0-37-amd64 (x@y) (gcc-12) #1 SMP PREEMPT_DYNAMIC Debian 6.1.140-1 (2025-05-22)"
	for name, c := range map[string]struct {
		running, banner string
		packages        string
		flag, by        string
		newest          string
		reasons         []string // parts of them; none if no reboot is required
		waiting         []string // not compared if it is nil
	}{
		"no kernel installed": {running: "6.1.0-37-amd64"},
		"the newest runs": {
			running:  "6.1.0-37-amd64",
			packages: installed("linux-image-6.1.0-9-amd64", "installed", "6.1.27-1") + installed("linux-image-6.1.0-37-amd64", "installed", "6.1.140-1"),
			newest:   "6.1.0-37-amd64",
		},
		"a newer is installed": {
			running: "6.1.0-9-amd64",
			packages: installed("linux-image-6.1.0-9-amd64", "installed", "6.1.27-1") + installed("linux-image-6.1.0-37-amd64", "installed", "6.1.140-1") +
				installed("linux-image-amd64", "installed", "6.1.140-1") + installed("linux-image-cloud-amd64", "installed", "6.1.140-1"),
			newest: "6.1.0-37-amd64", reasons: []string{"6.1.0-37-amd64 is installed, 6.1.0-9-amd64 is running"},
			waiting: []string{"linux-image-6.1.0-37-amd64", "linux-image-amd64"},
		},
		"a newer is installed by half": {
			running:  "6.1.0-9-amd64",
			packages: installed("linux-image-6.1.0-9-amd64", "installed", "6.1.27-1") + installed("linux-image-6.1.0-37-amd64", "unpacked", "6.1.140-1"),
			newest:   "6.1.0-9-amd64",
		},
		"the running one was removed": {
			running:  "6.1.0-9-amd64",
			packages: installed("linux-image-6.1.0-37-amd64", "installed", "6.1.140-1"),
			newest:   "6.1.0-37-amd64", reasons: []string{"6.1.0-9-amd64 is running"},
		},
		"a newer of another flavour": {
			running: "6.1.0-9-cloud-amd64",
			packages: installed("linux-image-6.1.0-9-cloud-amd64", "installed", "6.1.27-1") +
				installed("linux-image-6.1.0-37-amd64", "installed", "6.1.140-1") + installed("linux-image-6.1.0-37-rt-amd64", "installed", "6.1.140-1"),
			newest: "6.1.0-9-cloud-amd64",
		},
		"a container on another's kernel": {
			running: "5.15.0-1034-gke", packages: installed("linux-image-6.1.0-37-amd64", "installed", "6.1.140-1"),
		},
		"packages that are no kernels": {
			running: "6.1.0-9-amd64",
			packages: installed("linux-image-6.1.0-9-amd64", "installed", "6.1.27-1") + installed("linux-image-amd64", "installed", "6.1.140-1") +
				installed("linux-image-6.1.0-37-amd64-dbg", "installed", "6.1.140-1") + installed("linux-headers-6.1.0-37-amd64", "installed", "6.1.140-1"),
			newest: "6.1.0-9-amd64",
		},
		"unsigned, as Ubuntu names it": {
			running: "5.15.0-91-generic", packages: installed("linux-image-unsigned-5.15.0-101-generic", "installed", "5.15.0-101.111"),
			newest: "5.15.0-101-generic", reasons: []string{"5.15.0-101-generic is installed"},
		},
		"unsigned, as Debian names it": {
			running: "6.1.0-9-amd64", packages: installed("linux-image-6.1.0-37-amd64-unsigned", "installed", "6.1.140-1"),
			newest: "6.1.0-37-amd64", reasons: []string{"6.1.0-37-amd64 is installed"},
		},
		"backports": {
			running:  "6.1.0-37-amd64",
			packages: installed("linux-image-6.1.0-37-amd64", "installed", "6.1.140-1") + installed("linux-image-6.12.9+bpo-amd64", "installed", "6.12.9-1~bpo12+1"),
			newest:   "6.12.9+bpo-amd64", reasons: []string{"6.12.9+bpo-amd64 is installed"},
		},
		"a new version of the same release": {
			running: "6.1.0-37-amd64", banner: debianBanner,
			packages: installed("linux-image-6.1.0-37-amd64", "installed", "6.1.140-2"),
			newest:   "6.1.0-37-amd64", reasons: []string{"updated to version 6.1.140-2, version 6.1.140-1 is running"},
			waiting: []string{"linux-image-6.1.0-37-amd64"},
		},
		"the same version of the same release": {
			running: "6.1.0-37-amd64", banner: debianBanner,
			packages: installed("linux-image-6.1.0-37-amd64", "installed", "6.1.140-1"), newest: "6.1.0-37-amd64",
		},
		"asked for":           {running: "6.1.0", flag: "x", by: "libssl3\nlibc6\nlibssl3\n", reasons: []string{"asked for by libssl3, libc6"}, waiting: []string{"libc6", "libssl3"}},
		"asked for by nobody": {running: "6.1.0", flag: "x", reasons: []string{"/run/reboot-required"}},
		"asked for, and a newer kernel": {
			running: "6.1.0-9-amd64", packages: installed("linux-image-6.1.0-37-amd64", "installed", "6.1.140-1"), flag: "x", by: "dbus",
			newest: "6.1.0-37-amd64", reasons: []string{"6.1.0-37-amd64 is installed", "asked for by dbus"},
			waiting: []string{"dbus", "linux-image-6.1.0-37-amd64"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := parseInstalled([]byte(dpkg + c.packages))
			if err != nil {
				t.Fatal(err)
			}
			files := host("", c.running)
			files["proc/version"] = &fstest.MapFile{Data: []byte(c.banner)}
			if c.flag != "" {
				files["run/reboot-required"] = &fstest.MapFile{Data: []byte(c.flag)}
			}
			if c.by != "" {
				files["run/reboot-required.pkgs"] = &fstest.MapFile{Data: []byte(c.by)}
			}
			kernel, reboot := kernelAndReboot(files, d)
			if want := (packages.Kernel{Running: c.running, NewestInstalled: c.newest}); kernel != want {
				t.Errorf("kernel is %+v, want %+v", kernel, want)
			}
			if reboot.Required != (len(c.reasons) > 0) || reboot.Unknown || len(reboot.Reasons) != len(c.reasons) {
				t.Fatalf("reboot is %+v, want %q", reboot, c.reasons)
			}
			if len(c.reasons) == 0 && len(reboot.Packages) > 0 || c.waiting != nil && !slices.Equal(reboot.Packages, c.waiting) {
				t.Errorf("packages are %q, want %q", reboot.Packages, c.waiting)
			}
			for i, want := range c.reasons {
				if !strings.Contains(reboot.Reasons[i], want) {
					t.Errorf("reason is %q, want %q", reboot.Reasons[i], want)
				}
			}
		})
	}
}

// unreadable is a host on which one file cannot be read.
type unreadable struct {
	fs.FS
	name string
}

func (u unreadable) Open(name string) (fs.File, error) {
	if name == u.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("input/output error")}
	}
	return u.FS.Open(name)
}

// TestRebootUnknown is never a reboot that is required, unless something else requires it.
func TestRebootUnknown(t *testing.T) {
	d, err := parseInstalled([]byte("dpkg\tamd64\tinstall\tok\tinstalled\t1\tdpkg\t1\t\n"))
	if err != nil {
		t.Fatal(err)
	}
	files := host("", "6.1.0")
	broken := unreadable{files, "proc/sys/kernel/osrelease"}
	if _, reboot := kernelAndReboot(broken, d); reboot.Required || !reboot.Unknown || len(reboot.Reasons) != 1 {
		t.Errorf("without the kernel's release: %+v", reboot)
	}
	files["run/reboot-required"] = &fstest.MapFile{}
	want := packages.Reboot{Required: true, Reasons: []string{"asked for by /run/reboot-required, which names no package"}}
	if _, reboot := kernelAndReboot(broken, d); !reflect.DeepEqual(reboot, want) {
		t.Errorf("with a flag and without the kernel's release: %+v, want %+v", reboot, want)
	}
}
