package operation

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// writeTimeout bounds a write, so that an API server that hangs is tried anew.
const writeTimeout = 30 * time.Second

// publish sends what the API server has not acknowledged: the counts of failed attempts and the report first, so that they
// are there when the task counts the node as done.
func (w *Worker) publish(ctx context.Context, a *v1alpha1.PatchAssignment) error {
	j := w.journal
	if err := w.publishRetries(ctx, a); err != nil {
		return err
	}
	// Asked for before the log is read: what is deleted in between makes another report.
	cleared := w.Log.Cleared()
	if cleared != j.LogCleared {
		j.ReportPending = true
	}
	if !j.ReportPending && !j.StatusPending {
		return nil
	}
	if j.ReportPending {
		if err := w.publishReport(ctx); err != nil {
			return err
		}
		j.ReportPending, j.LogCleared = false, cleared
	}
	if j.StatusPending && j.Current != nil {
		err := w.write(ctx, func(ctx context.Context) error { return w.API.ApplyStatus(ctx, j.status(w.Version)) })
		switch {
		case apierrors.IsNotFound(err):
			return fmt.Errorf("the node's PatchAssignment is not there, the manager makes it: %w", err)
		case rejected(err):
			// It would be refused for ever. The manager's timeout ends the operation.
			w.Logger.Error("The API server refuses the outcome of the operation", "operation", j.Current.ID, "error", err)
		case err != nil:
			return err
		}
	}
	j.StatusPending = false
	w.save()
	return nil
}

// publishRetries sends failures that are not counted yet, and learns of counts that were cleared.
func (w *Worker) publishRetries(ctx context.Context, a *v1alpha1.PatchAssignment) error {
	cleared := a.Spec.RetryClears != w.retries.Clears
	if !cleared && !w.retries.unsent() {
		return nil
	}
	err := w.syncRetries(ctx)
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("the node's PatchRetry is not there, the manager makes it: %w", err)
	case rejected(err):
		// The outcome of the operation must not wait for ever. The failures stay in the journal.
		w.Logger.Error("The API server refuses the counts of failed attempts", "error", err)
		return nil
	case err != nil:
		return err
	}
	if !cleared {
		return nil
	}
	w.unblock()
	// Only now, or a request that failed would leave the old counts here for good.
	w.retries.Clears = a.Spec.RetryClears
	return w.saveRetries()
}

func (w *Worker) publishReport(ctx context.Context) error {
	var report v1alpha1.PatchReportStatus
	if err := w.journal.load(reportFile, &report); err != nil {
		w.Logger.Error("The last report is lost, the next scan makes a new one", "error", err)
		return nil
	}
	if report.Summary == "" {
		return nil // there never was one
	}
	var err error
	if report.Log, err = w.Log.Last(v1alpha1.MaxReportedEntries); err != nil {
		w.Logger.Error("The report is sent without the end of the patch log", "error", err)
	}
	err = w.write(ctx, func(ctx context.Context) error { return w.API.ApplyReport(ctx, &report) })
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("the node's PatchReport is not there, the manager makes it: %w", err)
	case rejected(err):
		w.Logger.Error("The API server refuses the report", "error", err)
		if c := w.journal.Current; c != nil && c.Outcome != nil && c.Outcome.Step == v1alpha1.StepDone {
			o := c.Outcome
			o.Step, o.Reason = v1alpha1.StepFailed, v1alpha1.ReasonScanFailed
			o.Message = cut("The API server refuses the report: "+err.Error(), 1024)
			w.journal.StatusPending = true
		}
		return nil
	}
	return err
}

func (w *Worker) write(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, writeTimeout, errors.New("the API server does not answer"))
	defer cancel()
	return f(ctx)
}

// rejected says that the API server will never take what was sent, as when its CRDs are older than the agent. What is
// forbidden may be allowed later.
func rejected(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err)
}
