package apt_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

// rawUpgrade is what an installation is measured against, with everything downloaded already.
func (m *machine) rawUpgrade(tb testing.TB) time.Duration {
	tb.Helper()
	started := time.Now()
	result, err := m.runner.Run(tb.Context(), packages.Command{
		Name: "apt-raw", Transaction: true, Env: []string{"DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"},
		Argv: []string{"apt-get", "-q", "-y", "-o", "Dpkg::Options::=--force-confold", "dist-upgrade"},
	})
	if err != nil || result.ExitCode != 0 {
		tb.Fatalf("apt-get dist-upgrade: %v, %s", err, result.Stderr)
	}
	return time.Since(started)
}

func (m *machine) timedInstall(tb testing.TB, targets ...packages.Target) time.Duration {
	tb.Helper()
	started := time.Now()
	if install := m.put(tb, targets...); len(install.Failed) > 0 {
		tb.Fatalf("install is %+v", install)
	}
	took := time.Since(started)
	presences, err := m.Inspect(tb.Context(), targets)
	if err != nil {
		tb.Fatal(err)
	}
	for i, p := range presences {
		if !p.Installed {
			tb.Fatalf("%+v is %+v", targets[i], p)
		}
	}
	return took
}

func reportInstall(b *testing.B, install, raw, single time.Duration) {
	b.ReportMetric(float64(install)/float64(raw), "install/raw")
	b.ReportMetric(float64(install.Milliseconds())/float64(b.N), "install-ms")
	b.ReportMetric(float64(raw.Milliseconds())/float64(b.N), "raw-ms")
	b.ReportMetric(float64(single)*float64(b.N)/float64(install), "one-by-one/install")
	b.ReportMetric(0, "ns/op") // means nothing: the loop also publishes and downloads
}

// BenchmarkInstall has 50 small packages, which are upgraded again and again, by one
// call and by raw apt in turn, and once one by one.
func BenchmarkInstall(b *testing.B) {
	const many = 50
	var offered []aptrepo.Package
	for i := range many {
		offered = append(offered, aptrepo.WithConffile(fmt.Sprintf("toy-%02d", i), "1.1"))
	}
	m, repos := newOutdated(b, packages.Locks{}, offered...)
	next := 1
	upgrade := func() (targets []packages.Target) {
		next++
		version := fmt.Sprintf("1.%d", next)
		for _, p := range offered {
			repos["updates"].Add(aptrepo.WithConffile(p.Name, version))
			targets = append(targets, target(p.Name, version))
		}
		publish(b, repos["updates"])
		m.refresh(b)
		m.fetch(b, targets...)
		return targets
	}
	var single, install, raw time.Duration
	for _, t := range upgrade() {
		single += m.timedInstall(b, t)
	}
	for b.Loop() {
		upgrade()
		raw += m.rawUpgrade(b)
		install += m.timedInstall(b, upgrade()...)
	}
	reportInstall(b, install, raw, single)
}

// BenchmarkInstallDistribution has what the distribution has published since the
// release: few packages, where unpacking and triggers take most of the time.
func BenchmarkInstallDistribution(b *testing.B) {
	outdated := func() (*machine, []packages.Target) {
		m := newDistribution(b)
		targets := m.missing(b)
		m.fetch(b, targets...)
		return m, targets
	}
	var single, install, raw time.Duration
	m, targets := outdated()
	for _, t := range targets {
		single += m.timedInstall(b, t)
	}
	for b.Loop() {
		m, _ := outdated()
		raw += m.rawUpgrade(b)
		m, targets := outdated()
		install += m.timedInstall(b, targets...)
	}
	reportInstall(b, install, raw, single)
	b.ReportMetric(float64(len(targets)), "packages")
}
