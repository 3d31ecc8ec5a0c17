package task

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

func windowAt(schedule, zone string, open time.Duration) v1alpha1.MaintenanceWindow {
	return v1alpha1.MaintenanceWindow{
		Schedule: v1alpha1.Schedule(schedule), TimeZone: v1alpha1.TimeZone(zone), Duration: metav1.Duration{Duration: open},
	}
}

func TestOpeningHours(t *testing.T) {
	const day = 24 * time.Hour
	night := []v1alpha1.MaintenanceWindow{windowAt("0 1 * * SAT", "Europe/Berlin", 5*time.Hour)}
	early := []v1alpha1.MaintenanceWindow{windowAt("30 2 * * *", "Europe/Berlin", 2*time.Hour)}
	tests := map[string]struct {
		windows  []v1alpha1.MaintenanceWindow
		at       string
		wantOpen time.Duration // from at, of at most 60 hours
		wantNext string
	}{
		"none is always open":             {at: "2026-11-21T06:00:00Z", wantOpen: 60 * time.Hour},
		"before":                          {windows: night, at: "2026-11-20T23:59:59Z", wantNext: "2026-11-21T00:00:00Z"},
		"at its first second":             {windows: night, at: "2026-11-21T00:00:00Z", wantOpen: 5 * time.Hour, wantNext: "2026-11-28T00:00:00Z"},
		"in the middle":                   {windows: night, at: "2026-11-21T03:20:00Z", wantOpen: 100 * time.Minute, wantNext: "2026-11-28T00:00:00Z"},
		"at its last second":              {windows: night, at: "2026-11-21T04:59:59Z", wantOpen: time.Second, wantNext: "2026-11-28T00:00:00Z"},
		"when it has closed":              {windows: night, at: "2026-11-21T05:00:00Z", wantNext: "2026-11-28T00:00:00Z"},
		"in summer, an hour earlier":      {windows: night, at: "2026-07-17T23:00:00Z", wantOpen: 5 * time.Hour, wantNext: "2026-07-24T23:00:00Z"},
		"the clock is put back: once":     {windows: early, at: "2026-10-25T00:30:00Z", wantOpen: 2 * time.Hour, wantNext: "2026-10-26T01:30:00Z"},
		"not again an hour later":         {windows: early, at: "2026-10-25T02:30:00Z", wantNext: "2026-10-26T01:30:00Z"},
		"it lasts two hours, and no more": {windows: early, at: "2026-10-25T02:29:59Z", wantOpen: time.Second, wantNext: "2026-10-26T01:30:00Z"},
		"the clock is put forward over it: at the first moment after": {
			windows: early, at: "2026-03-29T01:00:00Z", wantOpen: 2 * time.Hour, wantNext: "2026-03-30T00:30:00Z",
		},
		"not before that moment":            {windows: early, at: "2026-03-29T00:59:59Z", wantNext: "2026-03-29T01:00:00Z"},
		"and two hours, counted from there": {windows: early, at: "2026-03-29T03:00:00Z", wantNext: "2026-03-30T00:30:00Z"},
		"every hour goes by time, not by the clock": {
			windows: []v1alpha1.MaintenanceWindow{windowAt("15 * * * *", "Europe/Berlin", 10*time.Minute)},
			at:      "2026-10-25T01:16:00Z", wantOpen: 9 * time.Minute, wantNext: "2026-10-25T02:15:00Z",
		},
		"two that overlap add up": {
			windows: append([]v1alpha1.MaintenanceWindow{windowAt("0 4 * * SAT", "UTC", 3*time.Hour)}, night...),
			at:      "2026-11-21T00:00:00Z", wantOpen: 7 * time.Hour, wantNext: "2026-11-21T04:00:00Z",
		},
		"and two that meet": {
			windows: append([]v1alpha1.MaintenanceWindow{windowAt("0 5 * * SAT", "UTC", time.Hour)}, night...),
			at:      "2026-11-21T00:00:00Z", wantOpen: 6 * time.Hour, wantNext: "2026-11-21T05:00:00Z",
		},
		"one that overlaps itself": {
			windows: []v1alpha1.MaintenanceWindow{windowAt("0 0 * * *", "UTC", 36*time.Hour)},
			at:      "2026-11-21T06:00:00Z", wantOpen: 60 * time.Hour, wantNext: "2026-11-22T00:00:00Z",
		},
		"a week": {
			windows: []v1alpha1.MaintenanceWindow{windowAt("0 0 1 * *", "UTC", 7*day)},
			at:      "2026-11-06T00:00:00Z", wantOpen: 2 * day, wantNext: "2026-12-01T00:00:00Z",
		},
		"what cannot be read never opens": {
			windows: []v1alpha1.MaintenanceWindow{windowAt("0 0 30 2 *", "UTC", day), windowAt("0 0 * * *", "Mars/Olympus", day), windowAt("never", "UTC", day)},
			at:      "2026-11-21T06:00:00Z",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			at, err := time.Parse(time.RFC3339, test.at)
			if err != nil {
				t.Fatal(err)
			}
			h := newOpeningHours(test.windows)
			var open time.Duration
			if until := h.openUntil(at, at.Add(60*time.Hour)); !until.IsZero() {
				open = until.Sub(at)
			}
			if open != test.wantOpen {
				t.Errorf("open for %s, want %s", open, test.wantOpen)
			}
			next := ""
			if n := h.next(at); !n.IsZero() {
				next = n.Format(time.RFC3339)
			}
			if next != test.wantNext {
				t.Errorf("opens next at %q, want %q", next, test.wantNext)
			}
		})
	}
}

