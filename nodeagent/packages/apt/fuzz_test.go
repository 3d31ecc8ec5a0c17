package apt

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// seed adds all recordings of a command's output.
func seed(f *testing.F, name string) {
	f.Helper()
	files, err := filepath.Glob("testdata/*/" + name)
	if err != nil || len(files) == 0 {
		f.Fatalf("no recordings of %s: %v", name, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
}

func count(output []byte) int {
	n := bytes.Count(output, []byte("\n"))
	if len(output) > 0 && output[len(output)-1] != '\n' {
		n++
	}
	return n
}

// FuzzParsePlan accepts a plan only if every line below its headings is in it, and
// only names and versions that are safe to pass on.
func FuzzParsePlan(f *testing.F) {
	seed(f, "apt-plan.stdout")
	f.Add([]byte(okSummary))
	f.Fuzz(func(t *testing.T, output []byte) {
		p, err := parsePlan(output)
		if err != nil {
			return
		}
		listed, in := 0, false
		for line := range strings.SplitSeq(string(output), "\n") {
			switch {
			case strings.HasPrefix(line, " "):
				if in {
					listed++
				}
			default:
				in = headings[line] != noSection && headings[line] != downgradedSection
			}
		}
		all := slices.Concat(p.upgraded, p.kept, p.phased, p.added)
		if len(all) != listed {
			t.Errorf("%d packages of %d lines", len(all), listed)
		}
		for _, e := range all {
			if !validName(e.name) || !validVersion(e.to) || strings.ContainsAny(e.qualified(), " \n\t$*?~^") || e.qualified()[0] == '-' {
				t.Errorf("unsafe: %+v", e)
			}
		}
	})
}

// FuzzParseInstalled accounts for every line.
func FuzzParseInstalled(f *testing.F) {
	seed(f, "apt-installed.stdout")
	f.Fuzz(func(t *testing.T, output []byte) {
		d, err := parseInstalled(output)
		if err != nil {
			return
		}
		skipped := 0
		for line := range strings.SplitSeq(string(output), "\n") {
			if fields := strings.Split(line, "\t"); len(fields) > 4 && fields[4] == "not-installed" {
				skipped++
			}
		}
		if len(d.packages)+skipped != count(output) {
			t.Errorf("%d packages and %d that are not installed in %d lines", len(d.packages), skipped, count(output))
		}
		if d.count > len(d.packages) || d.native == "" {
			t.Errorf("%d are installed of %d, for %q", d.count, len(d.packages), d.native)
		}
		d.problems()
		newestKernel("6.1.0-37-amd64", d.kernels())
	})
}

// FuzzParseArchives accounts for every line.
func FuzzParseArchives(f *testing.F) {
	seed(f, "apt-archives.stdout")
	f.Fuzz(func(t *testing.T, output []byte) {
		archives, err := parseArchives(output)
		if err != nil {
			return
		}
		if len(archives) > count(output) {
			t.Errorf("%d archives in %d lines", len(archives), count(output))
		}
		c := newClassifier(packages.OS{ID: "debian"}, archives)
		for location, a := range archives {
			if location == "" || !slices.Contains(urgency, c.purpose(a)) {
				t.Errorf("%q is %+v", location, a)
			}
		}
	})
}

// FuzzParseVersions accounts for every line.
func FuzzParseVersions(f *testing.F) {
	seed(f, "apt-versions.stdout")
	f.Fuzz(func(t *testing.T, output []byte) {
		offers := map[string]*offer{}
		if err := parseVersions(output, offers); err != nil {
			return
		}
		// One package given twice is told once, by the last.
		seen, twice := map[string]bool{}, false
		others := 0
		for line := range strings.SplitSeq(string(output), "\n") {
			switch {
			case line != "" && line[0] != ' ':
				twice = twice || seen[line]
				seen[line] = true
			case strings.HasPrefix(line, "  ") && !strings.HasPrefix(line, "     "):
				others++
			}
		}
		lines := len(offers) + others
		for _, o := range offers {
			for _, v := range o.versions {
				lines += 1 + len(v.locations)
				if !validVersion(v.number) || v.phased < 0 || v.phased > 100 {
					t.Errorf("version is %+v", v)
				}
			}
			newClassifier(packages.OS{}, nil).classify(o)
		}
		if !twice && lines != count(output) {
			t.Errorf("%d of %d lines are accounted for", lines, count(output))
		}
	})
}

// FuzzParseSizes takes no size that is not a record's.
func FuzzParseSizes(f *testing.F) {
	seed(f, "apt-sizes.stdout")
	f.Fuzz(func(t *testing.T, output []byte) {
		sizes := map[file]int64{}
		if err := parseSizes(output, sizes); err != nil {
			return
		}
		if n := bytes.Count(output, []byte("Package:")); len(sizes) > n {
			t.Errorf("%d sizes of %d packages", len(sizes), n)
		}
		for f, size := range sizes {
			if size < 0 || !validName(f.name) || !validVersion(f.version) || !validArchitecture(f.architecture) {
				t.Errorf("%+v has %d bytes", f, size)
			}
		}
	})
}

// FuzzParseRefresh never takes a failed fetch for a success.
func FuzzParseRefresh(f *testing.F) {
	f.Add([]byte("Hit:1 http://m bookworm InRelease\nGet:2 http://m x Packages [5 B]\n"),
		[]byte("E: Failed to fetch http://m/x  Could not connect to m:80\nW: y\n"))
	f.Add([]byte("Reading package lists...\n"),
		[]byte("E: Could not get lock /var/lib/apt/lists/lock. It is held by process 123 (apt-get)\nE: Unable to lock directory /var/lib/apt/lists/\n"))
	f.Add([]byte(""), []byte("E: The repository 'http://m x Release' does not have a Release file.\nW: GPG error: http://m x InRelease: NO_PUBKEY 1\n"))
	f.Fuzz(func(t *testing.T, stdout, stderr []byte) {
		refresh, failures, err := parseRefresh(stdout, stderr)
		if err != nil {
			return
		}
		if refresh.Changed > refresh.Indexes || refresh.Indexes > count(stdout) || len(refresh.Warnings) > maxWarnings {
			t.Errorf("refresh is %+v", refresh)
		}
		if len(failures) == 0 && bytes.Contains(append([]byte("\n"), stderr...), []byte("\nE: Failed to fetch ")) {
			t.Errorf("no failure in %q", stderr)
		}
		if held := lockHeld(stderr); held != nil && held.PID < 0 {
			t.Errorf("held by %+v", held)
		}
		_ = planFailure(packages.Result{Stdout: stdout, Stderr: stderr, ExitCode: 100}).Error()
	})
}

// FuzzParseReport names only packages that are safe to pass on, in short lines.
func FuzzParseReport(f *testing.F) {
	for _, dir := range []string{"debian-12-terminal", "debian-12-chroot"} {
		r := recorded(f, dir, "apt-install")
		f.Add(r.Status, r.Stdout, r.Stderr)
	}
	db, err := parseInstalled([]byte("dpkg\tamd64\tinstall\tok\tinstalled\t1\tdpkg\t1\t\n"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, status, stdout, stderr []byte) {
		result := packages.Result{ExitCode: 100, Status: status, Stdout: stdout, Stderr: stderr}
		r := parseReport(result)
		if len(r.culprits)+len(r.installed) > count(status) {
			t.Errorf("%d culprits and %d installed in %d lines", len(r.culprits), len(r.installed), count(status))
		}
		for _, failure := range newRequest(db, nil).failures(r, db, nil) {
			if !validName(failure.Target.Name) {
				t.Errorf("unsafe: %+v", failure)
			}
			if m := failure.Message; len(m) > longestMessage || strings.ContainsAny(m, "\n\r\t\x00\x1b") || !utf8.ValidString(m) {
				t.Errorf("no short line: %q", m)
			}
		}
		if verdict(installTool, result).Error() == "" {
			t.Error("a failure without a word")
		}
	})
}

// FuzzParseFaults has no fault without a failed file in the output.
func FuzzParseFaults(f *testing.F) {
	r := recorded(f, "debian-12-download", "apt-download")
	f.Add(r.Stdout, r.Stderr)
	f.Fuzz(func(t *testing.T, stdout, stderr []byte) {
		found := parseFaults(packages.Result{Stdout: stdout, Stderr: stderr})
		if len(found.files) > bytes.Count(stdout, []byte("Err:")) || len(found.addresses) > bytes.Count(stderr, []byte("E: Failed to fetch ")) {
			t.Errorf("%d files and %d addresses in %q and %q", len(found.files), len(found.addresses), stdout, stderr)
		}
		for name, fault := range found.files {
			if !validName(name.name) || len(fault.message) > longestMessage || strings.ContainsAny(fault.message, "\n\r\x1b") {
				t.Errorf("%+v has the fault %+v", name, fault)
			}
		}
		if locations, err := parseLocations(stdout); err == nil && len(locations) > count(stdout) {
			t.Errorf("%d locations in %d lines", len(locations), count(stdout))
		}
	})
}

// FuzzCompareVersions keeps an order of everything, valid or not.
func FuzzCompareVersions(f *testing.F) {
	f.Add("1:1.0~rc1-2+b3", "1.0", "6.1.0-40")
	f.Add("1.0-a-1", "1.0~~", "000")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		ab, ba := compareVersions(a, b), compareVersions(b, a)
		if (ab < 0) != (ba > 0) || (ab == 0) != (ba == 0) {
			t.Errorf("%q and %q: %d one way and %d the other", a, b, ab, ba)
		}
		if compareVersions(a, a) != 0 {
			t.Errorf("%q is not itself", a)
		}
		if ab <= 0 && compareVersions(b, c) <= 0 && compareVersions(a, c) > 0 {
			t.Errorf("%q, %q, %q are in a circle", a, b, c)
		}
	})
}

// FuzzKernelRelease loses no part of a release.
func FuzzKernelRelease(f *testing.F) {
	for _, s := range []string{"6.1.0-37-cloud-amd64", "6.12.9+bpo-amd64", "6.6.20+rpt-rpi-v8", "5.15.0-91-generic", "6.1.0-0.deb11.7-amd64", "6.1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		bannerVersion(s)
		r, ok := parseKernelRelease(s)
		if !ok {
			return
		}
		whole := r.version
		if r.flavour != "" {
			whole += "-" + r.flavour
		}
		if strings.TrimRight(s, "-") != strings.TrimRight(whole, "-") || r.full != s {
			t.Errorf("%q is %+v", s, r)
		}
	})
}
