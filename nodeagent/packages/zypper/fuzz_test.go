package zypper

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// seed adds all recordings whose names match.
func seed(f *testing.F, patterns ...string) {
	f.Helper()
	for _, pattern := range patterns {
		files, err := filepath.Glob(filepath.Join("testdata", pattern))
		if err != nil || len(files) == 0 {
			f.Fatalf("no recordings of %s: %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
}

// parsed is the answer that an output makes; nil if it is none.
func parsed(output []byte, verb string, exit int) *answer {
	a := &answer{exit: exit, command: &command{verb: verb}, result: packages.Result{ExitCode: exit, Stdout: output}}
	var err error
	if a.elements, err = parseStream(a.command.tool(), output); err != nil {
		return nil
	}
	return a
}

func safe(t *testing.T, target packages.Target) {
	t.Helper()
	word := capability(target)
	if checkTargets([]packages.Target{target}) != nil || strings.ContainsAny(word, " \n\t$*?/[]'\"") || word[0] == '-' || !utf8.ValidString(word) {
		t.Errorf("unsafe: %+v", target)
	}
}

// FuzzParseUpdates accepts only names that are safe to pass on, and no less than
// the document has.
func FuzzParseUpdates(f *testing.F) {
	seed(f, "scan/zypper-offered.xml", "scan/zypper-updates.xml", "scan/zypper-patches.xml")
	f.Fuzz(func(t *testing.T, output []byte) {
		a := parsed(output, "list-updates", exitOK)
		if a == nil {
			return
		}
		if updates, err := parseUpdates(a); err == nil {
			for _, u := range updates {
				safe(t, packages.Target{Name: u.Name, Architecture: u.Arch, Version: u.Edition})
			}
		}
		if patches, err := parsePatches(a); err == nil {
			for _, p := range patches {
				if p.id == "" || p.id[0] == '-' || strings.ContainsAny(p.id, " \n\t*?/") {
					t.Errorf("unsafe: %q", p.id)
				}
			}
		}
	})
}

// FuzzParsePatchInfo takes no fix from a text but from its list of conflicts.
func FuzzParsePatchInfo(f *testing.F) {
	f.Add("Name : TOY-1\nDescription : \n    x\nConflicts : [2]\n    toy < 1\n    srcpackage:toy < 1\n")
	f.Add("Name : TOY-1\nConflicts   : toy.x86_64 < 1:2-3\n")
	f.Fuzz(func(t *testing.T, text string) {
		name, fixes, err := parseOnePatch("zypper info", text)
		if err != nil {
			return
		}
		if len(fixes) > strings.Count(text, " < ") || len(fixes) > 0 && !strings.Contains(text, "Conflicts") {
			t.Errorf("%q has %+v of %q", text, fixes, name)
		}
		p := &packages.Patch{Name: "toy", Architecture: "noarch", InstalledVersion: "1-1", AvailableVersion: "2-1"}
		describe(p, []advisory{{id: name, category: "security", severity: "odd", fixes: fixes}})
		if len(p.Advisories) > 1 || (p.Classification == packages.Security) != (len(p.Advisories) == 1) {
			t.Errorf("%q makes %+v", text, p)
		}
	})
}

// FuzzParsePlan never takes a removal for anything else.
func FuzzParsePlan(f *testing.F) {
	seed(f, "scan/zypper-plan.xml", "plan-*.xml", "install-*.xml")
	f.Fuzz(func(t *testing.T, output []byte) {
		a := parsed(output, "install", exitOK)
		if a == nil {
			return
		}
		p, err := parsePlan(a)
		if err != nil {
			return
		}
		for _, target := range append(p.installed(), p.removed...) {
			safe(t, target)
		}
		for _, exit := range []int{exitZYpp, exitCommit, exitNotFound} {
			a.exit = exit
			if refused := a.refusal(p.installed()); refused != nil && len(refused.Targets) > len(p.installed()) {
				t.Errorf("it refuses %+v of %+v", refused.Targets, p.installed())
			}
		}
	})
}

// FuzzParseInstall blames no package that is not installed, and none twice.
func FuzzParseInstall(f *testing.F) {
	seed(f, "install-*.xml")
	f.Fuzz(func(t *testing.T, output []byte) {
		// What was understood of a broken output counts too.
		elements, _ := parseStream("zypper install", output)
		asked := toys("1.1-1", "toy-a", "toy-b", "toy-c")
		a := &answer{exit: exitCommit, command: &command{verb: "install", transaction: true}, elements: elements}
		install, err := parseInstall(a, asked)
		if err != nil {
			return
		}
		seen := map[packages.Target]bool{}
		for _, failure := range append(install.Failed, install.Warned...) {
			if seen[failure.Target] || rpm.Compare(failure.Target.Version, "1.1-1") != 0 || failure.Message == "" ||
				strings.Contains(failure.Message, "\n") || len(failure.Message) > 510 {
				t.Errorf("it blames %+v", failure)
			}
			seen[failure.Target] = true
		}
	})
}

// FuzzReadDownload accounts for every package that was asked for.
func FuzzReadDownload(f *testing.F) {
	seed(f, "download-*.xml")
	f.Fuzz(func(t *testing.T, output []byte) {
		a := parsed(output, "download", exitOK)
		if a == nil {
			return
		}
		asked := toys("1.1-1", "toy-a", "toy-missing", "toy-corrupt")
		d := &fetch{manager: New(nil, fstest.MapFS{}, packages.Locks{}), faults: map[packages.Target]string{}}
		if err := d.read(a, asked); err != nil {
			return
		}
		results := strings.Count(string(output), "<download-result")
		if len(d.faults) > len(asked) || len(asked)-len(d.faults) > results {
			t.Errorf("%d of %d failed, with %d results", len(d.faults), len(asked), results)
		}
	})
}

// FuzzParseRefresh never takes a repository that was skipped for a success.
func FuzzParseRefresh(f *testing.F) {
	seed(f, "refresh-new.xml", "refresh-failed.xml", "locked.xml")
	f.Fuzz(func(t *testing.T, output []byte) {
		a := parsed(output, "refresh", exitZYpp)
		if a == nil {
			return
		}
		refresh, failures := parseRefresh(a)
		if refresh.Changed+len(failures) > refresh.Indexes || len(refresh.Warnings) > maxWarnings {
			t.Errorf("refresh is %+v, %d failures", refresh, len(failures))
		}
		_ = a.obstacle()
		_ = a.complaint()
	})
}
