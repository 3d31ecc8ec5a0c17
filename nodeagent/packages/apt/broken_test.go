package apt_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

// TestScanInterrupted scans after dpkg was killed in the middle of a transaction.
func TestScanInterrupted(t *testing.T) {
	m := newMachine(t, packages.Locks{})
	repos := archives()
	killer := aptrepo.Good("toy-killer", "1.0")
	killer.Postinst = "kill -9 $PPID" // dpkg itself
	repos["debian"].Add(killer, aptrepo.Good("toy", "1.0"), aptrepo.Good("toy", "1.1"))
	m.serve(t, repos)
	m.install(t, "toy=1.0")
	if output, err := m.try("apt-get", "-q", "-y", "install", "toy-killer"); err == nil {
		t.Fatalf("dpkg survived: %s", output)
	}

	scan := m.scan(t)
	if _, found := find(scan, "toy"); !found {
		t.Errorf("an interrupted dpkg hides what is missing: %+v", scan.Patches)
	}
	kinds := map[packages.ProblemKind]packages.Problem{}
	for _, p := range scan.Problems {
		kinds[p.Kind] = p
	}
	if p := kinds[packages.InterruptedTransaction]; !strings.Contains(p.Message, "dpkg --configure -a") {
		t.Errorf("the interruption is not reported, or not how to repair it: %+v", scan.Problems)
	}
	if p := kinds[packages.BrokenPackage]; p.Name != "toy-killer" || p.Version != "1.0" || p.Architecture != "all" {
		t.Errorf("the package in whose configuration it happened is not reported: %+v", scan.Problems)
	}
}

// TestScanHalfConfigured scans after a package's script failed.
func TestScanHalfConfigured(t *testing.T) {
	m := newMachine(t, packages.Locks{})
	repos := archives()
	repos["debian"].Add(aptrepo.Good("toy", "1.0"), aptrepo.FailingPostinst("toy", "1.1"), aptrepo.Good("other", "1.0"), aptrepo.Good("other", "1.1"))
	m.serve(t, repos)
	m.install(t, "toy=1.0", "other=1.0")
	if output, err := m.try("apt-get", "-q", "-y", "install", "toy=1.1"); err == nil {
		t.Fatalf("the script did not fail: %s", output)
	}
	scan := m.scan(t)
	if len(scan.Problems) != 1 || scan.Problems[0].Kind != packages.BrokenPackage || scan.Problems[0].Name != "toy" ||
		!strings.Contains(scan.Problems[0].Message, "half-configured") {
		t.Errorf("problems are %+v, want toy half-configured", scan.Problems)
	}
	if p, found := find(scan, "other"); len(scan.Patches) != 2 || !found || p.Broken {
		t.Errorf("patches are %+v, want other among two", scan.Patches)
	}
	// Apt has nothing to upgrade it to, but its installation is to be finished.
	if p, found := find(scan, "toy"); !found || !p.Broken || p.InstalledVersion != "1.0" || p.AvailableVersion != "1.1" ||
		p.Classification != packages.Bugfix || p.Origin != "Debian oldstable" || !p.Downloaded {
		t.Errorf("toy is %+v, want it broken on its way from 1.0 to 1.1", p)
	}
}

// TestScanUnmetDependencies scans a machine on which apt plans nothing before it is repaired.
func TestScanUnmetDependencies(t *testing.T) {
	m := newMachine(t, packages.Locks{})
	repos := archives()
	needy := aptrepo.Good("toy-needy", "1.0")
	needy.Depends = "toy-absent (>= 2)"
	repos["debian"].Add(needy)
	m.serve(t, repos)
	m.refresh(t)
	m.layer.Run(t, "sh", "-c", "cd /root && apt-get -q download toy-needy && dpkg -i --force-depends toy-needy_1.0_all.deb")

	_, err := m.Scan(t.Context())
	var unmet *packages.UnmetDependenciesError
	if !errors.As(err, &unmet) {
		t.Fatalf("error is %v, want unmet dependencies", err)
	}
	for _, want := range []string{"toy-needy", "toy-absent (>= 2)", "apt-get -f install"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q: %v", want, err)
		}
	}
}

