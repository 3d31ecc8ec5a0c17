package dnf

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// advisory is what an advisory says of one version of one package.
type advisory struct {
	id             string
	classification packages.Classification
	severity       string // in the distribution's words; empty if there is none
	name           string
	architecture   string
	version        string
}

// cve is one that a version of a package fixes.
type cve struct{ id, name, architecture, version string }

const advisoryTool = "dnf updateinfo list"

// advisories asks for those of all versions that are newer than what is
// installed. Two lists are needed: one has the advisories, the other the CVEs
// instead of them.
func (m *Manager) advisories(ctx context.Context) ([]advisory, []cve, error) {
	const purpose = "list the advisories"
	arguments := []string{"-q", "-C", "updateinfo", "list", "--updates"}
	read, readCVEs := parseAdvisories, parseCVEs
	if m.five() {
		arguments = []string{"-q", "-C", "advisory", "list", "--updates", "--json"}
		read, readCVEs = parseAdvisoriesJSON, parseCVEsJSON
	}
	output, err := m.output(ctx, "dnf-advisories", advisoryTool, purpose, arguments...)
	if err != nil {
		return nil, nil, err
	}
	all, err := read(output)
	if err != nil || len(all) == 0 {
		return nil, nil, err
	}
	if output, err = m.output(ctx, "dnf-cves", advisoryTool, purpose, append(arguments, "--with-cve")...); err != nil {
		return nil, nil, err
	}
	cves, err := readCVEs(output)
	return all, cves, err
}

// parseAdvisories reads dnf 4's list (dnf/cli/commands/updateinfo.py):
//
//	TOY-2026:0001 Critical/Sec.  toy-a-2.0-1.noarch
//	TOY-2026:0003 bugfix         toy-c-2.0-1.noarch
//	TOY-2026:0005 unknown        toy-epoch-1:0.5-1.noarch
func parseAdvisories(output []byte) ([]advisory, error) {
	var all []advisory
	err := eachTriple(output, func(id, kind string, name, version, architecture string) {
		a := advisory{id: id, name: name, architecture: architecture, version: version}
		if severity, is := strings.CutSuffix(kind, "/Sec."); is {
			a.classification = packages.Security
			if severity != "Unknown" {
				a.severity = severity
			}
		} else {
			a.classification = classification(kind)
		}
		all = append(all, a)
	})
	return all, err
}

// parseCVEs reads dnf 4's list with CVEs in the place of the advisories.
func parseCVEs(output []byte) ([]cve, error) {
	var all []cve
	err := eachTriple(output, func(id, _ string, name, version, architecture string) {
		if validCVE(id) {
			all = append(all, cve{id: id, name: name, architecture: architecture, version: version})
		}
	})
	return all, err
}

func eachTriple(output []byte, yield func(id, kind, name, version, architecture string)) error {
	n := 0
	for line := range strings.Lines(string(output)) {
		n++
		fields := strings.Fields(line)
		// Plugins may have something to say, in a sentence.
		if len(fields) == 0 || len(fields) > 3 && !slices.ContainsFunc(fields, isNEVRA) {
			continue
		}
		if len(fields) != 3 {
			return rpm.NotUnderstood(advisoryTool, n, line, "not an advisory, its type and a package")
		}
		name, version, architecture, ok := rpm.ParseNEVRA(fields[2])
		if !ok {
			return rpm.NotUnderstood(advisoryTool, n, line, "not a package")
		}
		yield(fields[0], fields[1], name, version, architecture)
	}
	return nil
}

func isNEVRA(s string) bool {
	_, _, _, ok := rpm.ParseNEVRA(s)
	return ok
}

// classification is for what an update is, by the type that its advisory has in
// updateinfo.xml. What is not known stays Other: it is not "not security".
func classification(kind string) packages.Classification {
	switch kind {
	case "security":
		return packages.Security
	case "bugfix":
		return packages.Bugfix
	case "enhancement", "newpackage":
		return packages.Enhancement
	default:
		return packages.Other
	}
}

