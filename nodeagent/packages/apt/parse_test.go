package apt

import (
	"errors"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

const okSummary = "0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.\n"

// TestParseRefused has output that must be an error, with the line that is to blame.
func TestParseRefused(t *testing.T) {
	plan := func(output []byte) error { _, err := parsePlan(output); return err }
	installed := func(output []byte) error { _, err := parseInstalled(output); return err }
	archives := func(output []byte) error { _, err := parseArchives(output); return err }
	versions := func(output []byte) error { return parseVersions(output, map[string]*offer{}) }
	sizes := func(output []byte) error { return parseSizes(output, map[file]int64{}) }
	refresh := func(output []byte) error { _, _, err := parseRefresh(output, nil); return err }
	const dpkg = "dpkg\tamd64\tinstall\tok\tinstalled\t1.21\tdpkg\t1.21\t\n"

	for name, c := range map[string]struct {
		parse    func([]byte) error
		output   string
		wantLine int
	}{
		"plan: nothing":                  {plan, "", 0},
		"plan: no summary":               {plan, "Reading package lists...\n", 0},
		"plan: two summaries":            {plan, okSummary + okSummary, 2},
		"plan: summary says more":        {plan, "1 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.\n", 1},
		"plan: summary says less":        {plan, "The following packages will be upgraded:\n   a1 (1 => 2)\n" + okSummary, 3},
		"plan: summary without a number": {plan, "no upgraded, 0 newly installed, 0 to remove and 0 not upgraded.\n", 1},
		"plan: summary lacks a part":     {plan, "0 upgraded, 0 to remove and 0 not upgraded.\n", 1},
		"plan: summary twice the same":   {plan, "0 upgraded, 0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.\n", 1},
		"plan: no versions":              {plan, "The following packages will be upgraded:\n  a1 b2 c3\n" + okSummary, 2},
		"plan: an option for a name":     {plan, "The following packages will be upgraded:\n   --yes (1 => 2)\n" + okSummary, 2},
		"plan: a pattern for a name":     {plan, "The following packages will be upgraded:\n   ~U (1 => 2)\n" + okSummary, 2},
		"plan: one version of two":       {plan, "The following packages have been kept back:\n   a1 (1)\n" + okSummary, 2},
		"plan: two versions of one":      {plan, "The following NEW packages will be installed:\n   a1 (1 => 2)\n" + okSummary, 2},
		"plan: a wrong architecture":     {plan, "The following packages will be upgraded:\n   a1:$x (1 => 2)\n" + okSummary, 2},
		"plan: address without a size":   {plan, okSummary + "'http://x/a1_1_all.deb' a1_1_all.deb\n", 2},
		"plan: size that is none":        {plan, okSummary + "'http://x/a1_1_all.deb' a1_1_all.deb -1 \n", 2},
		"plan: file that is none":        {plan, okSummary + "'http://x/a1_1_all.deb' a1-1-all.deb 5 \n", 2},

		"installed: nothing":           {installed, "", 0},
		"installed: without dpkg":      {installed, strings.ReplaceAll(dpkg, "dpkg", "other"), 0},
		"installed: a field too few":   {installed, dpkg + "a1\tamd64\tinstall\tok\tinstalled\t1\ta\t1\n", 2},
		"installed: a field too many":  {installed, dpkg + "a1\tamd64\tinstall\tok\tinstalled\t1\ta1\t1\t\t\n", 2},
		"installed: no version":        {installed, dpkg + "a1\tamd64\tinstall\tok\tinstalled\t\ta1\t\t\n", 2},
		"installed: an empty line":     {installed, dpkg + "\n", 2},
		"installed: name with a slash": {installed, dpkg + "a/1\tamd64\tinstall\tok\tinstalled\t1\ta1\t1\t\n", 2},

		"archives: another heading": {archives, "Dateien:\n", 1},
		"archives: no priority":     {archives, "Package files:\n     http://x y/z Packages\n", 2},
		"archives: no repository":   {archives, "Package files:\n 500\n", 2},

		"versions: no package":       {versions, "  Installed: 1\n", 1},
		"versions: option for name":  {versions, "-o:\n", 1},
		"versions: no priority":      {versions, "a1:\n  Version table:\n     1.0\n", 3},
		"versions: phased by text":   {versions, "a1:\n  Version table:\n     1.0 500 (phased much%)\n", 3},
		"versions: phased by 101":    {versions, "a1:\n  Version table:\n     1.0 500 (phased 101%)\n", 3},
		"versions: archive of none":  {versions, "a1:\n  Version table:\n        500 http://x y/z Packages\n", 3},
		"versions: archive of words": {versions, "a1:\n     1.0 500\n        none at all\n", 3},

		"sizes: size of letters":    {sizes, "Package: a1\nVersion: 1\nArchitecture: all\nSize: big\n\n", 4},
		"sizes: negative size":      {sizes, "Package: a1\nVersion: 1\nArchitecture: all\nSize: -5\n\n", 4},
		"sizes: no version":         {sizes, "Package: a1\nArchitecture: all\nSize: 5\n\n", 4},
		"sizes: cut in mid-record":  {sizes, "Package: a1\nVersi", 2},
		"refresh: index of letters": {refresh, "Hit:x http://x y InRelease\n", 1},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.parse([]byte(c.output))
			var parse *packages.ParseError
			if !errors.As(err, &parse) {
				t.Fatalf("error is %v, want one of parsing", err)
			}
			if parse.Line != c.wantLine || parse.Tool == "" {
				t.Errorf("error is of line %d of %q, want %d: %v", parse.Line, parse.Tool, c.wantLine, err)
			}
		})
	}
}

