package operation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/host"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// rebootModel is what the model of a host knows of its boots.
type rebootModel struct {
	boot     int
	reasons  []string // for which it needs a reboot
	stubborn bool     // the reasons outlive a reboot
	unknown  bool     // nobody can say whether it needs one
	held     int      // of how many callers the package manager's locks are
	scanned  int      // the boot of the last scan
	goesDown bool     // it has taken an order to reboot
	refused  int

	orders      map[string][]order // by operation, one for each boot in which orders were given
	installedIn map[string]int     // the boot in which an operation installed last
}

// order is what the host needed a reboot for when it was asked.
type order struct {
	boot    int
	reasons []string
}

// start boots the host.
func (m *hostModel) start() {
	m.boot++
	m.goesDown = false
	if !m.stubborn {
		m.reasons = nil
	}
	if len(m.reasons) == 0 && m.s.maybe(12) {
		m.reasons = []string{fmt.Sprint("firmware of boot ", m.boot)}
	}
	m.unknown = m.s.maybe(10)
	path := m.host.Root() + "/proc/sys/kernel/random/boot_id"
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, fmt.Append(nil, "boot-", m.boot), 0o600)); err != nil {
		m.s.t.Fatal(err)
	}
}

// changed notes that a patch was installed, for which the host may need a reboot.
func (m *hostModel) changed(name, version string) {
	m.installedIn[m.id()] = m.boot
	if m.s.maybe(3) {
		m.reasons = append(m.reasons, name+" "+version)
		m.stubborn = m.s.maybe(6)
	}
}

func (m *hostModel) need() packages.Reboot {
	m.scanned = m.boot
	return packages.Reboot{Required: len(m.reasons) > 0, Unknown: m.unknown && len(m.reasons) == 0, Reasons: slices.Clone(m.reasons)}
}

// Hold waits now and then.
func (m *hostModel) Hold(ctx context.Context) (func(), error) {
	m.s.point()
	if m.s.maybe(10) {
		held := &packages.LockHeldError{Path: "/lock", PID: 7}
		m.s.interfere()
		if err := m.locks.Waiting(held); err != nil {
			return nil, fmt.Errorf("hold: %w", err)
		}
		if m.s.maybe(3) {
			return nil, held
		}
	}
	m.s.point()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	m.held++
	m.s.interfere()
	return func() { m.held-- }, nil
}

// reboot takes an order, refuses it, or goes down before it has answered.
func (m *hostModel) reboot(ctx context.Context) error {
	m.s.point()
	m.ordered(ctx)
	switch {
	case m.s.maybe(15):
		m.refused++
		return errors.New("reboot.target is masked")
	case m.s.maybe(3):
		m.start()
		m.s.kills++
		panic(killed{})
	}
	m.goesDown = true
	m.s.point()
	if m.s.maybe(8) {
		time.AfterFunc(10*time.Second, func() { // the manager has waited for long enough
			next := m.s.assignment.DeepCopy()
			m.s.stopped[next.Spec.Operation.ID] = true
			next.Spec.Operation = nil
			m.s.assign(next)
		})
		return nil
	}
	time.AfterFunc(5*time.Second, func() { m.s.life(host.ErrDetach) })
	return nil
}

// ordered wants an order to be one that may be given: let on, under the package manager's locks, in the journal, and the first
// of its operation for its reasons, unless the host is in the same boot still.
func (m *hostModel) ordered(ctx context.Context) {
	id := m.id()
	m.s.begun(ctx, id, "A reboot", v1alpha1.StepRebooting)
	if m.held != 1 {
		m.s.t.Errorf("The host was asked to reboot while %d have the locks", m.held)
	}
	stored := &journal{dir: m.s.worker.journal.dir}
	if err := stored.load(journalFile, stored); err != nil {
		m.s.t.Fatal(err)
	}
	if o := stored.Current.order(); o == nil || o.BootID != fmt.Sprint("boot-", m.boot) {
		m.s.t.Errorf("The host was asked to reboot in boot %d, and the journal has %+v", m.boot, stored.Current.Reboots)
	}
	for _, former := range m.orders[id] {
		if former.boot == m.boot {
			return
		}
		if len(m.reasons) == 0 || slices.ContainsFunc(m.reasons, func(r string) bool { return slices.Contains(former.reasons, r) }) {
			m.s.t.Errorf("%s has the host reboot for %q, after it did for %q", id, m.reasons, former.reasons)
		}
	}
	m.orders[id] = append(m.orders[id], order{m.boot, slices.Clone(m.reasons)})
	if len(m.orders[id]) > 2 {
		m.s.t.Errorf("%s has the host reboot for the third time: %+v", id, m.orders[id])
	}
}

// waits wants an operation that waits for a reboot to have a cause for it.
func (m *hostModel) waits(id, why string) {
	boot, installed := m.installedIn[id]
	always := m.s.worker.journal.Current.Operation.Reboot == v1alpha1.RebootAlways && installed && boot == m.boot
	if why == v1alpha1.ReasonRebootRequired && len(m.reasons) == 0 && !always {
		m.s.t.Errorf("%s waits for a reboot, and the host needs none: %+v", id, m.s.worker.journal.Current.Wait)
	}
}

// check compares the outcome of an operation with what it has left.
func (m *hostModel) check(id string, o *v1alpha1.Operation) {
	status := m.s.api.status[id]
	if _, installed := m.installedIn[id]; installed && strings.Contains(status.Message, "nothing was installed") {
		m.s.t.Errorf("%s has installed, and says %q", id, status.Message)
	}
	if o.Action != v1alpha1.ActionDeploy || o.Reboot == v1alpha1.RebootNever {
		if len(m.orders[id]) > 0 || status.Reboots > 0 {
			m.s.t.Errorf("%s was not to reboot: %+v", id, m.orders[id])
		}
		return
	}
	if m.s.stopped[id] || m.scanned != m.boot || !m.cameToReboot(status) {
		return // or the host has rebooted after the operation had ended
	}
	// A host that goes down by itself between the order's line in the journal and the order has done what was asked for.
	if int(status.Reboots) < len(m.orders[id]) || status.Reboots > maxReboots {
		m.s.t.Errorf("%s says that it rebooted %d times, it did for %+v", id, status.Reboots, m.orders[id])
	}
	boot, installed := m.installedIn[id]
	switch {
	case len(m.reasons) > 0:
		m.s.t.Errorf("%s has ended, and the host needs a reboot for %q", id, m.reasons)
	case installed && o.Reboot == v1alpha1.RebootAlways && boot == m.boot:
		m.s.t.Errorf("%s has ended without the reboot that it always has", id)
	case installed && m.unknown && boot == m.boot:
		m.s.t.Errorf("%s has ended, and nobody knows whether the host needs a reboot", id)
	}
	if strings.Contains(status.Message, "waiting") {
		m.s.t.Errorf("%s has ended and says %q", id, status.Message)
	}
}

// cameToReboot says whether an outcome is one in which the host was to be rebooted, and nothing was the trouble with that.
func (m *hostModel) cameToReboot(status *v1alpha1.AgentStatus) bool {
	switch status.Reason {
	case v1alpha1.ReasonPatchesFailed, v1alpha1.ReasonPatchesDeferred:
		return !slices.ContainsFunc([]string{"The node was not rebooted", "The node is not rebooted", "still required", "could not be found out"},
			func(trouble string) bool { return strings.Contains(status.Message, trouble) })
	}
	return status.Step == v1alpha1.StepDone
}
