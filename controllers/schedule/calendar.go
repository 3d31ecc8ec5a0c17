package schedule

import (
	"fmt"
	"hash/fnv"
	"time"

	"github.com/robfig/cron/v3"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/policy"
)

// anyHour is the bit with which the parser marks a field that was written as a star.
const anyHour = 1 << 63

// calendar says when a named task runs, and when each run begins, which is later
// by the run's jitter. All its times are whole seconds, and of no zone.
type calendar struct {
	schedule *cron.SpecSchedule
	location *time.Location
	jitter   time.Duration
	// seed makes the jitters of this task other ones than those of others.
	seed string
}

// newCalendar reads the schedule of a task of the policy with the given UID.
func newCalendar(owner types.UID, task *v1alpha1.NamedTask) (*calendar, error) {
	schedule, location, err := policy.ParseSchedule(*task.Schedule, task.TimeZone)
	if err != nil {
		return nil, err
	}
	c := &calendar{schedule: schedule, location: location, seed: string(owner) + "/" + task.Name}
	if task.Jitter != nil {
		c.jitter = task.Jitter.Duration
	}
	return c, nil
}

// next is the first run after t, zero if there is none in the next years.
//
// It goes from one change of the clock to the next. In between, the clock on the
// wall goes on as time does, so that the schedule can be asked in UTC, where it
// is exact. A time that the wall shows twice counts when it is shown first,
// and one that it skips counts as the moment of the change. A schedule for any
// hour counts what is shown however often, and what is skipped only as far as
// it is less than an hour: the same minutes come an hour later.
func (c *calendar) next(t time.Time) time.Time {
	t = t.Truncate(time.Second).In(c.location)
	_, offset := t.Zone()
	for wall := onWall(t, offset); ; {
		begin, end := t.ZoneBounds()
		if !begin.IsZero() && c.schedule.Hour&anyHour == 0 {
			if shown := onWall(begin, offsetBefore(begin)); wall.Before(shown) {
				wall = shown.Add(-time.Second)
			}
		}
		run := c.schedule.Next(wall)
		switch {
		case run.IsZero():
			return time.Time{}
		case end.IsZero(), run.Before(onWall(end, offset)):
			return run.Add(-time.Duration(offset) * time.Second).UTC()
		}
		_, after := end.Zone()
		resumes := onWall(end, after)
		skipped := time.Duration(after-offset) * time.Second
		if c.schedule.Hour&anyHour != 0 {
			skipped %= time.Hour
		}
		if skipped > 0 {
			if run := c.schedule.Next(resumes.Add(-skipped - time.Second)); !run.IsZero() && run.Before(resumes) {
				return end.UTC()
			}
		}
		t, offset, wall = end, after, resumes.Add(-time.Second)
	}
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

// latest is the last run after one time and not after another, zero if there is
// none. It halves the time in which that may be, so that years of runs that were
// missed cost no more than a day of them.
func (c *calendar) latest(after, until time.Time) time.Time {
	last := c.next(after)
	if last.IsZero() || last.After(until) {
		return time.Time{}
	}
	for none := until; none.Sub(last) >= time.Second; {
		middle := last.Add(none.Sub(last) / 2)
		if run := c.next(middle); !run.IsZero() && !run.After(until) {
			last = run
		} else {
			none = middle
		}
	}
	return last
}

// begin is when a run begins: always at the same time, and before the next run.
func (c *calendar) begin(run time.Time) time.Time {
	span := c.jitter
	if next := c.next(run); !next.IsZero() {
		span = min(span, next.Sub(run))
	}
	if span < time.Second {
		return run
	}
	hash := fnv.New64a()
	_, _ = fmt.Fprintf(hash, "%s/%d", c.seed, run.Unix()) // A hash takes everything.
	return run.Add(time.Duration(hash.Sum64()%uint64(span/time.Second)) * time.Second)
}

// upcoming is the first run that begins after t, zero if there is none.
func (c *calendar) upcoming(t time.Time) time.Time {
	if run := c.latest(t.Add(-c.jitter-time.Second), t); !run.IsZero() && c.begin(run).After(t) {
		return run
	}
	return c.next(t)
}

// begun is the last run after one time that has begun at another, zero if there
// is none.
func (c *calendar) begun(after, now time.Time) time.Time {
	run := c.latest(after, now)
	if !run.IsZero() && c.begin(run).After(now) {
		run = c.latest(after, run.Add(-time.Second))
	}
	return run
}

// count is how many runs are after one time and before another, at most a thousand.
func (c *calendar) count(after, before time.Time) int32 {
	const most = 1000
	var n int32
	for run := c.next(after); n < most && !run.IsZero() && run.Before(before); run = c.next(run) {
		n++
	}
	return n
}
