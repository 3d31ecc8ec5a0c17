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

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/host"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// ErrUnsupported is what Worker.Packages returns on a host without a package manager that nodepatch knows.
var ErrUnsupported = errors.New("the node has no package manager that nodepatch knows: it needs apt, dnf or zypper")

// API is where the agent writes what it found and reads what is pinned, each with one request.
type API interface {
	// ApplyReport makes status the whole of what the agent says in its node's PatchReport.
	ApplyReport(ctx context.Context, status *v1alpha1.PatchReportStatus) error
	// ApplyStatus makes status the whole of the agent's half of its node's PatchAssignment.
	ApplyStatus(ctx context.Context, status *v1alpha1.AgentStatus) error
	// Retries reads the node's PatchRetry.
	Retries(ctx context.Context) (*v1alpha1.PatchRetry, error)
	// UpdateRetries writes the agent's part of it; a conflict says that it has changed since it was read.
	UpdateRetries(ctx context.Context, retries *v1alpha1.PatchRetry) (*v1alpha1.PatchRetry, error)
	// Task reads a PatchTask.
	Task(ctx context.Context, name string) (*v1alpha1.PatchTask, error)
}

// Log is the node's patch log. An entry that was appended reaches the API server some time.
type Log interface {
	Append(patchlog.Entry) error
	// Last are the last entries, also those of earlier agents, at most limit of them and oldest first.
	Last(limit int) ([]v1alpha1.LogEntry, error)
	// Cleared is another whenever people had entries deleted, and those are gone; empty before the first time.
	Cleared() string
}

// Options are what a worker needs; all but Reboot are required.
type Options struct {
	Node    string
	Version string
	Host    *host.Host
	// Packages returns the host's package manager, whose commands go through the runner, or ErrUnsupported.
	Packages func(runner packages.Runner, locks packages.Locks) (packages.Manager, error)
	API      API
	Log      Log
	Logger   *slog.Logger
	// Reboot asks the host to reboot; the host's own if it is nil.
	Reboot func(context.Context) error
	// Idle is called when there is nothing left to do, also while an operation waits.
	Idle func()
}

// Worker does what its node's assignment asks for, one operation at a time.
type Worker struct {
	Options

	journal    *journal
	retries    *retries
	deployment *deployment                  // of the current operation, once it has chosen patches
	pin        *pin                         // of the current operation, once it was read
	say        func(reason, message string) // what the current operation is at
	flush      func()                       // waits until what was said was sent, or could not be
	begun      string                       // ID of the operation that this process, and not an earlier agent, took up last
	updating   string                       // the same of the update of the patch data

	mu         sync.Mutex
	assignment *v1alpha1.PatchAssignment
	working    string // ID of the operation that cancel ends
	cancel     context.CancelCauseFunc
	requests   requests
	changed    chan struct{}
}

// New returns a worker that has read its journal, which lies in the agent's directory on the host.
func New(o Options) (*Worker, error) {
	j, err := openJournal(o.Host.Path("journal"), journalFile)
	if j == nil {
		return nil, err
	}
	if err != nil {
		o.Logger.Error("Journal is lost, an operation that was under way is begun again", "error", err)
	}
	counts := &retries{}
	if err := j.load(retriesFile, counts); err != nil {
		o.Logger.Error("Copy of the counts of failed attempts is lost, the PatchRetry has them", "error", err)
	}
	counts.Limits = limitsOf(&counts.Limits)
	if o.Reboot == nil {
		o.Reboot = o.Host.Reboot
	}
	return &Worker{Options: o, journal: j, retries: counts, changed: make(chan struct{}, 1)}, nil
}

// Assign tells the worker what its node's assignment is now, or nil if there is none. It does not block. An operation that
// is no longer asked for is ended at once.
func (w *Worker) Assign(a *v1alpha1.PatchAssignment) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.assignment = a
	w.requests.see(a)
	if w.cancel != nil {
		if cause := w.ends(a); cause != nil {
			w.cancel(cause)
		}
	}
	w.Wake()
}

