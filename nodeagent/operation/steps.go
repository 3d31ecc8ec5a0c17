package operation

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/host"
)

// maxAttempts is how often a phase is taken up again by an agent that died of it.
const maxAttempts = 5

// maxInstallAttempts is more: who gives up a transaction does not learn what it has installed, and who gives up a reboot not
// how the host comes back.
const maxInstallAttempts = 20

// errTakenBack is the cause for which an operation ends that the manager no longer asks for.
var errTakenBack = errors.New("the manager took the operation back before it had ended")

// stopError is the cause for which an operation ends that the manager asks to stop.
type stopError struct{ why string }

func (e *stopError) Error() string { return e.why }

// detached says that the agent itself ends.
func detached(ctx context.Context) bool {
	return ctx.Err() != nil && errors.Is(context.Cause(ctx), host.ErrDetach)
}

// walk goes through the phases of the current operation from the one that the journal says, until it has ended or the agent
// ends. Life is the agent's own context and ends with it alone: what may not be cut in two runs under it. Under ctx, which
// also ends with the operation, runs what may be ended at once.
func (w *Worker) walk(life, ctx context.Context) {
	if !w.takeUp() {
		return
	}
	j := w.journal
	for j.live() && !detached(life) {
		goOn := false
		switch phase := j.Current.Phase; {
		case phase == phaseInstall:
			goOn = w.install(life, ctx)
		case phase == phaseVerify:
			goOn = w.verify(life, ctx)
		case j.Current.Repairing != "" && (ctx.Err() == nil || w.resumes(repairStep(arrival))):
			goOn = w.repairOnArrival(life)
		case phase == phaseReboot:
			goOn = w.reboot(life, ctx)
		case ctx.Err() != nil:
			return
		case phase == phaseRefresh:
			goOn = w.refresh(ctx)
		case phase == phaseScan:
			goOn = w.scan(ctx)
		case phase == phaseDownload:
			goOn = w.download(ctx)
		case phase == phasePrepared:
			goOn = w.prepared(ctx)
		case phase == phaseReady:
			goOn = w.ready()
		case phase == phaseDue:
			goOn = w.due()
		}
		if !goOn {
			return
		}
	}
}

// takeUp notes that this process works on the operation, and gives one up that kills every agent.
func (w *Worker) takeUp() bool {
	r := w.journal.Current
	if w.begun == r.ID {
		return true
	}
	w.begun = r.ID
	most := maxAttempts
	if r.Phase == phaseInstall || r.Phase == phaseReboot {
		most = maxInstallAttempts
	}
	if r.Attempts++; r.Attempts > most {
		w.failed(v1alpha1.ReasonInterrupted, fmt.Sprintf("The agent ended %d times in this operation; its pod's log says why", most))
		return false
	}
	w.Logger.Info("Operation goes on where an earlier agent left it", "operation", r.ID, "phase", r.Phase, "attempt", r.Attempts)
	w.save()
	return true
}

// enter goes on to the next phase.
func (w *Worker) enter(next phase) {
	w.journal.Current.Phase, w.journal.Current.Attempts = next, 1
	w.save()
	w.Logger.Info("Operation goes on", "operation", w.journal.Current.ID, "phase", next)
}

// resumes says whether an earlier agent began a step of the operation that this one has not taken up. Of transactions, that
// is what may still run on the host.
func (w *Worker) resumes(step string) bool {
	session, err := w.Host.Session(w.journal.Current.ID, step)
	return err == nil && session.Resumes()
}

// scansOnly says whether the operation may go no further than a scan.
func (r *record) scansOnly() bool { return r.Step == v1alpha1.StepScanning }

// installs says whether the operation is to install what it chooses, as soon as it may. The steps of one without an action
// say what it is.
func (r *record) installs() bool {
	if r.Action != "" {
		return r.Action == v1alpha1.ActionDeploy
	}
	return r.allows(v1alpha1.StepInstalling)
}

// allows says whether the operation may go up to a step by now.
func (r *record) allows(step v1alpha1.Step) bool { return level(r.Step) >= level(step) }

// level puts the steps that an operation may go up to in their order.
func level(step v1alpha1.Step) int {
	return slices.Index([]v1alpha1.Step{
		v1alpha1.StepScanning, v1alpha1.StepDownloading, v1alpha1.StepInstalling, v1alpha1.StepRebooting,
	}, step)
}

// supported says whether this agent knows a step that the manager asks for.
func supported(step v1alpha1.Step) bool {
	switch step {
	case v1alpha1.StepScanning, v1alpha1.StepDownloading, v1alpha1.StepInstalling, v1alpha1.StepRebooting:
		return true
	default:
		return false
	}
}