func TestParsePlan(t *testing.T) {
	for name, c := range map[string]struct {
		output                        string
		upgraded, kept, phased, added []planned
	}{
		"all that a summary can say": {
			output: "The following packages will be upgraded:\n   a1:i386 (1 => 1:2~b+c-3)\n" +
				"The following packages will be DOWNGRADED:\n   d4 (2 => 1)\n" +
				"1 upgraded, 0 newly installed, 3 reinstalled, 1 downgraded, 2 to remove and 0 not upgraded.\n",
			upgraded: []planned{{"a1", "i386", "1", "1:2~b+c-3"}},
		},
		"kept back, and phased under a heading of its own": {
			output: "The following upgrades have been deferred due to phasing:\n   p1 (1 => 2)\n" +
				"The following packages have been kept back:\n   k1 (1 => 2)\n" +
				"0 upgraded, 0 newly installed, 0 to remove and 2 not upgraded.\n",
			phased: []planned{{"p1", "", "1", "2"}}, kept: []planned{{"k1", "", "1", "2"}},
		},
		"words of a hook between the lists": {
			output: "The following NEW packages will be installed:\n   n1 (1)\n" +
				"Buy more!\n   n2 (1)\n 5 upgraded\n" + "0 upgraded, 1 newly installed, 0 to remove and 0 not upgraded.\n",
			added: []planned{{"n1", "", "", "1"}},
		},
		"no line break at the end": {output: strings.TrimSuffix(okSummary, "\n")},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := parsePlan([]byte(c.output))
			if err != nil {
				t.Fatal(err)
			}
			got := [][]planned{p.upgraded, p.kept, p.phased, p.added}
			if want := [][]planned{c.upgraded, c.kept, c.phased, c.added}; !reflect.DeepEqual(got, want) {
				t.Errorf("plan is %+v, want %+v", got, want)
			}
		})
	}
}

func TestParseURI(t *testing.T) {
	for line, want := range map[string]struct {
		file
		size int64
	}{
		"'http://x/y/libcap2_2.66-4+b2_amd64.deb' libcap2_1%3a2.66-4+b2_amd64.deb 50000 SHA256:ab": {file{"libcap2", "1:2.66-4+b2", "amd64"}, 50000},
		"'http://x/it's' a1_1_all.deb 7 ":        {file{"a1", "1", "all"}, 7},
		"'file:/srv/a1.deb' a1_1_armhf.ddeb 0 ":  {file{"a1", "1", "armhf"}, 0},
		"'http://x/a' a1_1%5f2_all.deb 7 MD5:cd": {file{"a1", "1_2", "all"}, 7},
	} {
		_, f, size, ok := parseURI(line)
		if !ok || f != want.file || size != want.size {
			t.Errorf("%s is %+v of %d bytes (%t), want %+v", line, f, size, ok, want)
		}
	}
}

