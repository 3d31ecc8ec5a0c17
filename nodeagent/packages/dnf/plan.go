package dnf

import (
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// row is one package of dnf's plan.
type row struct {
	name, architecture, version, repository string
	// replaces are the names of packages that go, because this one obsoletes them.
	replaces []replaced
}

type replaced struct{ name, architecture, version string }

// plan is what dnf says that a transaction would do.
type plan struct {
	install []row // new ones, also new versions beside the old as those of kernels
	upgrade []row
	remove  []row
	other   []row // downgrades and reinstallations
	skipped []row // newer versions that cannot be installed
	// problems are dnf's reasons for what it skips: one text for each.
	problems []string
}

// headings are the beginnings of the titles of a plan's lists of packages, of
// both versions of dnf (dnf/cli/output.py; libdnf5-cli/output/transaction_table.cpp).
var headings = []struct {
	text string
	list func(*plan) *[]row
}{
	{"Installing group/module packages", func(p *plan) *[]row { return &p.install }},
	{"Installing dependencies", func(p *plan) *[]row { return &p.install }},
	{"Installing weak dependencies", func(p *plan) *[]row { return &p.install }},
	{"Installing Groups", nil}, {"Installing groups", nil}, {"Installing module profiles", nil}, {"Installing environmental groups", nil},
	{"Installing Environment Groups", nil},
	{"Installing", func(p *plan) *[]row { return &p.install }},
	{"Upgrading groups", nil}, {"Upgrading Groups", nil}, {"Upgrading environmental groups", nil}, {"Upgrading Environment Groups", nil},
	{"Upgrading", func(p *plan) *[]row { return &p.upgrade }},
	{"Removing groups", nil}, {"Removing Groups", nil}, {"Removing environmental groups", nil}, {"Removing Environment Groups", nil},
	{"Removing", func(p *plan) *[]row { return &p.remove }},
	{"Reinstalling", func(p *plan) *[]row { return &p.other }},
	{"Downgrading", func(p *plan) *[]row { return &p.other }},
	{"Changing reason", nil},
	{"Skipping packages", func(p *plan) *[]row { return &p.skipped }},
	{"Enabling module streams", nil}, {"Disabling modules", nil}, {"Resetting modules", nil}, {"Switching module streams", nil},
}

// parsePlan reads the plan that dnf prints before it asks whether to carry it
// out. Each package is a row of its table that begins with one space, and that
// dnf 4 breaks into several lines where a column is too narrow:
//
//	Upgrading:
//	 toy-a                 noarch           2.0-1              toys           1.4 k
//	 toy-with-a-very-long-name-in-it
//	                       noarch           2.0-1              toys           1.4 k
//	     replacing  toy-old.noarch 1.0-1
func parsePlan(stdout, stderr []byte) (*plan, error) {
	p := &plan{problems: parseProblems(string(stderr) + "\n" + string(stdout))}
	var list *[]row     // of the heading above
	var fields []string // of the row that is being read
	var replaces []replaced
	started, summary := false, false
	line, n, begun := "", 0, 0
	end := func() error {
		if list != nil && len(fields) > 0 {
			r, ok := parseRow(fields)
			if !ok {
				return rpm.NotUnderstood(planTool, begun, strings.Join(fields, " "), "not a package of the plan")
			}
			r.replaces = replaces
			*list = append(*list, r)
		}
		fields, replaces = nil, nil
		return nil
	}
	for line = range strings.Lines(string(stdout)) {
		n++
		line = strings.TrimRight(line, "\r\n ")
		switch {
		case strings.HasPrefix(line, "Transaction Summary"):
			if err := end(); err != nil {
				return nil, err
			}
			list, summary = nil, true
		case summary, line == "":
		case line[0] != ' ':
			if err := end(); err != nil {
				return nil, err
			}
			is, kind := heading(line)
			switch {
			case is && kind != nil:
				list, started = kind(p), true
			case is:
				list = nil
			case strings.HasPrefix(line, "(add ") || strings.HasPrefix(line, "("): // the second line of a heading
			default:
				list = nil
			}
		case list == nil:
		case strings.HasPrefix(line, "  "):
			words := strings.Fields(line)
			if words[0] != "replacing" {
				fields = append(fields, words...)
				continue
			}
			if r, ok := parseReplaced(words[1:]); ok {
				replaces = append(replaces, r)
				continue
			}
			return nil, rpm.NotUnderstood(planTool, n, line, "not a package that is replaced")
		default:
			if err := end(); err != nil {
				return nil, err
			}
			fields, begun = strings.Fields(line), n
		}
	}
	if started && !summary {
		return nil, rpm.NotUnderstood(planTool, n, line, "the plan ends before its summary")
	}
	return p, nil
}

const planTool = "dnf upgrade"

// heading says whether a line is the title of a list, and of which.
func heading(line string) (is bool, list func(*plan) *[]row) {
	for _, h := range headings {
		if rest, found := strings.CutPrefix(line, h.text); found && (rest == "" || rest[0] == ':' || rest[0] == ' ') {
			return true, h.list
		}
	}
	return false, nil
}

// parseRow reads the name, the architecture, the version and the repository;
// the size is for people. dnf 5 adds to each what it was before: "2.0-1 <- 1.0-1".
func parseRow(fields []string) (row, bool) {
	var columns []string
	for i := 0; i < len(fields); i++ {
		if fields[i] == "<-" {
			i++
			continue
		}
		columns = append(columns, fields[i])
	}
	if len(columns) < 4 {
		return row{}, false
	}
	r := row{
		name: columns[0], architecture: columns[1],
		version: strings.TrimPrefix(columns[2], "0:"), repository: columns[3],
	}
	return r, rpm.ValidName(r.name) && rpm.ValidArchitecture(r.architecture) && rpm.ValidVersion(r.version)
}

// parseReplaced reads what dnf 4 prints as "name.arch version" and dnf 5 as
// "name arch version repository size".
func parseReplaced(words []string) (replaced, bool) {
	var r replaced
	switch {
	case len(words) == 2:
		dot := strings.LastIndexByte(words[0], '.')
		if dot < 0 {
			return replaced{}, false
		}
		r = replaced{name: words[0][:dot], architecture: words[0][dot+1:], version: words[1]}
	case len(words) >= 3:
		r = replaced{name: words[0], architecture: words[1], version: words[2]}
	}
	r.version = strings.TrimPrefix(r.version, "0:")
	return r, rpm.ValidName(r.name) && rpm.ValidArchitecture(r.architecture) && rpm.ValidVersion(r.version)
}

// parseProblems reads dnf's reasons why packages cannot be installed:
//
//	Problem: cannot install the best update candidate for package toy-dep-1.0-1.noarch
//	 - nothing provides toy-nowhere >= 2 needed by toy-dep-2.0-1.noarch
func parseProblems(text string) []string {
	var problems []string
	in := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n ")
		trimmed := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(trimmed, "Problem: "), strings.HasPrefix(trimmed, "Problem ") && strings.Contains(trimmed, ": "):
			_, reason, _ := strings.Cut(trimmed, ": ")
			problems = append(problems, reason)
			in = true
		case in && strings.HasPrefix(trimmed, "- "):
			problems[len(problems)-1] += "; " + strings.TrimPrefix(trimmed, "- ")
		default:
			in = false
		}
	}
	return problems
}

// problem is dnf's reason why a package is skipped; empty if it does not say.
func (p *plan) problem(name, version string) string {
	for _, exact := range []bool{true, false} {
		for _, problem := range p.problems {
			for word := range strings.FieldsSeq(problem) {
				n, v, _, ok := rpm.ParseNEVRA(strings.Trim(word, `",:;()'`))
				if ok && n == name && (v == version || !exact) {
					return problem
				}
			}
		}
	}
	return ""
}

// find is the package of a list with a name, an architecture and a version.
func find(rows []row, name, architecture, version string) bool {
	for _, r := range rows {
		if r.name == name && r.architecture == architecture && r.version == version {
			return true
		}
	}
	return false
}
