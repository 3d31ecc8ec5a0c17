package apt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// recorded is what a command printed on a real machine.
func recorded(tb testing.TB, dir, name string) packages.Result {
	tb.Helper()
	read := func(suffix string) []byte {
		text, err := os.ReadFile(filepath.Join("testdata", dir, name+suffix))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			tb.Fatal(err)
		}
		return text
	}
	result := packages.Result{ExitCode: 100, Stdout: read(".stdout"), Stderr: read(".stderr"), Status: read(".status")}
	if len(result.Stdout) == 0 {
		tb.Fatalf("nothing is recorded of %s in %s", name, dir)
	}
	return result
}

// TestReport names culprits in their own words, by what was recorded with a
// terminal and without, and by what dpkg and scripts can do besides.
func TestReport(t *testing.T) {
	const status = " package post-installation script subprocess returned error exit status "
	for name, c := range map[string]struct {
		result    packages.Result
		culprits  map[string]string
		installed []string
	}{
		"a terminal": {
			result: recorded(t, "debian-12-terminal", "apt-install"),
			culprits: map[string]string{
				"toy-loud":     "two; three; four; installed toy-loud" + status + "1",
				"toy-postinst": "postinst of toy-postinst fails on purpose; installed toy-postinst" + status + "1",
				"toy-preinst":  "preinst of toy-preinst fails on purpose; new toy-preinst package pre-installation script subprocess returned error exit status 1",
			},
		},
		"no terminal, and victims": {
			result: recorded(t, "debian-12-chroot", "apt-install"),
			culprits: map[string]string{
				"toy-postinst": "postinst of toy-postinst fails on purpose; installed toy-postinst" + status + "1",
				"toy-new":      "postinst of toy-new fails on purpose; installed toy-new" + status + "1",
				"toy-wordy":    "word 198  of the script; word 199  of the script; word 200  of the script; installed toy-wordy" + status + "3",
			},
		},
		"another architecture": {
			result: packages.Result{
				Status: []byte("pmstatus:egg:i386:50.0000:Installed egg (i386)\npmerror:ham:i386:12.5:installed ham:i386" + status + "1\n"),
				Stdout: []byte("Setting up ham:i386 (1.1) ...\r\nham is bad\r\ndpkg: error processing package ham:i386 (--configure):\r\n"),
			},
			culprits: map[string]string{"ham:i386": "ham is bad; installed ham:i386" + status + "1"}, installed: []string{"egg:i386"},
		},
		"an epoch in apt's own folder": {
			result: packages.Result{
				Status: []byte("pmerror:/var/cache/apt/archives/0ad_2%3a1.1-1_amd64.deb:9:trying to overwrite '/usr/bin/x', which is also in package ham 1.0\n"),
				Stderr: []byte("dpkg: error processing archive /var/cache/apt/archives/0ad_2%3a1.1-1_amd64.deb (--unpack):\n trying to overwrite\n"),
			},
			culprits: map[string]string{"0ad": "trying to overwrite '/usr/bin/x', which is also in package ham 1.0"},
		},
		"victims alone": {
			result: packages.Result{Status: []byte("pmerror:ham:1.0:dependency problems - leaving unconfigured\n" +
				"pmerror:egg:1.0:dependency problems - leaving triggers unprocessed\npmerror:/x/0-spam_1_all.deb:1.0:pre-dependency problem - not installing spam\n")},
		},
		"a conffile is no failure": {result: packages.Result{Status: []byte("pmconffile:/etc/ham.conf:48.4848:'/etc/ham.conf' '/etc/ham.conf.dpkg-new' 1 1 \n")}},
		"no words of the other": {
			result: packages.Result{
				Status: []byte("pmerror:egg:1.0:installed egg" + status + "1\n"),
				Stdout: []byte("Setting up ham (1.1) ...\r\nham is good\r\nSetting up egg (1.1) ...\r\ndpkg: error processing package egg (--configure):\r\n"),
			},
			culprits: map[string]string{"egg": "installed egg" + status + "1"},
		},
		"not understood": {result: packages.Result{Status: []byte("pmerror:\npmerror:x\npmerror:/x/y:1:z\n\x00\n")}},
	} {
		t.Run(name, func(t *testing.T) {
			r := parseReport(c.result)
			got := map[string]string{}
			for _, culprit := range r.culprits {
				got[culprit.name] = culprit.message
			}
			if len(got) != len(c.culprits) || len(got) > 0 && !reflect.DeepEqual(got, c.culprits) {
				t.Errorf("culprits are %q, want %q", got, c.culprits)
			}
			if !slices.Equal(r.installed, c.installed) {
				t.Errorf("installed are %q, want %q", r.installed, c.installed)
			}
		})
	}
}

