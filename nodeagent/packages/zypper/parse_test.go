package zypper

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// recorded is an answer that zypper gave on a real machine.
func recorded(tb testing.TB, file, verb string, exit int) *answer {
	tb.Helper()
	output, err := os.ReadFile(filepath.Join("testdata", file+".xml"))
	if err != nil {
		tb.Fatal(err)
	}
	return written(tb, string(output), verb, exit)
}

func written(tb testing.TB, output, verb string, exit int) *answer {
	tb.Helper()
	a := &answer{exit: exit, command: &command{verb: verb}, result: packages.Result{ExitCode: exit, Stdout: []byte(output)}}
	var err error
	if a.elements, err = parseStream(a.command.tool(), a.result.Stdout); err != nil {
		tb.Fatal(err)
	}
	return a
}

func toys(version string, names ...string) []packages.Target {
	var all []packages.Target
	for _, name := range names {
		all = append(all, packages.Target{Name: name, Architecture: "noarch", Version: version})
	}
	return all
}

func failures(all []packages.Failure) string {
	var names []string
	for _, f := range all {
		names = append(names, f.Target.Name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestParseInstall(t *testing.T) {
	// Written after the sources of newer versions: see testdata/README.md.
	const single = `<?xml version='1.0'?>
<stream>
<progress id="install-resolvable" name="(1/3) Installing: toy-a-1.1-1.noarch" done="1"/>
<message type="info">%prein(toy-c-1.1-1.noarch) scriptlet failed, exit status 1</message>
<progress id="install-resolvable" name="(2/3) Installing: toy-c-1.1-1.noarch" value="0"/>
<message type="error">error: %prein(toy-c-1.1-1.noarch) scriptlet failed, exit status 1</message>
<progress id="install-resolvable" name="(2/3) Installing: toy-c-1.1-1.noarch" done="0"/>
<progress id="install-resolvable" name="(3/3) Installing: toy-b-1.1-1.noarch" done="1"/>
<progress id="execute-resolvable-script" name="(3/3) Executing %posttrans script for: toy-b-1.1-1.noarch" value="0"/>
<message type="info">posttrans says why</message>
<progress id="execute-resolvable-script" name="(3/3) Executing %posttrans script for: toy-b-1.1-1.noarch" done="0"/>
<progress id="cleanup-task" name="(3/3) Cleaning up: toy-a-1.0-1.noarch" done="1"/>
</stream>
`
	toys4 := toys("1.1-1", "toy-a", "toy-b", "toy-c", "toy-d", "toy-preun", "toy-postun", "toy-big")
	for name, c := range map[string]struct {
		answer         *answer
		failed, warned string
		message        string
	}{
		"%pre":                 {answer: recorded(t, "install-pre", "install", exitCommit), failed: "toy-c", warned: "toy-b", message: "%pre of toy-c fails on purpose; error: %prein"},
		"%post":                {answer: recorded(t, "install-post", "install", exitScriptFailed), warned: "toy-b", message: "%post of toy-b fails on purpose; warning: %post"},
		"%preun":               {answer: recorded(t, "install-preun", "install", exitCommit), failed: "toy-preun", message: "preun fails"},
		"%postun":              {answer: recorded(t, "install-postun", "install", exitScriptFailed), warned: "toy-postun", message: "warning: %postun(toy-postun-1.0-1"},
		"in one transaction":   {answer: written(t, single, "install", exitCommit), failed: "toy-c", warned: "toy-b", message: "%prein(toy-c-1.1-1.noarch) scriptlet failed"},
		"needs a reboot":       {answer: written(t, "<stream/>", "install", exitReboot)},
		"zypper itself is new": {answer: written(t, "<stream/>", "install", exitRestart)},
		"repository skipped":   {answer: written(t, "<stream/>", "install", exitSkipped)},
	} {
		t.Run(name, func(t *testing.T) {
			install, err := parseInstall(c.answer, toys4)
			if err != nil {
				t.Fatal(err)
			}
			if failures(install.Failed) != c.failed || failures(install.Warned) != c.warned {
				t.Errorf("install is %+v, want %q failed and %q warned of", install, c.failed, c.warned)
			}
			messages := ""
			for _, f := range slices.Concat(install.Failed, install.Warned) {
				messages += f.Message + "\n"
				if strings.Contains(f.Message, "Alien") || strings.Contains(f.Message, "aborted as directed") || strings.Contains(f.Message, "\n") {
					t.Errorf("%s: %q is not about the package", f.Target.Name, f.Message)
				}
			}
			if !strings.Contains(messages, c.message) {
				t.Errorf("messages are %q, want %q", messages, c.message)
			}
		})
	}

	var full *packages.DiskFullError
	if _, err := parseInstall(recorded(t, "install-full", "install", exitCommit), toys4); !errors.As(err, &full) || full.Path != "/big" {
		t.Errorf("a full disk is %v", err)
	}
	var other *packages.CommandError
	if _, err := parseInstall(written(t, "<stream/>", "install", 1), toys4); !errors.As(err, &other) {
		t.Errorf("an unforeseen exit status is %v", err)
	}
	var none *packages.RepositoryError
	if _, err := parseInstall(written(t, "<stream/>", "install", exitNoRepositories), toys4); !errors.As(err, &none) {
		t.Errorf("no repositories is %v", err)
	}
}

func TestRefusal(t *testing.T) {
	asked := toys("1.1-1", "toy-good", "toy-bad", "toy-worse")
	for name, c := range map[string]struct {
		file    string
		exit    int
		named   string
		message string
	}{
		"unmet":      {"plan-unmet", exitZYpp, "toy-bad", "nothing provides toy-nowhere needed by toy-bad"},
		"held":       {"plan-held", exitZYpp, "toy-bad", "conflicting requests"},
		"conflict":   {"plan-conflict", exitZYpp, "toy-bad", "conflicts with toy-release"},
		"superseded": {"plan-superseded", exitNotFound, "toy-bad", "not found"},
		"files":      {"plan-files", exitCommit, "toy-bad toy-worse", "different files /opt/same"},
	} {
		t.Run(name, func(t *testing.T) {
			refused := recorded(t, c.file, "install", c.exit).refusal(asked)
			if refused == nil || failures(refused.Targets) != c.named || !strings.Contains(refused.Detail, c.message) {
				t.Errorf("it is %+v, want %s and %q", refused, c.named, c.message)
			}
		})
	}
	// All problems are listed, and only the first has its solutions.
	two := written(t, `<stream><message type="info">2 Problems:</message>
<message type="info">Problem: nothing provides toy-nowhere needed by toy-bad-1.1-1.noarch</message>
<message type="info">Problem: toy-worse-1.1-1.noarch conflicts with toy-other provided by toy-other-1.1-1.noarch</message>
<prompt id="1"><description>Problem: nothing provides toy-nowhere needed by toy-bad-1.1-1.noarch
 Solution 1: do not install toy-bad-1.1-1.noarch
</description><text>Choose</text></prompt></stream>`, "install", exitZYpp)
	if refused := two.refusal(asked); refused == nil || failures(refused.Targets) != "toy-bad toy-worse" {
		t.Errorf("of two problems, it is %+v", refused)
	}
	if refused := recorded(t, "plan-replaces", "install", exitOK).refusal(asked); refused != nil {
		t.Errorf("a plan is refused: %+v", refused)
	}
}

func TestParsePlan(t *testing.T) {
	p, err := parsePlan(recorded(t, "plan-replaces", "install", exitOK))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.upgraded, toys("1.1-1", "toy")) || !slices.Equal(p.added, toys("1.1-1", "toy-library")) ||
		!slices.Equal(p.removed, toys("1.0-1", "toy-libs")) || p.bytes == 0 || len(p.unwanted) != 0 {
		t.Errorf("plan is %+v", p)
	}
	const head, tail = `<stream><install-summary download-size="1" space-usage-diff="0" packages-to-change="1">`, `</install-summary></stream>`
	solvable := func(section, attributes string) string {
		return head + "<" + section + "><solvable " + attributes + "/></" + section + ">" + tail
	}
	const toy = `type="package" name="toy" edition="1-1" arch="noarch"`
	for _, section := range []string{"to-downgrade", "to-downgrade-change-arch", "to-change-arch"} {
		if p, err := parsePlan(written(t, solvable(section, toy), "install", exitOK)); err != nil || len(p.unwanted) != 1 {
			t.Errorf("%s is %+v, %v", section, p, err)
		}
	}
	if p, err := parsePlan(written(t, solvable("to-remove", `type="product" name="toys" edition="1-1" arch="noarch"`), "install", exitOK)); err != nil || len(p.unwanted) != 1 {
		t.Errorf("the removal of a product is %+v, %v", p, err)
	}
	for name, output := range map[string]string{
		"no summary":      "<stream/>",
		"unknown part":    solvable("to-explode", toy),
		"no name":         solvable("to-install", `type="package" edition="1-1" arch="noarch"`),
		"an option":       solvable("to-install", `type="package" name="-f" edition="1-1" arch="noarch"`),
		"no edition":      solvable("to-upgrade", `type="package" name="toy" arch="noarch"`),
		"no architecture": solvable("to-remove", `type="package" name="toy" edition="1-1" arch=""`),
	} {
		var parse *packages.ParseError
		if p, err := parsePlan(written(t, output, "install", exitOK)); !errors.As(err, &parse) {
			t.Errorf("%s is %+v, %v", name, p, err)
		}
	}
}

func TestReadDownload(t *testing.T) {
	for name, c := range map[string]struct {
		file    string
		asked   []packages.Target
		fetched int
		faults  map[string]string
		server  bool
	}{
		"mixed": {
			file: "download-mixed", fetched: 4,
			asked: append(toys("1.1-1", "toy-a", "toy-content", "toy-corrupt", "toy-missing", "toy-needy", "toy-z"), toys("2.0-1", "toy-gone", "toy-there")...),
			faults: map[string]string{
				"toy-corrupt": "Digest verification failed for file 'toy-corrupt-1.1-1.noarch.rpm'",
				"toy-missing": "toy-missing-1.1-1.noarch.rpm' not found on medium", "toy-gone": "not found on medium",
			},
		},
		"down":     {file: "download-down", asked: toys("1.1-1", "toy-b"), faults: map[string]string{"toy-b": "http://mirror.example"}, server: true},
		"unsigned": {file: "download-unsigned", asked: toys("1.1-1", "toy-a"), faults: map[string]string{"toy-a": "Signature verification failed"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fetch{manager: New(nil, fstest.MapFS{}, packages.Locks{}), faults: map[packages.Target]string{}}
			if err := f.read(recorded(t, c.file, "download", exitOK), c.asked); err != nil {
				t.Fatal(err)
			}
			for target, fault := range f.faults {
				if want, is := c.faults[target.Name]; !is || !strings.Contains(fault, want) || strings.Contains(fault, "retry retrieval") {
					t.Errorf("%s failed because %q", target.Name, fault)
				}
			}
			if len(f.faults) != len(c.faults) || f.fetched != len(c.asked)-len(c.faults) || (f.server != "") != c.server {
				t.Errorf("%d fetched, server %q, faults %q", f.fetched, f.server, f.faults)
			}
		})
	}
	f := &fetch{manager: New(nil, fstest.MapFS{}, packages.Locks{}), faults: map[packages.Target]string{}}
	var full *packages.DiskFullError
	if err := f.read(recorded(t, "download-full", "download", exitOK), toys("1.1-1", "toy-a", "toy-big")); !errors.As(err, &full) {
		t.Errorf("a full disk is %v", err)
	}
	gone := written(t, `<stream><message type="warning">Argument resolves to no package: toy-a.noarch=1.1-1</message></stream>`, "download", exitOK)
	if err := f.read(gone, toys("1.1-1", "toy-a")); err != nil || !strings.Contains(f.faults[toys("1.1-1", "toy-a")[0]], "no repository offers") {
		t.Errorf("what is not offered is %v, %q", err, f.faults)
	}
}

func TestObstacle(t *testing.T) {
	var held *packages.LockHeldError
	if err := recorded(t, "locked", "refresh", exitLocked).obstacle(); !errors.As(err, &held) || held.PID == 0 || held.Process != "zypper" || held.Path != lockFile {
		t.Errorf("a lock is %v", err)
	}
	if err := written(t, "<stream/>", "refresh", exitLocked).obstacle(); !errors.As(err, &held) || held.PID != 0 {
		t.Errorf("a lock of nobody is %v", err)
	}
	if err := written(t, `<stream><message type="error">error: can't create transaction lock on /usr/lib/sysimage/rpm/.rpm.lock (Resource temporarily unavailable)
</message></stream>`, "install", exitCommit).obstacle(); !errors.As(err, &held) || held.Path != "/usr/lib/sysimage/rpm/.rpm.lock" {
		t.Errorf("rpm's lock is %v", err)
	}
	var interrupted *packages.InterruptedDatabaseError
	if err := recorded(t, "damaged", "install", exitZYpp).obstacle(); !errors.As(err, &interrupted) {
		t.Errorf("a damaged database is %v", err)
	}
}

func TestParseRefresh(t *testing.T) {
	refresh, failed := parseRefresh(recorded(t, "refresh-new", "refresh", exitOK))
	if refresh.Indexes != 1 || refresh.Changed != 1 || len(failed) != 0 {
		t.Errorf("refresh is %+v, %+v", refresh, failed)
	}
	refresh, failed = parseRefresh(recorded(t, "refresh-failed", "refresh", exitZYpp))
	want := packages.RepositoryFailure{Repository: "http://mirror.example/", Reason: "Valid metadata not found at specified URL; Repository type can't be determined."}
	if len(failed) != 1 || failed[0] != want || refresh.Changed != 0 {
		t.Errorf("refresh is %+v, %+v, want %+v", refresh, failed, want)
	}
	// Recorded by hand: the server is away, with and without metadata from before.
	for _, text := range []string{
		"Problem retrieving files from 'Toys'.\nDownload (curl) error for 'http://mirror.example/repodata/repomd.xml':\nError code: Connection failed\nError message: Failed to connect to mirror.example port 80 after 0 ms: Couldn't connect to server\n\nPlease see the above error message for a hint.\n",
		"Repository 'Toys' is invalid.\n[toys|http://mirror.example/] Valid metadata not found at specified URL\nHistory:\n - [|] Error trying to read from 'http://mirror.example/'\n - Download (curl) error for 'http://mirror.example/content':\nError code: Connection failed\n\nPlease check if the URIs defined for this repository are pointing to a valid repository.\n",
	} {
		output := `<stream><message type="error">` + text + `</message><message type="error">Skipping repository 'Toys' because of the above error.</message></stream>`
		_, failed := parseRefresh(written(t, output, "refresh", exitZYpp))
		if len(failed) != 1 || !failed[0].Unreachable || !strings.HasPrefix(failed[0].Repository, "http://mirror.example/") ||
			!strings.Contains(failed[0].Reason, "Connection failed") || strings.Contains(failed[0].Reason, "Please") {
			t.Errorf("failures are %+v", failed)
		}
	}
}

func TestParseStream(t *testing.T) {
	for name, output := range map[string]string{
		"nothing": "", "text": "zypper: command not found", "cut off": "<stream><message type=\"info\">a", "no end": "<stream>",
		"text after it": "<stream/>x", "text before it": "x<stream/>", "another document": "<html/>", "twice": "<stream/><stream/>",
		"not well formed": "<stream><a></b></stream>",
	} {
		var parse *packages.ParseError
		if _, err := parseStream("zypper x", []byte(output)); !errors.As(err, &parse) {
			t.Errorf("%s is %v, want a ParseError", name, err)
		}
	}
	// Colours, broken letters, and what comes between elements.
	elements, err := parseStream("zypper x", []byte("<?xml version='1.0'?>\n<stream>\nlost words\n<message type=\"info\">\x1b[31mred\xff</message><unknown><a/></unknown></stream>\n"))
	if err != nil || len(elements) != 1 || !strings.Contains(elements[0].(*message).Text, "[31mred") {
		t.Errorf("elements are %+v, %v", elements, err)
	}
}

// replay answers commands with what they printed on a real machine.
type replay struct{}

func (replay) Run(_ context.Context, c packages.Command) (packages.Result, error) {
	text, err := os.ReadFile(filepath.Join("testdata/scan", c.Name+".xml"))
	return packages.Result{Stdout: text}, err
}

// TestReplay scans by recorded output, where no machine can be made.
func TestReplay(t *testing.T) {
	published := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	files := fstest.MapFS{
		"etc/os-release":                        {Data: []byte("ID=opensuse-leap\n")},
		"etc/zypp/zypp.conf":                    {Data: []byte("[main]\n# cachedir = /nowhere\ncachedir = /srv/zypp\n")},
		"proc/sys/kernel/osrelease":             {Data: []byte("6.4.0-150600.21-default\n")},
		"proc/stat":                             {Data: []byte("btime 1795500000\n")},
		"srv/zypp/raw/toys/repodata/repomd.xml": {ModTime: published},
		"srv/zypp/packages/toys/a/toy-epoch-1.0-1.noarch.rpm": {Data: []byte("12345")},
	}
	scan, err := New(replay{}, files, packages.Locks{}).Scan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if scan.Count(packages.Missing) != 10 || scan.Count(packages.Held) != 1 || scan.Count(packages.KeptBack) != 3 || !scan.MetadataRefreshed.Equal(published) {
		t.Errorf("scan is %+v", scan)
	}
	for _, p := range scan.Patches {
		if p.Downloaded != (p.Name == "toy-epoch") || p.Downloaded && p.DownloadSize != 5 {
			t.Errorf("%s is downloaded: %t, %d bytes", p.Name, p.Downloaded, p.DownloadSize)
		}
	}
}

func TestParsePatchInfo(t *testing.T) {
	const tail = "Description : \n    Conflicts   : [7]\nProvides    : patch:TOY-1 = 1\n"
	for name, c := range map[string]struct {
		text  string
		fixes []fix
	}{
		"one":       {"Name        : TOY-1\n" + tail + "Conflicts   : toy < 1:1.1-1\n", []fix{{"toy", "1:1.1-1"}}},
		"several":   {"Name : TOY-1\n" + tail + "Conflicts   : [3]\n    srcpackage:toy < 1.1-1\n    toy.x86_64 < 1.1-1\n    toy-doc < 1.1-1\n", []fix{{"toy.x86_64", "1.1-1"}, {"toy-doc", "1.1-1"}}},
		"none":      {"Name : TOY-1\n" + tail + "Conflicts   : ---\n", nil},
		"too few":   {"Name : TOY-1\nConflicts   : [3]\n    toy < 1\n", nil},
		"no number": {"Name : TOY-1\nConflicts   : [x]\n", nil},
		"no older":  {"Name : TOY-1\nConflicts   : toy > 1\n", nil},
		"another":   {"Name : TOY-2\nConflicts   : toy < 1\n", nil},
	} {
		patches := []advisory{{id: "TOY-1"}}
		a := &answer{command: &command{verb: "info"}, elements: []any{&message{Type: "info", Text: c.text}}}
		err := parsePatchInfo(a, patches)
		if wantError := c.fixes == nil && name != "none"; (err != nil) != wantError || err == nil && !slices.Equal(patches[0].fixes, c.fixes) {
			t.Errorf("%s is %+v, %v", name, patches[0].fixes, err)
		}
	}
}

func TestNamed(t *testing.T) {
	target := packages.Target{Name: "toy", Architecture: "noarch", Version: "1:1.1-1"}
	for text, want := range map[string]bool{
		"toy-1:1.1-1.noarch": true, "x toy-1.1-1.noarch, y": true, "'toy.noarch=1:1.1-1' not found.": true, "toy-1.1-1.noarch.rpm:": true,
		"toy-1:1.1-1.noarch[toys]": true, "providing toy.noarch = 1:1.1-1": true, "toy = 1:1.1-1": true,
		"toy": false, "toy-1:1.1-10.noarch": false, "a-toy-1:1.1-1.noarch": false, "toy = 1:1.1-10": false, "toy-1:1.1-1.x86_64": false, "": false,
	} {
		if got := named(target, text); got != want {
			t.Errorf("%q names it: %t", text, got)
		}
	}
}
