package operation

import (
	"context"
	"sync/atomic"

	"github.com/nodepatch/nodepatch/nodeagent/host"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// staged runs the commands of one installation. If an earlier agent began its transaction, what is asked before it is answered
// as it was then: the package manager names only what is not installed yet, and with the answers of today it would not ask for
// that transaction but for another one, which tries again what has failed. What comes after the transaction is asked afresh.
type staged struct {
	before, transaction, after *host.Session
	begun                      atomic.Bool
}

func (s *staged) Run(ctx context.Context, c packages.Command) (packages.Result, error) {
	switch {
	case c.Transaction:
		s.begun.Store(true)
		return s.transaction.Run(ctx, c)
	case s.begun.Load():
		return s.after.Run(ctx, c)
	default:
		return s.before.Run(ctx, c)
	}
}

// stage is the host's package manager for one transaction, attached to it if an earlier agent began it; then resumes is true.
func (w *Worker) stage(ctx context.Context, step string) (m packages.Manager, s *staged, resumes bool, err error) {
	s = &staged{}
	for suffix, session := range map[string]**host.Session{"": &s.transaction, "-before": &s.before, "-after": &s.after} {
		if *session, err = w.Host.Session(w.journal.Current.ID, step+suffix); err != nil {
			return nil, nil, false, err
		}
	}
	resumes = s.transaction.Resumes()
	stale := []*host.Session{s.after}
	if !resumes {
		stale = append(stale, s.before)
	}
	for _, session := range stale {
		if err := session.Discard(context.WithoutCancel(ctx)); err != nil {
			w.Logger.Warn("A command of an earlier agent may still run", "error", err)
		}
	}
	m, err = w.Packages(s, w.locks(ctx))
	return m, s, resumes, err
}
