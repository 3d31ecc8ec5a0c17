package zypper

import (
	"context"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// Hold takes rpm's lock, and waits for a zypper that is at work, which has its
// number in libzypp's PID file (zypp/ZYppFactory.cc).
func (m *Manager) Hold(ctx context.Context) (release func(), err error) {
	return rpm.Hold(ctx, m.files, m.locks, nil, []string{strings.TrimPrefix(lockFile, "/")})
}
