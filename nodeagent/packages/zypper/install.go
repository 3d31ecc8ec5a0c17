package zypper

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// Install installs the targets with one command of zypper, from its cache.
//
// zypper stops at the first package that fails, and leaves those that come after
// it as they were: they are neither among the failures nor installed. Configuration
// files that were changed are kept, and the new ones put beside them (.rpmnew).
func (m *Manager) Install(ctx context.Context, targets []packages.Target) (packages.Install, error) {
	const purpose = "install packages"
	o, err := m.order(ctx, targets)
	if err != nil {
		return packages.Install{}, err
	}
	if len(o.gone) > 0 {
		return packages.Install{}, fmt.Errorf("%s: %w", purpose, &packages.RefusedError{Targets: o.gone, Detail: o.gone[0].Message})
	}
	if len(o.wanted) == 0 {
		return packages.Install{}, nil
	}
	r, err := m.repositories(ctx)
	if err != nil {
		return packages.Install{}, err
	}
	repos, ok := r.usable()
	if !ok {
		return packages.Install{}, fmt.Errorf("%s: %w", purpose, r.useless())
	}
	p, err := m.plan(ctx, repos, o.wanted)
	if err != nil {
		return packages.Install{}, err
	}
	if err := m.checkCache(r, p, o.wanted); err != nil {
		return packages.Install{}, fmt.Errorf("%s: %w", purpose, err)
	}
	return m.transaction(ctx, &command{
		name: "zypper-install", purpose: purpose, repositories: repos, verb: "install",
		// All files are there before the first package is installed, so that the
		// conflicts between them are found before it too.
		options: append([]string{"--download", "in-advance"}, installOptions...), arguments: capabilities(o.wanted),
	}, p.installed())
}

// checkCache refuses a plan for which zypper would use the network.
func (m *Manager) checkCache(r *repositories, p *plan, targets []packages.Target) error {
	missing, err := r.missing(m, p.installed())
	if err != nil || len(missing) == 0 {
		return err
	}
	if slices.ContainsFunc(r.all, func(repo repository) bool { return r.local(repo.Alias) }) {
		return nil // zypper does not say which repository has it, and takes it from this host's disk, likely
	}
	refused := &packages.RefusedError{}
	for _, t := range missing {
		const reason = "its file is not in zypper's cache: it has to be downloaded again"
		if slices.Contains(targets, t) {
			refused.Targets = append(refused.Targets, packages.Failure{Target: t, Message: reason})
		}
		refused.Detail = nevra(t) + ": " + reason
	}
	return refused
}

// transaction runs a command that writes the package database and installs the
// packages. Where zypper itself was updated first, it has to be run again.
func (m *Manager) transaction(ctx context.Context, c *command, installs []packages.Target) (packages.Install, error) {
	c.transaction = true
	var install packages.Install
	for range 2 {
		var a *answer
		err := m.locks.Retry(ctx, m.files, func() (err error) {
			a, err = m.run(ctx, c)
			return err
		})
		if err != nil {
			return packages.Install{}, err
		}
		more, err := parseInstall(a, installs)
		if err != nil {
			return packages.Install{}, fmt.Errorf("%s: %w", c.purpose, err)
		}
		install.Failed = append(install.Failed, more.Failed...)
		install.Warned = append(install.Warned, more.Warned...)
		if a.exit != exitRestart || len(more.Failed) > 0 {
			break
		}
	}
	return install, nil
}

var (
	// "(2/4) Installing: toy-1.1-1.noarch", "(2/4) Executing %posttrans script for: toy-1.1-1.noarch"
	stepOf = regexp.MustCompile(`^(?:\( *\d+/\d+\) )?(Installing|Removing|Cleaning up|Executing (%\S+) script for): ?(\S+)$`)
	// "Installation of toy-1.1-1.noarch failed:"
	installationOf = regexp.MustCompile(`^(?:Installation|Removal) of (\S+?)(?:\([^)]*\)\S*)? failed:`)
	// "warning: %post(toy-1.1-1.noarch) scriptlet failed, exit status 1", and of
	// scripts in Lua: "error: lua script failed: [string "%post(toy-1.1-1.noarch)"]:1: …"
	scriptOf = regexp.MustCompile(`(?:^|")(?:warning: |error: )?(?:lua script failed: \[string ")?(%\w+)\((\S+?)\)"?.*$`)
)

// parseInstall reads what became of the packages of a transaction. They may be
// packages that the targets need: whose failure it is stays to be seen.
func parseInstall(a *answer, installs []packages.Target) (packages.Install, error) {
	text := strings.Join(a.texts(""), "\n")
	r := &report{installs: installs, said: map[packages.Target][]string{}, failed: map[packages.Target]bool{}}
	for _, element := range a.elements {
		switch e := element.(type) {
		case *progress:
			r.step(e)
		case *message:
			r.message(e)
		}
	}
	install := packages.Install{Failed: r.failures(), Warned: slices.DeleteFunc(r.warned, func(f packages.Failure) bool { return r.failed[f.Target] })}
	if full := diskFull(text); full != nil && a.exit != exitOK {
		return packages.Install{}, full
	}
	switch a.exit {
	case exitOK, exitReboot, exitRestart, exitSkipped, exitScriptFailed:
		return install, nil
	case exitNoRepositories:
		return packages.Install{}, &packages.RepositoryError{Detail: a.complaint()}
	}
	if refused := a.refusal(installs); refused != nil {
		return packages.Install{}, refused
	}
	if len(install.Failed) > 0 {
		return install, nil
	}
	return packages.Install{}, a.failure()
}

