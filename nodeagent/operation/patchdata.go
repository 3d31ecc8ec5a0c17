package operation

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// errOperationFirst is the cause for which an update of the patch data ends that stands in an operation's way.
var errOperationFirst = errors.New("an operation goes first")

// requests are what the agent has seen of people's wishes for fresh patch data. Worker.mu guards it.
type requests struct {
	number int64
	since  time.Time // when the number was seen first
	// While an update is under way: the operation that the assignment named when it began, and what ends it.
	beside string
	cancel context.CancelCauseFunc
}

// see notes when a number came, and lets an operation that came go first.
func (r *requests) see(a *v1alpha1.PatchAssignment) {
	if a != nil && a.Spec.PatchDataRefreshes != r.number {
		r.number, r.since = a.Spec.PatchDataRefreshes, time.Now()
	}
	if id := operationID(a); r.cancel != nil && id != "" && id != r.beside {
		r.cancel(errOperationFirst)
	}
}

// wantsPatchData says whether people asked for fresh patch data that they do not have yet. An operation that has refreshed
// since they asked will do; one that has not ended goes first.
func (w *Worker) wantsPatchData(a *v1alpha1.PatchAssignment) bool {
	j, asked := w.journal, a.Spec.PatchDataRefreshes
	if asked <= j.Refreshes || j.live() {
		return false
	}
	w.mu.Lock()
	seen := w.requests
	w.mu.Unlock()
	if r := j.Current; r != nil && r.Refresh != nil && r.Refresh.OK && seen.number == asked && r.Refresh.Began.After(seen.since) {
		j.Refreshes = asked
		w.save()
		return false
	}
	return true
}

// updatePatchData refreshes the package metadata and scans, because people asked for it. It goes the way of an operation
// that scans, with a journal of its own, and has no task that waits for an outcome: what came of it stands in the report
// and in the patch log. It returns an error only if the agent itself ends.
func (w *Worker) updatePatchData(parent context.Context, a *v1alpha1.PatchAssignment) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	asked := a.Spec.PatchDataRefreshes
	w.mu.Lock()
	w.requests.beside, w.requests.cancel = operationID(a), cancel
	w.requests.see(w.assignment)
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.requests.beside, w.requests.cancel = "", nil
	}()

	u, err := w.update(a)
	if err != nil {
		w.Logger.Error("Journal of the patch data is lost, what was under way is begun again", "error", err)
	}
	u.walk(parent, ctx)
	switch {
	case !u.journal.live():
	case detached(parent):
		return context.Cause(parent)
	case ctx.Err() != nil:
		u.discard(parent)
		u.journal.Current = nil // to be begun again, if the operation does not refresh
		u.save()
		return nil
	default:
		return fmt.Errorf("the update of the patch data came to a halt in phase %s", u.journal.Current.Phase)
	}
	w.journal.Refreshes = asked
	w.journal.ReportPending = true
	w.save()
	return nil
}

// update is a worker on the update that an assignment asks for, which an earlier agent may have begun, or ended.
func (w *Worker) update(a *v1alpha1.PatchAssignment) (*Worker, error) {
	j, err := openJournal(w.journal.dir, patchDataFile)
	if j == nil {
		j = &journal{dir: w.journal.dir, file: patchDataFile}
	}
	u := &Worker{Options: w.Options, journal: j, retries: w.retries, say: func(string, string) {}, flush: func() {}}
	// Assignments that were made anew count from the beginning.
	prefix := fmt.Sprintf("patch-data-%.8s-%d-", a.UID, a.Spec.PatchDataRefreshes)
	if j.Current != nil && strings.HasPrefix(j.Current.ID, prefix) {
		u.begun = w.updating
	} else {
		now := time.Now()
		id := prefix + strconv.FormatInt(now.UnixNano(), 36)
		j.Current = &record{
			Operation: v1alpha1.Operation{ID: id, Step: v1alpha1.StepScanning},
			Policy:    a.Spec.Policy, Phase: phaseRefresh, BootID: w.boot(), Started: now, Attempts: 1,
		}
		u.begun = id
		if err := w.Host.Prune(id); err != nil {
			w.Logger.Warn("Old output is left on the host", "error", err)
		}
		u.save()
		w.Logger.Info("Update of the patch data begins", "operation", id)
	}
	w.updating = j.Current.ID
	return u, err
}
