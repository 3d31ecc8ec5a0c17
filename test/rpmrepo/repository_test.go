package rpmrepo_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/nodepatch/nodepatch/test/roots"
	"github.com/nodepatch/nodepatch/test/rpmrepo"
)

// machine is a real root with dnf and zypper whose only repository is the given one.
func machine(t *testing.T, repo *rpmrepo.Repository) *roots.Layer {
	t.Helper()
	layer := roots.Open(t, roots.RPM)
	server := httptest.NewServer(repo)
	t.Cleanup(server.Close)
	for _, dir := range []string{"/etc/yum.repos.d/", "/etc/zypp/repos.d/"} {
		layer.Write(t, dir+"toys.repo", repo.RepoFile("toys", server.URL))
	}
	return layer
}

// run runs a command in the machine. It returns what it printed and whether it succeeded.
func run(t *testing.T, layer *roots.Layer, argv ...string) (string, bool) {
	output, err := layer.Command(t.Context(), argv[0], argv[1:]...).CombinedOutput()
	return string(output), err == nil
}

func publish(t *testing.T, repo *rpmrepo.Repository) {
	t.Helper()
	if err := repo.Publish(); err != nil {
		t.Fatal(err)
	}
}

// tools install one package with either package manager.
var tools = map[string][]string{
	"dnf":    {"dnf", "-y", "--refresh", "--setopt=retries=1", "install"},
	"zypper": {"zypper", "-n", "install"},
}

// TestInstall has both package managers install every kind of package.
func TestInstall(t *testing.T) {
	for tool, install := range tools {
		t.Run(tool, func(t *testing.T) {
			repo := rpmrepo.New()
			dependent := rpmrepo.Good("toy-dependent", "1:2.0-1")
			dependent.Requires = []string{"toy-good >= 1.0", "/bin/sh"}
			successor := rpmrepo.Good("toy-successor", "2-1")
			successor.Obsoletes, successor.Conflicts = []string{"toy-good < 2"}, []string{"toy-other"}
			repo.Add(
				rpmrepo.Base(), rpmrepo.Good("toy-good", "1.0-1"), dependent, rpmrepo.Kernel("5.14.0-1.toy"),
				rpmrepo.FailingPre("toy-pre", "1.0-1"), rpmrepo.FailingPost("toy-post", "1.0-1"),
				rpmrepo.FailingTimes("toy-twice", "1.0-1", 2), rpmrepo.WithConfig("toy-config", "1.0-1"),
				rpmrepo.Missing("toy-missing", "1.0-1"), rpmrepo.Corrupt("toy-corrupt", "1.0-1"),
				rpmrepo.Slow("toy-slow", "1.0-1"),
			)
			repo.ReleaseSlow()
			publish(t, repo)
			layer := machine(t, repo)
			layer.Run(t, append(install, "toy-release")...)

			for _, c := range []struct {
				name     string
				version  string // in the database afterwards
				output   string // what the tool says
				attempts int    // after which it is so
			}{
				{"toy-dependent", "1:2.0-1", "toy-good", 1},
				{"kernel-core", "5.14.0-1.toy", "kernel-core", 1},
				{"toy-pre", "", "toy-pre", 1},
				{"toy-post", "1.0-1", "toy-post", 1},
				{"toy-twice", "1.0-1", "toy-twice", 3},
				{"toy-config", "1.0-1", "toy-config", 1},
				{"toy-missing", "", "toy-missing", 1},
				{"toy-corrupt", "", "toy-corrupt", 1},
				{"toy-slow", "1.0-1", "toy-slow", 1},
			} {
				t.Run(c.name, func(t *testing.T) {
					var output, version string
					for range c.attempts {
						if version != "" {
							t.Fatalf("it was installed before attempt %d", c.attempts)
						}
						output, _ = run(t, layer, append(install, c.name)...)
						if v, ok := run(t, layer, "rpm", "-q", "--qf", "%{EVR}", c.name); ok {
							version = v
						}
					}
					if version != c.version {
						t.Errorf("version is %q, want %q; the tool said: %s", version, c.version, output)
					}
					if !strings.Contains(output, c.output) {
						t.Errorf("the tool did not say %q: %s", c.output, output)
					}
				})
			}
			if repo.Requests("toy-missing") == 0 || repo.Requests("toy-good") == 0 {
				t.Error("requests were not counted")
			}

			layer.Run(t, "rpm", "-V", "toy-config", "toy-good", "kernel-core")
			repo.Add(successor)
			publish(t, repo)
			if tool == "zypper" {
				layer.Run(t, "zypper", "-n", "refresh")
			}
			layer.Run(t, "rpm", "-e", "toy-dependent")
			layer.Run(t, append(install, "toy-successor")...)
			if output, ok := run(t, layer, "rpm", "-q", "toy-good"); ok {
				t.Errorf("an obsoleted package is still there: %s", output)
			}
		})
	}
}

