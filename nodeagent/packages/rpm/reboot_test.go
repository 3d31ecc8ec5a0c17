package rpm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// booted is when the hosts of these tests were.
var booted = time.Unix(1_700_000_000, 0)

func host(running string, kernels ...string) fstest.MapFS {
	files := fstest.MapFS{
		"proc/sys/kernel/osrelease": {Data: []byte(running + "\n")},
		"proc/stat":                 {Data: fmt.Appendf(nil, "cpu 1 2\nbtime %d\nprocesses 3\n", booted.Unix())},
	}
	for _, k := range kernels {
		files["usr/lib/modules/"+k+"/vmlinuz"] = &fstest.MapFile{}
	}
	return files
}

func installed(name string, when time.Time) *Installed {
	return newInstalled([]Package{{Name: name, Architecture: "x86_64", Version: "1-1", Installed: when}})
}

func TestReboot(t *testing.T) {
	const el9, newer = "5.14.0-503.el9.x86_64", "5.14.0-503.11.1.el9_5.x86_64"
	plain := installed("toy", booted.Add(time.Hour))
	flagged := host(el9, el9)
	flagged["run/reboot-needed"] = &fstest.MapFile{}
	without := host(el9, el9)
	delete(without, "proc/stat")
	boot := host("4.12.14-lp151.28-default")
	boot["lib/modules/4.12.14-lp151.48-default/modules.dep"] = &fstest.MapFile{}
	boot["boot/vmlinuz-4.12.14-lp151.48-default"] = &fstest.MapFile{}
	leftover := host(el9, el9)
	leftover["usr/lib/modules/"+newer+"/weak-updates/toy.ko"] = &fstest.MapFile{}
	for name, c := range map[string]struct {
		files     fstest.MapFS
		installed *Installed
		newest    string
		required  bool
		unknown   bool
		reason    string
		packages  []string
	}{
		"nothing":                  {files: host(el9, el9), installed: plain, newest: el9},
		"a container":              {files: host("6.1.0-37-amd64"), installed: plain},
		"a newer kernel":           {files: host(el9, newer, el9), installed: plain, newest: newer, required: true, reason: "kernel " + newer + " is installed, " + el9 + " is running"},
		"an older kernel":          {files: host(newer, newer, el9), installed: installed("kernel-core", booted.Add(time.Hour)), newest: newer},
		"a kernel of SUSE":         {files: host("6.4.0-150600.21-default", "6.4.0-150600.23.7-default"), installed: plain, newest: "6.4.0-150600.23.7-default", required: true, reason: "kernel"},
		"a kernel below /boot":     {files: boot, installed: plain, newest: "4.12.14-lp151.48-default", required: true, reason: "kernel"},
		"another flavour":          {files: host(el9, el9, "5.15.0-3.60.5.1.el9uek.x86_64", "5.14.0-570.el9.x86_64+rt"), installed: plain, newest: el9},
		"modules without a kernel": {files: leftover, installed: plain, newest: el9},
		"a core package":           {files: host(el9, el9), installed: installed("glibc", booted.Add(time.Hour)), newest: el9, required: true, reason: "updated since the host was booted: glibc", packages: []string{"glibc"}},
		"an old core package":      {files: host(el9, el9), installed: installed("glibc", booted.Add(-time.Hour)), newest: el9},
		"SUSE's flag":              {files: flagged, installed: plain, newest: el9, required: true, reason: "/run/reboot-needed"},
		"no boot time":             {files: without, installed: installed("glibc", booted.Add(time.Hour)), newest: el9, unknown: true, reason: "when the host was booted"},
	} {
		t.Run(name, func(t *testing.T) {
			kernel, reboot := Reboot(c.files, c.installed)
			if kernel.NewestInstalled != c.newest || reboot.Required != c.required || reboot.Unknown != c.unknown || !slices.Equal(reboot.Packages, c.packages) {
				t.Errorf("it is %+v, %+v", kernel, reboot)
			}
			if said := strings.Join(reboot.Reasons, ";"); !strings.Contains(said, c.reason) || (said == "") != (c.reason == "") {
				t.Errorf("the reasons are %q, want %q", said, c.reason)
			}
		})
	}
}

func TestParseInstalled(t *testing.T) {
	const line = "bash|0:5.1.8-6.el9_1|x86_64|bash-5.1.8-6.el9_1.src.rpm|1700000000|1699999999|Red Hat, Inc.\n"
	set, err := parseInstalled([]byte(line + "gpg-pubkey|0:fd431d51-4ae0493b|(none)|(none)|1700000000|1699999999|(none)\n" +
		"toy|1:2.0-1|noarch|(none)|1700000000|(none)|(none)\n"))
	if err != nil || len(set.Packages) != 2 {
		t.Fatalf("it is %+v, %v", set, err)
	}
	want := Package{
		Name: "bash", Architecture: "x86_64", Version: "5.1.8-6.el9_1", SourceName: "bash", SourceVersion: "5.1.8-6.el9_1",
		Vendor: "Red Hat, Inc.", Installed: time.Unix(1700000000, 0), Transaction: 1699999999,
	}
	if set.Packages[0] != want {
		t.Errorf("it is %+v, want %+v", set.Packages[0], want)
	}
	for _, wrong := range []string{"warning: x\n", "a b|0:1-1|noarch|x|1|1|\n", "a|1-1|no arch|x|1|1|\n", "a|1|noarch|x|1|1|\n", "a|0:1-1|noarch|x|then|1|\n", "a|0:1-1|noarch|x|1|x|\n"} {
		if set, err := parseInstalled([]byte(wrong)); err == nil {
			t.Errorf("%q is %+v", wrong, set)
		}
	}
}

