package dnf

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

func TestParseInstall(t *testing.T) {
	for name, c := range map[string]struct {
		targets        []packages.Target
		failed, warned string
		said           map[string]string
	}{
		"dnf-4.14/install": {
			[]packages.Target{toy("toy-good", "2.0-1"), toy("toy-pre", "2.0-1"), toy("toy-post", "2.0-1"), toy("toy-config", "2.0-1")},
			"toy-pre", "toy-post", map[string]string{
				"toy-pre":  "%prein scriptlet failed, exit status 1: %pre of toy-pre fails on purpose",
				"toy-post": "%post scriptlet failed, exit status 1: %post of toy-post fails on purpose",
			},
		},
		"dnf-4.14/install-conflict": {
			[]packages.Target{toy("toy-good", "2.0-1"), toy("toy-a", "2.0-1")},
			"toy-a", "", map[string]string{
				"toy-a": "file /usr/share/toy from install of toy-a-2.0-1.noarch conflicts with file from package toy-owner-1.0-1.noarch",
			},
		},
		"dnf-5/install": {
			[]packages.Target{toy("toy-good", "2.0-1"), toy("toy-pre", "2.0-1"), toy("toy-post", "1:2.0-1"), toy("toy-unpack", "2.0-1")},
			"toy-pre toy-unpack", "toy-post", map[string]string{
				"toy-pre":    "%pre scriptlet failed: %pre of toy-pre fails on purpose; %prein(toy-pre-2.0-1.noarch) scriptlet failed, exit status 1",
				"toy-post":   "%post scriptlet failed: %post of toy-post fails on purpose; %post(toy-post-1:2.0-1.noarch) scriptlet failed, exit status 1",
				"toy-unpack": "Unpack error",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			result := recorded(t, name)
			result.ExitCode = 1
			got, err := parseInstall(result, c.targets)
			if err != nil {
				t.Fatal(err)
			}
			if failureNames(got.Failed) != c.failed || failureNames(got.Warned) != c.warned {
				t.Errorf("it is %+v", got)
			}
			for _, f := range slices.Concat(got.Failed, got.Warned) {
				if f.Message != c.said[f.Target.Name] {
					t.Errorf("of %s it says %q, want %q", f.Target.Name, f.Message, c.said[f.Target.Name])
				}
			}
		})
	}
}

// TestParseInstallLines has what no machine of these tests prints.
func TestParseInstallLines(t *testing.T) {
	targets := []packages.Target{toy("toy-a", "1:2.0-1"), toy("toy-b", "2.0-1")}
	begin := "Running transaction\n  Upgrading        : toy-a-1:2.0-1.noarch                     1/4 \n"
	for name, c := range map[string]struct {
		text, failed, warned, said string
	}{
		"a configuration file is replaced": {
			"warning: /etc/toy.conf saved as /etc/toy.conf.rpmsave\n", "", "toy-a", "/etc/toy.conf was changed on the host and is replaced, the old one is /etc/toy.conf.rpmsave",
		},
		"a configuration file is kept": {"warning: /etc/toy.conf created as /etc/toy.conf.rpmnew\n", "", "", ""},
		"a file cannot be written": {
			"error: unpacking of archive failed on file /usr/toy;1: cpio: rename\nerror: toy-a-1:2.0-1.noarch: install failed\n", "toy-a", "", "error: unpacking of archive failed on file /usr/toy;1: cpio: rename",
		},
		"the old version's scriptlet fails": {"error: %preun(toy-b-1.0-1.noarch) scriptlet failed, exit status 1\n", "", "toy-b", "%preun scriptlet failed, exit status 1"},
		"a failure is only listed":          {"Failed:\n  toy-a-1:2.0-1.noarch     toy-a-1.0-1.noarch\n\n", "toy-a", "", "dnf lists it as failed"},
		"it is of no target":                {"error: %prein(toy-z-1.0-1.noarch) scriptlet failed, exit status 1\n", "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseInstall(packages.Result{Stdout: []byte(begin + c.text)}, targets)
			if err != nil || failureNames(got.Failed) != c.failed || failureNames(got.Warned) != c.warned {
				t.Fatalf("it is %+v, %v", got, err)
			}
			for _, f := range slices.Concat(got.Failed, got.Warned) {
				if f.Message != c.said {
					t.Errorf("it says %q, want %q", f.Message, c.said)
				}
			}
		})
	}
}

func TestNotBegun(t *testing.T) {
	targets := []packages.Target{toy("toy-a", "1:2.0-1"), toy("toy-b", "2.0-1")}
	var (
		refused *packages.RefusedError
		command *packages.CommandError
	)
	for name, c := range map[string]struct {
		stderr string
		target string
		as     any
	}{
		"dnf 4, a file is not there": {"Error opening /var/cache/dnf/x/toy-a-2.0-1.noarch.rpm: No such file or directory\nPackage \"toy-a-1:2.0-1.noarch\" from repository \"toys\" has incorrect checksum\nError: Some packages have invalid cache, but cannot be downloaded due to \"--cacheonly\" option\n", "toy-a", &refused},
		"dnf 5, a file is not there": {"Cannot download the \"toy-a-1:2.0-1.noarch\" package, cacheonly option is activated.\n", "toy-a", &refused},
		"no match":                   {"No match for argument: toy-b-2.0-1.noarch\nError: No packages marked for upgrade.\n", "toy-b", &refused},
		"unmet":                      {"Error: \n Problem: x\n  - nothing provides y needed by toy-b-2.0-1.noarch\n", "toy-b", &refused},
		"unforeseen":                 {"Traceback (most recent call last):\n", "", &command},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseInstall(packages.Result{ExitCode: 1, Stderr: []byte(c.stderr)}, targets)
			if !errors.As(err, c.as) {
				t.Fatalf("it is %#v", err)
			}
			if c.target != "" && (failureNames(refused.Targets) != c.target) {
				t.Errorf("it names %+v", refused.Targets)
			}
		})
	}
}

