package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// Session runs the commands of one step of one operation. It implements packages.Runner and may be used by several
// goroutines.
type Session struct {
	host  *Host
	path  string // the step's directory, relative to the agent's directory
	label string // prefix of the units' names
	boot  string

	mu       sync.Mutex
	next     int
	leftover []*attempt // of earlier agents, newest last, each used once
	began    string     // boot ID of the boot in which the last transaction was started
}

var _ packages.Runner = (*Session)(nil)

// Session opens a step of an operation. Commands that an earlier agent started in the same step are attached to by the
// first Run of the same command: if it still runs, Run waits for it; if it has ended, its result is returned; if it was
// interrupted, Run returns an InterruptedError once, and starts it afresh the next time.
// Both names become part of paths and unit names: letters, digits, dots and dashes.
func (h *Host) Session(operation, step string) (*Session, error) {
	if err := validName(operation); err != nil {
		return nil, err
	}
	if err := validName(step); err != nil {
		return nil, err
	}
	boot, err := h.BootID()
	if err != nil {
		return nil, err
	}
	s := &Session{host: h, path: filepath.Join(runDir, operation, step), label: "nodepatch-" + step, boot: boot}
	entries, err := os.ReadDir(h.Path(s.path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the step's directory: %w", err)
	}
	for _, e := range entries { // sorted by name, and the name starts with the number
		if n := 0; e.IsDir() && scanNumber(e.Name(), &n) {
			s.next = max(s.next, n)
			// Without a readable record nothing was started yet: the record is written first.
			if a, err := openAttempt(h.Path(s.path, e.Name()), filepath.Join(h.dir, s.path, e.Name())); err == nil {
				s.leftover = append(s.leftover, a)
			}
		}
	}
	return s, nil
}

// Resumes says whether an earlier agent started a transaction in this step that was not attached to yet.
func (s *Session) Resumes() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.leftover, func(a *attempt) bool { return a.Transaction })
}

// Began is the boot ID of the boot in which the last transaction was started that Run took up; empty if there was none. An
// earlier agent may have started it in another boot.
func (s *Session) Began() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.began
}

// Discard kills what an earlier agent left running in this step and forgets its results. It is for steps that are
// harmless to repeat and that should not be answered from the past. Transactions are left alone, and can be
// attached to.
func (s *Session) Discard(ctx context.Context) error {
	s.mu.Lock()
	var old, kept []*attempt
	for _, a := range s.leftover {
		if a.Transaction {
			kept = append(kept, a)
		} else {
			old = append(old, a)
		}
	}
	s.leftover = kept
	s.mu.Unlock()
	var errs []error
	for _, a := range old {
		_, done, err := a.exitCode()
		if a.BootID == s.boot && (!done || err != nil) {
			if err := s.stop(ctx, a); err != nil {
				errs = append(errs, fmt.Errorf("stop %s of an earlier agent: %w", a.Name, err))
				continue
			}
		}
		if err := os.RemoveAll(a.path); err != nil {
			errs = append(errs, fmt.Errorf("forget %s of an earlier agent: %w", a.Name, err))
		}
	}
	return errors.Join(errs...)
}

// Run runs a command on the host and waits for its result. A command that is not there exits with 127, one that a signal
// killed with 128 plus its number, as shells have it. Errors: InterruptedError, UnavailableError, OutputTooLargeError, or the
// context's cause (the command was killed, except for ErrDetach).
func (s *Session) Run(ctx context.Context, c packages.Command) (packages.Result, error) {
	if err := ctx.Err(); err != nil {
		return packages.Result{}, context.Cause(ctx)
	}
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.Timeout,
			fmt.Errorf("%s took longer than %s: %w", c.Name, c.Timeout, context.DeadlineExceeded))
		defer cancel()
	}
	if a := s.attach(c); a != nil {
		return s.wait(ctx, a)
	}
	for try := 1; ; try++ {
		a, err := s.start(ctx, c)
		if err != nil {
			return packages.Result{}, err
		}
		result, err := s.wait(ctx, a)
		var interrupted *InterruptedError
		if errors.As(err, &interrupted) && interrupted.NotStarted && try < starts {
			continue
		}
		return result, err
	}
}

// starts is how often a command is started that ended before it began, as happens when systemd executes itself anew.
const starts = 3

// attach takes the newest command of an earlier agent that is the same as c, or a transaction of its name. Of an earlier boot
// only a transaction counts: all else is harmless to repeat, and would answer from the past. Older ones of the same are
// forgotten: each was followed by another try, as when another program held a lock, and says nothing of today.
func (s *Session) attach(c packages.Command) *attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	var newest *attempt
	var others []*attempt
	for _, a := range slices.Backward(s.leftover) {
		// The arguments of a transaction follow from answers that it has changed itself.
		same := a.Name == c.Name && (a.Transaction && c.Transaction || slices.Equal(a.Argv, c.Argv))
		switch {
		case !same || a.BootID != s.boot && !a.Transaction:
			others = append(others, a)
		case newest == nil:
			newest = a
		default:
			_ = os.RemoveAll(a.path) // what is still there is forgotten again by the next agent
		}
	}
	slices.Reverse(others)
	s.leftover = others
	if newest != nil && newest.Transaction {
		s.began = newest.BootID
	}
	return newest
}

