package operation

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/host"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// TestSimulation goes through many random scripts: a host with a package manager and an API server, both in memory and both
// at their worst, and a worker that is killed, stopped and taken back.
func TestSimulation(t *testing.T) {
	base := "/dev/shm" // the journal is synced to the disk, which need not be one here
	if _, err := os.Stat(base); err != nil {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "nodepatch-simulation-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	scripts := uint64(1500)
	if testing.Short() {
		scripts = 300
	}
	var sum events
	for seed := range scripts {
		synctest.Test(t, func(t *testing.T) {
			s := newSimulation(t, fmt.Sprintf("%s/%d", dir, seed), rand.New(rand.NewPCG(seed, 1)))
			s.run()
			sum.add(s)
		})
		if t.Failed() {
			t.Fatalf("with the script of seed %d", seed)
		}
	}
	t.Logf("%+v", sum)
	if sum.Kills == 0 || sum.Counted == 0 || sum.Installed == 0 || sum.Cut == 0 || sum.Stopped == 0 || sum.Cleared == 0 || sum.Blocked == 0 {
		t.Error("The scripts do not try everything")
	}
}

// events is what happened in all scripts.
type events struct{ Operations, Kills, Installed, Counted, Blocked, Cut, Stopped, Cleared int }

func (c *events) add(s *simulation) {
	c.Operations += s.number
	c.Kills += s.kills
	c.Installed += len(s.pm.installed)
	c.Cut += len(s.pm.cut)
	c.Stopped += len(s.stopped)
	c.Cleared += s.api.cleared
	for _, n := range s.pm.failures {
		c.Counted += n
	}
	c.Blocked += int(s.api.object.Status.Blocked)
}

// killed is what a worker panics with that is killed.
type killed struct{}

type simulation struct {
	t      *testing.T
	rand   *rand.Rand
	worker *Worker
	pm     *hostModel
	api    *serverModel
	log    *logModel
	option Options

	assignment *v1alpha1.PatchAssignment
	number     int // of the operation
	calm       bool
	deaths     int // in this operation
	kills      int
	stopped    map[string]bool // operations that were told to end
}

func newSimulation(t *testing.T, dir string, random *rand.Rand) *simulation {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	h, err := host.Detect(dir, "/agent")
	if err != nil {
		t.Fatal(err)
	}
	s := &simulation{t: t, rand: random, assignment: assign("", time.Time{}), stopped: map[string]bool{}}
	s.pm = newHostModel(s, h)
	s.api = newServerModel(s)
	s.log = &logModel{s: s, keys: map[string]bool{}}
	s.option = Options{
		Node: "n1", Version: "v1", Host: h, API: s.api, Log: s.log, Idle: func() {}, Logger: slog.New(slog.DiscardHandler),
		Packages: func(_ packages.Runner, l packages.Locks) (packages.Manager, error) {
			s.pm.locks = l
			return s.pm, nil
		},
	}
	s.restart()
	return s
}

func (s *simulation) restart() {
	w, err := New(s.option)
	if err != nil {
		s.t.Fatal(err)
	}
	s.worker = w
}

// maybe is true once in n times, and never when the host is to come to rest.
func (s *simulation) maybe(n int) bool { return !s.calm && s.rand.IntN(n) == 0 }

// point is a place where a worker may be killed. More deaths than four in a phase are taken for the operation's fault.
func (s *simulation) point() {
	if s.deaths < 4 && s.maybe(25) {
		s.deaths++
		s.kills++
		panic(killed{})
	}
}

// interfere is what the manager, and people, do while the worker works.
func (s *simulation) interfere() {
	o := s.assignment.Spec.Operation
	switch {
	case o == nil || s.stopped[o.ID]:
	case s.maybe(40):
		next := s.assignment.DeepCopy()
		next.Spec.Operation.Stop = "enough"
		s.stopped[o.ID] = true
		s.assign(next)
	case s.maybe(60):
		next := s.assignment.DeepCopy()
		next.Spec.Operation = nil
		s.stopped[o.ID] = true
		s.assign(next)
	}
	if s.maybe(40) {
		s.api.clear()
	}
	if s.maybe(40) {
		s.api.away = 1 + s.rand.IntN(4)
	}
}

func (s *simulation) assign(a *v1alpha1.PatchAssignment) {
	s.assignment = a
	s.worker.Assign(a)
}

// step lets the worker work until it has nothing to do, fails or dies, and says whether it came to rest.
func (s *simulation) step() (rest bool) {
	defer func() {
		switch cause := recover().(type) {
		case nil:
		case killed:
			s.restart()
		default:
			panic(cause)
		}
	}()
	s.worker.Assign(s.assignment)
	return s.worker.reconcile(s.t.Context()) == nil
}

// operate gives the worker an operation, and wants it to end.
func (s *simulation) operate(step v1alpha1.Step) {
	s.number++
	s.deaths = 0
	id := fmt.Sprint("op-", s.number)
	a := s.assignment.DeepCopy()
	a.Spec.Operation = &v1alpha1.Operation{ID: id, Task: "task-" + id, Step: step}
	a.Spec.Operation.Deadline.Time = time.Now().Add(time.Hour)
	a.Spec.Operation.RetryLimits = &v1alpha1.RetryLimits{Download: 3, Install: 2}
	a.Spec.RetryClears = s.api.object.Status.Clears
	s.assignment = a
	for range 80 {
		if s.step() && s.api.ended(id) {
			return
		}
		s.assignment = s.assignment.DeepCopy()
		s.assignment.Spec.RetryClears = s.api.object.Status.Clears
	}
	s.t.Errorf("%s does not end: %+v", id, s.worker.journal.Current)
}

func (s *simulation) run() {
	for range 1 + s.rand.IntN(6) {
		s.pm.offer()
		s.operate([]v1alpha1.Step{
			v1alpha1.StepScanning, v1alpha1.StepDownloading, v1alpha1.StepInstalling, v1alpha1.StepInstalling, v1alpha1.StepInstalling,
		}[s.rand.IntN(5)])
		if s.t.Failed() {
			return
		}
	}
	s.calm = true
	s.api.away = 0
	s.operate(v1alpha1.StepScanning)
	s.check()
}

// check compares what is counted and logged with what happened.
func (s *simulation) check() {
	for key, want := range s.pm.failures {
		got := 0
		for _, p := range s.api.object.Status.Patches {
			if attemptKey(p.Name, p.Version) == key {
				got = int(p.DownloadFailures + p.InstallFailures)
			}
		}
		if s.pm.offers(key) {
			if got != want {
				s.t.Errorf("%s failed %d times since its counts were cleared, counted are %d: %+v", key, want, got, s.api.object.Status)
			}
		} else if got != 0 {
			s.t.Errorf("%s is not offered and has %d failures counted", key, got)
		}
	}
	for _, p := range s.api.object.Status.Patches {
		if key := attemptKey(p.Name, p.Version); s.pm.failures[key] == 0 {
			s.t.Errorf("%s never failed and is counted: %+v", key, p)
		}
	}
	logged := slices.Sorted(slices.Values(s.log.installed))
	if want := slices.Sorted(slices.Values(s.pm.installed)); !slices.Equal(logged, want) {
		s.t.Errorf("Logged as installed are %q, installed were %q", logged, want)
	}
}

// tried notes an attempt at a patch, and wants it to be the only one of its operation, and not to be blocked.
func (s *simulation) tried(id string, at v1alpha1.BlockedAt, key string) {
	attempt := strings.Join([]string{id, string(at), key}, " ")
	if s.pm.tried[attempt] && !s.pm.cut[id] {
		s.t.Errorf("%s was tried twice", attempt)
	}
	s.pm.tried[attempt] = true
	for _, p := range s.api.object.Status.Patches {
		if attemptKey(p.Name, p.Version) == key && p.Blocked != "" {
			s.t.Errorf("%s was tried and is blocked: %+v", attempt, p)
		}
	}
}

// begun wants nothing to be begun that was told to end.
func (s *simulation) begun(ctx context.Context, id, what string) {
	if s.stopped[id] {
		s.t.Errorf("%s of %s was begun after it was told to end (%v)", what, id, context.Cause(ctx))
	}
}
