package zypper

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// solverOptions are those of each command that plans. What is only recommended is
// not installed, conflicts are never solved by a removal, and licences are agreed
// to, by whoever installed the packages before.
var solverOptions = []string{"--no-recommends", "--no-force-resolution", "--auto-agree-with-licenses"}

// installOptions ask for packages by their names, and never for another one that
// provides the name.
var installOptions = append([]string{"--type", "package", "--name"}, solverOptions...)

// plan is what zypper would do; all lists are sorted by name and architecture.
type plan struct {
	// upgraded are there in an older edition, added are not, unless they are
	// installed beside it. Both are installed.
	upgraded, added []packages.Target
	// removed are gone afterwards, with no other edition in their place.
	removed []packages.Target
	// bytes are to be downloaded for it.
	bytes int64
	// unwanted are what must not be, such as a package that gets an older edition.
	unwanted []string
}

// installed are all packages that the plan installs.
func (p *plan) installed() []packages.Target { return slices.Concat(p.upgraded, p.added) }

// parsePlan reads the summary that zypper prints before it asks whether to go on.
func parsePlan(a *answer) (*plan, error) {
	summary, found := find[installSummary](a)
	if !found {
		return nil, notUnderstood(a.command.tool(), 0, "", "it has no <install-summary>")
	}
	p := &plan{bytes: summary.DownloadSize}
	for _, s := range summary.Sections {
		name := s.XMLName.Local
		for _, sv := range s.Solvables {
			kind := cmp.Or(sv.Type, sv.Kind)
			if kind != "package" {
				if strings.HasPrefix(name, "to-") && kind != "patch" { // patches are not installed, but come true
					p.unwanted = append(p.unwanted, fmt.Sprintf("%s of %s %s", name, kind, sv.Name))
				}
				continue
			}
			if problem := checkNames(sv.Name, sv.Edition, sv.Arch); problem != "" {
				return nil, notUnderstood(a.command.tool(), 0, sv.Name+" "+sv.Edition+" "+sv.Arch, problem)
			}
			t := packages.Target{Name: sv.Name, Architecture: sv.Arch, Version: sv.Edition}
			switch name {
			case "to-upgrade", "to-upgrade-change-arch", "to-reinstall":
				p.upgraded = append(p.upgraded, t)
			case "to-install":
				p.added = append(p.added, t)
			case "to-remove":
				p.removed = append(p.removed, t)
			case "to-downgrade", "to-downgrade-change-arch", "to-change-arch":
				p.unwanted = append(p.unwanted, fmt.Sprintf("%s of %s", name, nevra(t)))
			case "to-change-vendor": // is in another list too
			default:
				if strings.HasPrefix(name, "to-") {
					return nil, notUnderstood(a.command.tool(), 0, name, "an unknown part of a plan")
				}
			}
		}
	}
	// An edition beside which another is installed, of kernels or of what was left
	// by an interrupted transaction, is replaced and not removed.
	names := map[string]bool{}
	for _, t := range p.installed() {
		names[t.Name] = true
	}
	p.removed = slices.DeleteFunc(p.removed, func(t packages.Target) bool { return names[t.Name] })
	for _, list := range [][]packages.Target{p.upgraded, p.added, p.removed} {
		slices.SortFunc(list, byName)
	}
	return p, nil
}

func byName(a, b packages.Target) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Architecture, b.Architecture), cmp.Compare(a.Version, b.Version))
}

// plan asks what installing the targets would do, and changes nothing. The error
// is *packages.RefusedError if zypper does not install them, or would do what it
// must not.
func (m *Manager) plan(ctx context.Context, repos []string, targets []packages.Target) (*plan, error) {
	c := &command{
		name: "zypper-plan", purpose: "plan the installation", repositories: repos,
		verb: "install", options: append([]string{"--dry-run"}, installOptions...), arguments: capabilities(targets),
	}
	a, err := m.ask(ctx, c, exitZYpp, exitCommit, exitNotFound, exitReboot)
	if err != nil {
		return nil, err
	}
	if refused := a.refusal(targets); refused != nil {
		return nil, fmt.Errorf("%s: %w", c.purpose, refused)
	}
	if a.exit != exitOK && a.exit != exitReboot {
		return nil, fmt.Errorf("%s: %w", c.purpose, a.failure())
	}
	p, err := parsePlan(a)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.purpose, err)
	}
	if err := m.judge(ctx, a, repos, p, targets); err != nil {
		return nil, fmt.Errorf("%s: %w", c.purpose, err)
	}
	return p, nil
}

