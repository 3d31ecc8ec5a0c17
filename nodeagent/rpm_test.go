package main

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/roots"
	"github.com/nodepatch/nodepatch/test/rpmrepo"
)

// rpmTool is a package manager that works with RPM packages, and where it keeps its repositories.
type rpmTool struct {
	release string
	sources string // directory of the repositories' files
	refresh []string
	install []string
}

var rpmTools = map[string]rpmTool{
	"dnf": {
		"ID=fedora\nPRETTY_NAME=\"Fedora for tests\"\n", "/etc/yum.repos.d/",
		[]string{"dnf", "-y", "makecache"}, []string{"dnf", "-y", "install"},
	},
	"zypper": {
		"ID=opensuse-leap\nID_LIKE=\"suse opensuse\"\nPRETTY_NAME=\"openSUSE for tests\"\n", "/etc/zypp/repos.d/",
		[]string{"zypper", "-n", "refresh"}, []string{"zypper", "-n", "install"},
	},
}

// node is a machine with version 1.0-1 of the named packages, and their repository.
func (tool *rpmTool) node(t *testing.T, names ...string) (*node, *rpmrepo.Repository) {
	t.Helper()
	repo := rpmrepo.New()
	return newNodeFrom(t, roots.RPM, func(n *node) {
		n.write("/etc/os-release", tool.release)
		server := httptest.NewServer(repo)
		t.Cleanup(server.Close)
		repo.Add(rpmrepo.Base())
		for _, name := range names {
			repo.Add(rpmrepo.Good(name, "1.0-1"))
		}
		if err := repo.Publish(); err != nil {
			t.Fatal(err)
		}
		n.write(tool.sources+"toys.repo", repo.RepoFile("toys", server.URL))
		n.run(tool.refresh...)
		n.run(slices.Concat(tool.install, names, []string{rpmrepo.Base().Name})...)
	}), repo
}

// A host of another family is scanned and patched by the same agent, with its own package manager.
func TestDeployRPM(t *testing.T) {
	for tool, test := range rpmTools {
		t.Run(tool, func(t *testing.T) {
			n, repo := test.node(t, "ham", "egg", "salt")
			publish := func() {
				t.Helper()
				if err := repo.Publish(); err != nil {
					t.Fatal(err)
				}
			}
			repo.Add(rpmrepo.Good("ham", "2.0-1"), rpmrepo.FailingPre("egg", "2.0-1"), rpmrepo.Missing("salt", "2.0-1"))
			repo.Advise(rpmrepo.Advisory{
				ID: "TEST-2026:1", Type: "security", Severity: "Important", CVEs: []string{"CVE-2026-1234"},
				Packages: []string{"ham-2.0-1"},
			})
			publish()
			n.start()

			n.assign("scan", v1alpha1.StepScanning)
			if status := n.ended("scan"); status.Step != v1alpha1.StepDone || status.Counts.Missing != 3 || status.Counts.Security != 1 {
				t.Fatalf("Scan ended with %+v, counts %+v", status, status.Counts)
			}
			r := n.report().Status
			first := r.Patches[0]
			if r.PackageManager.Name != tool || first.Name != "ham" || first.Severity != v1alpha1.SeverityImportant ||
				!slices.Equal(first.CVEs, []string{"CVE-2026-1234"}) || !slices.Equal(first.Advisories, []string{"TEST-2026:1"}) {
				t.Errorf("%s reports %+v first", r.PackageManager.Name, first)
			}

			n.assign("first", v1alpha1.StepInstalling)
			if status := n.ended("first"); status.Reason != v1alpha1.ReasonPatchesFailed || status.Counts.Installed != 1 || status.Counts.Failed != 2 {
				t.Errorf("First deployment ended with %+v, counts %+v", status, status.Counts)
			}
			if got := n.run("rpm", "-q", "ham", "egg", "salt"); !strings.Contains(got, "ham-2.0-1") || !strings.Contains(got, "egg-1.0") {
				t.Errorf("rpm has %s", got)
			}
			for _, p := range n.retry().Status.Patches {
				if p.Name == "egg" && (p.InstallFailures != 1 || p.DownloadFailures != 0) ||
					p.Name == "salt" && (p.InstallFailures != 0 || p.DownloadFailures != 1) || p.Name == "ham" {
					t.Errorf("Counts are %+v", p)
				}
			}
			if got := n.retry().Status.Counted; got != 2 {
				t.Errorf("%d patches are counted, want 2", got)
			}

			repo.Add(rpmrepo.Good("egg", "2.0-1"), rpmrepo.Good("salt", "2.0-1"))
			publish()
			n.assign("second", v1alpha1.StepInstalling)
			if status := n.ended("second"); status.Step != v1alpha1.StepDone || status.Counts.Installed != 2 || status.Counts.Missing != 0 {
				t.Errorf("Second deployment ended with %+v, counts %+v", status, status.Counts)
			}
			if got := n.retry().Status.Summary; got != "No failed attempt" {
				t.Errorf("Counts are left: %s", got)
			}
		})
	}
}
