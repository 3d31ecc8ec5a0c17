package zypper_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/test/rpmrepo"
)

// outdated is a machine on which the named packages are there in version 1.0-1,
// with the newer ones in its repository.
func outdated(tb testing.TB, newer ...rpmrepo.Package) (*machine, *rpmrepo.Repository) {
	tb.Helper()
	m := newMachine(tb, packages.Locks{})
	repo := rpmrepo.New()
	var old []rpmrepo.Package
	for _, p := range newer {
		if len(p.Config) > 0 {
			old = append(old, rpmrepo.WithConfig(p.Name, "1.0-1"))
		} else {
			old = append(old, rpmrepo.Good(p.Name, "1.0-1"))
		}
	}
	m.older(tb, repo, old...)
	m.newer(tb, repo, newer...)
	return m, repo
}

// TestInstall installs a batch with one transaction, from the cache and with the
// server away, among it what zypper leaves out when it is asked for patches.
func TestInstall(t *testing.T) {
	t.Parallel()
	var all []rpmrepo.Package
	var wanted []packages.Target
	for i := range 20 {
		p := rpmrepo.Good(fmt.Sprintf("toy-%02d", i), "1.1-1")
		all = append(all, p)
		wanted = append(wanted, target(p.Name, p.Version))
	}
	all[7].Requires = []string{"toy-extra"}
	reboot := rpmrepo.Good("toy-reboot", "1.1-1")
	reboot.Provides = []string{"installhint(reboot-needed)"}
	m, repo := outdated(t, append(all, reboot, rpmrepo.WithConfig("toy-config", "1.1-1"))...)
	repo.Advise(rpmrepo.Advisory{ID: "TOY-1", Type: "security", Severity: "critical", RebootSuggested: true, Packages: []string{"toy-reboot-1.1-1"}})
	m.newer(t, repo, rpmrepo.Good("toy-extra", "3.0-1"))
	wanted = append(wanted, target("toy-reboot", "1.1-1"), target("toy-config", "1.1-1"))
	m.layer.Write(t, "/etc/toy-config.conf", "mine\n")

	// The trap: "zypper patch" does nothing, and says that all is well.
	if output := m.layer.Run(t, "zypper", "-n", "--no-refresh", "patch", "--dry-run"); !strings.Contains(output, "Nothing to do") {
		t.Errorf("zypper does not leave out the patch that needs a reboot: %s", output)
	}

	download := m.download(t, wanted...)
	if len(download.Ready) != len(wanted) || download.Bytes == 0 {
		t.Fatalf("download is %+v", download)
	}
	m.has(t, "toy-00 1.0-1", "toy-reboot 1.0-1") // nothing is installed yet
	if again := m.download(t, wanted...); again.Bytes != 0 || len(again.Ready) != len(wanted) {
		t.Errorf("a second download is %+v", again)
	}

	repo.SetDown(true)
	install := m.install(t, wanted...)
	if len(install.Failed)+len(install.Warned) != 0 {
		t.Errorf("install is %+v", install)
	}
	for _, w := range wanted {
		m.has(t, w.Name+" "+w.Version)
	}
	m.has(t, "toy-extra 3.0-1")
	if got := repo.Requests("toy-00"); got != 2 { // its old version, and its new one
		t.Errorf("the file of a package was asked for %d times", got)
	}
	if n := m.seen.count("zypper-install"); n != 1 {
		t.Errorf("%d transactions", n)
	}
	for _, c := range m.seen.commands {
		if c.Transaction != (c.Name == "zypper-install") {
			t.Errorf("%s is a transaction: %t", c.Name, c.Transaction)
		}
	}
	if got := m.layer.Read(t, "/etc/toy-config.conf"); got != "mine\n" {
		t.Errorf("the changed configuration is now %q", got)
	}
	if got := m.layer.Read(t, "/etc/toy-config.conf.rpmnew"); got != "version = 1.1-1\n" {
		t.Errorf("the new configuration beside it is %q", got)
	}
	scan := m.scan(t)
	if len(scan.Patches) != 0 || !scan.Reboot.Required {
		t.Errorf("afterwards %d patches are missing, reboot is %+v", len(scan.Patches), scan.Reboot)
	}
	presence, err := m.Inspect(t.Context(), append(wanted, target("toy-never", "1-1")))
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range presence {
		if p.Installed != (i < len(wanted)) || p.Problem != "" {
			t.Errorf("target %d is %+v", i, p)
		}
	}
	// All is there: nothing to do, and no error.
	if again := m.install(t, wanted...); len(again.Failed) != 0 {
		t.Errorf("a second installation is %+v", again)
	}
}

