package schedule

import (
	"fmt"
	"hash/fnv"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/calendar"
)

// timetable says when a named task runs, and when each run begins, which is later
// by the run's jitter. All its times are whole seconds, and of no zone.
type timetable struct {
	*calendar.Schedule
	jitter time.Duration
	// seed makes the jitters of this task other ones than those of others.
	seed string
}

// newTimetable reads the schedule of a task of the policy with the given UID.
func newTimetable(owner types.UID, task *v1alpha1.NamedTask) (*timetable, error) {
	schedule, err := calendar.Parse(*task.Schedule, task.TimeZone)
	if err != nil {
		return nil, err
	}
	c := &timetable{Schedule: schedule, seed: string(owner) + "/" + task.Name}
	if task.Jitter != nil {
		c.jitter = task.Jitter.Duration
	}
	return c, nil
}

// begin is when a run begins: always at the same time, and before the next run.
func (c *timetable) begin(run time.Time) time.Time {
	span := c.jitter
	if next := c.Next(run); !next.IsZero() {
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
func (c *timetable) upcoming(t time.Time) time.Time {
	if run := c.Latest(t.Add(-c.jitter-time.Second), t); !run.IsZero() && c.begin(run).After(t) {
		return run
	}
	return c.Next(t)
}

// begun is the last run after one time that has begun at another, zero if there
// is none.
func (c *timetable) begun(after, now time.Time) time.Time {
	run := c.Latest(after, now)
	if !run.IsZero() && c.begin(run).After(now) {
		run = c.Latest(after, run.Add(-time.Second))
	}
	return run
}

// count is how many runs are after one time and before another, at most a thousand.
func (c *timetable) count(after, before time.Time) int32 {
	const most = 1000
	var n int32
	for run := c.Next(after); n < most && !run.IsZero() && run.Before(before); run = c.Next(run) {
		n++
	}
	return n
}
