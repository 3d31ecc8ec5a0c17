package operation

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// progressAfter is how long an operation takes before the agent says what it is at. Most are over by then, and cost the API
// server no write for it.
const progressAfter = 15 * time.Second

// progressTimeout is short, as the operation's end waits for it.
const progressTimeout = 5 * time.Second

// words are what an operation is at.
type words struct {
	step            v1alpha1.Step
	reason, message string
}

// showProgress says in the assignment's status what the current operation is at, once it takes long: the last words given to
// say, and again when they change. It is a courtesy: what cannot be sent is not tried again. Flush waits until that is over
// for the words before it. After done nothing is sent any more, so that the outcome comes last.
func (w *Worker) showProgress() (say func(reason, message string), flush, done func()) {
	status := w.journal.status(w.Version)
	latest := words{step: status.Step}
	if status.Step == v1alpha1.StepScanning {
		latest.message = "Refreshing the patch data, then looking for missing patches"
	}
	changes, idle := make(chan words), make(chan struct{})
	ended := make(chan struct{})
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		due := time.NewTimer(progressAfter)
		defer due.Stop()
		shown, showing := words{}, false
		for {
			select {
			case <-ended:
				return
			case idle <- struct{}{}:
			case <-due.C:
				showing = true
			case latest = <-changes:
			}
			// A deployment costs more than its writes, and people watch it.
			showing = showing || latest.step != v1alpha1.StepScanning
			if !showing || latest == shown || latest.message == "" {
				continue
			}
			shown = latest
			now, said := metav1.Now(), *status
			said.Counts = nil // those of a wait that is over
			said.Step, said.Time, said.Reason, said.Message = latest.step, &now, latest.reason, cut(latest.message, 1024)
			ctx, cancel := context.WithTimeout(context.Background(), progressTimeout)
			err := w.API.ApplyStatus(ctx, &said)
			cancel()
			if err != nil {
				w.Logger.Warn("The assignment's status does not say what takes so long", "error", err)
			}
		}
	}()
	say = func(reason, message string) {
		select {
		case changes <- words{w.journal.Current.Phase.step(), reason, message}:
		case <-finished:
		}
	}
	flush = func() {
		select {
		case <-idle:
		case <-finished:
		}
	}
	return say, flush, func() {
		close(ended)
		<-finished
	}
}
