package policy

import (
	"fmt"
	"time"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/calendar"
)

// scheduleFaults says which schedules of a policy cannot be kept, a sentence
// without a period for each. The rules of the CRD refuse most of them; reversed
// ranges and days that do not exist are left for here.
func scheduleFaults(spec *v1alpha1.PatchPolicySpec, now time.Time) []string {
	var faults []string
	for i := range spec.Tasks {
		task := &spec.Tasks[i]
		if task.Schedule == nil {
			continue
		}
		if err := checkSchedule(*task.Schedule, task.TimeZone, now); err != nil {
			faults = append(faults, fmt.Sprintf("Task %s: %v", task.Name, err))
		}
	}
	for i := range spec.MaintenanceWindows {
		window := &spec.MaintenanceWindows[i]
		if err := checkSchedule(window.Schedule, window.TimeZone, now); err != nil {
			faults = append(faults, fmt.Sprintf("Maintenance window %d: %v", i+1, err))
		}
	}
	return faults
}

func checkSchedule(schedule v1alpha1.Schedule, zone v1alpha1.TimeZone, now time.Time) error {
	parsed, err := calendar.Parse(schedule, zone)
	if err != nil {
		return err
	}
	if parsed.Next(now).IsZero() {
		return fmt.Errorf("schedule %q never comes true", schedule)
	}
	return nil
}
