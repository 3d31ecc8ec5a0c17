// Package operation carries out what a node's PatchAssignment asks for, as steps that can be killed and resumed at any
// point: the journal on the host says which step was reached, and what the API server has not been told yet.
package operation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/host"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// ErrUnsupported is what Worker.Packages returns on a host without a package manager that nodepatch knows.
var ErrUnsupported = errors.New("the node has no package manager that nodepatch knows: it needs apt")

// errTakenBack is the cause for which an operation ends that the manager no longer asks for.
var errTakenBack = errors.New("the manager took the operation back")

// API is where the agent writes what it found, each with one request.
type API interface {
	// ApplyReport makes status the whole of what the agent says in its node's PatchReport.
	ApplyReport(ctx context.Context, status *v1alpha1.PatchReportStatus) error
	// ApplyStatus makes status the whole of the agent's half of its node's PatchAssignment.
	ApplyStatus(ctx context.Context, status *v1alpha1.AgentStatus) error
}

// Log is the node's patch log. An entry that was appended reaches the API server some time.
type Log interface {
	Append(patchlog.Entry) error
}

// Options are what a worker needs; all are required.
type Options struct {
	Node    string
	Version string
	Host    *host.Host
	// Packages returns the host's package manager, whose commands go through the runner, or ErrUnsupported.
	Packages func(runner packages.Runner, locks Locks) (packages.Manager, error)
	API      API
	Log      Log
	Logger   *slog.Logger
	// Idle is called when there is nothing left to do.
	Idle func()
}

// Locks say what a package manager does while another program holds its lock.
type Locks struct {
	// Patience is how long it waits.
	Patience time.Duration
	// Waiting is to be called each time that it finds the lock held and waits on.
	Waiting func(*packages.LockHeldError)
}

// Worker does what its node's assignment asks for, one operation at a time.
type Worker struct {
	Options

	journal *journal
	say     func(reason, message string) // what the current operation is at
	begun   string                       // ID of the operation that this process, and not an earlier agent, took up last

	mu         sync.Mutex
	assignment *v1alpha1.PatchAssignment
	working    string // ID of the operation that cancel ends
	cancel     context.CancelCauseFunc
	changed    chan struct{}
}

// New returns a worker that has read its journal, which lies in the agent's directory on the host.
func New(o Options) (*Worker, error) {
	j, err := openJournal(o.Host.Path("journal"))
	if j == nil {
		return nil, err
	}
	if err != nil {
		o.Logger.Error("Journal is lost, an operation that was under way is begun again", "error", err)
	}
	return &Worker{Options: o, journal: j, changed: make(chan struct{}, 1)}, nil
}

// Assign tells the worker what its node's assignment is now, or nil if there is none. It does not block. An operation that
// is no longer asked for is ended at once.
func (w *Worker) Assign(a *v1alpha1.PatchAssignment) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.assignment = a
	if w.cancel != nil && operationID(a) != w.working {
		w.cancel(errTakenBack)
	}
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func operationID(a *v1alpha1.PatchAssignment) string {
	if a == nil || a.Spec.Operation == nil {
		return ""
	}
	return a.Spec.Operation.ID
}

// Run works until the context ends. With host.ErrDetach as its cause, commands on the host go on and the next agent waits
// for them.
func (w *Worker) Run(ctx context.Context) {
	backoff := newBackoff()
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.changed:
		case <-retry:
		}
		retry = nil
		err := w.reconcile(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			pause := backoff.Step()
			w.Logger.Warn("Trying again", "in", pause.Round(time.Millisecond).String(), "error", err)
			retry = time.After(pause)
			continue
		}
		backoff = newBackoff()
		w.Idle()
	}
}

// newBackoff is short enough for a report to be there soon after an API server is back, and spreads out many agents.
func newBackoff() wait.Backoff {
	return wait.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 100, Cap: 20 * time.Second}
}

// reconcile brings the node's work in line with its assignment. An error is tried again; what was done stands in the journal.
func (w *Worker) reconcile(ctx context.Context) error {
	w.mu.Lock()
	a := w.assignment
	w.mu.Unlock()
	w.recognise(a)
	j := w.journal
	if j.live() && operationID(a) != j.Current.ID {
		w.discard(ctx)
		w.stopped()
	}
	if a != nil && a.Spec.Operation != nil {
		w.begin(a.Spec.Policy, a.Spec.Operation)
	}
	if j.live() {
		if err := w.carryOut(ctx); err != nil {
			return err
		}
	}
	if a == nil {
		return nil // there is nowhere to write to
	}
	if agent := a.Status.Agent; agent != nil && j.Current != nil && !j.live() && agent.OperationID == j.Current.ID && !agent.Step.Ended() {
		j.StatusPending = true // a word about the progress has overtaken the outcome
	}
	return w.publish(ctx)
}