// TestScanNotUnderstood replaces apt's tools by some that print something else,
// or fail. Each is an error that says so, and never a machine with nothing missing.
func TestScanNotUnderstood(t *testing.T) {
	m := newMachine(t, packages.Locks{})
	repos := archives()
	repos["debian"].Add(aptrepo.Good("toy", "1.0"), aptrepo.Good("toy", "1.1"))
	m.serve(t, repos)
	m.install(t, "toy=1.0")

	for name, c := range map[string]struct {
		tool, script string
		want         []string
	}{
		"garbage in a list": {
			"apt-get", `/usr/bin/apt-get.real "$@" | sed 's/   toy (1.0 => 1.1)/   toy 1.0 to 1.1/'`,
			[]string{"apt-get upgrade", "line 6", "toy 1.0 to 1.1"},
		},
		"a list cut short": {
			"apt-get", `/usr/bin/apt-get.real "$@" | grep -v '^   toy '`, []string{"apt-get upgrade", "1 upgraded", "0 were listed"},
		},
		"nothing": {
			"apt-get", `exit 0`, []string{"apt-get upgrade", "no summary"},
		},
		"another language": {
			"apt-get", `/usr/bin/apt-get.real "$@" | sed 's/^The following.*/Les paquets suivants seront mis à jour :/'`,
			[]string{"apt-get upgrade", "0 were listed"},
		},
		"no versions": {
			"apt-cache", `test "$#" -gt 8 || exec /usr/bin/apt-cache.real "$@"`, []string{"no archive offers", "3 times"},
		},
		"other archives": {
			"apt-cache", `/usr/bin/apt-cache.real "$@" | sed 's/^Package files:/Paketdateien:/'`, []string{"apt-cache policy", "line 1", "Paketdateien"},
		},
		"fewer fields": {
			"dpkg-query", `/usr/bin/dpkg-query.real "$@" | cut -f 1-3`, []string{"dpkg-query", "line 1", "nine fields"},
		},
		"a tool that fails": {
			"dpkg-query", `echo "dpkg-query: error: failed to open package info file" >&2; exit 2`,
			[]string{"dpkg-query", "exit status 2", "failed to open package info file"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tool := filepath.Join(m.layer.Path, "usr/bin", c.tool)
			if err := os.Rename(tool, tool+".real"); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := os.Rename(tool+".real", tool); err != nil {
					t.Fatal(err)
				}
			}()
			m.layer.Write(t, "/usr/bin/"+c.tool, "#!/bin/sh\n"+c.script+"\n")
			scan, err := m.Scan(t.Context())
			if err == nil {
				t.Fatalf("scan found %+v", scan)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error does not say %q: %v", want, err)
				}
			}
		})
	}
	if scan := m.scan(t); len(scan.Patches) != 1 {
		t.Errorf("the real tools find %+v", scan.Patches)
	}
}

// TestScanReboot has a new kernel be installed beside the one that runs, which
// leaves no flag file, and then a package ask for a reboot.
func TestScanReboot(t *testing.T) {
	m := newMachine(t, packages.Locks{})
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	running := unix.ByteSliceToString(name.Release[:])
	version, _, _ := strings.Cut(running, "-")
	repos := archives()
	newer := "99.0.0" + strings.TrimPrefix(running, version)
	repos["security"].Add(
		aptrepo.Good("linux-image-"+running, "1.0"), aptrepo.Good("linux-image-"+newer, "2.0"),
		aptrepo.Good("linux-image-99.9.9-1-otherflavour", "2.0"), aptrepo.Good("linux-image-otherflavour", "2.0"),
	)
	m.serve(t, repos)

	m.install(t, "linux-image-"+running, "linux-image-99.9.9-1-otherflavour", "linux-image-otherflavour")
	scan := m.scan(t)
	if scan.Reboot.Required || scan.Kernel.NewestInstalled != running || scan.Kernel.Running != running {
		t.Errorf("with the newest kernel running: %+v, %+v", scan.Kernel, scan.Reboot)
	}
	m.install(t, "linux-image-"+newer)
	scan = m.scan(t)
	if !scan.Reboot.Required || len(scan.Reboot.Reasons) != 1 || scan.Kernel.NewestInstalled != newer ||
		!strings.Contains(scan.Reboot.Reasons[0], newer) || !strings.Contains(scan.Reboot.Reasons[0], running) {
		t.Errorf("with a newer kernel installed: %+v, %+v", scan.Kernel, scan.Reboot)
	}
	m.layer.Run(t, "dpkg", "--purge", "linux-image-"+newer)
	m.layer.Write(t, "/run/reboot-required", "*** System restart required ***\n")
	m.layer.Write(t, "/run/reboot-required.pkgs", "libc6\ndbus\nlibc6\n")
	scan = m.scan(t)
	if !scan.Reboot.Required || len(scan.Reboot.Reasons) != 1 || !strings.Contains(scan.Reboot.Reasons[0], "libc6, dbus") {
		t.Errorf("with a flag file: %+v", scan.Reboot)
	}
}