// judge refuses a plan that leaves a target out, as zypper does without an error
// where it would have to change the vendor, or that does more than it may.
func (m *Manager) judge(ctx context.Context, a *answer, repos []string, p *plan, targets []packages.Target) error {
	all := p.installed()
	refused := &packages.RefusedError{}
	for _, t := range targets {
		if slices.Contains(all, t) {
			continue
		}
		reason := "zypper does not plan it and does not say why"
		for _, text := range a.texts("") {
			if named(t, text) || strings.Contains(text, "'"+t.Name+"'") {
				reason = oneLine(text)
			}
		}
		refused.Targets = append(refused.Targets, packages.Failure{Target: t, Message: reason})
		refused.Detail = reason
	}
	if len(refused.Targets) > 0 {
		return refused
	}
	if len(p.unwanted) > 0 {
		return &packages.RefusedError{Detail: "it is more than an update: " + strings.Join(p.unwanted, ", ")}
	}
	for _, t := range p.removed {
		replaced, err := m.replaced(ctx, repos, t, all)
		if err != nil {
			return err
		}
		if !replaced {
			return &packages.RefusedError{Detail: "it would remove " + nevra(t)}
		}
	}
	return nil
}

// replaced says whether one of the packages obsoletes another, which is how rpm
// packages are renamed: then the one comes in the other's place.
func (m *Manager) replaced(ctx context.Context, repos []string, old packages.Target, by []packages.Target) (bool, error) {
	c := &command{
		name: "zypper-obsoletes", purpose: "look for what replaces a package", repositories: repos, verb: "search",
		options:   []string{"--obsoletes", "--match-exact", "--type", "package", "--details"},
		arguments: []string{old.Name},
	}
	a, err := m.ask(ctx, c, exitNotFound)
	if err != nil {
		return false, err
	}
	result, found := find[searchResult](a)
	return found && slices.ContainsFunc(result.Solvables, func(sv solvable) bool {
		return slices.Contains(by, packages.Target{Name: sv.Name, Architecture: sv.Arch, Version: sv.Edition})
	}), nil
}

// refusal reads that zypper does not install the targets because of some of them;
// nil if it does not say so.
func (a *answer) refusal(targets []packages.Target) *packages.RefusedError {
	var reasons []string
	switch a.exit {
	case exitCommit:
		// The files of packages that are in the cache are compared in a plan too.
		if summary, found := find[fileConflictSummary](a); found {
			return summary.refusal(targets)
		}
	case exitNotFound:
		// "Package 'toy.noarch=1.2-1' not found.", "No provider of 'toy.noarch=1.2-1' found."
		reasons = a.texts("error")
	case exitZYpp:
		// All problems are listed, and the first of them asked about with its
		// solutions, one of which is not to install what cannot be.
		for _, text := range a.texts("info") {
			if strings.HasPrefix(strings.TrimSpace(text), "Problem: ") {
				reasons = append(reasons, text)
			}
		}
		if p, found := find[prompt](a); found && strings.HasPrefix(p.Description, "Problem: ") {
			reasons = append(reasons, p.Description)
		}
	}
	if len(reasons) == 0 {
		return nil
	}
	refused := &packages.RefusedError{}
	var details []string
	for _, text := range reasons {
		problem := oneLine(firstLine(text))
		details = append(details, problem)
		for _, t := range blamed(targets, text) {
			if !slices.ContainsFunc(refused.Targets, func(f packages.Failure) bool { return f.Target == t }) {
				refused.Targets = append(refused.Targets, packages.Failure{Target: t, Message: problem})
			}
		}
	}
	slices.Sort(details)
	refused.Detail = shorten(strings.Join(slices.Compact(details), "; "), 1000)
	return refused
}

// blamed are the targets that a problem is about: those that its solutions leave
// out, or if there are none, those that its first line names.
func blamed(targets []packages.Target, text string) []packages.Target {
	var found []packages.Target
	for line := range strings.Lines(text) {
		if strings.Contains(line, "do not install ") || strings.Contains(line, "do not ask to install ") ||
			strings.Contains(line, "remove lock to allow installation of ") {
			found = append(found, namedIn(targets, line)...)
		}
	}
	if len(found) == 0 {
		found = namedIn(targets, firstLine(text))
	}
	return found
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// order is what is to be done about some targets, by what rpm has of them.
type order struct {
	// wanted are to be installed, done are there already.
	wanted, done []packages.Target
	// gone cannot be updated, because nothing of them is there.
	gone []packages.Failure
}

func (m *Manager) order(ctx context.Context, targets []packages.Target) (*order, error) {
	if err := checkTargets(targets); err != nil {
		return nil, err
	}
	installed, err := rpm.New(m.runner, m.files).Installed(ctx)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, p := range installed.Packages {
		names[p.Name] = true
	}
	o := &order{}
	for _, t := range targets {
		switch {
		case !names[t.Name]:
			o.gone = append(o.gone, packages.Failure{Target: t, Message: "it is not installed any more"})
		case installed.Presence(t).Installed:
			o.done = append(o.done, t)
		default:
			o.wanted = append(o.wanted, t)
		}
	}
	return o, nil
}
