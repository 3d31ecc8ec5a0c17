package operation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/host"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// maxCuts is how often the transactions of one operation may be cut off before it is given up.
const maxCuts = 3

// install installs what is ready, in one transaction if all goes well. If not, the culprits are taken out, the package
// database is put right and the rest goes on; where nobody says who the culprit is, the batch is halved. It stops between
// two transactions and never within one.
func (w *Worker) install(life, ctx context.Context) (goOn bool) {
	d, err := w.current()
	if err != nil {
		w.failed(v1alpha1.ReasonHostUnavailable, err.Error())
		return false
	}
	for len(d.Queue) > 0 && d.Obstacle == nil {
		mending := !d.UnderWay && d.Mending != ""
		if ctx.Err() != nil && !d.UnderWay && (!mending || !w.resumes(repairStep(fmt.Sprint(d.Round)))) {
			break
		}
		if mending {
			why := d.Mending
			if err := w.repair(life, fmt.Sprint(d.Round), why); detached(life) {
				return false
			} else if err != nil {
				d.Obstacle = &finding{Reason: v1alpha1.ReasonRepairFailed, Message: err.Error(), Time: time.Now()}
			}
			d.Mending = ""
			w.keep()
			continue
		}
		if !w.transact(life, ctx, d) {
			return false
		}
	}
	if d.Obstacle != nil {
		d.deferRest(d.Obstacle.Message)
	} else if ctx.Err() != nil {
		d.deferRest(context.Cause(ctx).Error())
	}
	w.keep()
	w.enter(phaseVerify)
	return true
}

// transact runs the first batch of the queue as one transaction, or waits for it if an earlier agent had started it, and
// notes what came of it.
func (w *Worker) transact(life, ctx context.Context, d *deployment) (goOn bool) {
	batch, positions := d.batch(), d.Queue[0]
	begun := d.UnderWay
	if !begun {
		d.Round++
		d.UnderWay = true
		d.Began = w.boot()
		w.keep()
	}
	part := fmt.Sprintf("%s-%d", stepInstall, d.Round)
	w.say("", fmt.Sprintf("Installing %s", plural(len(batch), "patch", "patches")))
	manager, stage, resumes, err := w.stage(ctx, part)
	if err != nil {
		d.Obstacle = &finding{Reason: v1alpha1.ReasonHostUnavailable, Message: err.Error(), Time: time.Now()}
		return true
	}
	boot := w.boot()
	// The transaction may have run when the node went down, and all that was written of it be lost. If it had not begun, the
	// repair finds nothing to do.
	lost := begun && !resumes && boot != "" && d.Began != "" && boot != d.Began
	if ctx.Err() != nil && !resumes && !lost {
		d.UnderWay = false // it waited for a lock, and nothing was begun
		return true
	}
	if !resumes && !lost && boot != d.Began {
		d.Began = boot
		w.keep()
	}
	var got packages.Install
	if lost {
		err = &host.InterruptedError{Command: part, Reason: "the node went down, and how far it had come is not known", Transaction: true}
	} else {
		got, err = manager.Install(life, targets(batch))
	}
	if detached(life) {
		return false
	}
	present, inspectErr := manager.Inspect(life, targets(batch))
	if detached(life) {
		return false
	}
	// An earlier agent may have tried in another boot, and not got further than a lock.
	if began := stage.transaction.Began(); began != "" {
		d.Began = began
	}
	now := time.Now()
	if inspectErr != nil || len(present) != len(batch) {
		// Without the database's word nothing is known, and nothing is counted.
		d.Obstacle = &finding{Reason: reason(inspectErr, v1alpha1.ReasonInstallFailed), Message: fmt.Sprintf("After the transaction: %v", inspectErr), Time: now}
		d.UnderWay = false
		w.keep()
		return true
	}
	w.noteInstall(d, part, batch, present, &got, now)
	d.Queue = d.Queue[1:]
	w.react(d, part, positions, batch, present, err, now)
	d.UnderWay = false
	w.keep()
	return true
}

