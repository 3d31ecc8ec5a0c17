package aptrepo_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodepatch/nodepatch/test/aptrepo"
	"github.com/nodepatch/nodepatch/test/roots"
)

// machine is a real Debian root whose only source is the repository.
func machine(t *testing.T, repo *aptrepo.Repository) *roots.Layer {
	t.Helper()
	layer := roots.Open(t, roots.Debian)
	server := httptest.NewServer(repo)
	t.Cleanup(server.Close)
	if err := os.RemoveAll(filepath.Join(layer.Path, "etc/apt/sources.list.d")); err != nil {
		t.Fatal(err)
	}
	layer.Write(t, "/etc/apt/sources.list", repo.SourcesList(server.URL))
	return layer
}

// run runs a command in the machine. It returns what it printed and whether it succeeded.
func run(t *testing.T, layer *roots.Layer, argv ...string) (string, bool) {
	output, err := layer.Command(t.Context(), argv[0], argv[1:]...).CombinedOutput()
	return string(output), err == nil
}

func publish(t *testing.T, repo *aptrepo.Repository) {
	t.Helper()
	if err := repo.Publish(); err != nil {
		t.Fatal(err)
	}
}

// TestInstall has a real apt and dpkg install every kind of package.
func TestInstall(t *testing.T) {
	repo := aptrepo.New(aptrepo.Release{Origin: "Debian", Label: "Debian-Security", Suite: "stable-security"})
	dependent := aptrepo.Good("toy-dependent", "1:2.0-1")
	dependent.Depends = "toy-good (>= 1.0)"
	repo.Add(
		aptrepo.Good("toy-good", "1.0"), dependent,
		aptrepo.FailingPreinst("toy-preinst", "1.0"), aptrepo.FailingPostinst("toy-postinst", "1.0"),
		aptrepo.FailingTimes("toy-twice", "1.0", 2), aptrepo.WithConffile("toy-conffile", "1.0"),
		aptrepo.Missing("toy-missing", "1.0"), aptrepo.Corrupt("toy-corrupt", "1.0"), aptrepo.Slow("toy-slow", "1.0"),
	)
	repo.ReleaseSlow()
	publish(t, repo)
	layer := machine(t, repo)
	layer.Run(t, "apt-get", "-q", "update", "-o", "APT::Update::Error-Mode=any")

	for _, c := range []struct {
		name     string
		status   string // dpkg's of the package after it was installed
		output   string // what apt says
		attempts int    // after which it is so
	}{
		{"toy-dependent", "installed 1:2.0-1", "Setting up toy-good (1.0)", 1},
		{"toy-preinst", "not-installed", "preinst of toy-preinst fails on purpose", 1},
		{"toy-postinst", "half-configured 1.0", "postinst of toy-postinst fails on purpose", 1},
		{"toy-twice", "installed 1.0", "Setting up toy-twice", 3},
		{"toy-conffile", "installed 1.0", "Setting up toy-conffile", 1},
		{"toy-missing", "not-installed", "404", 1},
		{"toy-corrupt", "not-installed", "Hash Sum mismatch", 1},
		{"toy-slow", "installed 1.0", "Setting up toy-slow", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Each leaves the next one a clean database.
			defer layer.Run(t, "dpkg", "--purge", "--force-all", c.name)
			var output, status string
			for range c.attempts {
				if strings.HasPrefix(status, "installed") {
					t.Fatalf("it was installed before attempt %d", c.attempts)
				}
				output, _ = run(t, layer, "apt-get", "-q", "-y", "install", c.name)
				status, _ = run(t, layer, "dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", c.name)
			}
			if strings.Contains(status, "no packages found") {
				status = "not-installed"
			}
			if got := strings.TrimSpace(status); got != c.status {
				t.Errorf("state is %q, want %q; apt said: %s", got, c.status, output)
			}
			if !strings.Contains(output, c.output) {
				t.Errorf("apt did not say %q: %s", c.output, output)
			}
		})
	}
	if repo.Requests("toy-missing") == 0 || repo.Requests("toy-good") == 0 {
		t.Error("requests were not counted")
	}
	policy := layer.Run(t, "apt-cache", "policy")
	if want := "o=Debian,a=stable-security,n=stable-security,l=Debian-Security"; !strings.Contains(policy, want) {
		t.Errorf("apt does not see %q: %s", want, policy)
	}
}

