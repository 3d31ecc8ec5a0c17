package zypper

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// advisory is one of zypper's patches: what a distribution says of some packages.
type advisory struct {
	id, category, severity string
	cves                   []string
	// fixes are what the host must not have any more: editions older than these.
	fixes []fix
}

// fix is the edition that an advisory wants of a package. The name has an
// architecture where the advisory is for that one alone: "bash.x86_64".
type fix struct{ name, edition string }

// advisories asks for the patches that the host needs, and for the packages of
// each. Those that zypper calls optional are among them; those that it holds back
// until zypper itself is updated are too.
func (m *Manager) advisories(ctx context.Context, repos []string) ([]advisory, error) {
	list := &command{
		name: "zypper-patches", purpose: "list the patches", repositories: repos,
		verb: "list-patches", options: []string{"--with-optional"},
	}
	a, err := m.ask(ctx, list)
	if err != nil {
		return nil, err
	}
	found, err := parsePatches(a)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", list.purpose, err)
	}
	// A command line has room for a hundred times as much.
	for batch := range slices.Chunk(found, 500) {
		info := &command{
			name: "zypper-patch-info", purpose: "read the patches", repositories: repos,
			verb: "info", options: []string{"--type", "patch"},
		}
		for i := range batch {
			info.arguments = append(info.arguments, batch[i].id)
		}
		a, err := m.ask(ctx, info)
		if err != nil {
			return nil, err
		}
		if err := parsePatchInfo(a, batch); err != nil {
			return nil, fmt.Errorf("%s: %w", info.purpose, err)
		}
	}
	return found, nil
}

// parsePatches reads what "zypper list-patches" printed. A patch that several
// repositories have is there once.
func parsePatches(a *answer) ([]advisory, error) {
	status, found := find[updateStatus](a)
	if !found {
		return nil, notUnderstood(a.command.tool(), 0, "", "it has no <update-status>")
	}
	var all []advisory
	for _, u := range slices.Concat(status.Updates, status.Blocked) {
		if u.Kind != "patch" {
			return nil, notUnderstood(a.command.tool(), 0, u.Kind, "not a patch")
		}
		// Other distributions' advisories have colons: "FEDORA-EPEL-2026:1".
		if !rpm.ValidName(strings.ReplaceAll(u.Name, ":", "_")) {
			return nil, notUnderstood(a.command.tool(), 0, u.Name, "not the name of a patch")
		}
		if slices.ContainsFunc(all, func(known advisory) bool { return known.id == u.Name }) {
			continue
		}
		next := advisory{id: u.Name, category: u.Category, severity: u.Severity}
		for _, i := range u.Issues {
			if i.Type == "cve" && i.ID != "" {
				next.cves = append(next.cves, i.ID)
			}
		}
		all = append(all, next)
	}
	return all, nil
}

var (
	// "Conflicts   : [2]", "Conflicts   : toy-good < 1.1-1", "Conflicts   : ---". A
	// description is indented, so that it cannot look like one.
	patchField = regexp.MustCompile(`^([A-Z][A-Za-z ]*?) *: ?(.*)$`)
	// "toy-good < 1.1-1", "srcpackage:toy < 1.1-1", "toy.x86_64 < 1.1-1"
	patchConflict = regexp.MustCompile(`^(?:([a-z]+):)?(\S+) < (\S+)$`)
)

// parsePatchInfo reads what "zypper info --type patch" printed of some patches,
// and adds what each of them fixes. Patches work by conflicts with all that is
// older; there is no XML for it.
func parsePatchInfo(a *answer, patches []advisory) error {
	tool := a.command.tool()
	described := map[string]bool{}
	for _, text := range a.texts("info") {
		name, fixes, err := parseOnePatch(tool, text)
		if err != nil {
			return err
		}
		described[name] = name != ""
		for i := range patches {
			if patches[i].id == name {
				patches[i].fixes = append(patches[i].fixes, fixes...)
			}
		}
	}
	for i := range patches {
		if !described[patches[i].id] {
			return notUnderstood(tool, 0, patches[i].id, "it does not describe the patch")
		}
	}
	return nil
}

