package operation

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// What a report lists at most, as the API has it.
const (
	maxNewPackages = 100
	maxAdvisories  = 8
	maxCVEs        = 16
	maxReasons     = 20
)

// firstSeen says when a patch was first offered, by its name, architecture and version. It holds all patches of the last
// scan, also those that the report omits.
type firstSeen map[string]time.Time

func firstSeenKey(p *packages.Patch) string {
	return p.Name + ":" + p.Architecture + "=" + p.AvailableVersion
}

// update forgets what is no longer offered and adds what is new. Without the metadata of every repository nobody knows what
// is no longer offered.
func (f firstSeen) update(scan *packages.Scan, now time.Time) firstSeen {
	next := make(firstSeen, len(scan.Patches))
	if scan.MetadataRefreshed.IsZero() {
		maps.Copy(next, f)
	}
	for i := range scan.Patches {
		key := firstSeenKey(&scan.Patches[i])
		if seen, ok := f[key]; ok {
			next[key] = seen
		} else {
			next[key] = now
		}
	}
	return next
}

// observation is all that a report is made of.
type observation struct {
	Scan           *packages.Scan
	PackageManager string
	FirstSeen      firstSeen
	Refresh        *finding
	Record         *record
	AgentVersion   string
	Now            time.Time
	Took           time.Duration
	Criteria       *criteria
	PendingReboot  pendingReboot
	// Installed is what the last deployment has installed; nil if there was none.
	Installed *v1alpha1.InstalledPatches
}

// succeed is the report after a scan. Only the conditions of the former report matter, for their transition times.
func succeed(former *v1alpha1.PatchReportStatus, o observation) *v1alpha1.PatchReportStatus {
	now := metav1.NewTime(o.Now)
	s := &v1alpha1.PatchReportStatus{
		Conditions:     slices.Clone(former.Conditions),
		Policy:         o.Record.Policy,
		AgentVersion:   o.AgentVersion,
		PackageManager: &v1alpha1.PackageManager{Name: o.PackageManager, Version: cut(o.Scan.ManagerVersion, 128)},
		OS: &v1alpha1.OperatingSystem{
			Name: cut(o.Scan.OS.PrettyName, 256), ID: cut(o.Scan.OS.ID, 64), VersionID: cut(o.Scan.OS.VersionID, 64),
		},
		Kernel: &v1alpha1.Kernel{
			Running: cut(o.Scan.Kernel.Running, 256), NewestInstalled: cut(o.Scan.Kernel.NewestInstalled, 256),
		},
		Scan: &v1alpha1.ScanRun{
			Time: &now, DurationMilliseconds: o.Took.Milliseconds(), Task: o.Record.Task, OperationID: o.Record.ID,
		},
		Counts:    counts(o.Scan, o.Criteria),
		Reboot:    reboot(&o.Scan.Reboot),
		Installed: o.Installed,
	}
	if t := o.Scan.MetadataRefreshed; !t.IsZero() {
		s.PatchData = &v1alpha1.PatchData{Time: &metav1.Time{Time: t}}
	}
	s.Counts.OldestSecurity = oldestSecurity(o)
	s.Patches, s.PatchesOmitted = patches(o)
	s.NewPackages, s.NewPackagesOmitted = newPackages(o.Scan.NewPackages)

	condition(s, now, v1alpha1.ConditionScanned, true, v1alpha1.ReasonScanned, "The last scan succeeded")
	refreshed(s, now, o.Refresh)
	if kind, message := problems(o.Scan.Problems); kind != "" {
		condition(s, now, v1alpha1.ConditionPackagesConsistent, false, kind, message)
	} else {
		condition(s, now, v1alpha1.ConditionPackagesConsistent, true, v1alpha1.ReasonConsistent, "No package is half installed")
	}
	s.Summary = cut(summary(s), 1024)
	return s
}

// fail is the report after a scan that failed: what the last one found stands, and the report says that it is old.
func fail(former *v1alpha1.PatchReportStatus, o observation, cause finding) *v1alpha1.PatchReportStatus {
	now := metav1.NewTime(o.Now)
	s := former.DeepCopy()
	s.Policy = o.Record.Policy
	s.AgentVersion = o.AgentVersion
	condition(s, now, v1alpha1.ConditionScanned, false, cause.Reason, cause.Message)
	refreshed(s, now, o.Refresh)
	s.Summary = "Scan failed: " + cause.Message
	if s.Scan != nil && s.Scan.Time != nil {
		s.Summary = fmt.Sprintf("Scan failed, so this is as of %s: %s", s.Scan.Time.UTC().Format(time.RFC3339), cause.Message)
	}
	s.Summary = cut(s.Summary, 1024)
	return s
}

func refreshed(s *v1alpha1.PatchReportStatus, now metav1.Time, f *finding) {
	if f != nil {
		condition(s, now, v1alpha1.ConditionPatchDataCurrent, f.OK, f.Reason, f.Message)
	}
}

