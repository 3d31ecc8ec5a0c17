package policy

import (
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // as in the manager, which runs in an image without zone files

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

func TestScheduleFaults(t *testing.T) {
	tests := map[string]struct {
		schedule v1alpha1.Schedule
		zone     v1alpha1.TimeZone
		want     string
	}{
		"every day":                       {schedule: "0 6 * * *", zone: "UTC"},
		"Saturdays in Berlin":             {schedule: "30 1 * * SAT", zone: "Europe/Berlin"},
		"no time zone means UTC":          {schedule: "*/15 0-5 1,15 JAN-MAR MON-FRI"},
		"29 February comes in leap years": {schedule: "0 0 29 2 *", zone: "UTC"},
		"30 February or a Monday":         {schedule: "0 0 30 2 MON", zone: "UTC"},
		"an hour that daylight saving skips once a year": {
			schedule: "30 2 * * *", zone: "Europe/Berlin",
		},
		"30 February": {
			schedule: "0 0 30 2 *", zone: "UTC",
			want: `Task patch: schedule "0 0 30 2 *" never comes true; Maintenance window 1: schedule "0 0 30 2 *" never comes true`,
		},
		"31 April":          {schedule: "0 0 31 4 *", zone: "UTC", want: "never comes true"},
		"reversed range":    {schedule: "0 5-1 * * *", zone: "UTC", want: "beyond end of range"},
		"unknown time zone": {schedule: "0 6 * * *", zone: "Mars/Olympus", want: `time zone "Mars/Olympus" is not known`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			spec := v1alpha1.PatchPolicySpec{
				Tasks: []v1alpha1.NamedTask{
					{Name: "by-hand"},
					{Name: "patch", Schedule: &test.schedule, TimeZone: test.zone},
				},
				MaintenanceWindows: []v1alpha1.MaintenanceWindow{{Schedule: test.schedule, TimeZone: test.zone}},
			}
			got := strings.Join(scheduleFaults(&spec, time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)), "; ")
			if test.want == "" && got != "" {
				t.Errorf("a good schedule is refused: %s", got)
			}
			if !strings.Contains(got, test.want) {
				t.Errorf("got %q, want it to say %q", got, test.want)
			}
		})
	}
}