// recognise sends everything again to objects that were deleted and made anew, as happens when a node joins again.
func (w *Worker) recognise(a *v1alpha1.PatchAssignment) {
	j := w.journal
	if a == nil || a.UID == j.AssignmentUID {
		return
	}
	if j.AssignmentUID != "" {
		j.ReportPending = true
		j.StatusPending = j.Current != nil && !j.live()
	}
	j.AssignmentUID = a.UID
	w.save()
}

// begin takes up an operation that is new. One that cannot be carried out ends at once.
func (w *Worker) begin(policy string, o *v1alpha1.Operation) {
	j := w.journal
	now := time.Now()
	switch {
	case j.Current != nil && j.Current.ID == o.ID && j.Current.Step != o.Step:
		j.Current.Operation = *o
	case j.knows(o.ID):
		return
	default:
		boot, err := w.Host.BootID()
		if err != nil {
			w.Logger.Error("Boot ID is unknown", "error", err)
		}
		j.begin(&record{Operation: *o, Policy: policy, Phase: phaseRefresh, BootID: boot, Started: now, Attempts: 1})
		w.begun = o.ID
	}
	switch {
	case o.Step != v1alpha1.StepScanning:
		w.end(v1alpha1.StepFailed, v1alpha1.ReasonUnsupportedStep, fmt.Sprintf(
			"Agent %s does not know the step %s: it is older than the manager; wait until the agents' DaemonSet is updated", w.Version, o.Step), nil)
	case !o.Deadline.IsZero() && now.After(o.Deadline.Time):
		w.end(v1alpha1.StepFailed, v1alpha1.ReasonTimeout, fmt.Sprintf(
			"The deadline %s had passed when the agent saw the operation at %s by the node's clock",
			o.Deadline.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)), nil)
	default:
		w.Logger.Info("Operation begins", "operation", o.ID, "task", o.Task, "step", o.Step)
		if err := w.Host.Prune(o.ID); err != nil {
			w.Logger.Warn("Old output is left on the host", "error", err)
		}
		if err := j.save(); err != nil {
			// Without a journal a crash would be forgotten.
			w.failed(v1alpha1.ReasonHostUnavailable, err.Error())
		}
	}
}

// carryOut works on the current operation until it has ended. It returns an error only if the agent itself ends.
func (w *Worker) carryOut(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	w.mu.Lock()
	if operationID(w.assignment) != w.journal.Current.ID {
		cancel(errTakenBack)
	}
	w.working, w.cancel = w.journal.Current.ID, cancel
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.working, w.cancel = "", nil
	}()

	say, done := w.showProgress()
	w.say = say
	w.scanNode(ctx)
	done()
	switch {
	case !w.journal.live():
		return nil
	case errors.Is(context.Cause(ctx), errTakenBack):
		w.stopped()
		return nil
	default:
		return context.Cause(ctx)
	}
}

// discard kills what an earlier agent left running of the current operation.
func (w *Worker) discard(ctx context.Context) {
	for _, step := range []string{stepRefresh, stepScan} {
		s, err := w.Host.Session(w.journal.Current.ID, step)
		if err == nil {
			err = s.Discard(ctx)
		}
		if err != nil {
			w.Logger.Warn("A command of an operation that was taken back may still run", "error", err)
		}
	}
}

// stopped ends an operation that was taken back.
func (w *Worker) stopped() {
	why := "The manager took the operation back before it had ended"
	w.append(patchlog.ScanStopped(time.Now(), w.run(), w.Node, why))
	w.end(v1alpha1.StepStopped, v1alpha1.ReasonAborted, why, nil)
}

func (w *Worker) end(step v1alpha1.Step, reason, message string, counts *v1alpha1.PatchCounts) {
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	w.journal.end(v1alpha1.EndedOperation{
		OperationID: w.journal.Current.ID, Step: step, Time: &now, Reason: reason, Message: cut(message, 1024), Counts: counts,
	})
	w.save()
	w.Logger.Info("Operation ended", "operation", w.journal.Current.ID, "task", w.journal.Current.Task, "step", step, "reason", reason, "message", message)
}

func (w *Worker) run() patchlog.Run {
	r := w.journal.Current
	return patchlog.Run{Task: r.Task, UID: types.UID(r.ID), Policy: r.Policy}
}

func (w *Worker) append(e patchlog.Entry) {
	if err := w.Log.Append(e); err != nil {
		w.Logger.Error("Entry is missing in the patch log", "reason", e.Reason, "message", e.Message, "error", err)
	}
}

// save writes the journal. If that fails the agent goes on with what it has in memory: what it found is worth more than
// what it could not write down.
func (w *Worker) save() {
	if err := w.journal.save(); err != nil {
		w.Logger.Error("Journal is not written, a crash now would be forgotten", "error", err)
	}
}
