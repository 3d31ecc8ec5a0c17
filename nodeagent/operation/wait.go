package operation

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// waiting is what an operation waits for that has come to the step up to which it may go. It costs nothing: the agent's watch
// wakes it. Status and reboots say it to the manager.
type waiting struct {
	Since   time.Time             `json:"since"`
	Reason  string                `json:"reason"`
	Message string                `json:"message"`
	Counts  *v1alpha1.PatchCounts `json:"counts,omitempty"`
	// Repair is why the package database is put right first; empty if it is not.
	Repair string `json:"repair,omitempty"`
	// Reboot are the causes of the reboot that it waits for.
	Reboot []string `json:"reboot,omitempty"`
}

// await goes on to a phase that waits, and has it said to the API server until that has heard it.
func (w *Worker) await(next phase, wait *waiting) {
	wait.Since = time.Now().Truncate(time.Second)
	w.journal.Current.Wait = wait
	w.journal.StatusPending = true
	w.enter(next)
}

// rests says whether the current operation waits and nothing has come up.
func (w *Worker) rests() bool {
	r := w.journal.Current
	w.mu.Lock()
	a := w.assignment
	w.mu.Unlock()
	switch {
	case operationID(a) != r.ID || a.Spec.Operation.Stop != "":
		return false
	case r.Phase == phaseReady:
		return !r.allows(v1alpha1.StepInstalling)
	case r.Phase == phaseDue:
		return !r.allows(v1alpha1.StepRebooting) && !w.restarted()
	}
	return false
}

// restarted says whether the host has rebooted since it began to wait for a reboot.
func (w *Worker) restarted() bool {
	now, then := w.boot(), w.journal.Current.BootID
	return now != "" && then != "" && now != then
}

// late is why an operation does not go on that was let on, but whose deadline had passed when the agent saw that; nil if it has not.
func (r *record) late() *finding {
	now := time.Now()
	if r.Deadline.IsZero() || !now.After(r.Deadline.Time) {
		return nil
	}
	return &finding{Reason: v1alpha1.ReasonTimeout, Time: now, Message: fmt.Sprintf(
		"The deadline %s had passed when the agent saw that it may go on to %s at %s by the node's clock",
		r.Deadline.UTC().Format(time.RFC3339), r.Step, now.UTC().Format(time.RFC3339))}
}

// prepared looks once more at what is missing, so that the report says what lies ready, and goes on to wait. A scan that fails
// does not matter to what lies ready.
func (w *Worker) prepared(ctx context.Context) (goOn bool) {
	d, err := w.current()
	if err != nil {
		w.failed(v1alpha1.ReasonHostUnavailable, err.Error())
		return false
	}
	w.say("", "Looking what lies ready")
	began := time.Now()
	found, manager, err := w.look(ctx, stepPrepared)
	if ctx.Err() != nil {
		return false
	}
	report := w.lastReport()
	if err == nil {
		report, err = w.report(&found, manager.Name(), time.Since(began), d)
	}
	if err != nil {
		w.Logger.Warn("The report does not say what lies ready", "error", err)
	}
	counts := &v1alpha1.PatchCounts{}
	if report.Counts != nil {
		*counts = report.Counts.PatchCounts
	}
	counts.Downloaded = int32(len(d.with(resultReady)))
	w.await(phaseReady, &waiting{
		Reason: v1alpha1.ReasonReadyToInstall, Counts: counts,
		Message: d.done("downloaded", resultReady) + ", waiting to install",
	})
	return true
}

// awaitRepair waits to put right the package database, which may run scripts of packages. Until then it is not known which
// patches would be installed, and after a scan that failed for it, not even which are missing.
func (w *Worker) awaitRepair(why string, found *packages.Scan, manager packages.Manager, began time.Time, err error) {
	wait := &waiting{
		Reason: v1alpha1.ReasonReadyToInstall, Repair: why,
		Message: "Waiting to put the package database right and then to install: " + why,
	}
	if err == nil {
		if report, err := w.report(found, manager.Name(), time.Since(began), nil); err != nil {
			w.Logger.Warn("The report does not say what is missing", "error", err)
		} else {
			wait.Counts = &report.Counts.PatchCounts
		}
	}
	w.await(phaseReady, wait)
}

// ready goes on to install what lies ready, once it may.
func (w *Worker) ready() (goOn bool) {
	r := w.journal.Current
	d, err := w.current()
	switch {
	case !r.allows(v1alpha1.StepInstalling):
		return false
	case err != nil:
		w.failed(v1alpha1.ReasonHostUnavailable, err.Error())
		return false
	}
	if late := r.late(); late != nil {
		d.Obstacle = late
		d.deferRest(late.Message)
		w.conclude(d, nil, r.counts())
		return false
	}
	if why := r.repair(); why != "" {
		r.Wait = nil
		r.Repairs++
		r.Repairing = why
		w.enter(phaseScan)
		return true
	}
	d.Queue = [][]int{d.positions(resultReady)}
	w.keep()
	r.Wait = nil
	w.enter(phaseInstall)
	return true
}

// awaitReboot waits to reboot the host.
func (w *Worker) awaitReboot(d *deployment, why []string, counts *v1alpha1.PatchCounts) {
	r := w.journal.Current
	r.BootID = w.boot()
	causes := strings.Join(why, "; ")
	w.append(patchlog.RebootRequired(time.Now(), w.run(), w.Node, rebootPart(len(r.Reboots)+1), causes))
	w.await(phaseDue, &waiting{
		Reason: v1alpha1.ReasonRebootRequired, Counts: counts, Reboot: why,
		Message: d.done("installed", resultInstalled) + r.times() + ", waiting to reboot: " + causes,
	})
}

// due goes on to reboot, once it may. A host that has rebooted by itself in the meantime is looked at again.
func (w *Worker) due() (goOn bool) {
	r := w.journal.Current
	if w.restarted() {
		r.Wait = nil
		w.enter(phaseVerify)
		return true
	}
	if !r.allows(v1alpha1.StepRebooting) {
		return false
	}
	if r.Trouble = r.late(); r.Trouble != nil {
		w.giveUpReboot()
		return false
	}
	w.enter(phaseReboot)
	return true
}

// counts are those with which the operation waits, or waited until it was let on.
func (r *record) counts() *v1alpha1.PatchCounts {
	if r.Wait == nil {
		return nil
	}
	return r.Wait.Counts
}

func (r *record) repair() string {
	if r.Wait == nil {
		return ""
	}
	return r.Wait.Repair
}