// parseAdvisoriesJSON reads dnf 5's list (libdnf5-cli/output/advisorylist.cpp).
func parseAdvisoriesJSON(output []byte) ([]advisory, error) {
	var entries []struct{ Name, Type, Severity, NEVRA string }
	if err := decode(output, &entries); err != nil {
		return nil, err
	}
	all := make([]advisory, 0, len(entries))
	for _, e := range entries {
		name, version, architecture, ok := rpm.ParseNEVRA(e.NEVRA)
		if !ok || e.Name == "" {
			return nil, &packages.ParseError{Tool: advisoryTool, Problem: "an advisory of the package \"" + cut(e.NEVRA) + "\""}
		}
		a := advisory{
			id: e.Name, classification: classification(e.Type), name: name, architecture: architecture, version: version,
		}
		if !strings.EqualFold(e.Severity, "none") && !strings.EqualFold(e.Severity, "unknown") {
			a.severity = e.Severity
		}
		all = append(all, a)
	}
	return all, nil
}

// parseCVEsJSON reads dnf 5's list with references. Its advisory_severity is not
// read: some versions put the type there.
func parseCVEsJSON(output []byte) ([]cve, error) {
	var entries []struct {
		NEVRA      string
		References []struct {
			ID string `json:"reference_id"`
		}
	}
	if err := decode(output, &entries); err != nil {
		return nil, err
	}
	var all []cve
	for _, e := range entries {
		name, version, architecture, ok := rpm.ParseNEVRA(e.NEVRA)
		if !ok {
			return nil, &packages.ParseError{Tool: advisoryTool, Problem: "CVEs of the package \"" + cut(e.NEVRA) + "\""}
		}
		for _, r := range e.References {
			if validCVE(r.ID) {
				all = append(all, cve{id: r.ID, name: name, architecture: architecture, version: version})
			}
		}
	}
	return all, nil
}

// decode reads one JSON document. Nothing at all is an empty list.
func decode(output []byte, into any) error {
	if len(bytes.TrimSpace(output)) == 0 {
		return nil
	}
	if err := json.Unmarshal(output, into); err != nil {
		return &packages.ParseError{Tool: advisoryTool, Problem: "no JSON: " + err.Error()}
	}
	return nil
}

func cut(s string) string {
	const longest = 200
	if len(s) > longest {
		s = s[:longest]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// validCVE keeps out what distributions put among their CVEs.
func validCVE(id string) bool {
	rest, is := strings.CutPrefix(id, "CVE-")
	year, number, _ := strings.Cut(rest, "-")
	return is && len(year) == 4 && len(number) >= 4 && strings.Trim(year+number, "0123456789") == ""
}

// known are the advisories and CVEs by package.
type known struct {
	advisories map[key][]advisory
	cves       map[key][]cve
}

func newKnown(advisories []advisory, cves []cve) known {
	k := known{advisories: map[key][]advisory{}, cves: map[key][]cve{}}
	for _, a := range advisories {
		at := key{a.name, a.architecture}
		k.advisories[at] = append(k.advisories[at], a)
	}
	for _, c := range cves {
		at := key{c.name, c.architecture}
		k.cves[at] = append(k.cves[at], c)
	}
	return k
}

// severities are the words of the distributions, the least urgent first.
var severities = []string{"low", "moderate", "medium", "important", "high", "critical"}

// describe fills in what the advisories say of all versions between the installed
// and the available one: an update that skips a security fix is one.
func (k known) describe(p *packages.Patch) {
	at := key{p.Name, p.Architecture}
	between := func(version string) bool {
		return (p.InstalledVersion == "" || rpm.Compare(version, p.InstalledVersion) > 0) && rpm.Compare(version, p.AvailableVersion) <= 0
	}
	rank := func(c packages.Classification) int {
		return slices.Index([]packages.Classification{packages.Other, packages.Enhancement, packages.Bugfix, packages.Security}, c)
	}
	urgency := func(severity string) int { return slices.Index(severities, strings.ToLower(severity)) }
	p.Classification = packages.Other
	for _, a := range k.advisories[at] {
		if !between(a.version) {
			continue
		}
		p.Advisories = append(p.Advisories, a.id)
		if rank(a.classification) > rank(p.Classification) {
			p.Classification = a.classification
		}
		if a.severity != "" && (p.Severity == "" || urgency(a.severity) > urgency(p.Severity)) {
			p.Severity = a.severity
		}
	}
	for _, c := range k.cves[at] {
		if between(c.version) {
			p.CVEs = append(p.CVEs, c.id)
		}
	}
	slices.Sort(p.Advisories)
	slices.Sort(p.CVEs)
	p.Advisories, p.CVEs = slices.Compact(p.Advisories), slices.Compact(p.CVEs)
}
