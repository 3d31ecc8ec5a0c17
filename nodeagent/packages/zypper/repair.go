package zypper

import (
	"context"
	"errors"
	"slices"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// Inspect reads rpm's database once, however many targets there are.
func (m *Manager) Inspect(ctx context.Context, targets []packages.Target) ([]packages.Presence, error) {
	return rpm.New(m.runner, m.files).Inspect(ctx, targets)
}

// Repair has rpm put its database right, and then zypper install again what was
// being installed when a transaction was cut off: its last scripts may not have
// been run, of which the database knows nothing.
func (m *Manager) Repair(ctx context.Context) (packages.Repair, error) {
	repaired, installed, err := rpm.New(m.runner, m.files).Repair(ctx)
	if err != nil {
		return packages.Repair{}, err
	}
	var repair packages.Repair
	for i := range repaired {
		repair.Packages = append(repair.Packages, repaired[i].Name+" "+repaired[i].Version)
	}
	again, err := m.unfinished(installed)
	if err != nil {
		return packages.Repair{}, err
	}
	if len(again) > 0 {
		done, err := m.reinstall(ctx, again)
		if err != nil {
			return packages.Repair{}, err
		}
		repair.Packages = append(repair.Packages, done...)
		if installed, err = rpm.New(m.runner, m.files).Installed(ctx); err != nil {
			return packages.Repair{}, err
		}
	}
	slices.Sort(repair.Packages)
	repair.Packages = slices.Compact(repair.Packages)
	repair.Remaining = installed.Problems()
	return repair, nil
}

// unfinished are the packages that were installed last and whose files are still
// in zypper's cache, which it deletes when it has installed a package. Where it is
// told to keep them, the package that was installed last is installed once more.
func (m *Manager) unfinished(installed *rpm.Installed) ([]packages.Target, error) {
	stored, err := readCache(m.files).stored(m.files)
	if err != nil {
		return nil, err
	}
	var last []packages.Target
	var when int64
	for i := range installed.Packages {
		p := &installed.Packages[i]
		if at := p.Installed.Unix(); at >= when {
			if at > when {
				last, when = nil, at
			}
			last = append(last, packages.Target{Name: p.Name, Architecture: p.Architecture, Version: p.Version})
		}
	}
	return slices.DeleteFunc(last, func(t packages.Target) bool {
		_, found := stored[fileName(t)]
		return !found || checkTargets([]packages.Target{t}) != nil
	}), nil
}

// reinstall installs what is installed once more, and returns what was. What
// fails again, or cannot be installed again, is left as it is.
func (m *Manager) reinstall(ctx context.Context, targets []packages.Target) ([]string, error) {
	r, err := m.repositories(ctx)
	if err != nil {
		return nil, err
	}
	repos, ok := r.usable()
	if !ok {
		return nil, nil
	}
	install, err := m.transaction(ctx, &command{
		name: "zypper-reinstall", purpose: "install again what was cut off", repositories: repos, verb: "install",
		options: append([]string{"--force"}, installOptions...), arguments: capabilities(targets),
	}, targets)
	var refused *packages.RefusedError
	var failed *packages.CommandError
	if errors.As(err, &refused) || errors.As(err, &failed) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var done []string
	for _, t := range targets {
		if !slices.ContainsFunc(install.Failed, func(f packages.Failure) bool { return f.Target == t }) {
			done = append(done, t.Name+" "+t.Version)
		}
	}
	return done, nil
}