func TestParseRelease(t *testing.T) {
	for text, want := range map[string]archive{
		"v=12.15,o=Debian,a=oldstable,n=bookworm,l=Debian,c=main,b=amd64": {"Debian", "Debian", "oldstable", "bookworm"},
		"o=Vendor, Inc.,a=stable,l=A,b,c":                                 {"Vendor, Inc.", "A,b,c", "stable", ""},
		"c=":                                                              {},
		"a=now":                                                           {suite: "now"},
		"":                                                                {},
		"stray,o=X":                                                       {origin: "X"},
	} {
		if got := parseRelease(text); got != want {
			t.Errorf("%q is %+v, want %+v", text, got, want)
		}
	}
}

func TestLockHeld(t *testing.T) {
	for stderr, want := range map[string]*packages.LockHeldError{
		"E: Could not get lock /var/lib/apt/lists/lock. It is held by process 123 (apt-get)\nN: Be aware that removing the lock file is not a solution and may break your system.\nE: Unable to lock directory /var/lib/apt/lists/\n": {
			Path: "/var/lib/apt/lists/lock", PID: 123, Process: "apt-get"},
		"E: Could not get lock /var/lib/apt/lists/lock. It is held by process 123\n": {
			Path: "/var/lib/apt/lists/lock", PID: 123},
		"E: Could not get lock /var/lib/apt/lists/lock - open (11: Resource temporarily unavailable)\n": {
			Path: "/var/lib/apt/lists/lock"},
		"E: Could not get lock /var/lib/apt/lists/lock. It is held by process 0\n": {Path: "/var/lib/apt/lists/lock"},
		"W: Could not get lock, whatever\n":                                        nil,
		"":                                                                         nil,
	} {
		if got := lockHeld([]byte(stderr)); !reflect.DeepEqual(got, want) {
			t.Errorf("%q is held by %+v, want %+v", stderr, got, want)
		}
	}
}

// TestParseRefreshFailures has the errors of apt 2.6 and 3.0, recorded, and those
// of signatures, from its sources.
func TestParseRefreshFailures(t *testing.T) {
	for name, c := range map[string]struct {
		stderr   string
		want     []packages.RepositoryFailure
		warnings int
	}{
		"refused": {
			stderr: "E: Failed to fetch http://127.0.0.1:1/debian/dists/bookworm/InRelease  Could not connect to 127.0.0.1:1 (127.0.0.1). - connect (111: Connection refused)\n" +
				"E: Some index files failed to download. They have been ignored, or old ones used instead.\n",
			want: []packages.RepositoryFailure{{
				Repository:  "http://127.0.0.1:1/debian/dists/bookworm/InRelease",
				Reason:      "Could not connect to 127.0.0.1:1 (127.0.0.1). - connect (111: Connection refused)",
				Unreachable: true,
			}},
		},
		"refused, apt 3": {
			stderr: "E: Failed to fetch http://127.0.0.2:1/debian/dists/trixie/InRelease  Unable to connect to 127.0.0.2:1:\n",
			want: []packages.RepositoryFailure{{
				Repository: "http://127.0.0.2:1/debian/dists/trixie/InRelease", Reason: "Unable to connect to 127.0.0.2:1", Unreachable: true,
			}},
		},
		"an apt without the error mode only warns": {
			stderr: "W: Failed to fetch http://mirror.invalid/dists/focal/InRelease  Could not resolve 'mirror.invalid'\n" +
				"W: Some index files failed to download. They have been ignored, or old ones used instead.\n",
			want: []packages.RepositoryFailure{{
				Repository: "http://mirror.invalid/dists/focal/InRelease", Reason: "Could not resolve 'mirror.invalid'", Unreachable: true,
			}},
			warnings: 1,
		},
		"not signed": {
			stderr: "E: Failed to fetch http://mirror.example/dists/bookworm-security/InRelease  400  Bad Request [IP: 192.0.2.1 80]\n" +
				"E: The repository 'http://mirror.example bookworm-security InRelease' is not signed.\n",
			want: []packages.RepositoryFailure{
				{Repository: "http://mirror.example/dists/bookworm-security/InRelease", Reason: "400  Bad Request [IP: 192.0.2.1 80]"},
				{Repository: "http://mirror.example bookworm-security InRelease", Reason: "is not signed"},
			},
		},
		"key missing": {
			stderr: "W: GPG error: http://mirror.example jammy InRelease: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 0123456789ABCDEF\n" +
				"E: The repository 'http://mirror.example jammy InRelease' is not signed.\n",
			want: []packages.RepositoryFailure{
				{Repository: "http://mirror.example", Reason: "jammy InRelease: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 0123456789ABCDEF"},
				{Repository: "http://mirror.example jammy InRelease", Reason: "is not signed"},
			},
		},
		"clock": {
			stderr: "E: Release file for http://mirror.example/dists/bookworm-updates/InRelease is expired (invalid since 3d 1h 4min 5s). Updates for this repository will not be applied.\n",
			want: []packages.RepositoryFailure{{
				Repository: "http://mirror.example/dists/bookworm-updates/InRelease",
				Reason:     "is expired (invalid since 3d 1h 4min 5s). Updates for this repository will not be applied.",
			}},
		},
		"warnings are no failures": {
			stderr:   "W: http://mirror.example/dists/stable/InRelease: Key is stored in legacy trusted.gpg keyring (/etc/apt/trusted.gpg), see the DEPRECATION section in apt-key(8) for details.\nN: Repository changed\n",
			warnings: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			refresh, failures, err := parseRefresh(nil, []byte(c.stderr))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(failures, c.want) {
				t.Errorf("failures are %+v, want %+v", failures, c.want)
			}
			if len(refresh.Warnings) != c.warnings {
				t.Errorf("warnings are %q, want %d", refresh.Warnings, c.warnings)
			}
		})
	}
}

