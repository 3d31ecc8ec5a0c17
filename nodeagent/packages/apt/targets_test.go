package apt_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

// depending is a package that needs others.
func depending(name, version, on string) aptrepo.Package {
	p := aptrepo.Good(name, version)
	p.Depends = on
	return p
}

// newOutdated is a machine that has version 1.0 of each of the packages, which are
// offered to it in their own versions.
func newOutdated(tb testing.TB, locks packages.Locks, offered ...aptrepo.Package) (*machine, map[string]*aptrepo.Repository) {
	tb.Helper()
	m := newMachine(tb, locks)
	repos := archives()
	var install []string
	for _, p := range offered {
		if p.Version == "0" { // a package that others come to need
			p.Version = "1.0"
			repos["updates"].Add(p)
			continue
		}
		old := aptrepo.Good(p.Name, "1.0")
		old.Architecture, old.MultiArch = p.Architecture, p.MultiArch
		if len(p.Conffiles) > 0 {
			old = aptrepo.WithConffile(p.Name, "1.0")
		}
		repos["debian"].Add(old)
		repos["updates"].Add(p)
		install = append(install, p.Name+"=1.0")
	}
	m.serve(tb, repos)
	m.install(tb, install...)
	m.layer.Run(tb, "apt-get", "clean")
	return m, repos
}

func target(name, version string) packages.Target {
	return packages.Target{Name: name, Architecture: "all", Version: version}
}

// upgrades are targets of version 1.1.
func upgrades(names ...string) (targets []packages.Target) {
	for _, name := range names {
		targets = append(targets, target(name, "1.1"))
	}
	return targets
}

func names(targets []packages.Target) (names []string) {
	for _, t := range targets {
		names = append(names, t.Name)
	}
	slices.Sort(names)
	return names
}

func failed(failures []packages.Failure) map[string]string {
	messages := map[string]string{}
	for _, f := range failures {
		messages[f.Target.Name] = f.Message
	}
	return messages
}

// sameNames compares what is in a list with what is to be in it.
func sameNames(tb testing.TB, what string, got []string, want ...string) {
	tb.Helper()
	got = slices.Clone(got)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		tb.Errorf("%s are %q, want %q", what, got, want)
	}
}

// sameReasons compares which packages are in a list, and parts of why.
func sameReasons(tb testing.TB, what string, failures []packages.Failure, want map[string]string) {
	tb.Helper()
	got := failed(failures)
	if len(failures) != len(want) {
		tb.Errorf("%s are %+v, want %q", what, failures, want)
	}
	for name, reason := range want {
		message, found := got[name]
		if !found {
			tb.Errorf("%s has not %s: %+v", what, name, failures)
		} else if !strings.Contains(message, reason) {
			tb.Errorf("%s of %s says %q, want %q in it", what, name, message, reason)
		}
		if len(message) > 400 || strings.ContainsAny(message, "\n\r\t\x1b") {
			tb.Errorf("%s of %s is no short line: %q", what, name, message)
		}
	}
}

func (m *machine) download(tb testing.TB, targets ...packages.Target) packages.Download {
	tb.Helper()
	download, err := m.Download(tb.Context(), targets)
	if err != nil {
		tb.Fatal(err)
	}
	if n := len(download.Ready) + len(download.Failed) + len(download.Deferred); n != len(targets) {
		tb.Errorf("%d answers for %d targets: %+v", n, len(targets), download)
	}
	return download
}

// fetch downloads targets that can be.
func (m *machine) fetch(tb testing.TB, targets ...packages.Target) {
	tb.Helper()
	if download := m.download(tb, targets...); len(download.Ready) != len(targets) {
		tb.Fatalf("download is %+v", download)
	}
}

func (m *machine) put(tb testing.TB, targets ...packages.Target) packages.Install {
	tb.Helper()
	install, err := m.Install(tb.Context(), targets)
	if err != nil {
		tb.Fatal(err)
	}
	return install
}

// state is dpkg's own account of a package: its version and the two or three
// letters of its state.
func (m *machine) state(tb testing.TB, name string) string {
	tb.Helper()
	state, err := m.try("dpkg-query", "-W", "-f", "${Version} ${db:Status-Abbrev}", name)
	if err != nil {
		return "absent"
	}
	return strings.TrimSpace(state)
}

// wantStates compares dpkg's account of packages: "1.1" stands for that version installed in full.
func (m *machine) wantStates(tb testing.TB, want map[string]string) {
	tb.Helper()
	for name, state := range want {
		if !strings.Contains(state, " ") && state != "absent" {
			state += " ii"
		}
		if got := m.state(tb, name); got != state {
			tb.Errorf("%s is %q, want %q", name, got, state)
		}
	}
}
