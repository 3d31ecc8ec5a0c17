package dnf

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// recorded is what a command printed; empty where it printed nothing.
func recorded(t testing.TB, name string) packages.Result {
	t.Helper()
	var result packages.Result
	for suffix, text := range map[string]*[]byte{".stdout": &result.Stdout, ".stderr": &result.Stderr} {
		content, err := os.ReadFile(filepath.Join("testdata", name+suffix))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		*text = content
	}
	if len(result.Stdout)+len(result.Stderr) == 0 {
		t.Fatalf("testdata has no %s", name)
	}
	return result
}

func toy(name, version string) packages.Target {
	return packages.Target{Name: name, Version: version, Architecture: "noarch"}
}

func rowNames(rows []row) string {
	var all []string
	for _, r := range rows {
		all = append(all, r.name+"="+r.version)
	}
	return strings.Join(all, " ")
}

func failureNames(failures []packages.Failure) string {
	var all []string
	for _, f := range failures {
		all = append(all, f.Target.Name)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestParsePlan(t *testing.T) {
	for name, c := range map[string]struct{ upgrade, install, skipped, replaced string }{
		"dnf-4.14/plan": {
			"toy-between=2.0-1 toy-bugfix=2.0-1 toy-enhancement=2.0-1 toy-needs=2.0-1 toy-plain=2.0-1 toy-recommended=2.0-1 " +
				"toy-security=1:0.9~rc1-1.el9_4 toy-with-a-name-that-is-far-longer-than-the-column-of-a-plan=2.0-1",
			"toy-new=2.0-1 toy-extra=1-1", "toy-unmet=2.0-1", "toy-old",
		},
		"dnf-5/plan":               {"toy-arch=2.0-1 toy-bugfix=2.0-1 toy-security=1:0.9~rc1-1.el9_4", "toy-new=2.0-1 toy-extra=1-1", "", "toy-old"},
		"dnf-4.14/preview-refused": {},
	} {
		t.Run(name, func(t *testing.T) {
			result := recorded(t, name)
			p, err := parsePlan(result.Stdout, result.Stderr)
			if err != nil {
				t.Fatal(err)
			}
			if rowNames(p.upgrade) != c.upgrade || rowNames(p.install) != c.install || rowNames(p.skipped) != c.skipped || len(p.remove)+len(p.other) != 0 {
				t.Errorf("it is %+v", p)
			}
			if c.replaced != "" && (len(p.install[0].replaces) != 1 || p.install[0].replaces[0] != replaced{c.replaced, "noarch", "1.0-1"}) {
				t.Errorf("replaced are %+v", p.install[0].replaces)
			}
			if len(p.problems) != 1 || !aborted(result) && c.upgrade != "" {
				t.Errorf("problems are %q", p.problems)
			}
			if c.skipped != "" && p.problem("toy-unmet", "2.0-1") != "cannot install the best update candidate for package toy-unmet-1.0-1.noarch; nothing provides toy-nowhere needed by toy-unmet-2.0-1.noarch" {
				t.Errorf("the reason is %q", p.problem("toy-unmet", "2.0-1"))
			}
		})
	}
}

// TestParsePlanLayouts has what no machine of these tests prints.
func TestParsePlanLayouts(t *testing.T) {
	const text = `Dependencies resolved.
================================================================================
 Package      Arch   Version    Repository                                 Size
================================================================================
Installing:
 kernel-core  x86_64 5.14.0-10.el9 baseos                                  18 M
Upgrading:
 toy-with-a-very-long-name
              noarch 2.0-1      a-repository-with-a-long-name             1.4 k
     replacing  toy-a.noarch 1.0-1
     replacing  toy-b.x86_64 1:1.0-1
 toy-small    noarch 2.0-1      toys                                     890  
Removing:
 kernel-core  x86_64 5.14.0-1.el9 @baseos                                  18 M
Removing dependent packages:
 toy-gone     noarch 1.0-1      @toys                                     1.4 k
Downgrading:
 toy-older    noarch 1.0-1      toys                                      1.4 k
Skipping packages with conflicts:
(add '--best --allowerasing' to command line to force their upgrade):
 toy-conflict noarch 2.0-1      toys                                      1.4 k
Enabling module streams:
 toy-module          9

Transaction Summary
================================================================================
Install  1 Package
`
	p, err := parsePlan([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := rowNames(p.upgrade); got != "toy-with-a-very-long-name=2.0-1 toy-small=2.0-1" || len(p.upgrade[0].replaces) != 2 || p.upgrade[0].replaces[1] != (replaced{"toy-b", "x86_64", "1:1.0-1"}) {
		t.Errorf("upgraded are %+v", p.upgrade)
	}
	if got := rowNames(p.skipped); got != "toy-conflict=2.0-1" {
		t.Errorf("skipped are %q", got)
	}
	if got := p.removals(); !slices.Equal(got, []string{"toy-gone-1.0-1.noarch"}) {
		t.Errorf("removed besides old kernels are %q", got)
	}
	for name, wrong := range map[string]string{
		"cut off":  text[:strings.Index(text, "Transaction")],
		"too few":  strings.Replace(text, " toy-small    noarch 2.0-1      toys                                     890  ", " toy-small noarch", 1),
		"nonsense": strings.Replace(text, "toy-small    noarch 2.0-1", "toy-small    noarch two;", 1),
	} {
		if _, err := parsePlan([]byte(wrong), nil); err == nil {
			t.Errorf("a plan that is %s is understood", name)
		}
	}
}

func TestRefusal(t *testing.T) {
	targets := []packages.Target{toy("toy-a", "2.0-1"), toy("toy-good", "2.0-1")}
	at := func(name string) row {
		return row{name: name, architecture: "noarch", version: "2.0-1", repository: "toys"}
	}
	for name, c := range map[string]struct {
		plan   plan
		detail string
	}{
		"a removal":               {plan{upgrade: []row{}, remove: []row{{name: "toy-b", architecture: "noarch", version: "1-1"}}}, "remove toy-b-1-1.noarch"},
		"a downgrade":             {plan{other: []row{at("toy-b")}}, "downgrade or install again toy-b"},
		"a target that is not":    {plan{skipped: []row{at("toy-a")}, problems: []string{"nothing provides x needed by toy-a-2.0-1.noarch"}}, "nothing provides x"},
		"another that is not":     {plan{upgrade: []row{at("toy-a")}, skipped: []row{at("toy-z")}}, ""},
		"an old kernel that goes": {plan{install: []row{at("kernel")}, remove: []row{{name: "kernel", architecture: "noarch", version: "1-1"}}}, ""},
	} {
		err := refusal(&c.plan, packages.Result{ExitCode: 1}, targets)
		if (err == nil) != (c.detail == "") || err != nil && !strings.Contains(err.Error(), c.detail) {
			t.Errorf("%s: it is refused with %v, want %q", name, err, c.detail)
		}
	}
}

func TestParseOffers(t *testing.T) {
	for name, want := range map[string]offer{
		"dnf-4.14/offers": {"toy-security", "noarch", "1:0.9~rc1-1.el9_4", "toys", 1515, "toy-security-0.9~rc1-1.el9_4.noarch.rpm"},
		"dnf-5/offers":    {"toy-security", "noarch", "1:0.9~rc1-1.el9_4", "toys", 1515, "toy-security-0.9~rc1-1.el9_4.noarch.rpm"},
	} {
		all, err := parseOffers(recorded(t, name).Stdout)
		if err != nil || !slices.Contains(all, want) {
			t.Errorf("%s is %+v, %v", name, all, err)
		}
	}
	for _, wrong := range []string{"toy|1-1", "toy|1-1|noarch|x|toys|f", "toy|1-1|noarch|-1|toys|f", "-toy|1-1|noarch|1|toys|f", "toy|1|noarch|1|toys|f"} {
		if all, err := parseOffers([]byte(wrong + "\n")); err == nil {
			t.Errorf("%q is %+v", wrong, all)
		}
	}
}

func TestParseAdvisories(t *testing.T) {
	want := []advisory{
		{"TOY-2026:1", packages.Security, "Critical", "toy-security", "noarch", "1:0.9~rc1-1.el9_4"},
		{"TOY-2026:3", packages.Bugfix, "", "toy-bugfix", "noarch", "2.0-1"},
		{"TOY-2026:5", packages.Other, "", "toy-recommended", "noarch", "2.0-1"},
	}
	four, err := parseAdvisories(recorded(t, "dnf-4.14/advisories").Stdout)
	if err != nil {
		t.Fatal(err)
	}
	five, err := parseAdvisoriesJSON(recorded(t, "dnf-5/advisories").Stdout)
	if err != nil {
		t.Fatal(err)
	}
	want5 := slices.Clone(want)
	want5[2].severity = "moderate" // dnf 4 shows the severity of security advisories only
	for _, w := range want {
		if !slices.Contains(four, w) {
			t.Errorf("dnf 4 has no %+v: %+v", w, four)
		}
	}
	if !slices.Equal(five, want5) {
		t.Errorf("dnf 5 has %+v, want %+v", five, want5)
	}
	wantCVEs := []cve{{"CVE-2026-0002", "toy-security", "noarch", "1:0.9~rc1-1.el9_4"}, {"CVE-2026-0001", "toy-security", "noarch", "1:0.9~rc1-1.el9_4"}}
	cves, err := parseCVEs(recorded(t, "dnf-4.14/cves").Stdout)
	if err != nil || !slices.Contains(cves, wantCVEs[0]) || !slices.Contains(cves, wantCVEs[1]) || len(cves) != 3 {
		t.Errorf("dnf 4 has the CVEs %+v, %v", cves, err)
	}
	if cves, err = parseCVEsJSON(recorded(t, "dnf-5/cves").Stdout); err != nil || !slices.Equal(cves, wantCVEs) {
		t.Errorf("dnf 5 has the CVEs %+v, %v", cves, err)
	}
	for _, wrong := range []string{"TOY-1 bugfix", "TOY-1 bugfix toy", "TOY-1 bugfix toy-1-1.noarch toy-2-1.noarch"} {
		if all, err := parseAdvisories([]byte(wrong)); err == nil {
			t.Errorf("%q is %+v", wrong, all)
		}
	}
	for _, wrong := range []string{"{}", "[{\"name\":\"x\"}]", "["} {
		if all, err := parseAdvisoriesJSON([]byte(wrong)); err == nil {
			t.Errorf("%q is %+v", wrong, all)
		}
	}
	if all, err := parseAdvisories([]byte("Updating Subscription Management repositories.\n\nTOY-1 bugfix toy-1-1.noarch\n")); err != nil || len(all) != 1 {
		t.Errorf("with a plugin that chats it is %+v, %v", all, err)
	}
	for kind, want := range map[string]packages.Classification{"newpackage": packages.Enhancement, "unknown": packages.Other, "": packages.Other} {
		if got := classification(kind); got != want {
			t.Errorf("%q is %s", kind, got)
		}
	}
}

func TestParseNeedsRestarting(t *testing.T) {
	const words = "Core libraries or services have been updated since boot-up:\n  * kernel-core\n  * glibc\n  * glibc\n\nReboot is required to fully utilize these updates.\n"
	for name, c := range map[string]struct {
		read func([]byte) (bool, []string)
		text string
		want string
	}{
		"dnf 4":                 {parseNeedsRestarting, words, "glibc kernel-core"},
		"dnf 4, not":            {parseNeedsRestarting, "No core libraries or services have been updated since boot-up.\nReboot should not be necessary.\n", ""},
		"dnf 4, an error":       {parseNeedsRestarting, "Error: something * else\n", ""},
		"nothing":               {parseNeedsRestarting, "", ""},
		"dnf 5":                 {parseNeedsRestartingJSON, string(recorded(t, "dnf-5/needs-restarting").Stdout), "glibc kernel-core"},
		"dnf 5, not":            {parseNeedsRestartingJSON, `[{"type":"reboot","reboot_required":false,"packages":[]}]`, ""},
		"dnf 5 without JSON":    {parseNeedsRestartingJSON, words, "glibc kernel-core"},
		"dnf 5, something else": {parseNeedsRestartingJSON, `[{"type":"process","pid":1}]`, ""},
	} {
		required, names := c.read([]byte(c.text))
		if required != (c.want != "") || strings.Join(names, " ") != c.want {
			t.Errorf("%s: it is %t, %q, want %q", name, required, names, c.want)
		}
	}
}
