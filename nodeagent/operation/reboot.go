package operation

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// rebootOrder is one reboot that the host is asked for.
type rebootOrder struct {
	// BootID is that of the boot in which it was asked for. Another one says that the host is back.
	BootID  string    `json:"bootID"`
	Reasons []string  `json:"reasons"`
	Time    time.Time `json:"time"`
	// Taken is true once the host has said that it reboots.
	Taken bool `json:"taken,omitempty"`
	// Back is when the agent saw that the host was back.
	Back time.Time `json:"back,omitzero"`
}

// rebootPart tells the reboots of an operation apart in the patch log.
func rebootPart(number int) string { return fmt.Sprintf("reboot-%d", number) }

// rebooted is how often the host came back from a reboot of the operation.
func (r *record) rebooted() (n int32) {
	for _, o := range r.Reboots {
		if !o.Back.IsZero() {
			n++
		}
	}
	return n
}

// times says how often the host was rebooted, as the end of a sentence.
func (r *record) times() string {
	switch r.rebooted() {
	case 0:
		return ""
	case 1:
		return ", rebooted"
	default:
		return ", rebooted twice"
	}
}

// order is the reboot that the host is asked for, or may have been, and that it is not back from; nil if there is none.
func (r *record) order() *rebootOrder {
	if n := len(r.Reboots); n > 0 && r.Reboots[n-1].Back.IsZero() {
		return &r.Reboots[n-1]
	}
	return nil
}

// reboot has the host reboot, once: the order is in the journal before the host hears of it. It is repeated only by an agent
// that finds the host in the same boot, where it may not have been given and else changes nothing. No package transaction runs
// meanwhile, neither ours nor another's: the agent has the package manager's locks until it goes down with the host.
func (w *Worker) reboot(life, ctx context.Context) (goOn bool) {
	if w.isBack() {
		return true
	}
	r := w.journal.Current
	// What was begun is not stopped.
	begun := r.order() != nil && r.order().Taken
	if ctx.Err() != nil && !begun {
		return false
	}
	if ctx.Err() == nil {
		w.say("", "Rebooting: "+strings.Join(r.reasons(), "; "))
		release, err := w.hold(ctx)
		switch {
		case detached(life), err != nil && ctx.Err() != nil && !begun:
			return false
		case err != nil && !begun:
			w.noReboot(reason(err, v1alpha1.ReasonRebootFailed), err)
			return false
		case err != nil:
			w.Logger.Warn("The host is not asked to reboot again", "error", err)
		default:
			defer release()
			if ctx.Err() != nil && !begun {
				return false
			}
			if !w.giveOrder(life) {
				return false
			}
		}
	}
	return w.goDown(life)
}

// reasons are those of the reboot that is carried out.
func (r *record) reasons() []string {
	if o := r.order(); o != nil {
		return o.Reasons
	}
	if r.Wait == nil {
		return nil
	}
	return r.Wait.Reboot
}

// hold keeps package transactions from running, and waits for one that runs.
func (w *Worker) hold(ctx context.Context) (release func(), err error) {
	manager, err := w.manager(ctx, stepReboot)
	if err != nil {
		return nil, err
	}
	return manager.Hold(ctx)
}

// giveOrder writes the order down, says it, and gives it.
func (w *Worker) giveOrder(life context.Context) (taken bool) {
	r := w.journal.Current
	if r.order() == nil {
		boot, err := w.Host.BootID()
		if err == nil {
			r.Reboots = append(r.Reboots, rebootOrder{BootID: boot, Reasons: r.reasons(), Time: time.Now()})
			if err = w.journal.save(); err != nil {
				r.Reboots = r.Reboots[:len(r.Reboots)-1]
			}
		}
		if err != nil {
			// Without it the next agent would not know that the host was rebooted, and why.
			w.noReboot(v1alpha1.ReasonHostUnavailable, err)
			return false
		}
	}
	order, why := r.order(), strings.Join(r.reasons(), "; ")
	w.append(patchlog.NodeRebooting(order.Time, w.run(), w.Node, rebootPart(len(r.Reboots)), why))
	w.flush() // the manager hears of it before the node is gone, if it can
	w.Logger.Info("Host is asked to reboot", "operation", r.ID, "reasons", why)
	if err := w.Reboot(life); err != nil {
		if !detached(life) {
			w.noReboot(v1alpha1.ReasonRebootFailed, err)
		}
		return false
	}
	order.Taken = true
	w.save()
	return true
}

// goDown waits until the agent goes down with the host. If the manager takes the operation back before, the host does not go
// down as it should.
func (w *Worker) goDown(life context.Context) (goOn bool) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		w.mu.Lock()
		gone := operationID(w.assignment) != w.journal.Current.ID
		w.mu.Unlock()
		if gone {
			return false
		}
		select {
		case <-life.Done():
			return false
		case <-ticker.C:
		}
	}
}

// isBack notes that the host has rebooted, by the agent's order or by itself, and has it looked at again.
func (w *Worker) isBack() bool {
	r := w.journal.Current
	order := r.order()
	if order == nil {
		if !w.restarted() {
			return false
		}
	} else {
		boot := w.boot()
		if boot == "" || boot == order.BootID {
			return false
		}
		now := time.Now()
		w.append(patchlog.NodeRebooted(now, w.run(), w.Node, rebootPart(len(r.Reboots)), now.Sub(order.Time)))
		order.Back = now
	}
	r.Wait = nil
	w.enter(phaseVerify)
	return true
}

// noReboot ends an operation whose reboot could not be ordered.
func (w *Worker) noReboot(reason string, err error) {
	w.journal.Current.Trouble = &finding{Reason: reason, Message: "The node was not rebooted: " + err.Error(), Time: time.Now()}
	w.giveUpReboot()
}

// giveUpReboot ends an operation that waited to reboot, for what is the trouble with that.
func (w *Worker) giveUpReboot() {
	d, err := w.current()
	if err != nil {
		w.failed(v1alpha1.ReasonHostUnavailable, err.Error())
		return
	}
	w.conclude(d, nil, w.journal.Current.counts())
}