// parseOnePatch returns no name for a text that is not about a patch.
func parseOnePatch(tool, text string) (name string, fixes []fix, err error) {
	lines := strings.Split(text, "\n")
	left := 0 // lines of a list
	for n, line := range lines {
		if left > 0 {
			left--
			if err := addFix(tool, n+1, line, &fixes); err != nil {
				return "", nil, err
			}
			continue
		}
		field := patchField.FindStringSubmatch(line)
		if field == nil {
			continue
		}
		switch value := strings.TrimSpace(field[2]); {
		case field[1] == "Name":
			name = value
		case field[1] != "Conflicts" || value == "" || value == "---":
		case strings.HasPrefix(value, "["):
			left, err = strconv.Atoi(strings.Trim(value, "[]"))
			if err != nil || left > len(lines)-n-1 {
				return "", nil, notUnderstood(tool, n+1, line, "not the number of the lines that follow")
			}
		default:
			if err := addFix(tool, n+1, value, &fixes); err != nil {
				return "", nil, err
			}
		}
	}
	return name, fixes, nil
}

func addFix(tool string, n int, line string, fixes *[]fix) error {
	found := patchConflict.FindStringSubmatch(strings.TrimSpace(line))
	if found == nil {
		return notUnderstood(tool, n, line, "not a conflict with older packages")
	}
	if found[1] == "" { // of source packages and products nothing is installed
		*fixes = append(*fixes, fix{name: found[2], edition: found[3]})
	}
	return nil
}

// fixesUpdate says whether the advisory is about the step from one edition of a
// package to another.
func (a *advisory) fixesUpdate(p *packages.Patch) bool {
	return slices.ContainsFunc(a.fixes, func(f fix) bool {
		return (f.name == p.Name || f.name == p.Name+"."+p.Architecture) &&
			rpm.Compare(p.InstalledVersion, f.edition) < 0 && rpm.Compare(f.edition, p.AvailableVersion) <= 0
	})
}

// classifications of categories: SUSE's, and those of other distributions'
// updateinfo, which zypper passes on.
var classifications = map[string]packages.Classification{
	"security":    packages.Security,
	"recommended": packages.Bugfix, "bugfix": packages.Bugfix,
	"optional": packages.Enhancement, "feature": packages.Enhancement, "enhancement": packages.Enhancement,
	"newpackage": packages.Enhancement,
}

var (
	urgency = []packages.Classification{packages.Security, packages.Bugfix, packages.Enhancement, packages.Other}
	// severities are the distributions' words, the worst first.
	severities = []string{"critical", "important", "moderate", "low"}
)

// describe fills in what the advisories say of a patch: the most urgent
// classification and the worst severity of all of them.
func describe(p *packages.Patch, advisories []advisory) {
	p.Classification = packages.Other
	for i := range advisories {
		a := &advisories[i]
		if !a.fixesUpdate(p) {
			continue
		}
		p.Advisories = append(p.Advisories, a.id)
		p.CVEs = append(p.CVEs, a.cves...)
		of := cmp.Or(classifications[a.category], packages.Other)
		if slices.Index(urgency, of) < slices.Index(urgency, p.Classification) {
			p.Classification = of
		}
		if rank(a.severity) < rank(p.Severity) {
			p.Severity = a.severity
		}
	}
	for _, list := range []*[]string{&p.Advisories, &p.CVEs} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
}

// rank is the place of a severity, the worst first. Words that say that there is
// none come last.
func rank(severity string) int {
	if i := slices.Index(severities, strings.ToLower(severity)); i >= 0 {
		return i
	}
	switch strings.ToLower(severity) {
	case "", "none", "unspecified":
		return len(severities) + 1
	}
	return len(severities)
}
