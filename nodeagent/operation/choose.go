package operation

import (
	"context"
	"time"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// choose decides which of the missing patches are downloaded and installed, and remembers it: what comes after a restart is
// about the same ones.
func (w *Worker) choose(ctx context.Context, found *packages.Scan) (goOn bool) {
	r := w.journal.Current
	seen := firstSeen{}
	if err := w.journal.load(firstSeenFile, &seen); err != nil {
		w.Logger.Error("Part of the journal is lost", "error", err)
	}
	c := w.criteria(seen, nil)
	if r.Pin != "" && c.Pin == nil {
		w.failed(v1alpha1.ReasonPinUnknown, "What the task has pinned is lost on the node, and nothing else may be installed")
		return false
	}
	d := &deployment{Operation: r.ID}
	for i := range found.Patches {
		p := &found.Patches[i]
		switch state, _ := c.judge(p); {
		case chosen(state):
			d.Patches = append(d.Patches, &item{
				Target: packages.Target{Name: p.Name, Architecture: p.Architecture, Version: c.Pin.version(p)},
				From:   p.InstalledVersion, Classification: v1alpha1.Classification(p.Classification), Beside: c.Pin.beside(p),
			})
		case state == v1alpha1.PatchBlocked:
			d.Blocked++
		}
	}
	if c.Pin != nil {
		d.Patches = append(d.Patches, c.Pin.Unlisted...)
	}
	if err := w.journal.store(deploymentFile, d); err != nil {
		w.failed(v1alpha1.ReasonHostUnavailable, err.Error())
		return false
	}
	w.deployment = d
	next := phaseDownload
	if len(d.Patches) == 0 {
		next = phaseVerify
	}
	w.enter(next)
	// What is missing is of interest now, and a deployment may take long. If it cannot be sent it is sent at the end.
	if err := w.publishReport(ctx); err != nil {
		w.Logger.Warn("The report comes with the operation's end", "error", err)
	}
	return true
}

// current is the deployment of the current operation, read back from the journal if an earlier agent began it.
func (w *Worker) current() (*deployment, error) {
	if w.deployment != nil && w.deployment.Operation == w.journal.Current.ID {
		return w.deployment, nil
	}
	d := &deployment{}
	if err := w.journal.load(deploymentFile, d); err != nil {
		return nil, err
	}
	if d.Operation != w.journal.Current.ID {
		d = &deployment{Operation: w.journal.Current.ID}
	}
	w.deployment = d
	return d, nil
}

// keep writes the deployment down. As with the journal, what was done is worth more than what could not be written.
func (w *Worker) keep() {
	if err := w.journal.store(deploymentFile, w.deployment); err != nil {
		w.Logger.Error("Deployment is not written down, a crash now would be forgotten", "error", err)
	}
}

// awaitRetries reads the counts of failed attempts before anything is tried: which patches are blocked, and which counts
// were cleared, only the API server knows. It returns an error only if ctx ends.
func (w *Worker) awaitRetries(ctx context.Context) error {
	w.retries.Limits = limitsOf(w.journal.Current.RetryLimits)
	backoff := newBackoff()
	for {
		err := w.syncRetries(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		pause := backoff.Step()
		w.Logger.Warn("Counts of failed attempts are not known yet, trying again", "in", pause.Round(time.Millisecond).String(), "error", err)
		w.say(v1alpha1.ReasonAPIUnavailable, "Waiting for the counts of failed attempts: "+err.Error())
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// settleRetries lets counts go of patches that are installed or no longer offered. Without the metadata of every repository
// nobody knows which those are: of a cache that was emptied, the package manager says that nothing is missing.
func (w *Worker) settleRetries(found *packages.Scan) {
	if found.MetadataRefreshed.IsZero() {
		return
	}
	offered := make(map[string]bool, len(found.Patches))
	for i := range found.Patches {
		p := &found.Patches[i]
		offered[attemptKey(name(p.Name, p.Architecture), p.AvailableVersion)] = true
		// What is pinned is tried as long as it is missing, whatever is offered.
		offered[attemptKey(name(p.Name, p.Architecture), w.pinned().version(p))] = true
	}
	w.retries.forget(offered)
	if err := w.saveRetries(); err != nil {
		w.Logger.Error("Counts of failed attempts are not written down", "error", err)
	}
}