func TestParseNEVRA(t *testing.T) {
	for text, want := range map[string][3]string{
		"bash-5.1.8-6.el9.x86_64":                   {"bash", "5.1.8-6.el9", "x86_64"},
		"toy-1:0.9~rc1-1.noarch":                    {"toy", "1:0.9~rc1-1", "noarch"},
		"java-17-openjdk-0:17.0.9.0.9-2.el9.x86_64": {"java-17-openjdk", "17.0.9.0.9-2.el9", "x86_64"},
		"libstdc++-11.4.1-2.1.el9.i686":             {"libstdc++", "11.4.1-2.1.el9", "i686"},
	} {
		name, version, architecture, ok := ParseNEVRA(text)
		if !ok || [3]string{name, version, architecture} != want {
			t.Errorf("%q is %q %q %q, %t", text, name, version, architecture, ok)
		}
	}
	for _, wrong := range []string{"", "bash", "bash-5.noarch", "bash-5-1", "-x-1-1.noarch", "a-1-1.no arch", "a*-1-1.noarch", "a-x:1-1.noarch"} {
		if name, version, architecture, ok := ParseNEVRA(wrong); ok {
			t.Errorf("%q is %q %q %q", wrong, name, version, architecture)
		}
	}
}

func TestDamage(t *testing.T) {
	for text, want := range map[string]bool{
		"error: rpmdb: BDB0113 Thread/process 1/2 failed: BDB1507 Thread died in Berkeley DB library\n": true,
		"error: sqlite failure: CREATE TABLE: database disk image is malformed\n":                       true,
		"warning: waiting for transaction lock on /var/lib/rpm/.rpm.lock\n":                             false,
		"error: toy-2.0-1.noarch: install failed\n":                                                     false,
		"": false,
	} {
		if got := Damage([]byte(text)) != ""; got != want {
			t.Errorf("%q is damage: %t", text, got)
		}
	}
}

// TestProblems tells what an interrupted transaction has left from what is meant to be so.
func TestProblems(t *testing.T) {
	set := newInstalled([]Package{
		{Name: "toy", Architecture: "noarch", Version: "1.9-1", Transaction: 1}, {Name: "toy", Architecture: "noarch", Version: "1.10-1", Transaction: 2},
		{Name: "glibc", Architecture: "i686", Version: "2-1", Transaction: 1}, {Name: "glibc", Architecture: "x86_64", Version: "2-1", Transaction: 1},
		{Name: "kernel-core", Architecture: "x86_64", Version: "5-1", Transaction: 1}, {Name: "kernel-core", Architecture: "x86_64", Version: "5-2", Transaction: 2},
	})
	set.many = map[string]bool{"kernel-core": true}
	problems := set.Problems()
	if len(problems) != 1 || problems[0].Kind != packages.InterruptedTransaction || problems[0].Version != "1.9-1" || !strings.Contains(problems[0].Message, "1.10-1") {
		t.Errorf("problems are %+v", problems)
	}
	if latest := set.Latest(); len(latest) != 2 || latest[0].Version != "5-2" || latest[1].Version != "1.10-1" {
		t.Errorf("the last transaction installed %+v", latest)
	}
}

func FuzzParseInstalled(f *testing.F) {
	f.Add([]byte("bash|0:5.1.8-6.el9_1|x86_64|bash-5.1.8-6.el9_1.src.rpm|1700000000|1699999999|Red Hat, Inc.\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		set, err := parseInstalled(text)
		if err != nil {
			return
		}
		for _, p := range set.Packages {
			if newest, found := set.Newest(p.Name, p.Architecture); !found || Compare(newest.Version, p.Version) < 0 || !ValidName(p.Name) || !ValidVersion(p.Version) {
				t.Errorf("it is %+v, of which the newest is %+v", p, newest)
			}
		}
		set.Problems()
	})
}

func FuzzParseNEVRA(f *testing.F) {
	f.Add("toy-1:0.9~rc1-1.noarch")
	f.Fuzz(func(t *testing.T, text string) {
		name, version, architecture, ok := ParseNEVRA(text)
		if !ok {
			return
		}
		again := name + "-" + version + "." + architecture
		if n, v, a, ok := ParseNEVRA(again); !ok || n != name || v != version || a != architecture {
			t.Errorf("%q is %q %q %q, and that is %q %q %q", text, name, version, architecture, n, v, a)
		}
	})
}