// TestConffile has dpkg meet a conffile that an administrator has changed.
func TestConffile(t *testing.T) {
	repo := aptrepo.New(aptrepo.Release{Suite: "stable"})
	repo.Add(aptrepo.WithConffile("toy-conffile", "1.0"), aptrepo.WithConffile("toy-conffile", "2.0"))
	publish(t, repo)
	layer := machine(t, repo)
	layer.Run(t, "apt-get", "-q", "update")
	layer.Run(t, "apt-get", "-q", "-y", "install", "toy-conffile=1.0")
	const file = "/etc/toy-conffile.conf"
	layer.Write(t, file, "version = mine\n")
	output := layer.Run(t, "apt-get", "-q", "-y", "-o", "Dpkg::Options::=--force-confold", "install", "toy-conffile")
	if !strings.Contains(output, "Configuration file '/etc/toy-conffile.conf'") {
		t.Errorf("dpkg did not see the conffile: %s", output)
	}
	for name, want := range map[string]string{file: "version = mine\n", file + ".dpkg-dist": "version = 2.0\n"} {
		if got := layer.Read(t, name); got != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
}

// TestDown has apt meet a server that does not answer, and that then does again.
func TestDown(t *testing.T) {
	repo := aptrepo.New(aptrepo.Release{Suite: "stable"})
	repo.Add(aptrepo.Good("toy-good", "1.0"))
	publish(t, repo)
	layer := machine(t, repo)
	update := []string{"apt-get", "-q", "update", "-o", "APT::Update::Error-Mode=any", "-o", "Acquire::Retries=0"}
	repo.SetDown(true)
	if output, ok := run(t, layer, update...); ok {
		t.Errorf("apt refreshed from a server that is down: %s", output)
	}
	repo.SetDown(false)
	layer.Run(t, update...)
}

// TestPackageFile has Debian's own tool read a package.
func TestPackageFile(t *testing.T) {
	_, lacks := exec.LookPath("dpkg-deb")
	roots.Require(t, lacks)
	repo := aptrepo.New(aptrepo.Release{Suite: "stable"})
	p := aptrepo.WithConffile("toy", "1:1.0~rc1+b2-3")
	p.Source, p.Depends, p.Files = "toy-source (1.0)", "a (>= 1), b | c", map[string]string{"/opt/toy/file": "content"}
	repo.Add(p)
	publish(t, repo)
	response := httptest.NewRecorder()
	repo.ServeHTTP(response, httptest.NewRequest(http.MethodGet, "/pool/toy_1.0~rc1%2bb2-3_all.deb", nil))
	if response.Code != http.StatusOK {
		t.Fatalf("status %d", response.Code)
	}
	file := filepath.Join(t.TempDir(), "toy.deb")
	if err := os.WriteFile(file, response.Body.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for option, wants := range map[string][]string{
		"--info":     {"Version: 1:1.0~rc1+b2-3", "Source: toy-source (1.0)", "Depends: a (>= 1), b | c", "conffiles"},
		"--contents": {"./etc/toy.conf", "./opt/toy/file", "./usr/share/doc/toy/version"},
	} {
		output, err := exec.Command("dpkg-deb", option, file).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, output)
		}
		for _, want := range wants {
			if !strings.Contains(string(output), want) {
				t.Errorf("dpkg-deb %s does not say %q: %s", option, want, output)
			}
		}
	}
}

// BenchmarkPublish says how fast packages are built.
func BenchmarkPublish(b *testing.B) {
	repo := aptrepo.New(aptrepo.Release{Suite: "stable"})
	const packages = 300
	for i := range packages {
		repo.Add(aptrepo.WithConffile(fmt.Sprintf("toy-%03d", i), "1.0"))
	}
	for b.Loop() {
		if err := repo.Publish(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(packages*b.N)/b.Elapsed().Seconds(), "packages/s")
}
