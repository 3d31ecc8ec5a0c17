package task

import (
	"time"

	"github.com/robfig/cron/v3"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// windowParser reads what v1alpha1.Schedule allows: five fields, no @descriptors.
var windowParser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

// anyHour is the bit with which the parser marks a field that was written as a star.
const anyHour = 1 << 63

// openings is how many openings of each window are looked at to find out whether
// one is ever long enough: with other windows they may add up in different ways.
const openings = 4

// calendar says when a policy allows disruption.
type calendar struct {
	// always says that the policy has no windows.
	always  bool
	windows []window
}

// window is a maintenance window that was understood.
type window struct {
	schedule *cron.SpecSchedule
	location *time.Location
	duration time.Duration
}

// newCalendar reads a policy's windows. One that cannot be understood never
// opens: the policy's conditions say what is wrong with it.
func newCalendar(windows []v1alpha1.MaintenanceWindow) calendar {
	c := calendar{always: len(windows) == 0}
	for i := range windows {
		parsed, err := windowParser.Parse(string(windows[i].Schedule))
		schedule, ok := parsed.(*cron.SpecSchedule)
		if err != nil || !ok {
			continue
		}
		if location, err := time.LoadLocation(string(windows[i].TimeZone)); err == nil {
			c.windows = append(c.windows, window{schedule: schedule, location: location, duration: windows[i].Duration.Duration})
		}
	}
	return c
}

// openUntil is when the calendar closes that is open at t: windows that overlap
// or meet add up. It is at most the horizon, and zero if the calendar is closed.
func (c *calendar) openUntil(t, horizon time.Time) time.Time {
	if c.always {
		return horizon
	}
	var end time.Time
	for at := t; ; at = end {
		for i := range c.windows {
			if start := c.windows[i].last(at); !start.IsZero() {
				end = latest(end, start.Add(c.windows[i].duration))
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
func (c *calendar) next(t time.Time) time.Time {
	var next time.Time
	for i := range c.windows {
		next = earlier(next, c.windows[i].next(t))
	}
	return next
}

// longest is how long the calendar stays open at most, as far as can be foreseen,
// and need if that is long enough.
func (c *calendar) longest(t time.Time, need time.Duration) time.Duration {
	if c.always {
		return need
	}
	var longest time.Duration
	for i := range c.windows {
		start := c.windows[i].last(t)
		if start.IsZero() {
			start = c.windows[i].next(t)
		}
		for range openings {
			if start.IsZero() || longest >= need {
				break
			}
			longest = max(longest, c.openUntil(start, start.Add(need)).Sub(start))
			start = c.windows[i].next(start)
		}
	}
	return longest
}

// next is when the window opens after t, zero for never. A window with fixed
// hours follows the clock on the wall: where that is put back it opens once, and
// where it is put forward over its hour it still opens. One for any hour opens
// as time goes by.
func (w *window) next(t time.Time) time.Time {
	local := t.In(w.location)
	if w.schedule.Hour&anyHour != 0 {
		return w.schedule.Next(local).UTC()
	}
	// It begins to look before t: the times of an hour that does not exist come later.
	wall := time.Date(local.Year(), local.Month(), local.Day(), local.Hour()-2, local.Minute(), local.Second(), 0, time.UTC)
	for {
		if wall = w.schedule.Next(wall); wall.IsZero() {
			return time.Time{}
		}
		at := firstOf(time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), 0, 0, w.location))
		if at.After(t) {
			return at.UTC()
		}
	}
}

// firstOf is the earlier of two times at which the clock on the wall shows the
// same, as it was put back between them.
func firstOf(at time.Time) time.Time {
	change, _ := at.ZoneBounds()
	if change.IsZero() {
		return at
	}
	_, offset := at.Zone()
	_, before := change.Add(-time.Second).Zone()
	if back := time.Duration(before-offset) * time.Second; at.Sub(change) < back {
		return at.Add(-back)
	}
	return at
}

// last is when the window opened that is open at t, the last time of several;
// zero if it is closed. It halves the time in which that may have been.
func (w *window) last(t time.Time) time.Time {
	last := w.next(t.Add(-w.duration))
	if last.IsZero() || last.After(t) {
		return time.Time{}
	}
	for none := t; none.Sub(last) >= time.Second; {
		middle := last.Add(none.Sub(last) / 2)
		if start := w.next(middle); !start.IsZero() && !start.After(t) {
			last = start
		} else {
			none = middle
		}
	}
	return last
}
