package dnf

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

const installTool = "dnf upgrade"

// Install upgrades the targets in one transaction, from dnf's cache alone.
//
// dnf is asked for its plan first: one that would remove a package, or leave a
// target out, is refused. What an upgrade obsoletes is replaced by it, and older
// kernels go when there are more than the host keeps (installonly_limit); both
// are parts of an upgrade and not removals. Configuration files that were changed
// stay, unless the package's maker has marked a file for replacement: rpm then
// keeps the old one beside it, and the target is among those warned of.
func (m *Manager) Install(ctx context.Context, targets []packages.Target) (packages.Install, error) {
	const purpose = "install packages"
	if err := checkTargets(targets); err != nil {
		return packages.Install{}, fmt.Errorf("%s: %w", purpose, err)
	}
	if len(targets) == 0 {
		return packages.Install{}, nil
	}
	// "best" has dnf fail, and say why, where it would take another version or none.
	upgrade := []string{"-C", "--setopt=best=1", "--setopt=strict=1", "--setopt=clean_requirements_on_remove=0", "--setopt=keepcache=1", "upgrade"}
	if m.five() {
		upgrade = slices.DeleteFunc(upgrade, func(s string) bool { return s == "--setopt=strict=1" })
	}
	for _, t := range targets {
		upgrade = append(upgrade, nevra(t))
	}
	if due, err := m.preview(ctx, upgrade, targets); err != nil {
		return packages.Install{}, fmt.Errorf("%s: %w", purpose, err)
	} else if !due {
		return packages.Install{}, nil
	}
	result, err := m.run(ctx, purpose, packages.Command{
		Name: "dnf-install", Argv: m.command(append([]string{"-y"}, upgrade...)...), Transaction: true,
	})
	if err != nil {
		return packages.Install{}, err
	}
	done, err := parseInstall(result, targets)
	if err != nil {
		return packages.Install{}, fmt.Errorf("%s: %w", purpose, err)
	}
	// What a transaction did is known, whether its files can be removed or not: the
	// next one removes them.
	_ = m.clean(ctx)
	return done, nil
}

// preview asks for the plan of a transaction, and says whether there is anything to do.
func (m *Manager) preview(ctx context.Context, upgrade []string, targets []packages.Target) (bool, error) {
	result, err := m.run(ctx, "plan the transaction", packages.Command{
		Name: "dnf-preview", Argv: m.command(append([]string{"--assumeno"}, upgrade...)...), Timeout: readTimeout,
	})
	if err != nil {
		return false, err
	}
	p, err := parsePlan(result.Stdout, result.Stderr)
	if err != nil {
		return false, fmt.Errorf("plan the transaction: %w", err)
	}
	if refused := refusal(p, result, targets); refused != nil {
		return false, refused
	}
	if result.ExitCode != 0 && (p.empty() || !aborted(result)) {
		return false, commandError(installTool, result)
	}
	return !p.empty(), nil
}

// refusal is why a plan must not be carried out, or why there is none; nil if it may be.
func refusal(p *plan, result packages.Result, targets []packages.Target) error {
	if missing := unmatched(result, targets); len(missing) > 0 {
		return &packages.RefusedError{Targets: missing, Detail: "the repositories do not offer " + names(missing)}
	}
	if result.ExitCode != 0 && len(p.problems) > 0 && p.empty() {
		detail := strings.Join(p.problems, "; ")
		return &packages.RefusedError{Targets: mentioned(strings.Join(p.problems, "\n"), targets), Detail: detail}
	}
	if removed := p.removals(); len(removed) > 0 {
		return &packages.RefusedError{Detail: "it would remove " + strings.Join(removed, ", ")}
	}
	if len(p.other) > 0 {
		return &packages.RefusedError{Detail: "it would downgrade or install again " + p.other[0].name}
	}
	if len(p.skipped) > 0 {
		var skipped []packages.Failure
		for _, t := range targets {
			if find(p.skipped, t.Name, t.Architecture, t.Version) {
				skipped = append(skipped, packages.Failure{Target: t, Message: p.problem(t.Name, t.Version)})
			}
		}
		if len(skipped) > 0 {
			return &packages.RefusedError{Targets: skipped, Detail: strings.Join(p.problems, "; ")}
		}
	}
	return nil
}

// removals are what a plan removes besides older versions of what it installs.
func (p *plan) removals() []string {
	var removed []string
	for _, r := range p.remove {
		if !slices.ContainsFunc(p.install, func(i row) bool { return i.name == r.name && i.architecture == r.architecture }) {
			removed = append(removed, r.name+"-"+r.version+"."+r.architecture)
		}
	}
	return removed
}

func names(failures []packages.Failure) string {
	var all []string
	for _, f := range failures {
		all = append(all, nevra(f.Target))
	}
	return strings.Join(all, ", ")
}

// clean removes those files from dnf's cache whose packages are installed. dnf
// would remove all files, also those of patches that are still to be installed.
func (m *Manager) clean(ctx context.Context) error {
	const purpose = "remove the files of installed packages from dnf's cache"
	if m.keepsCache() {
		return nil
	}
	cached, err := m.cached()
	if err != nil {
		return err
	}
	installed, err := m.database.Installed(ctx)
	if err != nil {
		return err
	}
	argv := []string{"rm", "-f", "--"}
	for _, p := range installed.Packages {
		if file, found := cached[fileName(p.Name, p.Version, p.Architecture)]; found && !slices.Contains(argv, file.path) {
			argv = append(argv, file.path)
		}
	}
	if len(argv) == 3 {
		return nil
	}
	result, err := m.runner.Run(ctx, packages.Command{Name: "dnf-clean", Argv: argv, Env: rpm.Environment(), Timeout: readTimeout})
	if err != nil {
		return fmt.Errorf("%s: %w", purpose, err)
	}
	if result.ExitCode != 0 {
		return fmt.Errorf("%s: %w", purpose, commandError("rm", result))
	}
	return nil
}
