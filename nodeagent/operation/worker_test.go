package operation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/host"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// api is an API server as far as a worker sees it; the real one is in the agent's own tests.
type api struct {
	mu      sync.Mutex
	refuse  error
	reports []*v1alpha1.PatchReportStatus
	status  []*v1alpha1.AgentStatus
	retry   v1alpha1.PatchRetry
	unread  error // of the next read of it
	unsaid  error // in place of the answer to its next write
	task    *v1alpha1.PatchTask
	taskErr error
	version int
}

func (a *api) ApplyReport(_ context.Context, s *v1alpha1.PatchReportStatus) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refuse != nil {
		return a.refuse
	}
	a.reports = append(a.reports, s)
	return nil
}

func (a *api) ApplyStatus(_ context.Context, s *v1alpha1.AgentStatus) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status = append(a.status, s)
	return nil
}

func (a *api) Retries(context.Context) (*v1alpha1.PatchRetry, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.unread; err != nil {
		a.unread = nil
		return nil, err
	}
	a.retry.UID, a.retry.ResourceVersion = "retry-1", fmt.Sprint(a.version)
	return a.retry.DeepCopy(), nil
}

func (a *api) UpdateRetries(_ context.Context, r *v1alpha1.PatchRetry) (*v1alpha1.PatchRetry, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.ResourceVersion != fmt.Sprint(a.version) {
		return nil, apierrors.NewConflict(schema.GroupResource{Resource: "patchretries"}, "n1", nil)
	}
	a.version++
	a.retry = *r.DeepCopy()
	a.retry.ResourceVersion = fmt.Sprint(a.version)
	if err := a.unsaid; err != nil {
		a.unsaid = nil
		return nil, err
	}
	return a.retry.DeepCopy(), nil
}

func (a *api) Task(_ context.Context, name string) (*v1alpha1.PatchTask, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.taskErr != nil {
		return nil, a.taskErr
	}
	if a.task == nil || a.task.Name != name {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "patchtasks"}, name)
	}
	return a.task.DeepCopy(), nil
}

func (a *api) last() *v1alpha1.AgentStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.status) == 0 {
		return nil
	}
	return a.status[len(a.status)-1]
}

// entries is a patch log in memory.
type entries struct {
	reasons []string
	all     []v1alpha1.LogEntry
	cleared string
	broken  error
}

func (e *entries) Append(entry patchlog.Entry) error {
	e.reasons = append(e.reasons, entry.Reason)
	e.all = append(e.all, entry.LogEntry())
	return nil
}

func (e *entries) Last(limit int) ([]v1alpha1.LogEntry, error) {
	return slices.Clone(e.all[max(0, len(e.all)-limit):]), e.broken
}

func (e *entries) Cleared() string { return e.cleared }

// manager is a package manager that answers what the test says.
type manager struct {
	refresh error
	scan    func() (packages.Scan, error)
	inspect func([]packages.Target) ([]packages.Presence, error)
	install func() error
	repair  func() error
}

func (manager) Name() string { return "apt" }

func (m manager) Refresh(ctx context.Context) (packages.Refresh, error) {
	return packages.Refresh{}, m.refresh
}

func (m manager) Scan(context.Context) (packages.Scan, error) {
	if m.scan != nil {
		return m.scan()
	}
	return packages.Scan{MetadataRefreshed: time.Now(), Patches: []packages.Patch{
		{Name: "ham", Architecture: "all", AvailableVersion: "2", State: packages.Missing, Classification: packages.Security},
	}}, nil
}

func (manager) Download(context.Context, []packages.Target) (packages.Download, error) {
	return packages.Download{}, errors.New("not asked for")
}

func (m manager) Install(context.Context, []packages.Target) (packages.Install, error) {
	if m.install != nil {
		return packages.Install{}, m.install()
	}
	return packages.Install{}, errors.New("not asked for")
}

func (m manager) Repair(context.Context) (packages.Repair, error) {
	if m.repair != nil {
		return packages.Repair{}, m.repair()
	}
	return packages.Repair{}, errors.New("not asked for")
}

func (m manager) Inspect(_ context.Context, targets []packages.Target) ([]packages.Presence, error) {
	if m.inspect != nil {
		return m.inspect(targets)
	}
	return nil, errors.New("not asked for")
}

func (manager) Hold(context.Context) (func(), error) {
	return nil, errors.New("not asked for")
}

