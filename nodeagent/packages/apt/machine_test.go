package apt_test

import (
	"context"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/apt"
	"github.com/nodepatch/nodepatch/test/aptrepo"
	"github.com/nodepatch/nodepatch/test/roots"
	"github.com/nodepatch/nodepatch/test/roots/hosts"
)

var record = flag.String("record", "", "write what the machine's commands print to this directory below testdata")

// machine is a real root of the distribution, in which a real apt runs.
type machine struct {
	*apt.Manager
	layer  *roots.Layer
	runner packages.Runner
}

func newMachine(tb testing.TB, o packages.Locks) *machine {
	tb.Helper()
	layer := roots.Open(tb, func(ctx context.Context, log io.Writer) (*roots.Root, error) {
		// Another release than this machine's, made by mmdebstrap with minbase and systemd.
		if path := os.Getenv("NODEPATCH_APT_ROOT"); path != "" {
			return &roots.Root{Path: path}, nil
		}
		return roots.Debian(ctx, log)
	})
	node, files := hosts.Open(tb, layer)
	session, err := node.Session("test", "apt")
	if err != nil {
		tb.Fatal(err)
	}
	m := &machine{layer: layer, runner: session}
	if *record != "" {
		m.runner = &recorder{next: session, dir: filepath.Join("testdata", *record)}
	}
	o.Open = node.OpenFile
	m.Manager = apt.New(m.runner, files.FS(), o)
	// Phasing goes by it; a root that was never booted has none.
	m.layer.Write(tb, "/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
	return m
}

// serve makes toy repositories the machine's only sources.
func (m *machine) serve(tb testing.TB, repos map[string]*aptrepo.Repository) {
	tb.Helper()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	tb.Cleanup(server.Close)
	var list strings.Builder
	for path, repo := range repos {
		mux.Handle("/"+path+"/", http.StripPrefix("/"+path, repo))
		list.WriteString(repo.SourcesList(server.URL + "/" + path))
		publish(tb, repo)
	}
	if err := os.RemoveAll(filepath.Join(m.layer.Path, "etc/apt/sources.list.d")); err != nil {
		tb.Fatal(err)
	}
	m.layer.Write(tb, "/etc/apt/sources.list", list.String())
}

func publish(tb testing.TB, repo *aptrepo.Repository) {
	tb.Helper()
	if err := repo.Publish(); err != nil {
		tb.Fatal(err)
	}
}

// try runs a command in the machine and returns what it printed, and its error if it failed.
func (m *machine) try(argv ...string) (string, error) {
	output, err := m.layer.Command(context.Background(), argv[0], argv[1:]...).CombinedOutput()
	return string(output), err
}

// install installs exact versions from the repositories as they are.
func (m *machine) install(tb testing.TB, packages ...string) {
	tb.Helper()
	m.refresh(tb)
	m.layer.Run(tb, append([]string{"apt-get", "-q", "-y", "install"}, packages...)...)
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

// find is the patch for a package; a foreign one is asked for as "name:arch".
func find(scan packages.Scan, name string) (packages.Patch, bool) {
	name, foreign, _ := strings.Cut(name, ":")
	for _, p := range scan.Patches {
		if p.Name == name && (foreign == "" && p.Architecture != foreignArchitecture() || foreign == p.Architecture) {
			return p, true
		}
	}
	return packages.Patch{}, false
}

func nativeArchitecture() string {
	if runtime.GOARCH == "arm" {
		return "armhf"
	}
	return runtime.GOARCH
}

// foreignArchitecture is one that the machine's packages can be added for.
func foreignArchitecture() string {
	if runtime.GOARCH == "amd64" {
		return "i386"
	}
	return "amd64"
}

var server = regexp.MustCompile(`(?m)(https?://|^     origin )[^/ '\n]+`)

// recorder keeps what the commands printed, to be parsed again by the tests that
// need no machine.
type recorder struct {
	next packages.Runner
	dir  string
}

func (r *recorder) Run(ctx context.Context, c packages.Command) (packages.Result, error) {
	result, err := r.next.Run(ctx, c)
	if err != nil {
		return result, err
	}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return result, err
	}
	for suffix, text := range map[string][]byte{".stdout": result.Stdout, ".stderr": result.Stderr, ".status": result.Status} {
		// Which server it was is an accident.
		clean := server.ReplaceAllString(string(text), "${1}mirror.example")
		if clean == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(r.dir, c.Name+suffix), []byte(clean), 0o644); err != nil {
			return result, err
		}
	}
	return result, nil
}