// Wake has the worker look whether there is something to do or to send. It does not block.
func (w *Worker) Wake() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// ends is the cause for which the operation that is worked on has to end by an assignment; nil if it has not.
func (w *Worker) ends(a *v1alpha1.PatchAssignment) error {
	switch {
	case operationID(a) != w.working:
		return errTakenBack
	case a.Spec.Operation.Stop != "":
		return &stopError{a.Spec.Operation.Stop}
	}
	return nil
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
		if err := w.carryOut(ctx); err != nil {
			return err
		}
	}
	if a != nil && a.Spec.Operation != nil {
		w.begin(a)
	}
	if j.live() {
		if err := w.carryOut(ctx); err != nil {
			return err
		}
	}
	if a == nil {
		return nil // there is nowhere to write to
	}
	if agent := a.Status.Agent; agent != nil && j.Current != nil && agent.OperationID == j.Current.ID && j.overtaken(agent.Step) {
		j.StatusPending = true
	}
	if err := w.publish(ctx, a); err != nil || !w.wantsPatchData(a) {
		return err
	}
	if err := w.updatePatchData(ctx, a); err != nil {
		return err
	}
	return w.publish(ctx, a)
}

// recognise sends everything again to objects that were deleted and made anew, as happens when a node joins again.
func (w *Worker) recognise(a *v1alpha1.PatchAssignment) {
	j := w.journal
	if a == nil || a.UID == j.AssignmentUID {
		return
	}
	if j.AssignmentUID != "" {
		j.ReportPending = true
		j.StatusPending = j.Current != nil && (!j.live() || j.Current.Phase.waits())
		w.retries.Restore = w.retries.Sequence > 0
	}
	j.AssignmentUID, j.Refreshes = a.UID, 0
	w.save()
}

// begin takes up an operation that is new. One that cannot be carried out ends at once.
func (w *Worker) begin(a *v1alpha1.PatchAssignment) {
	j, o := w.journal, a.Spec.Operation
	now := time.Now()
	switch {
	case j.live() && j.Current.ID == o.ID:
		j.Current.Operation = *o // it may have been asked to stop, or be let on
		return
	case j.knows(o.ID):
		return
	default:
		j.begin(&record{
			Operation: *o, Policy: a.Spec.Policy, Phase: phaseRefresh, BootID: w.boot(), Started: now, Attempts: 1,
			Forgot: rebooting(a),
		})
		w.begun = o.ID
	}
	switch {
	case o.Stop != "":
		w.stopped(&stopError{o.Stop})
	case !supported(o.Step):
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

// rebooting says whether an agent has told of a reboot of the operation that is asked for. Where the journal knows nothing
// of that operation, it is only there that its reboot is remembered.
func rebooting(a *v1alpha1.PatchAssignment) bool {
	agent := a.Status.Agent
	return agent != nil && agent.OperationID == a.Spec.Operation.ID && (agent.Step == v1alpha1.StepRebooting || agent.Reboots > 0)
}

// carryOut works on the current operation until it has ended, or waits. It returns an error only if the agent itself ends.
func (w *Worker) carryOut(parent context.Context) error {
	if w.rests() {
		return nil
	}
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	w.mu.Lock()
	w.working, w.cancel = w.journal.Current.ID, cancel
	if cause := w.ends(w.assignment); cause != nil {
		cancel(cause)
	}
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.working, w.cancel = "", nil
	}()

	w.carryOn(parent, ctx)
	switch {
	case !w.journal.live():
		return nil
	case detached(parent):
		return context.Cause(parent)
	case w.rests():
		return nil
	case ctx.Err() == nil:
		return fmt.Errorf("the operation %s came to a halt in phase %s", w.journal.Current.ID, w.journal.Current.Phase)
	default:
		w.discard(parent)
		w.cutShort(context.Cause(ctx))
		return nil
	}
}

// carryOn walks on and says meanwhile what it is at.
func (w *Worker) carryOn(parent, ctx context.Context) {
	say, flush, done := w.showProgress()
	defer done()
	w.say, w.flush = say, flush
	w.walk(parent, ctx)
}

// discard kills what an earlier agent left running of the current operation, but for transactions.
func (w *Worker) discard(ctx context.Context) {
	for _, step := range []string{stepRefresh, stepScan, stepDownload} {
		s, err := w.Host.Session(w.journal.Current.ID, step)
		if err == nil {
			err = s.Discard(ctx)
		}
		if err != nil {
			w.Logger.Warn("A command of an operation that was taken back may still run", "error", err)
		}
	}
}

func (w *Worker) boot() string {
	id, err := w.Host.BootID()
	if err != nil {
		w.Logger.Error("Boot ID is unknown", "error", err)
	}
	return id
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
