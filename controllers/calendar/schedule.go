// Package calendar says when a schedule comes true: that of a task's runs and that
// of a maintenance window alike, also where clocks are changed.
package calendar

import (
	"fmt"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// parser reads what v1alpha1.Schedule allows: five fields, no @descriptors.
var parser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

// anyHour is the bit with which the parser marks a field that was written as a star.
const anyHour = 1 << 63

// Schedule is a schedule in its time zone. All its times are whole seconds, and of
// no zone.
type Schedule struct {
	cron     *cron.SpecSchedule
	location *time.Location
}

// Parse reads a schedule and its time zone, of which none is UTC. The errors are
// for people.
func Parse(schedule v1alpha1.Schedule, zone v1alpha1.TimeZone) (*Schedule, error) {
	location, err := time.LoadLocation(string(zone))
	if err != nil {
		return nil, fmt.Errorf("time zone %q is not known: %w", zone, err)
	}
	parsed, err := parser.Parse(string(schedule))
	if err != nil {
		return nil, fmt.Errorf("schedule %q cannot be read: %w", schedule, err)
	}
	spec, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return nil, fmt.Errorf("schedule %q has no five fields", schedule)
	}
	return &Schedule{cron: spec, location: location}, nil
}

// Next is the first time after t at which the schedule comes true, zero if there
// is none in the next five years: 29 February is found.
//
// It goes from one change of the clock to the next. In between, the clock on the
// wall goes on as time does, so that the schedule can be asked in UTC, where it
// is exact. A time that the wall shows twice counts when it is shown first,
// and one that it skips counts as the moment of the change. A schedule for any
// hour counts what is shown however often, and what is skipped only as far as
// it is less than an hour: the same minutes come an hour later.
func (s *Schedule) Next(t time.Time) time.Time {
	t = t.Truncate(time.Second).In(s.location)
	_, offset := t.Zone()
	for wall := onWall(t, offset); ; {
		begin, end := t.ZoneBounds()
		if !begin.IsZero() && s.cron.Hour&anyHour == 0 {
			if shown := onWall(begin, offsetBefore(begin)); wall.Before(shown) {
				wall = shown.Add(-time.Second)
			}
		}
		next := s.cron.Next(wall)
		switch {
		case next.IsZero():
			return time.Time{}
		case end.IsZero(), next.Before(onWall(end, offset)):
			return next.Add(-time.Duration(offset) * time.Second).UTC()
		}
		_, after := end.Zone()
		resumes := onWall(end, after)
		skipped := time.Duration(after-offset) * time.Second
		if s.cron.Hour&anyHour != 0 {
			skipped %= time.Hour
		}
		if skipped > 0 {
			if next := s.cron.Next(resumes.Add(-skipped - time.Second)); !next.IsZero() && next.Before(resumes) {
				return end.UTC()
			}
		}
		t, offset, wall = end, after, resumes.Add(-time.Second)
	}
}

// Latest is the last time after one time and not after another at which the
// schedule comes true, zero if there is none. It halves the time in which that may
// be, so that years cost no more than a day.
func (s *Schedule) Latest(after, until time.Time) time.Time {
	latest := s.Next(after)
	if latest.IsZero() || latest.After(until) {
		return time.Time{}
	}
	for none := until; none.Sub(latest) >= time.Second; {
		middle := latest.Add(none.Sub(latest) / 2)
		if next := s.Next(middle); !next.IsZero() && !next.After(until) {
			latest = next
		} else {
			none = middle
		}
	}
	return latest
}

// onWall is what the clock on the wall shows at t, as if it were UTC.
func onWall(t time.Time, offset int) time.Time {
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// offsetBefore is the offset of the zone that ended at a change of the clock.
func offsetBefore(change time.Time) int {
	_, offset := change.Add(-time.Second).Zone()
	return offset
}
