package dnf_test

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/dnf"
	"github.com/nodepatch/nodepatch/test/roots"
	"github.com/nodepatch/nodepatch/test/roots/hosts"
	"github.com/nodepatch/nodepatch/test/rpmrepo"
)

// machine is a real root in which a real dnf 4 runs.
type machine struct {
	*dnf.Manager
	layer  *roots.Layer
	runner packages.Runner
	files  *os.Root
}

func newMachine(tb testing.TB, locks packages.Locks) *machine {
	tb.Helper()
	layer := roots.Open(tb, roots.RPM)
	node, files := hosts.Open(tb, layer)
	session, err := node.Session("test", "dnf")
	if err != nil {
		tb.Fatal(err)
	}
	if !dnf.Installed(files.FS()) {
		tb.Fatal("the machine has no dnf")
	}
	m := &machine{layer: layer, runner: session, files: files}
	if *record != "" {
		m.runner = &recorder{next: session, dir: filepath.Join("testdata", *record)}
	}
	locks.Open = node.OpenFile
	m.Manager = dnf.New(m.runner, files.FS(), locks)
	return m
}

var record = flag.String("record", "", "write what the machine's commands print to this directory below testdata")

var port = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// recorder keeps what the commands printed, to be parsed again by the tests that
// need no machine.
type recorder struct {
	next packages.Runner
	dir  string
	n    int
}

func (r *recorder) Run(ctx context.Context, c packages.Command) (packages.Result, error) {
	result, err := r.next.Run(ctx, c)
	if err != nil {
		return result, err
	}
	r.n++
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return result, err
	}
	for suffix, text := range map[string][]byte{".stdout": result.Stdout, ".stderr": result.Stderr} {
		if len(text) == 0 {
			continue
		}
		name := fmt.Sprintf("%02d-%s-%d%s", r.n, c.Name, result.ExitCode, suffix)
		// Which port it was is an accident.
		if err := os.WriteFile(filepath.Join(r.dir, name), port.ReplaceAll(text, []byte("toys.example")), 0o644); err != nil {
			return result, err
		}
	}
	return result, nil
}

// serve makes toy repositories the machine's only ones, under the names given.
func (m *machine) serve(tb testing.TB, repos map[string]*rpmrepo.Repository) {
	tb.Helper()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	tb.Cleanup(server.Close)
	for id, repo := range repos {
		mux.Handle("/"+id+"/", http.StripPrefix("/"+id, repo))
		publish(tb, repo)
		m.layer.Write(tb, "/etc/yum.repos.d/"+id+".repo", repo.RepoFile(id, server.URL+"/"+id))
	}
}

// with is a machine that has version 1.0-1 of the named packages installed.
func with(tb testing.TB, names ...string) (*machine, *rpmrepo.Repository) {
	tb.Helper()
	m, repo := newMachine(tb, packages.Locks{Patience: 2 * time.Second, Poll: 50 * time.Millisecond}), rpmrepo.New()
	repo.Add(rpmrepo.Base())
	for _, name := range names {
		repo.Add(rpmrepo.Good(name, "1.0-1"))
	}
	m.serve(tb, map[string]*rpmrepo.Repository{"toys": repo})
	m.layer.Run(tb, append([]string{"dnf", "-q", "-y", "install", "toy-release"}, names...)...)
	return m, repo
}

// offer publishes packages in addition, and has the machine see them.
func (m *machine) offer(tb testing.TB, repo *rpmrepo.Repository, all ...rpmrepo.Package) {
	tb.Helper()
	repo.Add(all...)
	publish(tb, repo)
	m.refresh(tb)
}

func publish(tb testing.TB, repo *rpmrepo.Repository) {
	tb.Helper()
	if err := repo.Publish(); err != nil {
		tb.Fatal(err)
	}
}

func (m *machine) refresh(tb testing.TB) packages.Refresh {
	tb.Helper()
	refresh, err := m.Refresh(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return refresh
}

func (m *machine) scan(tb testing.TB) packages.Scan {
	tb.Helper()
	scan, err := m.Scan(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return scan
}

func (m *machine) download(tb testing.TB, targets ...packages.Target) packages.Download {
	tb.Helper()
	got, err := m.Download(tb.Context(), targets)
	if err != nil {
		tb.Fatal(err)
	}
	return got
}

func (m *machine) install(tb testing.TB, targets ...packages.Target) packages.Install {
	tb.Helper()
	got, err := m.Install(tb.Context(), targets)
	if err != nil {
		tb.Fatal(err)
	}
	return got
}

// versions are what is installed of packages, by name; empty if nothing is.
func (m *machine) versions(tb testing.TB, names ...string) []string {
	tb.Helper()
	var targets []packages.Target
	for _, name := range names {
		targets = append(targets, toy(name, "0-0"))
	}
	present, err := m.Inspect(tb.Context(), targets)
	if err != nil {
		tb.Fatal(err)
	}
	var all []string
	for _, p := range present {
		all = append(all, p.Version)
	}
	return all
}

func (m *machine) wantVersions(tb testing.TB, want string, names ...string) {
	tb.Helper()
	if got := strings.Join(m.versions(tb, names...), " "); got != want {
		tb.Errorf("%q are at %q, want %q", names, got, want)
	}
}

// toy is a target: toys are for all architectures.
func toy(name, version string) packages.Target {
	return packages.Target{Name: name, Architecture: "noarch", Version: version}
}

func toys(version string, names ...string) []packages.Target {
	var all []packages.Target
	for _, name := range names {
		all = append(all, toy(name, version))
	}
	return all
}

func find(tb testing.TB, scan packages.Scan, name string) packages.Patch {
	tb.Helper()
	for _, p := range scan.Patches {
		if p.Name == name {
			return p
		}
	}
	tb.Errorf("the scan has no patch for %s", name)
	return packages.Patch{}
}

func namesOf(failures []packages.Failure) []string {
	var all []string
	for _, f := range failures {
		all = append(all, f.Target.Name)
	}
	slices.Sort(all)
	return all
}

func message(failures []packages.Failure, name string) string {
	for _, f := range failures {
		if f.Target.Name == name {
			return f.Message
		}
	}
	return ""
}