type fixture struct {
	*Worker
	api     *api
	entries *entries
	options Options
}

func newFixture(t *testing.T, m manager) *fixture {
	t.Helper()
	h, err := host.Detect(t.TempDir(), "/agent")
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{api: &api{}, entries: &entries{}}
	f.options = Options{
		Node: "n1", Version: "v1", Host: h, API: f.api, Log: f.entries, Idle: func() {},
		Logger:   slog.New(slog.NewTextHandler(t.Output(), nil)),
		Packages: func(packages.Runner, packages.Locks) (packages.Manager, error) { return m, nil },
	}
	f.restart(t)
	return f
}

// restart is an agent that died and came back.
func (f *fixture) restart(t *testing.T) {
	t.Helper()
	w, err := New(f.options)
	if err != nil {
		t.Fatal(err)
	}
	f.Worker = w
}

func assign(id string, deadline time.Time) *v1alpha1.PatchAssignment {
	a := &v1alpha1.PatchAssignment{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: types.UID("uid-1")}}
	if id != "" {
		a.Spec.Operation = &v1alpha1.Operation{ID: id, Task: "t-" + id, Step: v1alpha1.StepScanning, Deadline: metav1.NewTime(deadline)}
	}
	return a
}

func later() time.Time { return time.Now().Add(time.Hour) }

func (f *fixture) see(t *testing.T, a *v1alpha1.PatchAssignment) {
	t.Helper()
	f.Assign(a)
	if err := f.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestOperationIsCarriedOutOnce(t *testing.T) {
	f := newFixture(t, manager{})
	for range 3 {
		f.see(t, assign("1", later()))
	}
	f.restart(t)
	f.see(t, assign("1", later()))
	f.see(t, assign("2", later()))
	f.see(t, assign("1", later())) // an old event, seen late
	if len(f.api.reports) != 2 || len(f.api.status) != 2 {
		t.Errorf("%d reports and %d outcomes, want 2 and 2", len(f.api.reports), len(f.api.status))
	}
	want := []string{v1alpha1.EventScanStarted, v1alpha1.EventPatchDataRefreshed, v1alpha1.EventScanFinished}
	if !slices.Equal(f.entries.reasons, append(want, want...)) {
		t.Errorf("Patch log: %v", f.entries.reasons)
	}
}

func TestEarlierIsBounded(t *testing.T) {
	f := newFixture(t, manager{})
	for i := range 12 {
		f.see(t, assign(fmt.Sprint(i), later()))
	}
	s := f.api.last()
	if s.OperationID != "11" || len(s.Earlier) != 8 || s.Earlier[0].OperationID != "10" || s.Earlier[7].OperationID != "3" {
		t.Errorf("Status is %+v", s)
	}
}

func TestDeadlinePassed(t *testing.T) {
	f := newFixture(t, manager{})
	f.see(t, assign("1", time.Now().Add(-time.Second)))
	if s := f.api.last(); s.Step != v1alpha1.StepFailed || s.Reason != v1alpha1.ReasonTimeout {
		t.Errorf("Status is %+v", s)
	}
	if len(f.entries.reasons) != 0 {
		t.Errorf("It began: %v", f.entries.reasons)
	}
}

func TestRefreshCauses(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"locked":      {fmt.Errorf("refresh: %w", &packages.LockHeldError{Path: "/var/lib/apt/lists/lock", PID: 7, Process: "apt"}), v1alpha1.ReasonLocked},
		"unreachable": {&packages.RefreshError{Failures: []packages.RepositoryFailure{{Unreachable: true}}}, v1alpha1.ReasonRepositoryUnreachable},
		"half":        {&packages.RefreshError{Failures: []packages.RepositoryFailure{{Unreachable: true}, {}}}, v1alpha1.ReasonRefreshFailed},
		"host":        {&host.UnavailableError{Command: "apt-refresh", Err: errors.New("no systemd")}, v1alpha1.ReasonHostUnavailable},
		"other":       {errors.New("boom"), v1alpha1.ReasonRefreshFailed},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, manager{refresh: test.err})
			f.see(t, assign("1", later()))
			s := f.api.last()
			if s.Step != v1alpha1.StepDone || s.Reason != test.want || s.Counts == nil || s.Counts.Missing != 1 {
				t.Errorf("Status is %+v", s)
			}
			want := []string{v1alpha1.EventScanStarted, v1alpha1.EventPatchDataStale, v1alpha1.EventScanFinished}
			if !slices.Equal(f.entries.reasons, want) {
				t.Errorf("Patch log: %v", f.entries.reasons)
			}
		})
	}
}

