package zypper

import "time"

// Hurry has the manager give servers that hang hardly any time.
func (m *Manager) Hurry(limit time.Duration) { m.limits.refresh, m.limits.least = limit, limit }
