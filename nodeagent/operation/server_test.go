package operation

import (
	"context"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// serverModel is an API server that is away now and then, and whose answers get lost.
type serverModel struct {
	s       *simulation
	away    int // requests that it does not answer
	object  v1alpha1.PatchRetry
	version int
	cleared int
	status  map[string]*v1alpha1.AgentStatus
	pinned  map[string]*v1alpha1.PinnedPatches // by the ID of the operation
}

func newServerModel(s *simulation) *serverModel {
	return &serverModel{
		s: s, status: map[string]*v1alpha1.AgentStatus{}, pinned: map[string]*v1alpha1.PinnedPatches{},
		object: v1alpha1.PatchRetry{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "u1", ResourceVersion: "0"}},
	}
}

// request is one that may not get there, and then the answer may not come back.
func (a *serverModel) request(do func() error) error {
	a.s.point()
	if a.away > 0 {
		a.away--
		return errors.New("connection refused")
	}
	err := do()
	a.s.point()
	if err == nil && a.s.maybe(15) {
		return errors.New("connection reset by peer")
	}
	return err
}

func (a *serverModel) ApplyReport(context.Context, *v1alpha1.PatchReportStatus) error {
	return a.request(func() error { return nil })
}

func (a *serverModel) ApplyStatus(_ context.Context, s *v1alpha1.AgentStatus) error {
	if !s.Step.Ended() && s.Step != v1alpha1.StepWaiting {
		return nil // the courtesy of another goroutine
	}
	return a.request(func() error {
		a.status[s.OperationID] = s
		for _, e := range s.Earlier {
			if !a.ended(e.OperationID) {
				a.status[e.OperationID] = &v1alpha1.AgentStatus{OperationID: e.OperationID, Step: e.Step, Reason: e.Reason, Counts: e.Counts}
			}
		}
		return nil
	})
}

func (a *serverModel) ended(id string) bool { return a.status[id] != nil && a.status[id].Step.Ended() }

// waits says why an operation waits, by the last that the server has heard of it; empty if it does not.
func (a *serverModel) waits(id string) string {
	if s := a.status[id]; s != nil && s.Step == v1alpha1.StepWaiting {
		return s.Reason
	}
	return ""
}

func (a *serverModel) Retries(context.Context) (*v1alpha1.PatchRetry, error) {
	var read *v1alpha1.PatchRetry
	err := a.request(func() error { read = a.object.DeepCopy(); return nil })
	return read, err
}

func (a *serverModel) UpdateRetries(_ context.Context, r *v1alpha1.PatchRetry) (*v1alpha1.PatchRetry, error) {
	if a.s.maybe(10) {
		a.clear() // between the read and the write
	}
	var written *v1alpha1.PatchRetry
	err := a.request(func() error {
		if r.ResourceVersion != a.object.ResourceVersion {
			return apierrors.NewConflict(schema.GroupResource{Resource: "patchretries"}, "n1", nil)
		}
		clears := a.object.Status.Clears
		a.object = *r.DeepCopy()
		a.object.Status.Clears = clears
		a.bump()
		written = a.object.DeepCopy()
		return nil
	})
	return written, err
}

func (a *serverModel) Task(_ context.Context, name string) (*v1alpha1.PatchTask, error) {
	task := &v1alpha1.PatchTask{ObjectMeta: metav1.ObjectMeta{Name: name}}
	err := a.request(func() error {
		id := strings.TrimPrefix(name, "task-")
		task.UID, task.Status.Pinned = types.UID(id), a.pinned[id]
		return nil
	})
	return task, err
}

func (a *serverModel) bump() {
	a.version++
	a.object.ResourceVersion = fmt.Sprint(a.version)
}

// clear is what the manager does when a person asks for it.
func (a *serverModel) clear() {
	for _, p := range a.object.Status.Patches {
		a.s.pm.failures[attemptKey(p.Name, p.Version)] -= int(p.DownloadFailures + p.InstallFailures)
	}
	a.object.Status.Patches = nil
	a.object.Status.Clears++
	a.object.Status.Summarize()
	a.bump()
	a.cleared++
}

// logModel keeps entries as the log on the host does: each once.
type logModel struct {
	s         *simulation
	keys      map[string]bool
	installed []string
	reasons   map[string]int
}

func (l *logModel) Append(e patchlog.Entry) error {
	l.s.point()
	if key := string(e.TaskUID) + " " + e.Key; !l.keys[key] {
		l.keys[key] = true
		l.reasons[e.Reason]++
		if _, list, is := strings.Cut(e.Message, "installed: "); is && e.Reason == v1alpha1.EventPatchesInstalled {
			l.installed = append(l.installed, strings.Split(list, ", ")...)
		}
	}
	l.s.point()
	return nil
}

// Last and Cleared are those of a log that nobody asks about: what a report has of it is tested with the real one.
func (l *logModel) Last(int) ([]v1alpha1.LogEntry, error) { return nil, nil }
func (l *logModel) Cleared() string                       { return "" }
