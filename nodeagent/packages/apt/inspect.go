package apt

import (
	"context"
	"fmt"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// Inspect reads dpkg's database once, however many targets there are.
func (m *Manager) Inspect(ctx context.Context, targets []packages.Target) ([]packages.Presence, error) {
	d, err := m.database(ctx)
	if err != nil {
		return nil, err
	}
	found := make([]packages.Presence, len(targets))
	for i, t := range targets {
		found[i] = d.presence(t)
	}
	return found, nil
}

// database is what dpkg has at this moment.
func (m *Manager) database(ctx context.Context) (*database, error) {
	const purpose = "list the installed packages"
	output, err := m.output(ctx, "apt-installed", purpose, dpkgTool, installedCommand()...)
	if err != nil {
		return nil, err
	}
	d, err := parseInstalled(output)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", purpose, err)
	}
	return d, nil
}

func (d *database) presence(t packages.Target) packages.Presence {
	p, found := d.find(d.key(t.Name, t.Architecture))
	if !found || p.status == "config-files" {
		return packages.Presence{}
	}
	presence := packages.Presence{Version: p.version, Problem: p.problem()}
	presence.Installed = presence.Problem == "" && compareVersions(p.version, t.Version) >= 0
	return presence
}

// problem says in dpkg's own words what is wrong with a package; empty if nothing is.
func (p *installed) problem() string {
	switch {
	case p.flag == "reinstreq":
		return p.status + ", reinstallation required"
	case p.status != "installed":
		return p.status
	default:
		return ""
	}
}
