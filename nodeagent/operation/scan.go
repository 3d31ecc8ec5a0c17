package operation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/host"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// The names of the steps on the host, in directories and unit names.
const (
	stepRefresh = "refresh"
	stepScan    = "scan"
)

// maxAttempts is how often an operation is taken up again by an agent that died of it.
const maxAttempts = 5

// scanNode goes through the phases of a scan from the one that the journal says. It returns early if the context ends.
func (w *Worker) scanNode(ctx context.Context) {
	r := w.journal.Current
	if ctx.Err() != nil {
		return
	}
	if w.begun != r.ID {
		w.begun = r.ID
		if r.Attempts++; r.Attempts > maxAttempts {
			w.failed(v1alpha1.ReasonInterrupted, fmt.Sprintf("The agent ended %d times in this operation; its pod's log says why", maxAttempts))
			return
		}
		w.Logger.Info("Operation goes on where an earlier agent left it", "operation", r.ID, "phase", r.Phase, "attempt", r.Attempts)
		w.save()
	}
	if r.Phase == phaseRefresh && !w.refresh(ctx) {
		return
	}
	w.scan(ctx)
}

// refresh fetches the package metadata anew. A refresh that fails does not end the operation: the scan goes on with the old
// data and says so. A refresh that an earlier agent started is waited for.
func (w *Worker) refresh(ctx context.Context) (goOn bool) {
	r := w.journal.Current
	manager, err := w.manager(stepRefresh, false)
	if err != nil {
		w.cannotBegin(err)
		return false
	}
	w.append(patchlog.ScanStarted(r.Started, w.run(), w.Node, manager.Name()))
	began := time.Now()
	limit := w.refreshTime()
	bounded, cancel := context.WithTimeoutCause(ctx, limit,
		fmt.Errorf("the repositories took longer than %s, half of the time that the operation has", limit.Round(time.Second)))
	defer cancel()
	_, err = again(bounded, manager.Refresh)
	if ctx.Err() != nil {
		return false
	}
	now := time.Now()
	r.Refresh = &finding{OK: err == nil, Reason: v1alpha1.ReasonRefreshed, Message: "The last refresh succeeded", Time: now}
	if err != nil {
		r.Refresh.Reason, r.Refresh.Message = refreshReason(err), err.Error()
		w.Logger.Warn("Package metadata is not refreshed", "operation", r.ID, "reason", r.Refresh.Reason, "error", err)
	} else {
		w.append(patchlog.PatchDataRefreshed(now, w.run(), w.Node, manager.Name(), now.Sub(began)))
	}
	r.Phase = phaseScan
	w.save()
	return true
}

// refreshTime leaves a scan on old data the other half of the operation's time, which would else all go by waiting for a
// mirror or a lock.
func (w *Worker) refreshTime() time.Duration {
	const most, least = 30 * time.Minute, 5 * time.Second
	if d := w.journal.Current.Deadline; !d.IsZero() {
		return min(max(time.Until(d.Time)/2, least), most)
	}
	return most
}

// scan asks what is missing and makes the report. A scan that an earlier agent began is thrown away and begun again: that is
// harmless, and its answers might be those of another moment.
func (w *Worker) scan(ctx context.Context) {
	manager, err := w.manager(stepScan, true)
	if err != nil {
		w.cannotBegin(err)
		return
	}
	began := time.Now()
	found, err := again(ctx, manager.Scan)
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	if err != nil {
		w.stale(-1)
		w.failed(scanReason(err), err.Error())
		return
	}
	r := w.journal.Current
	var former v1alpha1.PatchReportStatus
	seen := firstSeen{}
	for name, v := range map[string]any{reportFile: &former, firstSeenFile: &seen} {
		if err := w.journal.load(name, v); err != nil {
			w.Logger.Error("Part of the journal is lost", "error", err)
		}
	}
	seen = seen.update(&found, now.Truncate(time.Second).UTC())
	report := succeed(&former, observation{
		Scan: &found, PackageManager: manager.Name(), FirstSeen: seen, Refresh: r.Refresh, Record: r,
		AgentVersion: w.Version, Now: now, Took: now.Sub(began),
	})
	if err := errors.Join(w.journal.store(firstSeenFile, seen), w.journal.store(reportFile, report)); err != nil {
		w.failed(v1alpha1.ReasonHostUnavailable, err.Error())
		return
	}
	w.journal.ReportPending = true
	age := time.Duration(-1)
	if t := found.MetadataRefreshed; !t.IsZero() {
		age = now.Sub(t)
	}
	w.stale(age)
	w.append(patchlog.ScanFinished(now, w.run(), w.Node, *report.Counts, report.Reboot.State, now.Sub(began)))
	reason := v1alpha1.ReasonScanned
	if r.Refresh != nil && !r.Refresh.OK {
		reason = r.Refresh.Reason
	}
	w.end(v1alpha1.StepDone, reason, report.Summary, &report.Counts.PatchCounts)
}

// stale logs a refresh that failed. It waits for the scan, which knows how old the data is.
func (w *Worker) stale(age time.Duration) {
	if f := w.journal.Current.Refresh; f != nil && !f.OK {
		w.append(patchlog.PatchDataStale(f.Time, w.run(), w.Node, f.Reason, f.Message, age))
	}
}

// again runs f once more if a command of it was interrupted, by an administrator or a node that went down: both a refresh
// and a scan are harmless to repeat.
func again[T any](ctx context.Context, f func(context.Context) (T, error)) (T, error) {
	result, err := f(ctx)
	var interrupted *host.InterruptedError
	if errors.As(err, &interrupted) && ctx.Err() == nil {
		return f(ctx)
	}
	return result, err
}

func (w *Worker) manager(step string, fresh bool) (packages.Manager, error) {
	s, err := w.Host.Session(w.journal.Current.ID, step)
	if err != nil {
		return nil, err
	}
	if fresh {
		if err := s.Discard(context.Background()); err != nil {
			w.Logger.Warn("A scan of an earlier agent may still run", "error", err)
		}
	}
	const most = 10 * time.Minute
	return w.Packages(s, Locks{
		Patience: min(w.refreshTime()*3/4, most),
		Waiting: func(held *packages.LockHeldError) {
			w.say(v1alpha1.ReasonLocked, fmt.Sprintf("Waiting for %s, which is held by %s", held.Path, held.Holder()))
		},
	})
}

func (w *Worker) cannotBegin(err error) {
	reason := v1alpha1.ReasonHostUnavailable
	if errors.Is(err, ErrUnsupported) {
		reason = v1alpha1.ReasonUnsupportedSystem
	}
	w.failed(reason, err.Error())
}

// failed ends the operation without a scan; the report keeps what the last one found.
func (w *Worker) failed(reason, message string) {
	r, now := w.journal.Current, time.Now()
	var former v1alpha1.PatchReportStatus
	if err := w.journal.load(reportFile, &former); err != nil {
		w.Logger.Error("The last report is lost", "error", err)
	}
	report := fail(&former, observation{Refresh: r.Refresh, Record: r, AgentVersion: w.Version, Now: now}, finding{Reason: reason, Message: message})
	if err := w.journal.store(reportFile, report); err != nil {
		w.Logger.Error("The report does not say that the scan failed", "error", err)
	} else {
		w.journal.ReportPending = true
	}
	w.append(patchlog.ScanFailed(now, w.run(), w.Node, reason, message))
	w.end(v1alpha1.StepFailed, reason, message, nil)
}
