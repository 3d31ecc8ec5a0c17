package zypper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// changed is the error of what cannot be unless the packages or their metadata
// changed between two commands of a scan.
type changed struct{ detail string }

func (c *changed) Error() string { return c.detail }

// Scan asks zypper which updates there are and which of them it would install,
// and rpm for its database. Each command sees the state of its own moment: where
// another program worked in between, all of it is asked again.
func (m *Manager) Scan(ctx context.Context) (packages.Scan, error) {
	const tries = 3
	for try := 1; ; try++ {
		scan, err := m.scan(ctx)
		var c *changed
		if !errors.As(err, &c) {
			return scan, err
		}
		if try == tries {
			return packages.Scan{}, &packages.ChangedError{Detail: c.detail, Tries: tries}
		}
	}
}

func (m *Manager) scan(ctx context.Context) (packages.Scan, error) {
	system, err := packages.ReadOS(m.files)
	if err != nil {
		return packages.Scan{}, err
	}
	b := &builder{}
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		b.installed, err = rpm.New(m.runner, m.files).Installed(groupCtx)
		return err
	})
	group.Go(func() error { return m.updates(groupCtx, b) })
	if err := group.Wait(); err != nil {
		return packages.Scan{}, err
	}
	version, err := m.version(ctx)
	if err != nil {
		return packages.Scan{}, err
	}
	scan := packages.Scan{
		OS: system, ManagerVersion: version, Installed: len(b.installed.Packages), Problems: b.installed.Problems(),
		MetadataRefreshed: b.repos.metadataRefreshed(), NewPackages: b.added,
	}
	scan.Kernel, scan.Reboot = rpm.Reboot(m.files, b.installed)
	if b.stored, err = b.repos.cache.stored(m.files); err != nil {
		return packages.Scan{}, err
	}
	scan.Patches, err = b.patches()
	return scan, err
}

// updates runs zypper's commands one after the other: each of them reads all
// metadata into its memory.
func (m *Manager) updates(ctx context.Context, b *builder) (err error) {
	if b.repos, err = m.repositories(ctx); err != nil {
		return err
	}
	repos, ok := b.repos.usable()
	if !ok {
		return nil // without metadata there are no updates
	}
	if b.offered, err = m.list(ctx, "zypper-offered", "list all updates", repos, "--all"); err != nil || len(b.offered) == 0 {
		return err
	}
	if b.installable, err = m.list(ctx, "zypper-updates", "list the updates that can be installed", repos); err != nil {
		return err
	}
	if len(b.installable) < len(b.offered) {
		if b.held, err = m.held(ctx); err != nil {
			return err
		}
	}
	if b.advisories, err = m.advisories(ctx, repos); err != nil {
		return err
	}
	if len(b.installable) > 0 {
		b.added, err = m.added(ctx, repos)
	}
	return err
}

// list asks for the updates of packages.
func (m *Manager) list(ctx context.Context, name, purpose string, repos []string, options ...string) ([]update, error) {
	c := &command{
		name: name, purpose: purpose, repositories: repos,
		verb: "list-updates", options: append([]string{"--type", "package"}, options...),
	}
	a, err := m.ask(ctx, c)
	if err != nil {
		return nil, err
	}
	updates, err := parseUpdates(a)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", purpose, err)
	}
	return updates, nil
}

func parseUpdates(a *answer) ([]update, error) {
	status, found := find[updateStatus](a)
	if !found {
		return nil, notUnderstood(a.command.tool(), 0, "", "it has no <update-status>")
	}
	for _, u := range status.Updates {
		if u.Kind != "package" {
			return nil, notUnderstood(a.command.tool(), 0, u.Kind, "not a package")
		}
		if problem := checkNames(u.Name, u.Edition, u.Arch); problem != "" {
			return nil, notUnderstood(a.command.tool(), 0, u.Name+" "+u.Edition+" "+u.Arch, problem)
		}
		if u.EditionOld != "" && !rpm.ValidVersion(u.EditionOld) {
			return nil, notUnderstood(a.command.tool(), 0, u.Name+" "+u.EditionOld, "not an edition")
		}
	}
	return status.Updates, nil
}

// held asks which editions an administrator's locks keep from being installed.
func (m *Manager) held(ctx context.Context) (map[packages.Target]bool, error) {
	c := &command{name: "zypper-locks", purpose: "list the package locks", verb: "locks", options: []string{"--matches", "--solvables"}}
	a, err := m.ask(ctx, c)
	if err != nil {
		return nil, err
	}
	held := map[packages.Target]bool{}
	locks, _ := find[lockList](a) // it says "There are no package locks defined." if there is none
	if locks == nil {
		return held, nil
	}
	for _, l := range locks.Locks {
		for _, match := range l.Matches {
			if match.Kind == "package" {
				held[packages.Target{Name: match.Name, Architecture: match.Arch, Version: match.Edition}] = true
			}
		}
	}
	return held, nil
}

// added asks for the plan of a whole update, for the packages that are new in it.
// Where zypper has none, because of something on the host that concerns no update,
// nothing is known of them.
func (m *Manager) added(ctx context.Context, repos []string) ([]packages.NewPackage, error) {
	c := &command{
		name: "zypper-plan", purpose: "plan an update", repositories: repos,
		verb: "update", options: append([]string{"--dry-run"}, solverOptions...),
	}
	a, err := m.ask(ctx, c, exitZYpp)
	if err != nil || a.exit == exitZYpp {
		return nil, err
	}
	p, err := parsePlan(a)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.purpose, err)
	}
	var added []packages.NewPackage
	for _, t := range p.added {
		added = append(added, packages.NewPackage{Name: t.Name, Architecture: t.Architecture, Version: t.Version})
	}
	return added, nil
}

// version is zypper's own.
func (m *Manager) version(ctx context.Context) (string, error) {
	const purpose, tool = "ask zypper for its version", "zypper --version"
	c := &command{}
	result, err := m.runner.Run(ctx, packages.Command{
		Name: "zypper-version", Argv: strings.Fields(tool), Env: c.environment(), Timeout: readTimeout,
	})
	if err != nil {
		return "", fmt.Errorf("%s: %w", purpose, err)
	}
	words := strings.Fields(string(result.Stdout))
	if i := slices.Index(words, "zypper"); result.ExitCode == exitOK && i >= 0 && i+1 < len(words) {
		return words[i+1], nil
	}
	return "", fmt.Errorf("%s: %w", purpose, notUnderstood(tool, 0, string(result.Stdout), "not a version"))
}
