package zypper_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/test/rpmrepo"
)

// TestKernel has a package that is installed beside its older version, which is
// neither a removal nor left by an interrupted transaction.
func TestKernel(t *testing.T) {
	t.Parallel()
	kernel := func(version string) rpmrepo.Package {
		return rpmrepo.Package{
			Name: "kernel-default", Version: version, Provides: []string{"multiversion(kernel)"},
			Files: map[string]string{"/boot/vmlinuz-" + version: version},
		}
	}
	m := newMachine(t, packages.Locks{})
	m.layer.Write(t, "/etc/zypp/zypp.conf", "[main]\nmultiversion = provides:multiversion(kernel)\n")
	repo := rpmrepo.New()
	m.older(t, repo, kernel("6.4.0-1"))
	m.newer(t, repo, kernel("6.4.0-2"))
	for _, step := range []struct{ to, from, have string }{
		{"6.4.0-2", "6.4.0-1", "6.4.0-1 6.4.0-2"},
		{"6.4.0-3", "6.4.0-2", "6.4.0-1 6.4.0-2 6.4.0-3"},
	} {
		m.newer(t, repo, kernel(step.to))
		scan := m.scan(t)
		p, found := find(scan, "kernel-default")
		if !found || len(scan.Patches) != 1 || p.InstalledVersion != step.from || p.AvailableVersion != step.to || p.State != packages.Missing {
			t.Errorf("patches are %+v, want %s to %s", scan.Patches, step.from, step.to)
		}
		wanted := targets(step.to, "kernel-default")
		m.download(t, wanted...)
		if install := m.install(t, wanted...); len(install.Failed) != 0 {
			t.Errorf("install is %+v", install)
		}
		m.has(t, "kernel-default "+step.have)
		if scan = m.scan(t); len(scan.Patches)+len(scan.Problems) != 0 {
			t.Errorf("afterwards there are %+v and %+v", scan.Patches, scan.Problems)
		}
	}
}

// TestLocalRepository has the packages in a directory of the host, from where
// zypper takes them without its cache.
func TestLocalRepository(t *testing.T) {
	t.Parallel()
	m, _ := outdated(t, rpmrepo.Good("toy", "1.1-1"))
	wanted := targets("1.1-1", "toy")
	m.download(t, wanted...)
	cache, local := filepath.Join(m.layer.Path, "var/cache/zypp/packages"), filepath.Join(m.layer.Path, "srv/toys")
	if err := os.Rename(cache, local); err != nil {
		t.Fatal(err)
	}
	file := strings.SplitAfter(m.layer.Read(t, "/etc/zypp/repos.d/toys.repo"), "baseurl=")[0]
	m.layer.Write(t, "/etc/zypp/repos.d/toys.repo", file+"dir:///srv/toys\ngpgcheck=0\n")
	m.refresh(t)
	if p, found := find(m.scan(t), "toy"); !found || !p.Downloaded {
		t.Errorf("in a directory of the host, toy is %+v", p)
	}
	if d := m.download(t, wanted...); len(d.Ready) != 1 {
		t.Errorf("download is %+v", d)
	}
	if install := m.install(t, wanted...); len(install.Failed) != 0 {
		t.Errorf("install is %+v", install)
	}
	m.has(t, "toy 1.1-1")
}