// TestFailures tells apart the culprits that this transaction tried to install
// from those that it found broken.
func TestFailures(t *testing.T) {
	const before = "dpkg\tamd64\tinstall\tok\tinstalled\t1\tdpkg\t1\t\nham\tamd64\tinstall\tok\tinstalled\t1.0\tham\t1.0\t\n" +
		"old\tall\tinstall\tok\thalf-configured\t1.0\told\t1.0\t0.9\nham\ti386\tinstall\tok\tinstalled\t1.0\tham\t1.0\t\n"
	db, err := parseInstalled([]byte(before))
	if err != nil {
		t.Fatal(err)
	}
	after, err := parseInstalled([]byte(before + "new\tall\tinstall\tok\thalf-configured\t3\tnew\t3\t\n"))
	if err != nil {
		t.Fatal(err)
	}
	ham := packages.Target{Name: "ham", Architecture: "amd64", Version: "1.1"}
	foreign := packages.Target{Name: "ham", Architecture: "i386", Version: "1.1"}
	req := newRequest(db, []packages.Target{ham, foreign})
	got := req.failures(report{culprits: []culprit{
		{name: "old", message: "was broken before"}, {name: "new", message: "came with it"},
		{name: "ham", message: "native", file: file{name: "ham", version: "1.1", architecture: "amd64"}}, {name: "ham", message: "again"}, {name: "ham:i386", message: "foreign"},
	}}, after, req.named())
	want := []packages.Failure{
		{Target: packages.Target{Name: "new", Architecture: "all", Version: "3"}, Message: "came with it"},
		{Target: ham, Message: "native"}, {Target: foreign, Message: "foreign"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("failures are %+v, want %+v", got, want)
	}
}

// TestFaults tells a file's own fault from its server's.
func TestFaults(t *testing.T) {
	found := parseFaults(recorded(t, "debian-12-download", "apt-download"))
	for name, want := range map[string]string{"toy-missing": "404  Not Found", "toy-corrupt": "Hash Sum mismatch"} {
		fault := found.files[file{name, "1.1", "all"}]
		if !strings.HasPrefix(fault.message, want) || fault.shared {
			t.Errorf("fault of %s is %+v, want its own %q", name, fault, want)
		}
		if fault := found.addresses["http://mirror.example/updates/pool/"+name+"_1.1_all.deb"]; !strings.HasPrefix(fault.message, want) {
			t.Errorf("fault of the address of %s is %+v", name, fault)
		}
	}
	for reason, shared := range map[string]bool{
		"404  Not Found [IP: 192.0.2.1 80]": false, "410  Gone": false, "Hash Sum mismatch": false,
		"File has unexpected size (5 != 7). Mirror sync in progress? [IP: 192.0.2.1 80]": false,
		"File not found - /srv/x.deb (2: No such file or directory)":                     false,
		"503  Service Unavailable": true, "403  Forbidden": true, "407  Proxy Authentication Required": true, "500  Internal Server Error": true,
		"Could not resolve 'mirror.example'": true, "Temporary failure resolving 'mirror.example'": true,
		"Could not connect to mirror.example:80 (192.0.2.1). - connect (111: Connection refused)": true,
		"Connection timed out [IP: 192.0.2.1 80]":                                                 true, "Connection failed [IP: 192.0.2.1 80]": true,
	} {
		if got := newFault(" " + reason); got != (fault{reason, shared}) {
			t.Errorf("%q is %+v, want shared %t", reason, got, shared)
		}
	}
}

// TestVerdict has one case for each cause that is nobody's failure.
func TestVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		stdout, stderr string
		want           any
		text           string
	}{
		"lock":               {"", "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (apt)\nE: Unable to acquire the dpkg frontend lock\n", &packages.LockHeldError{}, "apt (process 7)"},
		"dpkg's lock":        {"", "dpkg: error: dpkg database lock was locked by another process with pid 7\nNote: removing it is wrong\n", &packages.LockHeldError{}, "/var/lib/dpkg/lock is held by process 7"},
		"dpkg's other lock":  {"", "dpkg: error: dpkg frontend is locked by another process\n", &packages.LockHeldError{}, "/var/lib/dpkg/lock-frontend is held by another program"},
		"interrupted":        {"", "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem. \n", &packages.InterruptedDatabaseError{}, "dpkg --configure -a"},
		"dpkg was killed":    {"", "E: Sub-process /usr/bin/dpkg exited unexpectedly\n", &packages.InterruptedDatabaseError{}, "exited unexpectedly"},
		"dpkg had a signal":  {"", "E: Sub-process /usr/bin/dpkg received signal 9.\n", &packages.InterruptedDatabaseError{}, "signal 9"},
		"no archive":         {"", "E: The package ham needs to be reinstalled, but I can't find an archive for it.\n", &packages.InterruptedDatabaseError{}, "ham needs to be reinstalled"},
		"disk, before":       {"", "E: You don't have enough free space in /var/cache/apt/archives/.\n", &packages.DiskFullError{}, "full at /var/cache/apt/archives/"},
		"disk, writing":      {"  Error writing to file - write (28: No space left on device) [IP: 192.0.2.1 80]\n", "E: Failed to fetch x\n", &packages.DiskFullError{}, "No space left"},
		"disk, unpacking":    {" cannot copy extracted data for './opt/x' to '/opt/x.dpkg-new': failed to write (No space left on device)\r\n", "E: Sub-process /usr/bin/dpkg returned an error code (1)\n", &packages.DiskFullError{}, "full at /opt/x.dpkg-new"},
		"the host's own":     {"The following packages have unmet dependencies:\n ham : Depends: egg\n", "E: Unmet dependencies. Try 'apt --fix-broken install' with no packages (or specify a solution).\n", &packages.UnmetDependenciesError{}, "ham : Depends: egg"},
		"unmet":              {"The following packages have unmet dependencies:\n ham : Depends: egg\n       Breaks: spam\n", "E: Unable to correct problems, you have held broken packages.\n", &refused{}, "ham: Depends: egg; ham: Breaks: spam; Unable to correct problems"},
		"unmet, by apt 3":    {"The following packages have unmet dependencies:\n ham : Depends: egg\n", "E: Unable to satisfy dependencies. Reached two conflicting assignments:\n", &refused{}, "Unable to satisfy dependencies"},
		"superseded":         {"", "E: Version '1.1' for 'ham' was not found\nE: Version '2' for 'egg:i386' was not found\n", &refused{}, "Version '2' for 'egg:i386'"},
		"removal":            {"The following packages will be REMOVED:\n  ham\n", "E: Packages need to be removed but remove is disabled.\n", &refused{}, "remove is disabled"},
		"sources are broken": {"", "E: Malformed entry 1 in list file /etc/apt/sources.list (URI)\nE: The list of sources could not be read.\n", &packages.CommandError{}, "Malformed entry 1"},
		"a script's own apt": {"Errors were encountered while processing:\r\n ham\r\n", "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (apt)\n", &packages.CommandError{}, "exit status 100"},
		"dpkg's database":    {"dpkg: unrecoverable fatal error, aborting:\r\n files list file is missing\r\n", "E: Sub-process /usr/bin/dpkg returned an error code (2)\n", &packages.CommandError{}, "aborting: files list file is missing; E: Sub-process"},
		"nothing":            {"", "", &packages.CommandError{}, "it printed nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			err := verdict("apt-get install", packages.Result{ExitCode: 100, Stdout: []byte(c.stdout), Stderr: []byte(c.stderr)})
			if reflect.TypeOf(err) != reflect.TypeOf(c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error is %T %v, want a %T that says %q", err, err, c.want, c.text)
			}
		})
	}
}

