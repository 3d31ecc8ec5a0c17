package operation

import (
	"context"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// The limits of a policy that sets none.
const (
	defaultDownloadLimit = 11
	defaultInstallLimit  = 4
)

// maxAttempted is how many patches with failed attempts a PatchRetry holds.
const maxAttempted = 1000

const retriesFile = "retries.json"

// retries are the failed attempts of this node. The PatchRetry on the API server is what counts; this is the agent's copy of
// it, from which it is made again if it was deleted, and the failures that are not counted there yet. Every change is on
// disk before it is sent: a failure is neither forgotten nor counted twice, as each has a number that the PatchRetry
// remembers.
type retries struct {
	// UID is that of the PatchRetry that Status was read from.
	UID types.UID `json:"uid,omitempty"`
	// Status is the PatchRetry's as last seen.
	Status v1alpha1.PatchRetryStatus `json:"status"`
	// Sequence is the number of the last failure.
	Sequence int64 `json:"sequence,omitempty"`
	// Pending are the failures that Status does not count yet, in their order.
	Pending []failure `json:"pending,omitempty"`
	// Gone are the keys of patches that were installed or are no longer offered.
	Gone []string `json:"gone,omitempty"`
	// Operation is the one that Recorded is about: its failures, so that none is recorded twice after a crash.
	Operation string   `json:"operation,omitempty"`
	Recorded  []string `json:"recorded,omitempty"`
	// Restore is set when objects of the node were made anew, until the PatchRetry was looked at.
	Restore bool `json:"restore,omitempty"`
	// Clears is retryClears of the assignment by which the PatchRetry was last read, and the report brought in line.
	Clears int64 `json:"clears,omitempty"`
	// Limits are those of the last operation that had any.
	Limits v1alpha1.RetryLimits `json:"limits"`
}

// failure is one failed attempt of one patch.
type failure struct {
	Sequence int64              `json:"sequence"`
	Name     string             `json:"name"`
	Version  string             `json:"version"`
	At       v1alpha1.BlockedAt `json:"at"`
	Message  string             `json:"message"`
	Task     string             `json:"task"`
	Time     time.Time          `json:"time"`
}

// attemptKey tells patches apart as a PatchRetry does; name has a foreign architecture.
func attemptKey(name, version string) string { return name + "=" + version }

// record notes a failure of the operation, once. It is to be saved before anything is done about it.
func (r *retries) record(operation string, f failure) {
	if r.Operation != operation {
		r.Operation, r.Recorded = operation, nil
	}
	key := string(f.At) + " " + attemptKey(f.Name, f.Version)
	if slices.Contains(r.Recorded, key) {
		return
	}
	r.Recorded = append(r.Recorded, key)
	r.Sequence = max(r.Sequence, r.Status.Sequence) + 1
	f.Sequence = r.Sequence
	f.Message = cut(f.Message, 512)
	r.Pending = append(r.Pending, f)
}

// current are the counts with everything in them, also what the API server does not have yet.
func (r *retries) current() v1alpha1.PatchRetryStatus {
	return r.count(r.Status)
}

// attempts are the current counts by attemptKey.
func (r *retries) attempts() map[string]*v1alpha1.PatchAttempts {
	status := r.current()
	byKey := make(map[string]*v1alpha1.PatchAttempts, len(status.Patches))
	for i := range status.Patches {
		p := &status.Patches[i]
		byKey[attemptKey(p.Name, p.Version)] = p
	}
	return byKey
}

// count adds what is pending to a status, and takes away what is gone.
func (r *retries) count(status v1alpha1.PatchRetryStatus) v1alpha1.PatchRetryStatus {
	next := *status.DeepCopy()
	for _, f := range r.Pending {
		if f.Sequence <= next.Sequence {
			continue // it was counted, and the answer was lost
		}
		next.Sequence = f.Sequence
		p := attemptsOf(&next, f.Name, f.Version)
		if f.At == v1alpha1.BlockedAtDownload {
			p.DownloadFailures++
		} else {
			p.InstallFailures++
		}
		p.LastError, p.LastTask, p.LastTime = f.Message, f.Task, &metav1.Time{Time: f.Time.UTC().Truncate(time.Second)}
		if p.Blocked == "" {
			p.Blocked = blockedAt(p, r.Limits)
		}
	}
	next.Patches = slices.DeleteFunc(next.Patches, func(p v1alpha1.PatchAttempts) bool {
		return slices.Contains(r.Gone, attemptKey(p.Name, p.Version))
	})
	if extra := len(next.Patches) - maxAttempted; extra > 0 {
		// The oldest go. A host with so many failures has another problem.
		slices.SortStableFunc(next.Patches, func(a, b v1alpha1.PatchAttempts) int { return lastTime(&a).Compare(lastTime(&b)) })
		next.Patches = next.Patches[extra:]
	}
	next.Summarize()
	return next
}

// lastTime is zero in an entry that a person made without it.
func lastTime(p *v1alpha1.PatchAttempts) time.Time {
	if p.LastTime == nil {
		return time.Time{}
	}
	return p.LastTime.Time
}

func attemptsOf(s *v1alpha1.PatchRetryStatus, name, version string) *v1alpha1.PatchAttempts {
	for i := range s.Patches {
		if p := &s.Patches[i]; p.Name == name && p.Version == version {
			return p
		}
	}
	s.Patches = append(s.Patches, v1alpha1.PatchAttempts{Name: name, Version: version})
	return &s.Patches[len(s.Patches)-1]
}

// blockedAt says at which step a patch has used up its retries. Once it has, it is so until its counts are cleared.
func blockedAt(p *v1alpha1.PatchAttempts, limits v1alpha1.RetryLimits) v1alpha1.BlockedAt {
	switch {
	case p.Blocked != "":
		return p.Blocked
	case p.InstallFailures >= limits.Install:
		return v1alpha1.BlockedAtInstall
	case p.DownloadFailures >= limits.Download:
		return v1alpha1.BlockedAtDownload
	}
	return ""
}

// tally is how often a patch failed, such as "3 downloads and 1 installation".
func tally(p *v1alpha1.PatchAttempts) string {
	downloads := plural(int(p.DownloadFailures), "download", "downloads")
	installations := plural(int(p.InstallFailures), "installation", "installations")
	switch {
	case p.DownloadFailures == 0:
		return installations
	case p.InstallFailures == 0:
		return downloads
	default:
		return downloads + " and " + installations
	}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// limitsOf fills in the defaults.
func limitsOf(l *v1alpha1.RetryLimits) v1alpha1.RetryLimits {
	limits := v1alpha1.RetryLimits{Download: defaultDownloadLimit, Install: defaultInstallLimit}
	if l != nil && l.Download > 0 {
		limits.Download = l.Download
	}
	if l != nil && l.Install > 0 {
		limits.Install = l.Install
	}
	return limits
}

// forget notes which of the counted patches a scan no longer offers.
func (r *retries) forget(offered map[string]bool) {
	for _, p := range r.current().Patches {
		if key := attemptKey(p.Name, p.Version); !offered[key] && !slices.Contains(r.Gone, key) {
			r.Gone = append(r.Gone, key)
		}
	}
}

// adopt begins the copy with a PatchRetry of which nothing is known here. If the copy was lost, the failures since then have
// numbers that the PatchRetry has counted already, and get others. It is to be saved before they are sent: a failure whose
// answer is lost keeps its number.
func (r *retries) adopt(object *v1alpha1.PatchRetry) {
	r.UID, r.Status = object.UID, object.Status
	last := object.Status.Sequence
	for i := range r.Pending {
		f := &r.Pending[i]
		f.Sequence = max(f.Sequence, last+1)
		last = f.Sequence
	}
	r.Sequence = max(r.Sequence, last)
}

// unsent says whether the API server lacks something that is known here.
func (r *retries) unsent() bool { return len(r.Pending) > 0 || len(r.Gone) > 0 || r.Restore }

// syncRetries brings the node's PatchRetry and its copy here to the same state.
func (w *Worker) syncRetries(ctx context.Context) error {
	r := w.retries
	for try := 1; ; try++ {
		var object *v1alpha1.PatchRetry
		err := w.write(ctx, func(ctx context.Context) (err error) {
			object, err = w.API.Retries(ctx)
			return err
		})
		if err != nil {
			return fmt.Errorf("read the counts of failed attempts: %w", err)
		}
		if r.UID == "" {
			r.adopt(object)
			if err := w.saveRetries(); err != nil {
				return err
			}
		}
		was := object.Status
		if r.UID != "" && object.UID != r.UID {
			// It was deleted and made anew, with its node or by hand. The failures happened all the same.
			was = r.Status
			was.Clears, was.Handled = object.Status.Clears, object.Status.Handled
			w.Logger.Info("Counts of failed attempts are put back into a PatchRetry that was made anew", "patches", len(was.Patches))
		}
		object.Status = r.count(was)
		next := object
		if !equality.Semantic.DeepEqual(was, object.Status) || object.UID != r.UID && r.UID != "" {
			err = w.write(ctx, func(ctx context.Context) (err error) {
				next, err = w.API.UpdateRetries(ctx, object)
				return err
			})
			if apierrors.IsConflict(err) && try < 10 {
				continue // the manager has just cleared counts
			}
			if err != nil {
				return fmt.Errorf("store the counts of failed attempts: %w", err)
			}
		}
		r.UID, r.Status = next.UID, next.Status
		r.Sequence = max(r.Sequence, r.Status.Sequence)
		r.Pending, r.Gone, r.Restore = nil, nil, false
		return w.saveRetries()
	}
}

// unblock brings the last report in line with counts that were cleared, without a scan.
func (w *Worker) unblock() {
	report := &v1alpha1.PatchReportStatus{}
	if err := w.journal.load(reportFile, report); err != nil || report.Counts == nil {
		return // the next scan makes a report
	}
	attempts, changed := w.retries.attempts(), false
	for i := range report.Patches {
		p := &report.Patches[i]
		if p.State != v1alpha1.PatchBlocked && p.State != v1alpha1.PatchFailed || attempts[attemptKey(p.Name, p.Available)] != nil {
			continue
		}
		n := tallyOf(report.Counts, p.State)
		*n = max(0, *n-1)
		p.State, p.Reason, changed = v1alpha1.PatchMissing, "", true
	}
	if !changed {
		return
	}
	report.Summary = cut(summary(report), 1024)
	if err := w.journal.store(reportFile, report); err != nil {
		w.Logger.Error("The report still shows counts that were cleared", "error", err)
		return
	}
	w.journal.ReportPending = true
}

func (w *Worker) saveRetries() error { return w.journal.store(retriesFile, w.retries) }