// noteInstall writes down and logs what the package database has of each patch of a batch, and which were culprits.
func (w *Worker) noteInstall(d *deployment, part string, batch []*item, present []packages.Presence, got *packages.Install, now time.Time) {
	var installed []*item
	for n, i := range batch {
		if present[n].Installed {
			i.settle(resultInstalled, "")
			installed = append(installed, i)
		}
	}
	if len(installed) > 0 {
		d.BootID = d.Began
		w.appendAll(patchlog.PatchesInstalled(now, w.run(), w.Node, part, changes(installed)))
	}
	var warned []string
	for _, f := range got.Warned {
		if i := d.find(f.Target); i != nil && i.Result == resultInstalled {
			warned = append(warned, i.change()+": "+f.Message)
		}
	}
	if len(warned) > 0 {
		w.appendAll(patchlog.PatchesWarned(now, w.run(), w.Node, part, warned))
	}
	var failed []*item
	for _, f := range got.Failed {
		if i := d.find(f.Target); i != nil && i.Result == resultReady {
			i.settle(resultFailed, f.Message)
			failed = append(failed, i)
		}
	}
	w.count(v1alpha1.BlockedAtInstall, part, failed, now)
}

// react decides how to go on with the patches of a batch that were neither installed nor culprits.
func (w *Worker) react(d *deployment, part string, positions []int, batch []*item, present []packages.Presence, err error, now time.Time) {
	var left []*item
	for _, i := range batch {
		if i.Result == resultReady {
			left = append(left, i)
		}
	}
	if len(left) == 0 && interruption(err) == nil {
		return
	}
	progress := len(left) < len(batch)
	var (
		refused     *packages.RefusedError
		interrupted *packages.InterruptedDatabaseError
	)
	switch cut := interruption(err); {
	case errors.Is(err, errTakenBack), errors.As(err, new(*stopError)):
		d.enqueue(positions, false) // it ended while it waited for a lock
	case cut != nil:
		// An agent that died between two lines of its own leaves a command that was never run.
		if cut.Transaction && !cut.NotStarted {
			w.append(patchlog.TransactionInterrupted(now, w.run(), w.Node, part, cut.Reason))
			d.Mending = "a transaction was cut off"
		}
		if d.Cuts++; d.Cuts >= maxCuts {
			d.Obstacle = &finding{Reason: v1alpha1.ReasonInterrupted, Message: fmt.Sprintf("%d transactions were cut off: %s", d.Cuts, cut.Reason), Time: now}
		}
		d.enqueue(positions, false)
	case errors.As(err, &interrupted) && d.Cuts < maxCuts:
		// Dpkg was killed under apt, or another program's dpkg was.
		w.append(patchlog.TransactionInterrupted(now, w.run(), w.Node, part, interrupted.Detail))
		d.Cuts++
		d.Mending = interrupted.Error()
		d.enqueue(positions, false)
	case errors.As(err, &refused):
		for _, f := range refused.Targets {
			if i := d.find(f.Target); i != nil {
				w.leave(part, []*item{i}, f.Message, now)
				progress = true
			}
		}
		w.goOn(d, part, positions, left, refused.Detail, progress, now)
	case err != nil && obstacle(err):
		d.Obstacle = &finding{Reason: reason(err, v1alpha1.ReasonInstallFailed), Message: err.Error(), Time: now}
		w.appendAll(patchlog.PatchesNotTried(now, w.run(), w.Node, part, []string{d.Obstacle.Reason + ": " + err.Error()}))
		d.enqueue(positions, false)
	case err != nil && len(left) == 1 && len(batch) == 1:
		// The tool failed with this patch alone, whatever it says.
		left[0].settle(resultFailed, err.Error())
		w.count(v1alpha1.BlockedAtInstall, part, left, now)
	default:
		d.Mending = "patches failed"
		w.goOn(d, part, positions, left, remains(batch, present), progress, now)
	}
}

// goOn tries what is left of a batch again, in halves if the batch as a whole led nowhere; a patch that is alone then is
// left undone for the given cause.
func (w *Worker) goOn(d *deployment, part string, positions []int, left []*item, cause string, progress bool, now time.Time) {
	if !progress && len(left) == 1 {
		w.leave(part, left, cause, now)
		return
	}
	d.enqueue(positions, !progress)
}

// leave leaves patches undone.
func (w *Worker) leave(part string, items []*item, cause string, now time.Time) {
	for _, i := range items {
		i.settle(resultDeferred, cause)
	}
	w.appendAll(patchlog.PatchesNotTried(now, w.run(), w.Node, part+"-"+items[0].name(), messages(items)))
}

// obstacle says that no transaction at all is possible now.
func obstacle(err error) bool {
	var parse *packages.ParseError
	return reason(err, "") != "" && !errors.As(err, &parse)
}

// remains says what the package database has of the patches that are not installed.
func remains(batch []*item, present []packages.Presence) string {
	var words []string
	for n, i := range batch {
		if p := present[n]; !p.Installed && p.Problem != "" {
			words = append(words, i.name()+" is "+p.Problem)
		}
	}
	if len(words) == 0 {
		return "the package manager left it as it was and did not say why"
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}
