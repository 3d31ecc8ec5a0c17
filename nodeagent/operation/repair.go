package operation

import (
	"context"
	"errors"
	"time"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// toRepair says why the package database has to be put right before anything is installed; empty if it has not. A package
// that a counted failure has left half installed is not a reason: each attempt at it is one of ours.
func (w *Worker) toRepair(found *packages.Scan, err error) string {
	var (
		interrupted *packages.InterruptedDatabaseError
		unmet       *packages.UnmetDependenciesError
	)
	switch {
	case errors.As(err, &interrupted), errors.As(err, &unmet):
		return err.Error()
	case err != nil:
		return ""
	}
	attempts := w.retries.attempts()
	for _, p := range found.Problems {
		if p.Kind == packages.InterruptedTransaction || attempts[attemptKey(name(p.Name, p.Architecture), p.Version)] == nil {
			return p.Message
		}
	}
	return ""
}

// arrival is the part of an operation in which it repairs what others left behind.
const arrival = "arrival"

// repairStep is the step in which a part of an operation repairs.
func repairStep(part string) string { return stepRepair + "-" + part }

// repairOnArrival does what a scan found to be needed.
func (w *Worker) repairOnArrival(life context.Context) (goOn bool) {
	r := w.journal.Current
	if err := w.repair(life, arrival, r.Repairing); err != nil && detached(life) {
		return false
	}
	r.Repairing = ""
	w.save()
	return true
}

// repair puts the package database right and logs what came of it; part tells the repairs of an operation apart. It is
// harmless to repeat.
func (w *Worker) repair(life context.Context, part, why string) error {
	part = repairStep(part)
	w.say("", "Putting the package database right: "+why)
	_, manager, err := w.afresh(life, part)
	if err != nil {
		return err
	}
	done, err := again(life, manager.Repair)
	if detached(life) {
		return context.Cause(life)
	}
	now := time.Now()
	if err != nil {
		w.append(patchlog.RepairFailed(now, w.run(), w.Node, part, err.Error()))
		return err
	}
	if len(done.Packages) > 0 || len(done.Remaining) == 0 {
		w.appendAll(patchlog.PackagesRepaired(now, w.run(), w.Node, part, why, done.Packages))
	}
	if len(done.Remaining) > 0 {
		_, message := problems(done.Remaining)
		w.append(patchlog.RepairFailed(now, w.run(), w.Node, part, message))
	}
	return nil
}