func TestScanInterruptedIsRepeated(t *testing.T) {
	calls := 0
	f := newFixture(t, manager{scan: func() (packages.Scan, error) {
		if calls++; calls == 1 {
			return packages.Scan{}, fmt.Errorf("plan: %w", &host.InterruptedError{Command: "apt-plan", Reason: "systemd says signal"})
		}
		return packages.Scan{}, nil
	}})
	f.see(t, assign("1", later()))
	if s := f.api.last(); s.Step != v1alpha1.StepDone || calls != 2 {
		t.Errorf("Status is %+v after %d scans", s, calls)
	}
}

// An operation that its agent dies of must not be begun for ever.
func TestAgentDiesOfOperation(t *testing.T) {
	deaths := 0
	f := newFixture(t, manager{scan: func() (packages.Scan, error) { deaths++; panic("killed") }})
	for range 20 {
		func() {
			defer func() { _ = recover() }()
			f.see(t, assign("1", later()))
		}()
		f.restart(t)
	}
	if s := f.api.last(); s == nil || s.Step != v1alpha1.StepFailed || s.Reason != v1alpha1.ReasonInterrupted || deaths != maxAttempts {
		t.Errorf("Status is %+v after %d deaths", s, deaths)
	}
}

func TestReportRefused(t *testing.T) {
	f := newFixture(t, manager{})
	f.api.refuse = apierrors.NewInvalid(schema.GroupKind{Group: "nodepatch.io", Kind: "PatchReport"}, "n1", nil)
	f.see(t, assign("1", later()))
	if s := f.api.last(); s.Step != v1alpha1.StepFailed || !strings.HasPrefix(s.Message, "The API server refuses the report: ") {
		t.Errorf("Status is %+v", s)
	}
}

func TestUnsentSurvives(t *testing.T) {
	f := newFixture(t, manager{})
	f.api.refuse = errors.New("connection refused")
	f.Assign(assign("1", later()))
	if err := f.reconcile(t.Context()); err == nil {
		t.Error("Nothing is to be tried again")
	}
	if f.api.last() != nil {
		t.Error("The outcome was sent before the report")
	}
	f.restart(t)
	f.api.refuse = nil
	f.see(t, assign("1", later()))
	if s := f.api.last(); s == nil || s.Step != v1alpha1.StepDone || len(f.api.reports) != 1 {
		t.Errorf("Status is %+v, %d reports", s, len(f.api.reports))
	}
}

func TestJournalLost(t *testing.T) {
	f := newFixture(t, manager{})
	f.see(t, assign("1", later()))
	for _, name := range []string{journalFile, reportFile, firstSeenFile} {
		if err := os.WriteFile(f.options.Host.Path("journal", name), []byte(`{"current": {"id"`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.restart(t)
	f.see(t, assign("2", later()))
	if s := f.api.last(); s.OperationID != "2" || s.Step != v1alpha1.StepDone {
		t.Errorf("Status is %+v", s)
	}
	if found, _ := filepath.Glob(f.options.Host.Path("journal", "*.corrupt")); len(found) != 3 {
		t.Errorf("Set aside: %v", found)
	}
}

func TestJournalCannotBeWritten(t *testing.T) {
	f := newFixture(t, manager{})
	dir := f.options.Host.Path("journal")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f.see(t, assign("1", later()))
	if s := f.api.last(); s == nil || s.Step != v1alpha1.StepFailed || s.Reason != v1alpha1.ReasonHostUnavailable {
		t.Errorf("Status is %+v", s)
	}
}

func TestRefreshTime(t *testing.T) {
	f := newFixture(t, manager{})
	for left, want := range map[time.Duration]time.Duration{
		30 * time.Minute: 15 * time.Minute, 24 * time.Hour: 30 * time.Minute, 2 * time.Second: 5 * time.Second,
	} {
		f.journal.Current = &record{Operation: v1alpha1.Operation{Deadline: metav1.NewTime(time.Now().Add(left))}}
		if got := f.refreshTime().Round(time.Second); got != want {
			t.Errorf("With %s left a refresh may take %s, want %s", left, got, want)
		}
	}
}