func TestParseTransfers(t *testing.T) {
	for name, want := range map[string]string{
		"dnf-4.14/download-missing": "toy-missing-2.0-1.noarch: true Status code: 404 for http://toys.example/toys/packages/toy-missing-2.0-1.noarch.rpm",
		"dnf-4.14/download-corrupt": "toy-corrupt-2.0-1.noarch: true Downloading successful, but checksum doesn't match.",
		"dnf-4.14/download-down":    "toy-b-2.0-1.noarch: false Curl error (52): Server returned nothing (no headers, no data) for http://toys.example/toys/packages/toy-b-2.0-1.noarch.rpm [Empty reply from server]",
		"dnf-5/download":            "toy-missing-2.0-1.noarch: true Status code: 404 for http://toys.example/packages/toy-missing-2.0-1.noarch.rpm",
	} {
		t.Run(name, func(t *testing.T) {
			result := recorded(t, name)
			p, err := parsePlan(result.Stdout, result.Stderr)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for which, transfer := range parseTransfers(result.Stdout, result.Stderr, p) {
				got = append(got, fmt.Sprintf("%s: %t %s", which, transfer.fault, transfer.reason))
			}
			if len(got) != 1 || got[0] != want {
				t.Errorf("failed are %q, want %q", got, want)
			}
		})
	}
}

func TestParseRefresh(t *testing.T) {
	for name, want := range map[string]string{
		"dnf-4.14/refresh-down": "a-bad: true Curl error (52)",
		"dnf-4.14/refresh-gone": "c-gone: false Status code: 404",
		"dnf-5/refresh":         "Toys: true Curl error (7), Toys that are gone: false Status code: 404",
	} {
		result := recorded(t, name)
		var got []string
		for _, f := range parseRefreshFailures(result.Stdout, result.Stderr) {
			reason, _, _ := strings.Cut(f.Reason, " for ")
			reason, _, _ = strings.Cut(reason, ": C")
			reason, _, _ = strings.Cut(reason, ": S")
			if strings.HasPrefix(f.Reason, "Status code") {
				reason = "Status code: 404"
			}
			got = append(got, fmt.Sprintf("%s: %t %s", f.Repository, f.Unreachable, reason))
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%s: failures are %q, want %q", name, got, want)
		}
	}
	if got := parseRefresh(nil, recorded(t, "dnf-5/refresh").Stderr); got.Changed < 2 {
		t.Errorf("dnf 5 fetched %+v", got)
	}
}

func TestParseInterrupted(t *testing.T) {
	for name, want := range map[string]bool{"dnf-4.14/history-cut": true, "dnf-4.14/history": false} {
		if got := parseInterrupted(recorded(t, name).Stdout); got != want {
			t.Errorf("%s is %t", name, got)
		}
	}
	if parseInterrupted([]byte("No transactions\n")) {
		t.Error("no history at all is an interrupted transaction")
	}
}

func TestErrorsOfCommands(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want string
	}{
		"dnf 4's lock":   {"metadata already locked by 123\n  The application with PID 123 is: dnf\n", "/var/cache/dnf/metadata_lock.pid 123"},
		"rpm's lock":     {"RPM: error: can't create transaction lock on /usr/lib/sysimage/rpm/.rpm.lock (Resource temporarily unavailable)\n", "/usr/lib/sysimage/rpm/.rpm.lock 0"},
		"dnf 5's lock":   {"Transaction failed: Failed to obtain rpm transaction lock. Another transaction is in progress.\n", "/var/lib/rpm/.rpm.lock 0"},
		"another error":  {"Error: x\n", ""},
		"a disk, tested": {"Error: Transaction test error:\n  installing package toy-2.0-1.noarch needs 5MB more space on the /boot filesystem\n", "disk /boot"},
		"a disk, summed": {"Error Summary\n-------------\nDisk Requirements:\n   At least 5MB more space needed on the /usr filesystem.\n", "disk /usr"},
		"a disk, full":   {"[Errno 28] No space left on device: '/var/cache/dnf/x.solv'\n", "disk /var/cache/dnf/x.solv"},
		"a disk, unpack": {"error: unpacking of archive failed on file /usr/share/toy;65a: cpio: write failed - No space left on device\n", "disk /usr/share/toy"},
		"a disk, curl":   {"[MIRROR] toy.rpm: Curl error (23): Failed writing received data to disk/application for http://toys.example/toy.rpm\n", "disk /var/cache/dnf"},
	} {
		result := packages.Result{ExitCode: 1, Stderr: []byte(c.text)}
		got := ""
		if held := lockHeld(result); held != nil {
			got = fmt.Sprint(held.Path, " ", held.PID)
		} else if full := diskFull(result); full != nil {
			got = "disk " + full.Path
		}
		if got != c.want {
			t.Errorf("%s is %q, want %q", name, got, c.want)
		}
	}
}