func condition(s *v1alpha1.PatchReportStatus, now metav1.Time, kind string, ok bool, reason, message string) {
	c := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: cut(message, 4096), LastTransitionTime: now}
	if ok {
		c.Status = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&s.Conditions, c)
}

// summary answers "why are patches missing" in one line.
func summary(s *v1alpha1.PatchReportStatus) string {
	c := s.Counts
	var parts []string
	add := func(n int32, text string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, text))
		}
	}
	add(c.Missing-c.Held-c.KeptBack-c.Phased-c.Excluded-c.Blocked-c.Failed-c.Downloaded, "not installed yet")
	add(c.Downloaded, "ready on disk")
	add(c.Failed, "failed and tried again")
	add(c.Blocked, "blocked until their counts are cleared")
	add(c.Excluded, "excluded")
	add(c.Held, "on hold")
	add(c.KeptBack, "kept back by the package manager")
	add(c.Phased, "not yet released to this machine")
	if len(parts) == 0 {
		parts = append(parts, "Nothing is missing")
	}
	if d := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionPatchDataCurrent); d != nil && d.Status == metav1.ConditionFalse {
		parts = append(parts, fmt.Sprintf("patch data is old (%s)", d.Reason))
	}
	if p := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionPackagesConsistent); p != nil && p.Status == metav1.ConditionFalse {
		parts = append(parts, p.Message)
	}
	return strings.Join(parts, ", ")
}

// problems is the reason and message of the package database's state, empty if it is in order.
func problems(list []packages.Problem) (reason, message string) {
	if len(list) == 0 {
		return "", ""
	}
	reason = v1alpha1.ReasonHalfConfigured
	message = list[0].Message
	for _, p := range list {
		if p.Kind == packages.InterruptedTransaction {
			reason, message = v1alpha1.ReasonInterrupted, p.Message
			break
		}
	}
	if len(list) > 1 {
		message += fmt.Sprintf(" (and %d more)", len(list)-1)
	}
	return reason, message
}

func counts(scan *packages.Scan, by *criteria) *v1alpha1.ReportCounts {
	c := &v1alpha1.ReportCounts{NewPackages: int32(len(scan.NewPackages))}
	c.Missing = int32(len(scan.Patches))
	for i := range scan.Patches {
		p := &scan.Patches[i]
		switch p.Classification {
		case packages.Security:
			c.Security++
		case packages.Bugfix:
			c.Bugfix++
		case packages.Enhancement:
			c.Enhancement++
		default:
			c.Other++
		}
		switch severity(p.Severity) {
		case v1alpha1.SeverityCritical:
			c.Critical++
		case v1alpha1.SeverityImportant:
			c.Important++
		case v1alpha1.SeverityModerate:
			c.Moderate++
		case v1alpha1.SeverityLow:
			c.Low++
		}
		state, _ := by.judge(p)
		if n := tallyOf(c, state); n != nil {
			*n++
		}
		if chosen(state) && state != v1alpha1.PatchDownloaded {
			c.DownloadBytes += p.DownloadSize
		}
	}
	for _, p := range scan.NewPackages {
		c.DownloadBytes += p.DownloadSize
	}
	return c
}

// oldestSecurity is when the security patch was first offered that has been missing for the longest, nil if none is.
func oldestSecurity(o observation) *metav1.Time {
	var oldest time.Time
	for i := range o.Scan.Patches {
		p := &o.Scan.Patches[i]
		if p.Classification != packages.Security {
			continue
		}
		if seen, known := o.FirstSeen[firstSeenKey(p)]; known && (oldest.IsZero() || seen.Before(oldest)) {
			oldest = seen
		}
	}
	if oldest.IsZero() {
		return nil
	}
	return &metav1.Time{Time: oldest}
}

// tallyOf is where patches of a state are counted; nil for those that are only missing.
func tallyOf(c *v1alpha1.ReportCounts, state v1alpha1.PatchState) *int32 {
	switch state {
	case v1alpha1.PatchHeld:
		return &c.Held
	case v1alpha1.PatchKeptBack:
		return &c.KeptBack
	case v1alpha1.PatchPhased:
		return &c.Phased
	case v1alpha1.PatchExcluded:
		return &c.Excluded
	case v1alpha1.PatchBlocked:
		return &c.Blocked
	case v1alpha1.PatchFailed:
		return &c.Failed
	case v1alpha1.PatchDownloaded:
		return &c.Downloaded
	default:
		return nil
	}
}

func reboot(r *packages.Reboot) *v1alpha1.Reboot {
	result := &v1alpha1.Reboot{State: v1alpha1.RebootNotRequired}
	switch {
	case r.Required:
		result.State = v1alpha1.RebootRequired
	case r.Unknown:
		result.State = v1alpha1.RebootUnknown
	}
	for _, reason := range r.Reasons[:min(len(r.Reasons), maxReasons)] {
		result.Reasons = append(result.Reasons, cut(reason, 512))
	}
	return result
}
