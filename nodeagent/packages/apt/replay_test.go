package apt

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

var update = flag.Bool("update", false, "write the golden files of TestReplay anew")

// replay answers commands with what they printed on a real machine.
type replay struct{ dir string }

func (r replay) Run(_ context.Context, c packages.Command) (packages.Result, error) {
	read := func(suffix string) ([]byte, error) {
		text, err := os.ReadFile(filepath.Join(r.dir, c.Name+suffix))
		if os.IsNotExist(err) {
			return nil, nil
		}
		return text, err
	}
	stdout, err := read(".stdout")
	if err != nil {
		return packages.Result{}, err
	}
	stderr, err := read(".stderr")
	return packages.Result{Stdout: stdout, Stderr: stderr}, err
}

// TestReplay scans by the recorded output of several releases, and compares with
// golden files that a person has read.
func TestReplay(t *testing.T) {
	published := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	systems := map[string]fstest.MapFS{
		"debian-11":         host(`ID=debian`, "5.10.0-35-amd64"),
		"debian-12":         host(`ID=debian`, "6.1.0-40-amd64"),
		"debian-12-release": host(`ID=debian`, "6.1.0-40-amd64"),
		"debian-13":         host(`ID=debian`, "6.12.48+deb13-amd64"),
		"ubuntu-22.04":      host("ID=ubuntu\nID_LIKE=debian", "5.15.0-89-generic"),
	}
	for name, files := range systems {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join("testdata", name)
			files["var/lib/apt/lists/mirror_InRelease"] = &fstest.MapFile{ModTime: published}
			scan, err := New(replay{dir}, files, packages.Locks{}).Scan(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if !scan.MetadataRefreshed.Equal(published) {
				t.Errorf("metadata is of %s, want %s", scan.MetadataRefreshed, published)
			}
			golden := filepath.Join(dir, "scan.golden")
			got := summarize(&scan)
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("scan is\n%s\nwant\n%s", got, want)
			}
			if _, err := os.Stat(filepath.Join(dir, "apt-refresh.stdout")); err == nil {
				refresh, err := New(replay{dir}, files, packages.Locks{}).Refresh(t.Context())
				if err != nil || refresh.Indexes == 0 || refresh.Changed != refresh.Indexes {
					t.Errorf("refresh is %+v, %v", refresh, err)
				}
			}
		})
	}
}

// host is what a scan reads of a host's files.
func host(osRelease, kernel string) fstest.MapFS {
	return fstest.MapFS{
		"etc/os-release":             {Data: []byte(osRelease)},
		"proc/sys/kernel/osrelease":  {Data: []byte(kernel + "\n")},
		"proc/version":               {Data: []byte("Linux version " + kernel + "\n")},
		"var/lib/dpkg/updates":       {Mode: fs.ModeDir | 0o755},
		"var/lib/apt/lists/lock":     {},
		"var/lib/apt/lists/partial":  {Mode: fs.ModeDir | 0o755},
		"var/lib/apt/periodic/stamp": {},
	}
}

func summarize(s *packages.Scan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, apt %s, kernel %s, newest %s, %d packages installed\n",
		s.OS.ID, s.ManagerVersion, s.Kernel.Running, s.Kernel.NewestInstalled, s.Installed)
	fmt.Fprintf(&b, "reboot %t %q\n", s.Reboot.Required, s.Reboot.Reasons)
	for _, p := range s.Patches {
		fmt.Fprintf(&b, "%s %s %s:%s %s -> %s, %d bytes from %s, source %s %s",
			p.State, p.Classification, p.Name, p.Architecture, p.InstalledVersion, p.AvailableVersion,
			p.DownloadSize, p.Origin, p.SourcePackage, p.SourceVersion)
		if p.Broken {
			b.WriteString(", broken")
		}
		if p.Reason != "" {
			fmt.Fprintf(&b, ": %s", p.Reason)
		}
		b.WriteByte('\n')
	}
	for _, n := range s.NewPackages {
		fmt.Fprintf(&b, "new %s:%s %s, %d bytes\n", n.Name, n.Architecture, n.Version, n.DownloadSize)
	}
	for _, p := range s.Problems {
		fmt.Fprintf(&b, "%s %s:%s %s: %s\n", p.Kind, p.Name, p.Architecture, p.Version, p.Message)
	}
	return b.String()
}

// TestMetadataRefreshed never says that metadata is newer than it is.
func TestMetadataRefreshed(t *testing.T) {
	day := func(n int) *fstest.MapFile {
		return &fstest.MapFile{ModTime: time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC)}
	}
	const lists = "var/lib/apt/lists/"
	for name, c := range map[string]struct {
		files fstest.MapFS
		want  int // day; 0 for never
	}{
		"never":                     {fstest.MapFS{lists + "lock": day(9)}, 0},
		"by another program":        {fstest.MapFS{lists + "m_dists_bookworm_InRelease": day(3), lists + "m_dists_bookworm-security_Release": day(8)}, 3},
		"by us":                     {fstest.MapFS{lists + "m_InRelease": day(3), refreshStamp: day(5)}, 5},
		"by us, then by another":    {fstest.MapFS{lists + "m_InRelease": day(7), lists + "n_InRelease": day(8), refreshStamp: day(5)}, 7},
		"no Release file":           {fstest.MapFS{lists + "_srv_repo_._Packages": day(1), refreshStamp: day(5)}, 5},
		"deleted after the refresh": {fstest.MapFS{lists + "lock": day(1), refreshStamp: day(5)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := metadataRefreshed(c.files)
			if err != nil {
				t.Fatal(err)
			}
			var want time.Time
			if c.want != 0 {
				want = day(c.want).ModTime
			}
			if !got.Equal(want) {
				t.Errorf("it is %s, want %s", got, want)
			}
		})
	}
}