// report follows the steps of a transaction.
type report struct {
	installs []packages.Target
	// current is the package of the step; nil if it is none of those that are installed.
	current *packages.Target
	said    map[packages.Target][]string
	failed  map[packages.Target]bool
	order   []packages.Target
	warned  []packages.Failure
}

func (r *report) find(word string) *packages.Target {
	for i, t := range r.installs {
		// Some versions of zypper leave the architecture out.
		if is(t, word) || word == t.Name+"-"+t.Version {
			return &r.installs[i]
		}
	}
	return nil
}

func (r *report) step(p *progress) {
	found := stepOf.FindStringSubmatch(p.Name)
	if found == nil {
		return
	}
	t := r.find(found[3])
	if t == nil {
		return
	}
	r.current = t
	switch {
	case p.Done != "0":
	case found[1] == "Installing" || early(found[2]):
		r.fail(*t)
	case found[2] != "":
		r.warn(*t, found[2]+" failed")
	}
}

func (r *report) message(m *message) {
	if strings.HasPrefix(strings.TrimSpace(m.Text), "Problem occurred during or after installation") {
		r.current = nil // what follows is of the transaction, and no package's
	}
	if found := installationOf.FindStringSubmatch(strings.TrimSpace(m.Text)); found != nil && m.Type == "error" {
		if t := r.find(found[1]); t != nil {
			r.current = t
			r.fail(*t)
		}
	}
	for line := range strings.Lines(m.Text) {
		line = strings.TrimSpace(line)
		script := scriptOf.FindStringSubmatch(line)
		if script == nil || !strings.Contains(line, "failed") {
			if r.current != nil && line != "Additional rpm output:" && !installationOf.MatchString(line) {
				r.said[*r.current] = append(r.said[*r.current], line)
			}
			continue
		}
		t := r.find(script[2])
		if t == nil {
			// A script of the older package, in the step of the newer one.
			t = r.current
		}
		if t == nil {
			continue
		}
		r.said[*t] = append(r.said[*t], line)
		if !early(script[1]) {
			r.warn(*t, line)
		}
	}
}

// early are the scripts whose failure keeps a package from being installed; of
// the others rpm only warns.
func early(script string) bool {
	return script == "%pre" || script == "%prein" || script == "%pretrans"
}

func (r *report) fail(t packages.Target) {
	if !r.failed[t] {
		r.failed[t] = true
		r.order = append(r.order, t)
	}
}

func (r *report) warn(t packages.Target, text string) {
	text = oneLine(strings.Join(append(r.lastWords(t), text), "\n"))
	i := slices.IndexFunc(r.warned, func(f packages.Failure) bool { return f.Target == t })
	if i < 0 {
		r.warned = append(r.warned, packages.Failure{Target: t, Message: text})
	}
}

// lastWords are the last lines said of a package that are its own.
func (r *report) lastWords(t packages.Target) []string {
	const most = 4
	var lines []string
	for _, line := range r.said[t] {
		line = strings.TrimPrefix(line, "Error: Subprocess failed. Error: RPM failed: ")
		if line == "" || strings.HasSuffix(line, ": install failed") || strings.HasSuffix(line, ": erase skipped") ||
			strings.HasPrefix(line, "rpm: ") || strings.HasPrefix(line, "In cache ") || slices.Contains(lines, line) {
			continue
		}
		lines = append(lines, line)
	}
	return lines[max(0, len(lines)-most):]
}

func (r *report) failures() []packages.Failure {
	var all []packages.Failure
	for _, t := range r.order {
		reason := oneLine(strings.Join(r.lastWords(t), "\n"))
		if reason == "" {
			reason = "zypper did not install it and does not say why"
		}
		all = append(all, packages.Failure{Target: t, Message: reason})
	}
	return all
}

// refusal is that of packages with different files under one name. zypper finds
// it before it installs anything.
func (s *fileConflictSummary) refusal(installs []packages.Target) *packages.RefusedError {
	refused := &packages.RefusedError{}
	var details []string
	for _, c := range s.Conflicts {
		left, right := c.Left.Package.target(), c.Right.Package.target()
		detail := fmt.Sprintf("%s and %s have different files %s", nevra(left), nevra(right), strings.TrimSpace(c.Left.File))
		details = append(details, detail)
		for _, t := range []packages.Target{left, right} {
			if slices.Contains(installs, t) && !slices.ContainsFunc(refused.Targets, func(f packages.Failure) bool { return f.Target == t }) {
				refused.Targets = append(refused.Targets, packages.Failure{Target: t, Message: detail})
			}
		}
	}
	if len(details) == 0 {
		return nil
	}
	refused.Detail = shorten(strings.Join(details, "; "), 1000)
	return refused
}
