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

// download fetches the chosen patches. It may be ended at any time, and one that an earlier agent began is begun again: the
// package manager keeps what it has.
func (w *Worker) download(ctx context.Context) (goOn bool) {
	d, err := w.current()
	if err != nil {
		w.failed(v1alpha1.ReasonHostUnavailable, err.Error())
		return false
	}
	wanted := d.with(resultOpen)
	w.say("", fmt.Sprintf("Downloading %s", plural(len(wanted), "patch", "patches")))
	_, manager, err := w.afresh(ctx, stepDownload)
	if err != nil {
		w.cannotBegin(err)
		return false
	}
	began := time.Now()
	limit := w.refreshTime()
	bounded, cancel := context.WithTimeoutCause(ctx, limit,
		fmt.Errorf("the downloads took longer than %s, half of the time that is left to the operation", limit.Round(time.Second)))
	defer cancel()
	got, err := again(bounded, func(ctx context.Context) (packages.Download, error) { return manager.Download(ctx, targets(wanted)) })
	if ctx.Err() != nil {
		return false
	}
	now := time.Now()
	switch {
	case err != nil:
		reason := downloadReason(err)
		d.Obstacle = &finding{Reason: reason, Message: err.Error(), Time: now}
		d.deferRest(err.Error())
		w.appendAll(patchlog.PatchesNotTried(now, w.run(), w.Node, stepDownload, []string{reason + ": " + err.Error()}))
	default:
		w.noteDownload(d, &got, now, now.Sub(began))
	}
	ready := d.with(resultReady)
	next := phaseVerify
	switch r := w.journal.Current; {
	case len(ready) == 0 || !r.installs():
	case r.allows(v1alpha1.StepInstalling):
		next = phaseInstall
		d.Queue = [][]int{d.positions(resultReady)}
	default:
		next = phasePrepared
	}
	w.keep()
	w.enter(next)
	return true
}

// noteDownload writes down and logs what became of each patch.
func (w *Worker) noteDownload(d *deployment, got *packages.Download, now time.Time, took time.Duration) {
	for _, t := range got.Ready {
		if i := d.find(t); i != nil {
			i.settle(resultReady, "")
		}
	}
	for _, f := range got.Deferred {
		if i := d.find(f.Target); i != nil {
			i.settle(resultDeferred, i.why(f.Message))
		}
	}
	var failed []*item
	for _, f := range got.Failed {
		if i := d.find(f.Target); i != nil {
			i.settle(resultFailed, i.why(f.Message))
			failed = append(failed, i)
		}
	}
	for _, i := range d.with(resultOpen) {
		i.settle(resultDeferred, "the package manager says nothing about it")
	}
	if n := len(d.with(resultReady)); n > 0 {
		w.append(patchlog.PatchesDownloaded(now, w.run(), w.Node, n, got.Bytes, took))
	}
	w.count(v1alpha1.BlockedAtDownload, stepDownload, failed, now)
	if left := d.with(resultDeferred); len(left) > 0 {
		w.appendAll(patchlog.PatchesNotTried(now, w.run(), w.Node, stepDownload, messages(left)))
	}
}

// count counts failures of patches, each once, and logs them with their counts.
func (w *Worker) count(at v1alpha1.BlockedAt, part string, failed []*item, now time.Time) {
	if len(failed) == 0 {
		return
	}
	r := w.journal.Current
	for _, i := range failed {
		w.retries.record(r.ID, failure{Name: i.name(), Version: i.Version, At: at, Message: i.Message, Task: r.Task, Time: now})
	}
	if err := w.saveRetries(); err != nil {
		w.Logger.Error("Failures are not written down, a crash now would forget them", "error", err)
	}
	attempts, limits := w.retries.attempts(), w.retries.Limits
	var words, blocked []string
	for _, i := range failed {
		a := attempts[i.key()]
		if a == nil {
			continue
		}
		n, limit := a.DownloadFailures, limits.Download
		if at == v1alpha1.BlockedAtInstall {
			n, limit = a.InstallFailures, limits.Install
		}
		words = append(words, patchlog.Attempt(i.change(), n, limit, i.Message))
		i.Message = fmt.Sprintf("%s failed (%d of %d): %s", attempt(at), n, limit, i.Message)
		if a.Blocked != "" {
			blocked = append(blocked, i.name()+" "+i.Version+" after "+tally(a))
		}
	}
	entries := patchlog.InstallFailed
	if at == v1alpha1.BlockedAtDownload {
		entries = patchlog.DownloadFailed
	}
	w.appendAll(entries(now, w.run(), w.Node, part, words))
	if len(blocked) > 0 {
		w.appendAll(patchlog.PatchesBlocked(now, w.run(), w.Node, part, blocked))
	}
}

func attempt(at v1alpha1.BlockedAt) string {
	if at == v1alpha1.BlockedAtDownload {
		return "download"
	}
	return "installation"
}

// appendAll appends the entries that one thing to say needs.
func (w *Worker) appendAll(entries []patchlog.Entry) {
	for _, e := range entries {
		w.append(e)
	}
}

func downloadReason(err error) string {
	var repository *packages.RepositoryError
	if errors.As(err, &repository) || errors.Is(err, context.DeadlineExceeded) {
		return v1alpha1.ReasonRepositoryUnreachable
	}
	return reason(err, v1alpha1.ReasonDownloadFailed)
}

// interruption is the error of a command that was cut off, nil if err is something else.
func interruption(err error) *host.InterruptedError {
	var cut *host.InterruptedError
	if errors.As(err, &cut) {
		return cut
	}
	return nil
}