// TestConfig has rpm meet a configuration file that an administrator has changed.
func TestConfig(t *testing.T) {
	repo := rpmrepo.New()
	repo.Add(rpmrepo.WithConfig("toy-config", "1.0-1"))
	publish(t, repo)
	layer := machine(t, repo)
	layer.Run(t, append(tools["dnf"], "toy-config")...)
	const file = "/etc/toy-config.conf"
	layer.Write(t, file, "version = mine\n")
	repo.Add(rpmrepo.WithConfig("toy-config", "2.0-1"))
	publish(t, repo)
	layer.Run(t, "dnf", "-y", "--refresh", "upgrade", "toy-config")
	for name, want := range map[string]string{file: "version = mine\n", file + ".rpmnew": "version = 2.0-1\n"} {
		if got := layer.Read(t, name); got != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
}

// TestAdvisories has both package managers read what the advisories say.
func TestAdvisories(t *testing.T) {
	repo := rpmrepo.New()
	repo.Add(rpmrepo.Good("toy", "1.0-1"))
	publish(t, repo)
	layer := machine(t, repo)
	layer.Run(t, append(tools["dnf"], "toy")...)
	repo.Add(rpmrepo.Good("toy", "1:0.5-1"))
	repo.Advise(rpmrepo.Advisory{
		ID: "TOY-2026:0001", Type: "security", Severity: "Important", CVEs: []string{"CVE-2026-0001"},
		Packages: []string{"toy-1:0.5-1"}, RebootSuggested: true,
	})
	publish(t, repo)
	if output := layer.Run(t, "dnf", "-q", "--refresh", "updateinfo", "list", "--with-cve"); !strings.Contains(output, "CVE-2026-0001 Important/Sec. toy-1:0.5-1.noarch") {
		t.Errorf("dnf lists %s", output)
	}
	layer.Run(t, "zypper", "-n", "refresh")
	output := layer.Run(t, "zypper", "-x", "-n", "list-patches")
	for _, want := range []string{`name="TOY-2026:0001"`, `category="security"`, `severity="important"`, `restart="true"`, `id="CVE-2026-0001"`} {
		if !strings.Contains(output, want) {
			t.Errorf("zypper does not say %s: %s", want, output)
		}
	}
	repo.Advise(rpmrepo.Advisory{ID: "TOY-2026:0002", Type: "bugfix", Packages: []string{"toy-9-9"}})
	if err := repo.Publish(); err == nil || !strings.Contains(err.Error(), "toy-9-9") {
		t.Errorf("an advisory on a package that is not there: %v", err)
	}
	repo.Remove("toy")
	repo.Advise(rpmrepo.Advisory{ID: "TOY-2026:0002", Type: "bugfix"})
	publish(t, repo)
}

// TestDown has both package managers meet a server that does not answer, and that then does again.
func TestDown(t *testing.T) {
	repo := rpmrepo.New()
	repo.Add(rpmrepo.Good("toy-good", "1.0-1"))
	publish(t, repo)
	layer := machine(t, repo)
	for name, refresh := range map[string][]string{
		"dnf":    {"dnf", "--refresh", "--setopt=retries=1", "--setopt=timeout=1", "--setopt=*.skip_if_unavailable=0", "makecache"},
		"zypper": {"zypper", "-n", "refresh"},
	} {
		repo.SetDown(true)
		if output, ok := run(t, layer, refresh...); ok {
			t.Errorf("%s refreshed from a server that is down: %s", name, output)
		}
		repo.SetHanging(true)
		if name == "dnf" { // zypper's shortest timeout is a minute
			if output, ok := run(t, layer, refresh...); ok {
				t.Errorf("%s refreshed from a server that hangs: %s", name, output)
			}
		}
		repo.SetHanging(false)
		layer.Run(t, refresh...)
	}
}

// TestServed reads what is served without a package manager.
func TestServed(t *testing.T) {
	repo := rpmrepo.New()
	repo.Add(rpmrepo.Good("toy", "1:1.0-1"), rpmrepo.Corrupt("toy-corrupt", "1.0-1"), rpmrepo.Missing("toy-missing", "1.0-1"))
	publish(t, repo)
	for path, want := range map[string]int{
		"/packages/toy-1.0-1.noarch.rpm":         http.StatusOK,
		"/packages/toy-corrupt-1.0-1.noarch.rpm": http.StatusOK,
		"/packages/toy-missing-1.0-1.noarch.rpm": http.StatusNotFound,
		"/repodata/repomd.xml":                   http.StatusOK,
		"/repodata/updateinfo.xml":               http.StatusNotFound,
	} {
		response := httptest.NewRecorder()
		repo.ServeHTTP(response, httptest.NewRequest(http.MethodGet, path, nil))
		if response.Code != want {
			t.Errorf("%s: status %d, want %d", path, response.Code, want)
		}
	}
	for _, wrong := range []rpmrepo.Package{
		{Name: "toy", Version: "1.0"}, {Version: "1.0-1"}, {Name: "toy", Version: "x:1.0-1"},
		{Name: "toy", Version: "1.0-1", Requires: []string{"a => b"}},
	} {
		repo := rpmrepo.New()
		repo.Add(wrong)
		if err := repo.Publish(); err == nil {
			t.Errorf("%+v is a package", wrong)
		}
	}
}

// BenchmarkPublish says how fast packages are built.
func BenchmarkPublish(b *testing.B) {
	repo := rpmrepo.New()
	const packages = 300
	for i := range packages {
		repo.Add(rpmrepo.WithConfig(fmt.Sprintf("toy-%03d", i), "1.0-1"))
	}
	for b.Loop() {
		if err := repo.Publish(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(packages*b.N)/b.Elapsed().Seconds(), "packages/s")
}