func TestParseRefreshCounts(t *testing.T) {
	const stdout = "Ign:1 http://m/debian bookworm InRelease\nHit:2 http://m/security bookworm-security InRelease\n" +
		"Get:3 http://m/debian bookworm Release [548 B]\nGet:1 http://m/debian bookworm InRelease\n" +
		"Err:4 http://n x InRelease\n  404  Not Found\nReading package lists...\n"
	refresh, _, err := parseRefresh([]byte(stdout), nil)
	if err != nil || refresh.Indexes != 3 || refresh.Changed != 2 {
		t.Errorf("refresh is %+v, %v, want 3 indexes of which 2 changed", refresh, err)
	}
}

func TestCompareVersions(t *testing.T) {
	ordered := []string{ // each older than the next; from dpkg's own tests and from real packages
		"0~", "0", "0a", "0+", "1.0~~", "1.0~~a", "1.0~", "1.0~rc1-1", "1.0", "1.0-0.1", "1.0-1", "1.0-1+b1", "1.0-1+b2", "1.0-1+b10",
		"1.0-1+deb12u1", "1.0-2", "1.0.1", "1.0.10", "1.1~bpo12+1", "1.1", "1.1a", "1.1+dfsg", "1.1-a-1", "5.15.0-91", "5.15.0-101",
		"6.1.0-9", "6.1.0-40", "6.12.9+bpo", "10", "99999999999999999999998", "99999999999999999999999", "1:0", "1:0.1-1", "2:0~",
	}
	_, lookErr := exec.LookPath("dpkg")
	for i, a := range ordered {
		for j, b := range ordered {
			got := compareVersions(a, b)
			if (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%s compared with %s is %d", a, b, got)
			}
		}
		// dpkg itself is the authority on its order.
		if lookErr == nil && i > 0 {
			if err := exec.Command("dpkg", "--compare-versions", ordered[i-1], "lt", a).Run(); err != nil {
				t.Errorf("dpkg does not say that %s is older than %s: %v", ordered[i-1], a, err)
			}
		}
	}
	for a, b := range map[string]string{"1.0": "0:1.0", "1.0-0": "1.0", "1.00": "1.0", "00": "0"} {
		if c := compareVersions(a, b); c != 0 {
			t.Errorf("%s compared with %s is %d, want 0", a, b, c)
		}
	}
}
