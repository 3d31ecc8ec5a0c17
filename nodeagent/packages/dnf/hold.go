package dnf

import (
	"context"

	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

const (
	// rpmdbLock is dnf 4's PID file for a whole transaction, its test included.
	rpmdbLock = "var/lib/dnf/rpmdb_lock.pid"
	// transactionLock is dnf 5's (libdnf5, TRANSACTION_LOCK_FILEPATH).
	transactionLock = "run/dnf/rpmtransaction.lock"
)

// Hold takes rpm's lock, and that of dnf 5 where it has one, and waits for the
// transaction of a dnf 4 that is under way.
func (m *Manager) Hold(ctx context.Context) (release func(), err error) {
	var further []string
	if m.exists("run/dnf") {
		further = append(further, transactionLock)
	}
	return rpm.Hold(ctx, m.files, m.locks, further, []string{rpmdbLock})
}