// TestInstallScripts has scripts fail: the ones that keep a package from being
// installed, and the ones that rpm only warns of.
func TestInstallScripts(t *testing.T) {
	t.Parallel()
	m, _ := outdated(t, rpmrepo.Good("toy-a", "1.1-1"), rpmrepo.FailingPost("toy-b", "1.1-1"), rpmrepo.FailingPre("toy-c", "1.1-1"),
		rpmrepo.Good("toy-d", "1.1-1"))
	all := targets("1.1-1", "toy-a", "toy-b", "toy-c", "toy-d")
	m.download(t, all...)
	install := m.install(t, all...)
	if failed(install.Failed) != "toy-c" || failed(install.Warned) != "toy-b" {
		t.Errorf("install is %+v", install)
	}
	if got := reason(install.Failed, "toy-c"); !strings.Contains(got, "%pre of toy-c fails on purpose") || !strings.Contains(got, "scriptlet failed, exit status 1") {
		t.Errorf("toy-c failed because %q", got)
	}
	if got := reason(install.Warned, "toy-b"); !strings.Contains(got, "%post of toy-b fails on purpose") || !strings.Contains(got, "scriptlet failed") {
		t.Errorf("toy-b is warned of because %q", got)
	}
	m.has(t, "toy-a 1.1-1", "toy-b 1.1-1", "toy-c 1.0-1")
	// zypper stopped at the culprit; the rest goes on without it.
	rest := targets("1.1-1", "toy-a", "toy-b", "toy-d")
	if install := m.install(t, rest...); len(install.Failed) != 0 {
		t.Errorf("without the culprit, install is %+v", install)
	}
	m.has(t, "toy-d 1.1-1")

	// A %post alone is exit status 107.
	m, _ = outdated(t, rpmrepo.FailingPost("toy-b", "1.1-1"))
	m.download(t, targets("1.1-1", "toy-b")...)
	if install := m.install(t, targets("1.1-1", "toy-b")...); failed(install.Warned) != "toy-b" || len(install.Failed) != 0 {
		t.Errorf("install is %+v", install)
	}
	m.has(t, "toy-b 1.1-1")
}

// TestInstallOldScripts has the scripts of the old packages fail, with which rpm
// leaves both there or the new one alone.
func TestInstallOldScripts(t *testing.T) {
	t.Parallel()
	m := newMachine(t, packages.Locks{})
	repo := rpmrepo.New()
	m.older(t, repo, rpmrepo.Package{Name: "toy-preun", Version: "1.0-1", Preun: "echo preun fails; exit 1"},
		rpmrepo.Package{Name: "toy-postun", Version: "1.0-1", Postun: "exit 1"})
	m.newer(t, repo, rpmrepo.Good("toy-preun", "1.1-1"), rpmrepo.Good("toy-postun", "1.1-1"))
	all := targets("1.1-1", "toy-preun", "toy-postun")
	m.download(t, all...)
	if install := m.install(t, all[:1]...); failed(install.Failed) != "toy-preun" || !strings.Contains(install.Failed[0].Message, "preun fails") {
		t.Errorf("install is %+v", install)
	}
	if install := m.install(t, all[1:]...); len(install.Failed) != 0 || failed(install.Warned) != "toy-postun" {
		t.Errorf("install is %+v", install)
	}
	m.has(t, "toy-preun 1.0-1 1.1-1", "toy-postun 1.1-1")
	presence, err := m.Inspect(t.Context(), all)
	if err != nil || presence[0].Problem == "" || presence[1].Problem != "" {
		t.Errorf("presence is %+v, %v", presence, err)
	}
	if problems := m.scan(t).Problems; len(problems) != 1 || problems[0].Name != "toy-preun" {
		t.Errorf("problems are %+v", problems)
	}
}

