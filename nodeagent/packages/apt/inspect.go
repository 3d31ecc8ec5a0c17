package apt

import (
	"context"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// Inspect reads dpkg's database once, however many targets there are.
func (m *Manager) Inspect(ctx context.Context, targets []packages.Target) ([]packages.Presence, error) {
	d, err := m.database(ctx, "apt-installed")
	if err != nil {
		return nil, err
	}
	found := make([]packages.Presence, len(targets))
	for i, t := range targets {
		found[i] = d.presence(t)
	}
	return found, nil
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
