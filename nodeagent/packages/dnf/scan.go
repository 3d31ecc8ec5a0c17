package dnf

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// Scan asks rpm for its database, and dnf for the newer versions, its plan and the
// advisories, by the metadata in dnf's cache. dnf reads it under a lock, for a
// second, so the commands run one after the other. They wait for that lock alone,
// and not for a transaction or a download of another program.
func (m *Manager) Scan(ctx context.Context) (packages.Scan, error) {
	system, err := packages.ReadOS(m.files)
	if err != nil {
		return packages.Scan{}, err
	}
	installed, err := m.database.Installed(ctx)
	if err != nil {
		return packages.Scan{}, err
	}
	scan := packages.Scan{OS: system, Installed: len(installed.Packages), Problems: installed.Problems()}
	scan.Kernel, scan.Reboot = rpm.Reboot(m.files, installed)
	if err := m.askReboot(ctx, &scan.Reboot); err != nil {
		return packages.Scan{}, err
	}
	if scan.ManagerVersion, err = m.version(ctx, installed); err != nil {
		return packages.Scan{}, err
	}
	if scan.MetadataRefreshed, err = m.metadataRefreshed(); err != nil {
		return packages.Scan{}, err
	}
	if scan.MetadataRefreshed.IsZero() {
		return scan, nil // dnf has nothing to plan with, and says so with an error
	}
	b := &builder{installed: installed}
	if b.excludes, err = m.excludes(); err != nil {
		return packages.Scan{}, err
	}
	if b.all, err = m.offers(ctx, b.excludes); err != nil {
		return packages.Scan{}, err
	}
	if b.plan, err = m.plan(ctx); err != nil {
		return packages.Scan{}, err
	}
	if b.extra, err = m.sizes(ctx, b.notOffered()); err != nil {
		return packages.Scan{}, err
	}
	if b.cached, err = m.cached(); err != nil {
		return packages.Scan{}, err
	}
	advisories, cves, err := m.advisories(ctx)
	if err != nil {
		return packages.Scan{}, err
	}
	b.known = newKnown(advisories, cves)
	scan.Patches, scan.NewPackages = b.patches(), b.newPackages()
	return scan, nil
}

// plan is what a full upgrade would do. Without "best", a package that cannot be
// installed keeps back no other.
func (m *Manager) plan(ctx context.Context) (*plan, error) {
	const purpose = "plan an upgrade"
	result, err := m.run(ctx, purpose, packages.Command{
		Name: "dnf-plan", Argv: m.command("-C", "--assumeno", "--setopt=best=0", "upgrade"), Timeout: readTimeout,
	})
	if err != nil {
		return nil, err
	}
	p, err := parsePlan(result.Stdout, result.Stderr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", purpose, err)
	}
	// A plan that is not carried out ends with 1, and so does an error.
	if result.ExitCode != 0 && (p.empty() || !aborted(result)) {
		return nil, fmt.Errorf("%s: %w", purpose, commandError(planTool, result))
	}
	return p, nil
}

// aborted says whether dnf ended because it was told not to go on.
func aborted(result packages.Result) bool {
	text := string(result.Stdout) + string(result.Stderr)
	return strings.Contains(text, "Operation aborted")
}

func (p *plan) empty() bool {
	return len(p.install)+len(p.upgrade)+len(p.remove)+len(p.other)+len(p.skipped) == 0
}

// excludes says whether the host's configuration keeps packages at their
// versions: only then is it worth asking for what it hides.
func (m *Manager) excludes() (bool, error) {
	if m.exists("etc/dnf/versionlock.toml") {
		return true, nil
	}
	for _, pattern := range []string{"etc/dnf/dnf.conf", "etc/yum.repos.d/*.repo", "etc/dnf/plugins/versionlock.list"} {
		names, err := m.glob(pattern)
		if err != nil {
			return false, err
		}
		for _, name := range names {
			text, err := m.readFile(name)
			if err != nil {
				return false, fmt.Errorf("look for versions that are locked: %w", err)
			}
			for line := range strings.Lines(text) {
				line = strings.TrimSpace(line)
				key, value, _ := strings.Cut(line, "=")
				key = strings.TrimSpace(key)
				switch {
				case line == "" || strings.HasPrefix(line, "#"):
				case strings.HasSuffix(name, ".list"),
					(key == "exclude" || key == "excludepkgs" || key == "includepkgs") && strings.TrimSpace(value) != "":
					return true, nil
				}
			}
		}
	}
	return false, nil
}

// version is dnf's own: that of its package, or what it says where no package
// brought it.
func (m *Manager) version(ctx context.Context, installed *rpm.Installed) (string, error) {
	name := "dnf"
	if m.five() {
		name = "dnf5"
	}
	for _, p := range installed.Packages {
		if p.Name == name {
			return p.Version, nil
		}
	}
	output, err := m.output(ctx, "dnf-version", "dnf --version", "ask for dnf's version", "--version")
	if err != nil {
		return "", err
	}
	// dnf 5 says "dnf5 version 5.2.8.1".
	first, _, _ := strings.Cut(strings.TrimSpace(string(output)), "\n")
	fields := strings.Fields(first)
	if len(fields) == 0 {
		return "", nil
	}
	return fields[len(fields)-1], nil
}

func byName[T any](name, architecture func(*T) string) func(a, b T) int {
	return func(a, b T) int {
		return cmp.Or(cmp.Compare(name(&a), name(&b)), cmp.Compare(architecture(&a), architecture(&b)))
	}
}

func sortPatches(all []packages.Patch) {
	slices.SortFunc(all, byName(func(p *packages.Patch) string { return p.Name }, func(p *packages.Patch) string { return p.Architecture }))
}

func sortNew(all []packages.NewPackage) {
	slices.SortFunc(all, byName(func(p *packages.NewPackage) string { return p.Name }, func(p *packages.NewPackage) string { return p.Architecture }))
}
