package apt

import "context"

// dpkgLocks are dpkg's, in the order in which apt takes them: that of the programs
// that use dpkg, and dpkg's own (dpkg(1), FILES; apt's debSystem::Lock).
var dpkgLocks = []string{"var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock"}

// Hold takes dpkg's locks, without which neither apt nor dpkg changes a package.
func (m *Manager) Hold(ctx context.Context) (release func(), err error) {
	return m.locks.Hold(ctx, m.files, dpkgLocks, nil)
}
