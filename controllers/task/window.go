package task

import (
	"time"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/calendar"
)

// openings is how many openings of each window are looked at to find out whether
// one is ever long enough: with other windows they may add up in different ways.
const openings = 4

// openingHours say when a policy allows disruption.
type openingHours struct {
	// always says that the policy has no windows.
	always  bool
	windows []window
}

// window is a maintenance window that was understood.
type window struct {
	*calendar.Schedule
	duration time.Duration
}

// newOpeningHours reads a policy's windows. One that cannot be understood never
// opens: the policy's conditions say what is wrong with it.
func newOpeningHours(windows []v1alpha1.MaintenanceWindow) openingHours {
	h := openingHours{always: len(windows) == 0}
	for i := range windows {
		if schedule, err := calendar.Parse(windows[i].Schedule, windows[i].TimeZone); err == nil {
			h.windows = append(h.windows, window{Schedule: schedule, duration: windows[i].Duration.Duration})
		}
	}
	return h
}

// openUntil is when it closes what is open at t: windows that overlap or meet add
// up. It is at most the horizon, and zero if nothing is open.
func (h *openingHours) openUntil(t, horizon time.Time) time.Time {
	if h.always {
		return horizon
	}
	var end time.Time
	for at := t; ; at = end {
		for i := range h.windows {
			if start := h.windows[i].last(at); !start.IsZero() {
				end = latest(end, start.Add(h.windows[i].duration))
			}
		}
		switch {
		case !end.After(at):
			return end
		case !end.Before(horizon):
			return horizon
		}
	}
}

// next is when a window opens after t, zero if none ever does.
func (h *openingHours) next(t time.Time) time.Time {
	var next time.Time
	for i := range h.windows {
		next = earlier(next, h.windows[i].Next(t))
	}
	return next
}

// longest is how long they go on at most, as far as can be foreseen,
// and need if that is long enough.
func (h *openingHours) longest(t time.Time, need time.Duration) time.Duration {
	if h.always {
		return need
	}
	var longest time.Duration
	for i := range h.windows {
		start := h.windows[i].last(t)
		if start.IsZero() {
			start = h.windows[i].Next(t)
		}
		for range openings {
			if start.IsZero() || longest >= need {
				break
			}
			longest = max(longest, h.openUntil(start, start.Add(need)).Sub(start))
			start = h.windows[i].Next(start)
		}
	}
	return longest
}

// last is when the window opened that is open at t, the last time of several;
// zero if it is closed.
func (w *window) last(t time.Time) time.Time {
	return w.Latest(t.Add(-w.duration), t)
}