// TestInstallRefused has a batch with one target that cannot be installed:
// nothing is changed, nobody's counts are touched, and it is named.
func TestInstallRefused(t *testing.T) {
	t.Parallel()
	good := rpmrepo.Good("toy-good", "1.1-1")
	files := map[string]string{"/opt/same": "1"}
	others := map[string]string{"/opt/same": "2"}
	for name, c := range map[string]struct {
		with    []rpmrepo.Package
		prepare func(testing.TB, *machine)
		ask     []packages.Target
		named   string
		message string
	}{
		"unmet": {
			with: []rpmrepo.Package{{Name: "toy-bad", Version: "1.1-1", Requires: []string{"toy-nowhere"}}},
			ask:  targets("1.1-1", "toy-bad"), named: "toy-bad", message: "nothing provides toy-nowhere",
		},
		"would remove": {
			with: []rpmrepo.Package{{Name: "toy-bad", Version: "1.1-1", Conflicts: []string{"toy-release"}}},
			ask:  targets("1.1-1", "toy-bad"), named: "toy-bad", message: "conflicts with toy-release",
		},
		"superseded": {
			with: []rpmrepo.Package{rpmrepo.Good("toy-bad", "1.2-1")},
			ask:  targets("1.1-1", "toy-bad"), named: "toy-bad", message: "not found",
		},
		"held": {
			with:    []rpmrepo.Package{rpmrepo.Good("toy-bad", "1.1-1")},
			prepare: func(tb testing.TB, m *machine) { m.layer.Run(tb, "zypper", "-n", "addlock", "toy-bad") },
			ask:     targets("1.1-1", "toy-bad"), named: "toy-bad", message: "conflicting requests",
		},
		"removed": {
			with:    []rpmrepo.Package{rpmrepo.Good("toy-bad", "1.1-1")},
			prepare: func(tb testing.TB, m *machine) { m.layer.Run(tb, "rpm", "-e", "toy-bad") },
			ask:     targets("1.1-1", "toy-bad"), named: "toy-bad", message: "not installed any more",
		},
		"files in conflict": {
			with: []rpmrepo.Package{{Name: "toy-bad", Version: "1.1-1", Files: files}, {Name: "toy-worse", Version: "1.1-1", Files: others}},
			ask:  targets("1.1-1", "toy-bad", "toy-worse"), named: "toy-bad toy-worse", message: "different files /opt/same",
		},
		"not downloaded": {
			with: []rpmrepo.Package{rpmrepo.Good("toy-bad", "1.1-1")},
			prepare: func(tb testing.TB, m *machine) {
				if err := os.RemoveAll(m.layer.Path + "/var/cache/zypp/packages"); err != nil {
					tb.Fatal(err)
				}
				m.download(tb, targets("1.1-1", "toy-good")...)
			},
			ask: targets("1.1-1", "toy-bad"), named: "toy-bad", message: "not in zypper's cache",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, _ := outdated(t, append(c.with, good)...)
			all := append(targets("1.1-1", "toy-good"), c.ask...)
			m.download(t, all...)
			if c.prepare != nil {
				c.prepare(t, m)
			}
			_, err := m.Install(t.Context(), all)
			var refused *packages.RefusedError
			if !errors.As(err, &refused) {
				t.Fatalf("it is %v, want a RefusedError", err)
			}
			if failed(refused.Targets) != c.named || !strings.Contains(refused.Error(), c.message) {
				t.Errorf("it refuses because of %+v: %v, want %s and %q", refused.Targets, err, c.named, c.message)
			}
			m.has(t, "toy-good 1.0-1")
		})
	}
}

// TestInstallReplaces has an update that comes in the place of another package,
// which is no removal.
func TestInstallReplaces(t *testing.T) {
	t.Parallel()
	m := newMachine(t, packages.Locks{})
	repo := rpmrepo.New()
	m.older(t, repo, rpmrepo.Good("toy", "1.0-1"), rpmrepo.Good("toy-libs", "1.0-1"))
	m.newer(t, repo, rpmrepo.Package{Name: "toy", Version: "1.1-1", Requires: []string{"toy-library"}},
		rpmrepo.Package{Name: "toy-library", Version: "1.1-1", Obsoletes: []string{"toy-libs < 1.1"}})
	m.download(t, targets("1.1-1", "toy")...)
	m.install(t, targets("1.1-1", "toy")...)
	m.has(t, "toy 1.1-1", "toy-library 1.1-1", "toy-libs ")
}
