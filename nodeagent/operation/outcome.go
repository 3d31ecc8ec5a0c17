package operation

import (
	"errors"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// end ends the current operation. The report is sent with its outcome, also where nothing new was found: it has the end of
// the patch log.
func (w *Worker) end(step v1alpha1.Step, reason, message string, counts *v1alpha1.PatchCounts) {
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	w.journal.end(v1alpha1.EndedOperation{
		OperationID: w.journal.Current.ID, Step: step, Time: &now, Reason: reason, Message: cut(message, 1024), Counts: counts,
	})
	w.journal.ReportPending = true
	w.save()
	w.Logger.Info("Operation ended", "operation", w.journal.Current.ID, "task", w.journal.Current.Task, "step", step, "reason", reason, "message", message)
}

// stopped ends an operation in which nothing was installed.
func (w *Worker) stopped(cause error) {
	r := w.journal.Current
	reason, message := v1alpha1.ReasonStopped, cause.Error()
	if errors.Is(cause, errTakenBack) {
		reason = v1alpha1.ReasonAborted
	}
	if r.scansOnly() {
		w.append(patchlog.ScanStopped(time.Now(), w.run(), w.Node, message))
	} else {
		message += "; nothing was installed"
		w.append(patchlog.DeployStopped(time.Now(), w.run(), w.Node, message))
	}
	w.end(v1alpha1.StepStopped, reason, message, nil)
}

// cutShort ends an operation that is not to go on, where nothing runs that may not be cut in two.
func (w *Worker) cutShort(cause error) {
	r := w.journal.Current
	if r.Phase != phaseDue && r.Phase != phaseReboot {
		w.stopped(cause)
		return
	}
	d, err := w.current()
	if err != nil {
		w.failed(v1alpha1.ReasonHostUnavailable, err.Error())
		return
	}
	w.conclude(d, cause, r.counts())
}

// failed ends an operation that could not even look what is missing; the report keeps what the last scan found.
func (w *Worker) failed(reason, message string) {
	r, now := w.journal.Current, time.Now()
	former := w.lastReport()
	report := fail(former, observation{Refresh: r.Refresh, Record: r, AgentVersion: w.Version, Now: now}, finding{Reason: reason, Message: message})
	if err := w.journal.store(reportFile, report); err != nil {
		w.Logger.Error("The report does not say that the scan failed", "error", err)
	} else {
		w.journal.ReportPending = true
	}
	w.append(patchlog.ScanFailed(now, w.run(), w.Node, reason, message))
	w.end(v1alpha1.StepFailed, reason, message, nil)
}

// lastReport is the last report that was made, empty if there was none.
func (w *Worker) lastReport() *v1alpha1.PatchReportStatus {
	report := &v1alpha1.PatchReportStatus{}
	if err := w.journal.load(reportFile, report); err != nil {
		w.Logger.Error("The last report is lost", "error", err)
	}
	return report
}

// conclude ends a download or a deployment: counts are those of the scan that came after it.
func (w *Worker) conclude(d *deployment, cause error, counts *v1alpha1.PatchCounts) {
	r, now := w.journal.Current, time.Now()
	verb, good, reason := "installed", resultInstalled, v1alpha1.ReasonInstalled
	finished := patchlog.DeployFinished
	if !r.installs() {
		verb, good, reason, finished = "downloaded", resultReady, v1alpha1.ReasonDownloaded, patchlog.DownloadFinished
	}
	message := d.done(verb, good) + r.times()
	fail := func(reason, why string) {
		message += ": " + why
		if t := r.Trouble; t != nil && t.Reason != reason {
			message += "; " + t.Message
		}
		w.append(patchlog.DeployFailed(now, w.run(), w.Node, reason, message))
		w.end(v1alpha1.StepFailed, reason, message, counts)
	}
	switch {
	case cause != nil:
		reason = v1alpha1.ReasonStopped
		if errors.Is(cause, errTakenBack) {
			reason = v1alpha1.ReasonAborted
		}
		message = cause.Error() + "; " + message
		w.append(patchlog.DeployStopped(now, w.run(), w.Node, message))
		w.end(v1alpha1.StepStopped, reason, message, counts)
	case len(d.with(resultFailed)) > 0:
		fail(v1alpha1.ReasonPatchesFailed, d.first(resultFailed))
	case d.Obstacle != nil:
		fail(d.Obstacle.Reason, d.Obstacle.Message)
	case r.Trouble != nil:
		fail(r.Trouble.Reason, r.Trouble.Message)
	case len(d.with(resultDeferred)) > 0:
		fail(v1alpha1.ReasonPatchesDeferred, d.first(resultDeferred))
	default:
		if len(d.Patches) == 0 {
			reason = v1alpha1.ReasonNothingToDo
		}
		w.append(finished(now, w.run(), w.Node, message))
		w.end(v1alpha1.StepDone, reason, message, counts)
	}
}
