package schedule

import (
	"testing"
	"time"
	_ "time/tzdata" // as in the manager, which runs in an image without zone files

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

func newTestTimetable(t *testing.T, schedule, zone string, jitter time.Duration) *timetable {
	t.Helper()
	task := &v1alpha1.NamedTask{
		Name: "patch", Schedule: new(v1alpha1.Schedule(schedule)), TimeZone: v1alpha1.TimeZone(zone),
		Jitter: &metav1.Duration{Duration: jitter},
	}
	c, err := newTimetable("5f0c", task)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func at(t *testing.T, stamp string) time.Time {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339, stamp)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestJitter(t *testing.T) {
	start := at(t, "2026-11-23T00:00:00Z")
	hourly := newTestTimetable(t, "0 * * * *", "UTC", 20*time.Minute)
	offsets := map[time.Duration]bool{}
	for run := hourly.Next(start); run.Before(start.Add(100 * time.Hour)); run = hourly.Next(run) {
		begin := hourly.begin(run)
		if offset := begin.Sub(run); offset < 0 || offset >= 20*time.Minute {
			t.Errorf("the run of %s begins %s later", run, offset)
		}
		offsets[begin.Sub(run)] = true
		if again := newTestTimetable(t, "0 * * * *", "UTC", 20*time.Minute).begin(run); !again.Equal(begin) {
			t.Errorf("the run of %s begins at %s, and after a restart at %s", run, begin, again)
		}
		for now := run.Add(-time.Minute); now.Before(run.Add(30 * time.Minute)); now = now.Add(7 * time.Second) {
			began := !begin.After(now)
			if got := hourly.begun(run.Add(-time.Minute), now); got.Equal(run) != began {
				t.Fatalf("at %s the last run that began is %s, and that of %s begins at %s", now, got, run, begin)
			}
			if got := hourly.upcoming(now); got.Equal(run) == began {
				t.Fatalf("at %s the next run to begin is %s, and that of %s begins at %s", now, got, run, begin)
			}
		}
	}
	if n := hourly.count(start, start.Add(100*time.Hour)); n != 99 {
		t.Errorf("counts %d runs after the first of a hundred hours and before the end, want 99", n)
	}
	if len(offsets) < 50 {
		t.Errorf("a hundred runs have but %d jitters", len(offsets))
	}

	// A jitter longer than the time to the next run keeps their order.
	dense := newTestTimetable(t, "*/5 * * * *", "UTC", 24*time.Hour)
	for run := dense.Next(start); run.Before(start.Add(24 * time.Hour)); run = dense.Next(run) {
		if begin := dense.begin(run); begin.Before(run) || !begin.Before(dense.Next(run)) {
			t.Errorf("the run of %s begins at %s", run, begin)
		}
	}

	other := newTestTimetable(t, "0 * * * *", "UTC", 20*time.Minute)
	other.seed = "another policy"
	if other.begin(start).Equal(hourly.begin(start)) {
		t.Error("the same task of two policies begins at the same second")
	}
}
