package operation

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"reflect"
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
	for i, all := 0, reflect.ValueOf(sum); i < all.NumField(); i++ {
		if all.Field(i).IsZero() {
			t.Errorf("The scripts do not try everything: %s", all.Type().Field(i).Name)
		}
	}
}

// events is what happened in all scripts.
type events struct {
	Operations, Kills, Installed, Counted, Blocked, Cut, Stopped, Cleared         int
	Waited, StoppedWaiting, Raised, Orders, Refused, Boots, Twice, Still, Unknown int
	Pinned, PinsInstalled, PinsLost                                               int
}

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
	c.Waited += s.waited
	c.StoppedWaiting += s.stoppedWaiting
	c.Raised += s.raised
	c.Boots += s.pm.boot
	c.Refused += s.pm.refused
	c.Pinned += len(s.api.pinned)
	c.PinsInstalled += s.pm.pinsInstalled
	c.PinsLost += s.pm.pinsLost
	for _, orders := range s.pm.orders {
		c.Orders += len(orders)
		c.Twice += len(orders) / 2
	}
	for _, status := range s.api.status {
		switch status.Reason {
		case v1alpha1.ReasonRebootStillRequired:
			c.Still++
		case v1alpha1.ReasonRebootUnknown:
			c.Unknown++
		}
	}
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
	life       context.CancelCauseFunc

	waited, stoppedWaiting, raised int
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
	s.log = &logModel{s: s, keys: map[string]bool{}, reasons: map[string]int{}}
	s.option = Options{
		Node: "n1", Version: "v1", Host: h, API: s.api, Log: s.log, Idle: func() {}, Logger: slog.New(slog.DiscardHandler),
		Reboot: s.pm.reboot,
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
	s.pm.held = 0 // locks go with their holder
}

// maybe is true once in n times, and never when the host is to come to rest.
func (s *simulation) maybe(n int) bool { return !s.calm && s.rand.IntN(n) == 0 }

// point is a place where a worker may be killed. More deaths than four in a phase are taken for the operation's fault.
func (s *simulation) point() {
	if s.deaths < 4 && s.maybe(25) {
		s.deaths++
		s.kills++
		if s.maybe(4) {
			s.pm.start() // it is the host that went down
		}
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
	ctx, end := context.WithCancelCause(s.t.Context())
	defer end(nil)
	s.life = end
	s.worker.Assign(s.assignment)
	err := s.worker.reconcile(ctx)
	if s.pm.goesDown {
		s.pm.start()
		s.restart()
		return false
	}
	return err == nil
}

// operate gives the worker an operation, and wants it to end.
func (s *simulation) operate(o v1alpha1.Operation) {
	s.number++
	s.deaths = 0
	id := fmt.Sprint("op-", s.number)
	a := s.assignment.DeepCopy()
	o.ID, o.Task = id, "task-"+id
	a.Spec.Operation = &o
	a.Spec.Operation.Deadline.Time = time.Now().Add(time.Hour)
	a.Spec.Operation.RetryLimits = &v1alpha1.RetryLimits{Download: 3, Install: 2}
	a.Spec.RetryClears = s.api.object.Status.Clears
	if o.Action == v1alpha1.ActionDeploy && s.maybe(3) {
		o.Pin, s.api.pinned[id] = v1alpha1.OperationPinTask, s.pm.pin()
	}
	s.assignment = a
	for range 120 {
		if rest := s.step(); rest && s.api.ended(id) {
			s.pm.check(id, &o)
			return
		} else if rest {
			s.whileItWaits(id)
		}
		s.assignment = s.assignment.DeepCopy()
		s.assignment.Spec.RetryClears = s.api.object.Status.Clears
	}
	s.t.Errorf("%s does not end: %+v", id, s.worker.journal.Current)
}

func (s *simulation) run() {
	for range 1 + s.rand.IntN(6) {
		s.pm.offer()
		s.operate(s.ask())
		if s.t.Failed() {
			return
		}
	}
	s.calm = true
	s.api.away = 0
	s.operate(v1alpha1.Operation{Step: v1alpha1.StepScanning})
	s.check()
}

// ask is what the manager asks for.
func (s *simulation) ask() v1alpha1.Operation {
	return []v1alpha1.Operation{
		{Step: v1alpha1.StepScanning},
		{Step: v1alpha1.StepDownloading},
		{Step: v1alpha1.StepInstalling},
		{Step: v1alpha1.StepInstalling},
		{Step: v1alpha1.StepScanning, Action: v1alpha1.ActionScan},
		{Step: v1alpha1.StepDownloading, Action: v1alpha1.ActionDownload},
		{Step: v1alpha1.StepDownloading, Action: v1alpha1.ActionDeploy, Reboot: v1alpha1.RebootNever},
		{Step: v1alpha1.StepDownloading, Action: v1alpha1.ActionDeploy, Reboot: v1alpha1.RebootIfRequired},
		{Step: v1alpha1.StepDownloading, Action: v1alpha1.ActionDeploy, Reboot: v1alpha1.RebootIfRequired},
		{Step: v1alpha1.StepDownloading, Action: v1alpha1.ActionDeploy, Reboot: v1alpha1.RebootAlways},
	}[s.rand.IntN(10)]
}

// whileItWaits is what the manager, and others, do with an operation that waits.
func (s *simulation) whileItWaits(id string) {
	why := s.api.waits(id)
	if why == "" {
		if !s.stopped[id] {
			s.t.Errorf("%s came to rest, and the server has heard %+v", id, s.api.status[id])
		}
		return
	}
	s.waited++
	s.pm.waits(id, why)
	o := s.assignment.Spec.Operation
	if o == nil || s.stopped[id] {
		return
	}
	switch {
	case s.maybe(8):
		s.restart()
	case s.maybe(8):
		s.pm.start()
		s.restart()
	case s.maybe(8):
		s.interfere()
		if s.stopped[id] {
			s.stoppedWaiting++
		}
	case !s.maybe(3):
		next := s.assignment.DeepCopy()
		switch {
		case o.Step == v1alpha1.StepDownloading && !s.maybe(10):
			next.Spec.Operation.Step = v1alpha1.StepInstalling
		case why == v1alpha1.ReasonRebootRequired || o.Step == v1alpha1.StepDownloading:
			next.Spec.Operation.Step = v1alpha1.StepRebooting
		default:
			return
		}
		next.Spec.Operation.Deadline.Time = time.Now().Add(time.Hour)
		s.raised++
		s.assign(next)
	}
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

// begun wants nothing to be begun that was told to end, or may not go up to that step.
func (s *simulation) begun(ctx context.Context, id, what string, step v1alpha1.Step) {
	if s.stopped[id] {
		s.t.Errorf("%s of %s was begun after it was told to end (%v)", what, id, context.Cause(ctx))
	} else if o := s.assignment.Spec.Operation; o.ID != id || level(o.Step) < level(step) {
		s.t.Errorf("%s of %s was begun while it may go up to %s", what, id, o.Step)
	}
}
