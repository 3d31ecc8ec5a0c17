package policy

import (
	"fmt"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// cronParser reads what v1alpha1.Schedule allows: five fields, no @descriptors.
var cronParser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

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
	parsed, location, err := ParseSchedule(schedule, zone)
	if err != nil {
		return err
	}
	// Next looks five years ahead, so that 29 February is found.
	if parsed.Next(now.In(location)).IsZero() {
		return fmt.Errorf("schedule %q never comes true", schedule)
	}
	return nil
}

// ParseSchedule reads a schedule and its time zone. The errors are for people.
func ParseSchedule(schedule v1alpha1.Schedule, zone v1alpha1.TimeZone) (*cron.SpecSchedule, *time.Location, error) {
	location, err := time.LoadLocation(string(zone))
	if err != nil {
		return nil, nil, fmt.Errorf("time zone %q is not known: %w", zone, err)
	}
	parsed, err := cronParser.Parse(string(schedule))
	if err != nil {
		return nil, nil, fmt.Errorf("schedule %q cannot be read: %w", schedule, err)
	}
	spec, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return nil, nil, fmt.Errorf("schedule %q has no five fields", schedule)
	}
	return spec, location, nil
}