func (s *Session) start(ctx context.Context, c packages.Command) (*attempt, error) {
	if err := validName(c.Name); err != nil {
		return nil, err
	}
	if c.Transaction && c.Timeout > 0 {
		return nil, fmt.Errorf("%s: a transaction has no timeout", c.Name)
	}
	if len(c.Argv) == 0 {
		return nil, fmt.Errorf("%s: no command to run", c.Name)
	}
	for _, arg := range c.Argv {
		if strings.ContainsAny(arg, "\n\x00") {
			return nil, fmt.Errorf("%s: argument %q holds a line break or a zero byte", c.Name, arg)
		}
	}
	s.mu.Lock()
	s.next++
	n := s.next
	s.mu.Unlock()
	// A name of its own for each attempt: a unit of that name that is still there would be taken for this one.
	dir := filepath.Join(s.path, fmt.Sprintf("%04d-%s", n, c.Name))
	a, err := newAttempt(s.host.Path(dir), filepath.Join(s.host.dir, dir), record{
		Name:    c.Name,
		Argv:    c.Argv,
		Unit:    fmt.Sprintf("%s-%s-%s.service", s.label, c.Name, random()),
		BootID:  s.boot,
		Started: time.Now().UTC().Truncate(time.Millisecond),

		Transaction: c.Transaction,
	})
	if err != nil {
		return nil, &UnavailableError{Command: c.Name, Err: err}
	}
	if c.Transaction {
		s.mu.Lock()
		s.began = s.boot
		s.mu.Unlock()
	}
	argv := append([]string{"/bin/sh", filepath.Join(s.host.dir, wrapperFile), a.host}, c.Argv...)
	if err := s.host.backend.start(ctx, a, argv, environment(c.Env)); err != nil {
		if ctx.Err() != nil {
			s.abandon(ctx, a)
			return nil, context.Cause(ctx)
		}
		return nil, &UnavailableError{Command: c.Name, Err: err}
	}
	return a, nil
}

// How often the result is looked for. The file is asked often, because that costs microseconds and a scan is several
// short commands; the backend is asked rarely, and only to learn of a command that ended without a result.
const (
	firstPoll  = 2 * time.Millisecond
	slowPoll   = 250 * time.Millisecond
	pollShare  = 100 // a poll waits at most a hundredth of the time that the command has run
	stateEvery = 700 * time.Millisecond
	// patience is how long the backend may be unreachable (systemd executing itself anew, an overloaded host) before a
	// command without a result is given up.
	patience = 5 * time.Minute
)

func (s *Session) wait(ctx context.Context, a *attempt) (packages.Result, error) {
	if a.Transaction && !errors.Is(context.Cause(ctx), ErrDetach) {
		var cancel context.CancelCauseFunc
		ctx, cancel = detachable(ctx)
		defer cancel(nil)
	}
	started := time.Now()
	asked, answered := started, started
	// A command of an earlier agent may have ended long ago; ask before the first pause.
	askNow := a.BootID != s.boot || time.Since(a.Started) > stateEvery
	for {
		code, done, err := a.exitCode()
		if err != nil {
			return packages.Result{}, err
		}
		if done {
			return s.result(a, code)
		}
		if a.BootID != s.boot {
			return packages.Result{}, &InterruptedError{Command: a.Name, Reason: "the node went down while it ran", Transaction: a.Transaction}
		}
		if askNow || time.Since(asked) >= stateEvery {
			askNow, asked = false, time.Now()
			running, reason, err := s.host.backend.state(ctx, a)
			switch {
			case err == nil:
				answered = time.Now()
			case time.Since(answered) > patience && ctx.Err() == nil:
				return packages.Result{}, &UnavailableError{Command: a.Name, Err: fmt.Errorf("ask whether it still runs: %w", err)}
			}
			if err == nil && !running {
				return s.ended(ctx, a, reason)
			}
		}
		pause := time.NewTimer(min(max(firstPoll, time.Since(started)/pollShare), slowPoll))
		select {
		case <-ctx.Done():
			pause.Stop()
			s.abandon(ctx, a)
			return packages.Result{}, context.Cause(ctx)
		case <-pause.C:
		}
	}
}

// ended reads the result once more: it is written before the unit ends, but may not have been there when last looked for.
func (s *Session) ended(ctx context.Context, a *attempt, reason string) (packages.Result, error) {
	code, done, err := a.exitCode()
	if err != nil {
		return packages.Result{}, err
	}
	if done {
		return s.result(a, code)
	}
	// A failed unit makes the host "degraded" until it is removed.
	if err := s.stop(ctx, a); err != nil {
		reason += "; " + err.Error()
	}
	started, err := a.started()
	return packages.Result{}, &InterruptedError{Command: a.Name, Reason: reason, NotStarted: !started && err == nil, Transaction: a.Transaction}
}

func (s *Session) result(a *attempt, code int) (packages.Result, error) {
	stdout, err := a.output("stdout")
	if err != nil {
		return packages.Result{}, err
	}
	stderr, err := a.output("stderr")
	if err != nil {
		return packages.Result{}, err
	}
	status, err := a.output("status")
	if err != nil {
		return packages.Result{}, err
	}
	return packages.Result{ExitCode: code, Stdout: stdout, Stderr: stderr, Status: status}, nil
}

// detachable is a context that ends with ctx only if the agent itself ends.
func detachable(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	apart, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), ErrDetach) {
			cancel(ErrDetach)
		}
	})
	return apart, cancel
}

// abandon kills the command of a cancelled context, unless the agent ends and leaves it to its successor.
func (s *Session) abandon(ctx context.Context, a *attempt) {
	if a.Transaction || errors.Is(context.Cause(ctx), ErrDetach) {
		return
	}
	// If it cannot be killed it is left to itself: the commands that may be cancelled change nothing that a later run
	// of theirs does not put right.
	_ = s.stop(ctx, a)
}

// stop kills a command also after its context has ended, and does not wait for ever for a host that does not answer.
func (s *Session) stop(ctx context.Context, a *attempt) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*stopTimeout)
	defer cancel()
	return s.host.backend.stop(ctx, a)
}
