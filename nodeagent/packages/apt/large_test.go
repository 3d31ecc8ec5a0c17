package apt_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

// TestScanLarge scans a machine on which 5,000 packages are outdated.
func TestScanLarge(t *testing.T) {
	const outdated = 5000
	m := newMachine(t, packages.Locks{})
	repo := aptrepo.New(aptrepo.Release{Origin: "Debian", Label: "Debian-Security", Suite: "oldstable-security"})
	var database strings.Builder
	for i := range outdated {
		// As long as names of packages are where there are so many of one kind.
		name := fmt.Sprintf("libtoy-with-a-long-name-as-perl-modules-have-%04d", i)
		repo.Add(aptrepo.Good(name, "1.1"))
		// Installing them all takes minutes; apt and dpkg-query read no more than this.
		fmt.Fprintf(&database, "\nPackage: %s\nStatus: install ok installed\nArchitecture: all\nVersion: 1.0\n"+
			"Maintainer: Test <test@example.invalid>\nDescription: toy package\n", name)
	}
	m.serve(t, map[string]*aptrepo.Repository{"security": repo})
	m.refresh(t)
	status := filepath.Join(m.layer.Path, "var/lib/dpkg/status")
	text, err := os.ReadFile(status)
	if err != nil {
		t.Fatal(err)
	}
	m.layer.Write(t, "/var/lib/dpkg/status", string(text)+database.String())

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	started := time.Now()
	scan := m.scan(t)
	took := time.Since(started)
	runtime.ReadMemStats(&after)

	if len(scan.Patches) != outdated || scan.Count(packages.Missing) != outdated {
		t.Errorf("%d patches, %d of them missing, want %d", len(scan.Patches), scan.Count(packages.Missing), outdated)
	}
	for _, p := range scan.Patches {
		if p.Classification != packages.Security || p.DownloadSize == 0 {
			t.Fatalf("a patch is %+v", p)
		}
	}
	// All that was ever allocated, live or not: bounds the peak, and does not depend on when garbage is collected.
	allocated := after.TotalAlloc - before.TotalAlloc
	t.Logf("Scan of %d patches took %s and allocated %d KiB in all", outdated, took.Round(time.Millisecond), allocated>>10)
	const most = 48 << 20
	if allocated > most {
		t.Errorf("a scan allocated %d KiB in all, want at most %d", allocated>>10, most>>10)
	}
	if took > time.Minute {
		t.Errorf("a scan took %s", took)
	}
}
