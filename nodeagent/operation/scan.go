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
	stepRefresh  = "refresh"
	stepScan     = "scan"
	stepDownload = "download"
	stepInstall  = "install"
	stepRepair   = "repair"
	stepPrepared = "prepared"
	stepVerify   = "verify"
	stepReboot   = "reboot"
)

// refresh fetches the package metadata anew. A refresh that fails does not end the operation: the scan goes on with the old
// data and says so. A refresh that an earlier agent started is waited for.
func (w *Worker) refresh(ctx context.Context) (goOn bool) {
	r := w.journal.Current
	manager, err := w.manager(ctx, stepRefresh)
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
	if r.Attempts == 1 {
		r.Refresh.Began = began
	}
	if err != nil {
		r.Refresh.Reason, r.Refresh.Message = refreshReason(err), err.Error()
		w.Logger.Warn("Package metadata is not refreshed", "operation", r.ID, "reason", r.Refresh.Reason, "error", err)
	} else {
		w.append(patchlog.PatchDataRefreshed(now, w.run(), w.Node, manager.Name(), now.Sub(began)))
	}
	w.enter(phaseScan)
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

// scan asks what is missing and makes the report. An operation that goes on to install has an inconsistent package database
// put right first, with which nothing can be installed.
func (w *Worker) scan(ctx context.Context) (goOn bool) {
	r := w.journal.Current
	began := time.Now()
	found, manager, err := w.look(ctx, stepScan)
	if ctx.Err() != nil {
		return false
	}
	if why := w.toRepair(&found, err); why != "" && r.Repairs == 0 && r.installs() {
		if !r.allows(v1alpha1.StepInstalling) {
			w.awaitRepair(why, &found, manager, began, err)
			return true
		}
		r.Repairs++
		r.Repairing = why
		w.save()
		return true // to scan again after it
	}
	if err != nil {
		w.stale(-1)
		if manager == nil {
			w.cannotBegin(err)
		} else {
			w.failed(scanReason(err), err.Error())
		}
		return false
	}
	if !r.scansOnly() {
		if err := w.awaitRetries(ctx); err != nil {
			return false // the operation ends
		}
		if !w.readPin(ctx, &found, manager) {
			return false
		}
	}
	now := time.Now()
	report, err := w.report(&found, manager.Name(), now.Sub(began), nil)
	if err != nil {
		w.failed(v1alpha1.ReasonHostUnavailable, err.Error())
		return false
	}
	age := time.Duration(-1)
	if t := found.MetadataRefreshed; !t.IsZero() {
		age = now.Sub(t)
	}
	w.stale(age)
	w.append(patchlog.ScanFinished(now, w.run(), w.Node, *report.Counts, report.Reboot.State, now.Sub(began)))
	if !r.scansOnly() {
		return w.choose(ctx, &found)
	}
	reason := v1alpha1.ReasonScanned
	if r.Refresh != nil && !r.Refresh.OK {
		reason = r.Refresh.Reason
	}
	w.end(v1alpha1.StepDone, reason, report.Summary, &report.Counts.PatchCounts)
	return false
}

// look scans. A scan that an earlier agent began is thrown away and begun again: that is harmless, and its answers might be
// those of another moment. Without a manager the host cannot be asked at all.
func (w *Worker) look(ctx context.Context, step string) (packages.Scan, packages.Manager, error) {
	_, manager, err := w.afresh(ctx, step)
	if err != nil {
		return packages.Scan{}, nil, err
	}
	found, err := again(ctx, manager.Scan)
	return found, manager, err
}

// report makes the report of a scan and keeps it to be sent; d is nil before patches were chosen.
func (w *Worker) report(found *packages.Scan, managerName string, took time.Duration, d *deployment) (*v1alpha1.PatchReportStatus, error) {
	r, now := w.journal.Current, time.Now()
	var former v1alpha1.PatchReportStatus
	seen, pending := firstSeen{}, pendingReboot{}
	for file, v := range map[string]any{reportFile: &former, firstSeenFile: &seen, pendingRebootFile: &pending} {
		if err := w.journal.load(file, v); err != nil {
			w.Logger.Error("Part of the journal is lost", "error", err)
		}
	}
	seen = seen.update(found, now.Truncate(time.Second).UTC())
	pending = pending.update(found, d, w.boot())
	w.settleRetries(found)
	o := observation{
		Scan: found, PackageManager: managerName, FirstSeen: seen, Refresh: r.Refresh, Record: r,
		AgentVersion: w.Version, Now: now, Took: took, Criteria: w.criteria(seen, d), PendingReboot: pending,
		Installed: former.Installed,
	}
	if r.Phase == phaseVerify && r.installs() {
		o.Installed = installedBy(r, d)
	}
	report := succeed(&former, o)
	err := errors.Join(w.journal.store(firstSeenFile, seen), w.journal.store(pendingRebootFile, pending), w.journal.store(reportFile, report))
	if err == nil {
		w.journal.ReportPending = true
		w.save()
	}
	return report, err
}

// criteria are those of the current operation.
func (w *Worker) criteria(seen firstSeen, d *deployment) *criteria {
	r := w.journal.Current
	c := &criteria{
		Selects: !r.scansOnly(), Selection: r.Patches, FirstSeen: seen, Now: time.Now(),
		Attempts: w.retries.attempts(), Limits: w.retries.Limits, Pin: w.pinned(),
	}
	if d != nil {
		c.Deferred = d.deferred()
		c.Ready = map[string]bool{}
		for _, i := range d.with(resultReady) {
			c.Ready[i.key()] = true
		}
	}
	return c
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

// manager is the host's package manager for a step. What an earlier agent left running in it is waited for.
func (w *Worker) manager(ctx context.Context, step string) (packages.Manager, error) {
	s, err := w.Host.Session(w.journal.Current.ID, step)
	if err != nil {
		return nil, err
	}
	return w.Packages(s, w.locks(ctx))
}

// afresh is the host's package manager for a step of which an earlier agent's transaction is waited for and all else is begun
// again: it is harmless to repeat, and might answer from before the transaction.
func (w *Worker) afresh(ctx context.Context, step string) (*host.Session, packages.Manager, error) {
	s, err := w.Host.Session(w.journal.Current.ID, step)
	if err != nil {
		return nil, nil, err
	}
	if err := s.Discard(context.WithoutCancel(ctx)); err != nil {
		w.Logger.Warn("A command of an earlier agent may still run", "error", err)
	}
	m, err := w.Packages(s, w.locks(ctx))
	return s, m, err
}

func (w *Worker) locks(ctx context.Context) packages.Locks {
	const most = 10 * time.Minute
	return packages.Locks{
		Patience: min(w.refreshTime()*3/4, most),
		Open:     w.Host.OpenFile,
		Waiting: func(held *packages.LockHeldError) error {
			w.say(v1alpha1.ReasonLocked, fmt.Sprintf("Waiting for %s, which is held by %s", held.Path, held.Holder()))
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return nil
		},
	}
}

func (w *Worker) cannotBegin(err error) {
	reason := v1alpha1.ReasonHostUnavailable
	if errors.Is(err, ErrUnsupported) {
		reason = v1alpha1.ReasonUnsupportedSystem
	}
	w.failed(reason, err.Error())
}
