package apt_test

import (
	"context"
	"testing"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/test/roots"
)

// newDistribution is a machine with the distribution's own repositories, where
// all that was published since the release is missing.
func newDistribution(tb testing.TB) *machine {
	tb.Helper()
	m := newMachine(tb, packages.Locks{})
	sources, err := roots.HostSources(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	if err := sources.Write(m.layer.Path); err != nil {
		tb.Fatal(err)
	}
	if err := m.layer.WriteResolver(); err != nil {
		tb.Fatal(err)
	}
	m.refresh(tb)
	return m
}

// TestScanDistribution compares with raw apt on real packages.
func TestScanDistribution(t *testing.T) {
	m := newDistribution(t)
	scan := m.scan(t)
	if len(scan.Patches) == 0 {
		t.Error("nothing is missing on a machine that has only the release itself")
	}
	classes := map[packages.Classification]int{}
	for _, p := range scan.Patches {
		classes[p.Classification]++
		if p.Classification == packages.Other || p.DownloadSize == 0 || p.SourcePackage == "" || p.Origin == "" {
			t.Errorf("of the distribution's own package is known: %+v", p)
		}
	}
	if classes[packages.Security] == 0 {
		t.Errorf("nothing is a security patch: %v", classes)
	}
	t.Logf("Missing: %v, newly required: %d, installed: %d", classes, len(scan.NewPackages), scan.Installed)
	m.compareWithApt(t, scan)
}

// missing are the targets of all that a scan finds missing.
func (m *machine) missing(tb testing.TB) (targets []packages.Target) {
	tb.Helper()
	for _, p := range m.scan(tb).Patches {
		if p.State == packages.Missing {
			targets = append(targets, packages.Target{Name: p.Name, Architecture: p.Architecture, Version: p.AvailableVersion})
		}
	}
	return targets
}

// TestInstallDistribution installs real packages, with their scripts and triggers,
// and leaves nothing missing, broken or on disk.
func TestInstallDistribution(t *testing.T) {
	m := newDistribution(t)
	targets := m.missing(t)
	m.fetch(t, targets...)
	for _, p := range m.scan(t).Patches {
		if p.State == packages.Missing && !p.Downloaded {
			t.Errorf("%s %s is not found on disk", p.Name, p.AvailableVersion)
		}
	}
	started := time.Now()
	if install := m.put(t, targets...); len(install.Failed) != 0 {
		t.Errorf("install is %+v", install)
	}
	t.Logf("Installed %d packages in %s", len(targets), time.Since(started).Round(time.Millisecond))
	scan := m.scan(t)
	if len(scan.Problems) != 0 || scan.Count(packages.Missing) != 0 {
		t.Errorf("problems are %+v and patches %+v", scan.Problems, scan.Patches)
	}
	if left := m.archives(t); len(left) != 0 {
		t.Errorf("on disk are still %q", left)
	}
}

// rawSimulate is what a scan is measured against.
func (m *machine) rawSimulate(tb testing.TB) time.Duration {
	tb.Helper()
	started := time.Now()
	result, err := m.runner.Run(context.Background(), packages.Command{Name: "apt-raw", Argv: []string{"apt-get", "-s", "dist-upgrade"}})
	if err != nil || result.ExitCode != 0 {
		tb.Fatalf("apt-get -s dist-upgrade: %v, %s", err, result.Stderr)
	}
	return time.Since(started)
}

func (m *machine) timedScan(tb testing.TB) time.Duration {
	tb.Helper()
	started := time.Now()
	m.scan(tb)
	return time.Since(started)
}

func BenchmarkScan(b *testing.B) {
	m := newDistribution(b)
	for b.Loop() {
		m.timedScan(b)
	}
}

func BenchmarkRawSimulate(b *testing.B) {
	m := newDistribution(b)
	for b.Loop() {
		m.rawSimulate(b)
	}
}

// BenchmarkScanToRaw alternates both, so that what else the machine does hits
// both alike, and reports how many times as long the scan takes.
func BenchmarkScanToRaw(b *testing.B) {
	m := newDistribution(b)
	var scan, raw time.Duration
	for b.Loop() {
		raw += m.rawSimulate(b)
		scan += m.timedScan(b)
	}
	b.ReportMetric(float64(scan)/float64(raw), "scan/raw")
	b.ReportMetric(float64(scan.Milliseconds())/float64(b.N), "scan-ms")
	b.ReportMetric(float64(raw.Milliseconds())/float64(b.N), "raw-ms")
}
