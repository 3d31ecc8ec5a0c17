package rpm_test

import (
	"cmp"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
	"github.com/nodepatch/nodepatch/test/roots"
	"github.com/nodepatch/nodepatch/test/roots/hosts"
	"github.com/nodepatch/nodepatch/test/rpmrepo"
)

// machine is a real root in which a real rpm has a database.
type machine struct {
	*rpm.Database
	layer *roots.Layer
	files *os.Root
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	layer := roots.Open(t, roots.RPM)
	node, files := hosts.Open(t, layer)
	session, err := node.Session("test", "rpm")
	if err != nil {
		t.Fatal(err)
	}
	return &machine{Database: rpm.New(session, files.FS()), layer: layer, files: files}
}

// install installs packages with rpm alone: -U instead of older versions, -i beside them.
func (m *machine) install(t *testing.T, how string, all ...rpmrepo.Package) {
	t.Helper()
	repo := rpmrepo.New()
	repo.Add(all...)
	if err := repo.Publish(); err != nil {
		t.Fatal(err)
	}
	argv := []string{"rpm", how, "--quiet", "--force-debian", "--force"}
	for _, p := range all {
		_, version, found := strings.Cut(p.Version, ":")
		if !found {
			version = p.Version
		}
		file := p.Name + "-" + version + "." + cmp.Or(p.Architecture, "noarch") + ".rpm"
		response := httptest.NewRecorder()
		repo.ServeHTTP(response, httptest.NewRequest(http.MethodGet, "/packages/"+file, nil))
		if response.Code != http.StatusOK {
			t.Fatalf("%s: status %d", file, response.Code)
		}
		m.layer.Write(t, "/tmp/"+file, response.Body.String())
		argv = append(argv, "/tmp/"+file)
	}
	m.layer.Run(t, argv...)
}

func (m *machine) nevras(t *testing.T) []string {
	t.Helper()
	installed, err := m.Installed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, p := range installed.Packages {
		all = append(all, p.NEVRA())
	}
	return all
}

// TestInstalled reads a real database.
func TestInstalled(t *testing.T) {
	m := newMachine(t)
	if got := m.nevras(t); len(got) != 0 {
		t.Fatalf("an empty database has %q", got)
	}
	sourced := rpmrepo.Good("toy-sourced", "2.0-1")
	sourced.Source, sourced.Vendor = "toy-source-3.0-4.el9.src.rpm", "Toys | Sons"
	m.install(t, "-U", sourced, rpmrepo.Good("toy-epoch", "1:0.5~rc1-1.el9_4"), rpmrepo.Kernel("5.14.0-500.el9"))
	installed, err := m.Installed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := m.nevras(t), []string{"kernel-core-5.14.0-500.el9.x86_64", "toy-epoch-1:0.5~rc1-1.el9_4.noarch", "toy-sourced-2.0-1.noarch"}; !slices.Equal(got, want) {
		t.Errorf("installed are %q, want %q", got, want)
	}
	p, found := installed.Newest("toy-sourced", "noarch")
	if !found || p.SourceName != "toy-source" || p.SourceVersion != "3.0-4.el9" || p.Vendor != "Toys | Sons" || p.Installed.IsZero() {
		t.Errorf("it is %+v", p)
	}
	if other, _ := installed.Newest("toy-epoch", "noarch"); other.Transaction == 0 || other.Transaction != p.Transaction {
		t.Errorf("packages of one transaction have the transactions %d and %d", other.Transaction, p.Transaction)
	}
	if together := installed.Together([]rpm.Package{p}); len(together) != 3 {
		t.Errorf("together with it came %+v", together)
	}

	presence, err := m.Inspect(t.Context(), []packages.Target{
		{Name: "toy-sourced", Architecture: "noarch", Version: "2.0-1"},
		{Name: "toy-epoch", Architecture: "noarch", Version: "0.9-1"},
		{Name: "toy-epoch", Architecture: "noarch", Version: "1:0.5-1"},
		{Name: "toy-epoch", Architecture: "x86_64", Version: "1:0.5~rc1-1.el9_4"},
		{Name: "toy-nowhere", Architecture: "noarch", Version: "1-1"},
		{Name: "kernel-core", Architecture: "x86_64", Version: "5.14.0-500.el9"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []packages.Presence{
		{Installed: true, Version: "2.0-1"},
		{Installed: true, Version: "1:0.5~rc1-1.el9_4"},
		{Installed: false, Version: "1:0.5~rc1-1.el9_4"},
		{Installed: true, Version: "1:0.5~rc1-1.el9_4"},
		{},
		{Installed: true, Version: "5.14.0-500.el9"},
	}
	if !slices.Equal(presence, want) {
		t.Errorf("present is %+v, want %+v", presence, want)
	}
}

// TestRepair has kernels beside each other, which is no trouble, and a
// package in two versions, which is what an interrupted transaction leaves.
func TestRepair(t *testing.T) {
	m := newMachine(t)
	old, new := rpmrepo.WithConfig("toy", "1:1.0-1"), rpmrepo.WithConfig("toy", "1:2.0-1")
	old.Files = map[string]string{"/usr/share/toy/old": "old", "/usr/share/toy/both": "old"}
	new.Files = map[string]string{"/usr/share/toy/new": "new", "/usr/share/toy/both": "new"}
	old.Preun, old.Postun = `echo "preun $1" >>/var/lib/toy`, `echo "postun $1" >>/var/lib/toy`
	m.install(t, "-U", rpmrepo.Kernel("5.14.0-1.el9"), old)
	m.layer.Write(t, "/etc/toy.conf", "mine")
	m.install(t, "-i", rpmrepo.Kernel("5.14.0-2.el9"))
	if _, after, err := m.Repair(t.Context()); err != nil || len(after.Packages) != 3 || len(after.Problems()) != 0 {
		t.Fatalf("with two kernels and nothing to repair there are %+v, %v", after, err)
	}

	m.install(t, "-i", new)
	installed, err := m.Installed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	problems := installed.Problems()
	if len(problems) != 1 || problems[0].Name != "toy" || problems[0].Version != "1:1.0-1" || problems[0].Kind != packages.InterruptedTransaction {
		t.Fatalf("problems are %+v", problems)
	}
	presence := installed.Presence(packages.Target{Name: "toy", Architecture: "noarch", Version: "1:2.0-1"})
	if !presence.Installed || presence.Version != "1:2.0-1" || presence.Problem == "" {
		t.Errorf("present is %+v", presence)
	}

	repaired, after, err := m.Repair(t.Context())
	if err != nil || len(repaired) != 1 || repaired[0].NEVRA() != "toy-1:2.0-1.noarch" || len(after.Problems()) != 0 {
		t.Fatalf("repaired are %+v, %v, with the problems %+v", repaired, err, after.Problems())
	}
	if got, want := m.nevras(t), []string{"kernel-core-5.14.0-1.el9.x86_64", "kernel-core-5.14.0-2.el9.x86_64", "toy-1:2.0-1.noarch"}; !slices.Equal(got, want) {
		t.Errorf("installed are %q, want %q", got, want)
	}
	for name, want := range map[string]string{
		"etc/toy.conf": "mine", "usr/share/toy/new": "new", "usr/share/toy/both": "new",
		// As in an upgrade, one version is left.
		"var/lib/toy": "preun 1\npostun 1\n",
	} {
		if got, err := m.files.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s is %q (%v), want %q", name, got, err, want)
		}
	}
	if _, err := m.files.Stat("usr/share/toy/old"); !os.IsNotExist(err) {
		t.Errorf("a file that only the old version has is still there: %v", err)
	}
}