// TestSelection finds the targets that fit together in few questions.
func TestSelection(t *testing.T) {
	db, err := parseInstalled([]byte("dpkg\tamd64\tinstall\tok\tinstalled\t1\tdpkg\t1\t\n"))
	if err != nil {
		t.Fatal(err)
	}
	var all []packages.Target
	for i := range 300 {
		all = append(all, packages.Target{Name: fmt.Sprintf("toy-%03d", i), Architecture: "all", Version: "1"})
	}
	has := func(targets []packages.Target, i int) bool { return slices.Contains(targets, all[i]) }
	for name, c := range map[string]struct {
		check    func([]packages.Target) error
		rejected []string
		most     int // questions
	}{
		"all fit": {func([]packages.Target) error { return nil }, nil, 1},
		"two are named": {func(targets []packages.Target) error {
			if has(targets, 7) || has(targets, 250) {
				return &refused{named: map[string]string{"toy-007": "a", "toy-250": "b", "dpkg": "c"}}
			}
			return nil
		}, []string{"toy-007", "toy-250"}, 2},
		"one is not named": {func(targets []packages.Target) error {
			if has(targets, 123) {
				return &refused{detail: "no"}
			}
			return nil
		}, []string{"toy-123"}, 20},
		"two do not fit together": {func(targets []packages.Target) error {
			if has(targets, 10) && has(targets, 200) {
				return &refused{detail: "no"}
			}
			return nil
		}, []string{"toy-200"}, 20},
		"the last": {func(targets []packages.Target) error {
			if has(targets, 299) {
				return &refused{detail: "no"}
			}
			return nil
		}, []string{"toy-299"}, 20},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			s := &selection{db: db, check: func(_ context.Context, targets []packages.Target) error {
				asked++
				return c.check(targets)
			}}
			if err := s.add(t.Context(), all); err != nil {
				t.Fatal(err)
			}
			var rejected []string
			for _, f := range s.rejected {
				rejected = append(rejected, f.Target.Name)
			}
			slices.Sort(rejected)
			if !slices.Equal(rejected, c.rejected) || len(s.fitting)+len(rejected) != len(all) || c.check(s.fitting) != nil {
				t.Errorf("rejected are %q and %d fit, want %q", rejected, len(s.fitting), c.rejected)
			}
			if asked > c.most {
				t.Errorf("apt was asked %d times, want at most %d", asked, c.most)
			}
		})
	}
	broken := errors.New("the host is away")
	s := &selection{db: db, check: func(context.Context, []packages.Target) error { return broken }}
	if err := s.add(t.Context(), all); !errors.Is(err, broken) {
		t.Errorf("error is %v, want %v", err, broken)
	}
}

func TestParseFolder(t *testing.T) {
	for output, want := range map[string]string{
		"": "/var/cache/apt/archives", "FOLDER='/var/cache/apt/archives/'\n": "/var/cache/apt/archives",
		"FOLDER='/srv/it'\\''s here/'\n": "/srv/it's here",
	} {
		if got, err := parseFolder([]byte(output)); err != nil || got != want {
			t.Errorf("%q is %q, %v, want %q", output, got, err, want)
		}
	}
	for _, output := range []string{"FOLDER='relative/'\n", "OTHER='/x'\n", "E: no\n"} {
		if got, err := parseFolder([]byte(output)); err == nil {
			t.Errorf("%q is %q, want an error", output, got)
		}
	}
}
