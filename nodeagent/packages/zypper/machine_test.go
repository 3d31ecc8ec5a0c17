package zypper_test

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/zypper"
	"github.com/nodepatch/nodepatch/test/roots"
	"github.com/nodepatch/nodepatch/test/roots/hosts"
	"github.com/nodepatch/nodepatch/test/rpmrepo"
)

var record = flag.String("record", "", "write what the machine's commands print to directories of the tests' names below this one")

// machine is a real root in which a real zypper runs, with an rpm database of its own.
type machine struct {
	*zypper.Manager
	layer *roots.Layer
	// seen are the commands that the manager has run.
	seen *watcher
}

func newMachine(tb testing.TB, locks packages.Locks) *machine {
	tb.Helper()
	layer := roots.Open(tb, roots.RPM)
	node, files := hosts.Open(tb, layer)
	session, err := node.Session("test", "zypper")
	if err != nil {
		tb.Fatal(err)
	}
	m := &machine{layer: layer, seen: &watcher{next: session}}
	if *record != "" {
		m.seen.dir = filepath.Join(*record, tb.Name())
	}
	locks.Open = node.OpenFile
	m.Manager = zypper.New(m.seen, files.FS(), locks)
	return m
}

// serve makes a toy repository the machine's only one.
func (m *machine) serve(tb testing.TB, repo *rpmrepo.Repository) {
	tb.Helper()
	if err := repo.Publish(); err != nil {
		tb.Fatal(err)
	}
	server := httptest.NewServer(repo)
	tb.Cleanup(server.Close)
	m.layer.Write(tb, "/etc/zypp/repos.d/toys.repo", strings.Replace(repo.RepoFile("toys", server.URL), "name=toys", "name=Toy repository", 1))
}

// older fills a repository with the first editions of packages, and installs them.
func (m *machine) older(tb testing.TB, repo *rpmrepo.Repository, all ...rpmrepo.Package) {
	tb.Helper()
	all = append([]rpmrepo.Package{rpmrepo.Base()}, all...)
	repo.Add(all...)
	m.serve(tb, repo)
	m.layer.Run(tb, "zypper", "-n", "refresh")
	argv := []string{"zypper", "-n", "install", "--no-recommends", "--name"}
	for _, p := range all {
		argv = append(argv, p.Name+"="+p.Version)
	}
	m.layer.Run(tb, argv...)
}

// newer adds editions to the repository, and refreshes.
func (m *machine) newer(tb testing.TB, repo *rpmrepo.Repository, all ...rpmrepo.Package) {
	tb.Helper()
	repo.Add(all...)
	if err := repo.Publish(); err != nil {
		tb.Fatal(err)
	}
	m.refresh(tb)
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
	download, err := m.Download(tb.Context(), targets)
	if err != nil {
		tb.Fatal(err)
	}
	if n := len(download.Ready) + len(download.Failed) + len(download.Deferred); n != len(targets) {
		tb.Errorf("%d of %d targets are answered for: %+v", n, len(targets), download)
	}
	return download
}

func (m *machine) install(tb testing.TB, targets ...packages.Target) packages.Install {
	tb.Helper()
	install, err := m.Install(tb.Context(), targets)
	if err != nil {
		tb.Fatal(err)
	}
	return install
}

// installed is what rpm itself says is there of a package: its versions, the older first.
func (m *machine) installed(tb testing.TB, name string) []string {
	tb.Helper()
	output := m.layer.Run(tb, "rpm", "-qa", "--qf", "%{VERSION}-%{RELEASE}\n", name)
	versions := strings.Fields(output)
	slices.Sort(versions)
	return versions
}

// has checks that exactly these versions are installed, "name version".
func (m *machine) has(tb testing.TB, want ...string) {
	tb.Helper()
	for _, w := range want {
		name, versions, _ := strings.Cut(w, " ")
		if got := strings.Join(m.installed(tb, name), " "); got != versions {
			tb.Errorf("%s is installed in version %q, want %q", name, got, versions)
		}
	}
}

// target is a package for all architectures: "name version".
func target(name, version string) packages.Target {
	return packages.Target{Name: name, Architecture: "noarch", Version: version}
}

func targets(version string, names ...string) []packages.Target {
	var all []packages.Target
	for _, name := range names {
		all = append(all, target(name, version))
	}
	return all
}

// names are those of targets, sorted.
func names(all []packages.Target) string {
	var list []string
	for _, t := range all {
		list = append(list, t.Name)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// failed are the names of failures, sorted.
func failed(all []packages.Failure) string {
	var list []packages.Target
	for _, f := range all {
		list = append(list, f.Target)
	}
	return names(list)
}

// reason is the message of the failure of a package.
func reason(all []packages.Failure, name string) string {
	for _, f := range all {
		if f.Target.Name == name {
			return f.Message
		}
	}
	return ""
}

func find(scan packages.Scan, name string) (packages.Patch, bool) {
	i := slices.IndexFunc(scan.Patches, func(p packages.Patch) bool { return p.Name == name })
	if i < 0 {
		return packages.Patch{}, false
	}
	return scan.Patches[i], true
}

// eventually waits for something that another process does.
func eventually(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("waited in vain: %s", what)
		}
	}
}

var address = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// watcher keeps count of the commands, and what they printed if that is recorded.
type watcher struct {
	next packages.Runner
	dir  string

	mu       sync.Mutex
	commands []packages.Command
}

func (w *watcher) Run(ctx context.Context, c packages.Command) (packages.Result, error) {
	w.mu.Lock()
	w.commands = append(w.commands, c)
	w.mu.Unlock()
	n := w.count(c.Name)
	result, err := w.next.Run(ctx, c)
	if err != nil || w.dir == "" {
		return result, err
	}
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return result, err
	}
	// Which port it was is an accident.
	text := address.ReplaceAll(result.Stdout, []byte("mirror.example"))
	name := fmt.Sprintf("%s-%d-exit-%d.xml", c.Name, n, result.ExitCode)
	return result, os.WriteFile(filepath.Join(w.dir, name), text, 0o644)
}

// count is how often commands of a name were run.
func (w *watcher) count(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, c := range w.commands {
		if c.Name == name {
			n++
		}
	}
	return n
}

// hang is the address of a server that takes connections and never answers.
func hang(tb testing.TB) string {
	tb.Helper()
	// The kernel takes the connections, and nobody takes them from it.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = listener.Close() })
	return "http://" + listener.Addr().String()
}

// with is the same machine with other patience.
func (m *machine) with(tb testing.TB, locks packages.Locks) *zypper.Manager {
	tb.Helper()
	_, files := hosts.Open(tb, m.layer)
	return zypper.New(m.seen, files.FS(), locks)
}
