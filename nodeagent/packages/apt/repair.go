package apt

import (
	"context"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// Repair configures what is left to be configured.
func (m *Manager) Repair(ctx context.Context) (packages.Repair, error) {
	const purpose = "repair the package database"
	argv := []string{"dpkg", "--force-confdef", "--force-confold", "--configure", "-a"}
	if err := m.transaction(ctx, "apt-configure", purpose, "dpkg --configure -a", argv); err != nil {
		return packages.Repair{}, err
	}
	d, err := m.database(ctx)
	if err != nil {
		return packages.Repair{}, err
	}
	return packages.Repair{Remaining: d.problems()}, nil
}
