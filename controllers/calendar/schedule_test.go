package calendar

import (
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // as in the manager, which runs in an image without zone files

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

func parse(t *testing.T, schedule, zone string) *Schedule {
	t.Helper()
	s, err := Parse(v1alpha1.Schedule(schedule), v1alpha1.TimeZone(zone))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func at(t *testing.T, stamp string) time.Time {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339, stamp)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestParse(t *testing.T) {
	tests := map[string]struct{ schedule, zone, want string }{
		"an unknown time zone": {schedule: "0 6 * * *", zone: "Mars/Olympus", want: `time zone "Mars/Olympus" is not known`},
		"a reversed range":     {schedule: "0 5-1 * * *", zone: "UTC", want: `schedule "0 5-1 * * *" cannot be read`},
		"a descriptor":         {schedule: "@daily", zone: "UTC", want: `schedule "@daily" cannot be read`},
		"six fields":           {schedule: "0 0 6 * * *", zone: "UTC", want: `schedule "0 0 6 * * *" cannot be read`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse(v1alpha1.Schedule(test.schedule), v1alpha1.TimeZone(test.zone)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is %v, want it to say %q", err, test.want)
			}
		})
	}
}

// The clocks go forward at 02:00 and back at 03:00 in Berlin, forward at 02:00
// and back at 02:00 in New York, and by half an hour at 02:00 on Lord Howe Island.
func TestNext(t *testing.T) {
	tests := map[string]struct {
		schedule, zone string
		after, until   string
		want           []string // on the wall of the zone, with its offset
	}{
		"a day in UTC": {
			schedule: "0 */8 * * *", zone: "UTC", after: "2026-11-23T00:00:00Z", until: "2026-11-24T00:00:00Z",
			want: []string{"2026-11-23T08:00:00Z", "2026-11-23T16:00:00Z", "2026-11-24T00:00:00Z"},
		},
		"Berlin forward: at the first moment after, once": {
			schedule: "30 2 * * *", zone: "Europe/Berlin", after: "2026-03-27T12:00:00Z", until: "2026-03-30T12:00:00Z",
			want: []string{"2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"},
		},
		"Berlin forward: several that are skipped are one": {
			schedule: "*/20 2,3 * * SUN", zone: "Europe/Berlin", after: "2026-03-28T12:00:00Z", until: "2026-03-29T12:00:00Z",
			want: []string{"2026-03-29T03:00:00+02:00", "2026-03-29T03:20:00+02:00", "2026-03-29T03:40:00+02:00"},
		},
		"Berlin back: the first of two, once": {
			schedule: "30 2 * * *", zone: "Europe/Berlin", after: "2026-10-24T12:00:00Z", until: "2026-10-26T12:00:00Z",
			want: []string{"2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"},
		},
		"Berlin back: at the change itself": {
			schedule: "0 2,3 * * *", zone: "Europe/Berlin", after: "2026-10-24T12:00:00Z", until: "2026-10-25T12:00:00Z",
			want: []string{"2026-10-25T02:00:00+02:00", "2026-10-25T03:00:00+01:00"},
		},
		"Berlin forward: every hour goes by time": {
			schedule: "15 * * * *", zone: "Europe/Berlin", after: "2026-03-29T00:00:00Z", until: "2026-03-29T02:30:00Z",
			want: []string{"2026-03-29T01:15:00+01:00", "2026-03-29T03:15:00+02:00", "2026-03-29T04:15:00+02:00"},
		},
		"Berlin back: every hour goes by time": {
			schedule: "15 * * * *", zone: "Europe/Berlin", after: "2026-10-25T00:00:00Z", until: "2026-10-25T02:30:00Z",
			want: []string{"2026-10-25T02:15:00+02:00", "2026-10-25T02:15:00+01:00", "2026-10-25T03:15:00+01:00"},
		},
		"New York forward": {
			schedule: "5 2 * * *", zone: "America/New_York", after: "2026-03-07T12:00:00Z", until: "2026-03-09T12:00:00Z",
			want: []string{"2026-03-08T03:00:00-04:00", "2026-03-09T02:05:00-04:00"},
		},
		"New York back": {
			schedule: "0,30 1 * * *", zone: "America/New_York", after: "2026-10-31T12:00:00Z", until: "2026-11-02T05:59:00Z",
			want: []string{"2026-11-01T01:00:00-04:00", "2026-11-01T01:30:00-04:00"},
		},
		"Lord Howe forward": {
			schedule: "15 2 * * *", zone: "Australia/Lord_Howe", after: "2026-10-03T00:00:00Z", until: "2026-10-05T00:00:00Z",
			want: []string{"2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"},
		},
		"Lord Howe forward: what is still shown stays": {
			schedule: "15,45 2 * * *", zone: "Australia/Lord_Howe", after: "2026-10-03T00:00:00Z", until: "2026-10-04T00:00:00Z",
			want: []string{"2026-10-04T02:30:00+11:00", "2026-10-04T02:45:00+11:00"},
		},
		"Lord Howe forward: no hour is left out": {
			schedule: "15 * * * *", zone: "Australia/Lord_Howe", after: "2026-10-03T14:00:00Z", until: "2026-10-03T17:00:00Z",
			want: []string{"2026-10-04T01:15:00+10:30", "2026-10-04T02:30:00+11:00", "2026-10-04T03:15:00+11:00"},
		},
		"Lord Howe back": {
			schedule: "45 1 * * *", zone: "Australia/Lord_Howe", after: "2026-04-04T00:00:00Z", until: "2026-04-06T00:00:00Z",
			want: []string{"2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"},
		},
		"Lord Howe back: every 15 minutes goes on": {
			schedule: "*/15 * * * *", zone: "Australia/Lord_Howe", after: "2026-04-04T14:15:00Z", until: "2026-04-04T15:30:00Z",
			want: []string{
				"2026-04-05T01:30:00+11:00", "2026-04-05T01:45:00+11:00", "2026-04-05T01:30:00+10:30", "2026-04-05T01:45:00+10:30", "2026-04-05T02:00:00+10:30",
			},
		},
		"a midnight that does not exist": {
			schedule: "0 0 * * *", zone: "Africa/Cairo", after: "2026-04-23T12:00:00Z", until: "2026-04-25T12:00:00Z",
			want: []string{"2026-04-24T01:00:00+03:00", "2026-04-25T00:00:00+03:00"},
		},
		"a day that did not exist": {
			schedule: "0 6 30 12 *", zone: "Pacific/Apia", after: "2011-12-29T00:00:00Z", until: "2012-12-31T00:00:00Z",
			want: []string{"2011-12-31T00:00:00+14:00", "2012-12-30T06:00:00+14:00"},
		},
		"29 February": {
			schedule: "0 6 29 2 *", zone: "Europe/Berlin", after: "2026-01-01T00:00:00Z", until: "2033-01-01T00:00:00Z",
			want: []string{"2028-02-29T06:00:00+01:00", "2032-02-29T06:00:00+01:00"},
		},
		"30 February": {schedule: "0 6 30 2 *", zone: "UTC", after: "2026-01-01T00:00:00Z", until: "2099-01-01T00:00:00Z"},
		"a second before, and at the time itself": {
			schedule: "0 6 * * *", zone: "UTC", after: "2026-11-23T05:59:59Z", until: "2026-11-24T05:59:59Z",
			want: []string{"2026-11-23T06:00:00Z"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := parse(t, test.schedule, test.zone)
			after, until := at(t, test.after), at(t, test.until)
			var got []string
			var last time.Time
			for run := s.Next(after); !run.IsZero() && !run.After(until); run = s.Next(run) {
				last = run
				got = append(got, run.In(s.location).Format(time.RFC3339))
			}
			if !slices.Equal(got, test.want) {
				t.Fatalf("comes true at\n%q, want\n%q", got, test.want)
			}
			if latest := s.Latest(after, until); !latest.Equal(last) {
				t.Errorf("the latest is %s, want %s", latest, last)
			}
		})
	}
}

// TestNextMinuteByMinute compares a schedule with the clock on the wall, of every
// minute of a year.
func TestNextMinuteByMinute(t *testing.T) {
	for _, zone := range []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"} {
		s := parse(t, "10,40 1-3 * * *", zone)
		start := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
		next := s.Next(start)
		shown := map[string]bool{}
		for minute := start.Add(time.Minute); minute.Before(start.AddDate(1, 0, 0)); minute = minute.Add(time.Minute) {
			wall := minute.In(s.location)
			_, offset := wall.Zone()
			_, before := wall.Add(-time.Minute).Zone()
			want := false
			// All that the wall has come to show with this minute: more than one if it was put forward.
			for step := max(offset-before, 0) / 60; step >= 0; step-- {
				shows := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute()-step, 0, 0, time.UTC)
				fits := (shows.Minute() == 10 || shows.Minute() == 40) && shows.Hour() >= 1 && shows.Hour() <= 3
				if key := shows.Format("0102 1504"); fits && !shown[key] {
					shown[key], want = true, true
				}
			}
			if got := next.Equal(minute); got != want {
				t.Fatalf("%s: a run at %s is %v, want %v; the next is %s", zone, wall, got, want, next.In(s.location))
			}
			if want {
				next = s.Next(minute)
			}
		}
		if len(shown) != 365*6 {
			t.Errorf("%s: %d runs were looked for, want six a day", zone, len(shown))
		}
	}
}
