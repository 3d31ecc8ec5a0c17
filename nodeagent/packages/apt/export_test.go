package apt

import "time"

// SetLimits makes downloads give servers that hang up sooner than a node does.
func (m *Manager) SetLimits(answer, least time.Duration) {
	m.limits.answer, m.limits.least = answer, least
}