// TestOpeningHoursMinuteByMinute compares the opening hours with every minute of days on
// which clocks are changed, and with what a list of all openings says.
func TestOpeningHoursMinuteByMinute(t *testing.T) {
	for _, window := range []v1alpha1.MaintenanceWindow{
		windowAt("*/20 1-3 * * *", "Europe/Berlin", 15*time.Minute),
		windowAt("0,45 2 * * SUN", "America/New_York", 90*time.Minute),
		windowAt("* * * * *", "UTC", 10*time.Minute),
		windowAt("0 0 * * *", "Australia/Lord_Howe", 25*time.Hour),
	} {
		for _, day := range []time.Time{
			time.Date(2026, 3, 28, 20, 0, 0, 0, time.UTC), time.Date(2026, 10, 24, 20, 0, 0, 0, time.UTC),
			time.Date(2026, 3, 8, 3, 0, 0, 0, time.UTC), time.Date(2026, 11, 1, 3, 0, 0, 0, time.UTC), time.Date(2026, 4, 4, 10, 0, 0, 0, time.UTC),
		} {
			h := newOpeningHours([]v1alpha1.MaintenanceWindow{window})
			var starts []time.Time
			for s := h.next(day.Add(-48 * time.Hour)); s.Before(day.Add(24 * time.Hour)); s = h.next(s) {
				starts = append(starts, s)
			}
			for at := day; at.Before(day.Add(12 * time.Hour)); at = at.Add(time.Minute) {
				want := false
				for _, start := range starts {
					want = want || !at.Before(start) && at.Before(start.Add(window.Duration.Duration))
				}
				if got := !h.openUntil(at, at.Add(time.Minute)).IsZero(); got != want {
					t.Fatalf("%s: open at %s is %v, want %v", window.Schedule, at, got, want)
				}
			}
		}
	}
}

func TestLongestOpening(t *testing.T) {
	at := time.Date(2026, 11, 21, 6, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		windows []v1alpha1.MaintenanceWindow
		want    time.Duration
	}{
		"no windows":                      {want: 8 * time.Hour},
		"one that will be long enough":    {windows: []v1alpha1.MaintenanceWindow{windowAt("0 1 * * SAT", "UTC", 9*time.Hour)}, want: 8 * time.Hour},
		"the longest of two":              {windows: []v1alpha1.MaintenanceWindow{windowAt("0 1 * * SAT", "UTC", time.Hour), windowAt("0 1 * * SUN", "UTC", 2*time.Hour)}, want: 2 * time.Hour},
		"two that add up once in a while": {windows: []v1alpha1.MaintenanceWindow{windowAt("0 1 * * SUN", "UTC", 4*time.Hour), windowAt("0 5 * * *", "UTC", 4*time.Hour)}, want: 8 * time.Hour},
		"none that opens":                 {windows: []v1alpha1.MaintenanceWindow{windowAt("0 0 30 2 *", "UTC", time.Hour)}, want: 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := newOpeningHours(test.windows)
			if got := h.longest(at, 8*time.Hour); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}
