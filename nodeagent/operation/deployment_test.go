package operation

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// deploymentOf has a patch for each result, p0 first.
func deploymentOf(results ...result) *deployment {
	d := &deployment{Operation: "1"}
	for n, r := range results {
		d.Patches = append(d.Patches, &item{
			Target: packages.Target{Name: fmt.Sprint("p", n), Architecture: "all", Version: "2"}, From: "1", Result: r, Message: "because",
		})
	}
	return d
}

func ready(n int) []result { return slices.Repeat([]result{resultReady}, n) }

func TestQueue(t *testing.T) {
	for name, test := range map[string]struct {
		results   []result
		queue     [][]int
		positions []int
		halves    bool
		want      string
	}{
		"all again":                          {results: ready(4), positions: []int{0, 1, 2, 3}, want: "[[0 1 2 3]]"},
		"halves":                             {results: ready(4), positions: []int{0, 1, 2, 3}, halves: true, want: "[[0 1] [2 3]]"},
		"halves of an odd number":            {results: ready(5), positions: []int{0, 1, 2, 3, 4}, halves: true, want: "[[0 1] [2 3 4]]"},
		"one is not halved":                  {results: ready(1), positions: []int{0}, halves: true, want: "[[0]]"},
		"before the rest of the queue":       {results: ready(4), queue: [][]int{{3}}, positions: []int{0, 1, 2}, halves: true, want: "[[0] [1 2] [3]]"},
		"only what is still to be done":      {results: []result{resultInstalled, resultReady, resultFailed, resultReady, resultDeferred}, positions: []int{0, 1, 2, 3, 4}, want: "[[1 3]]"},
		"nothing is left":                    {results: []result{resultInstalled, resultFailed}, queue: [][]int{{5}}, positions: []int{0, 1}, halves: true, want: "[[5]]"},
		"halves of what is still to be done": {results: []result{resultReady, resultFailed, resultReady}, positions: []int{0, 1, 2}, halves: true, want: "[[0] [2]]"},
	} {
		t.Run(name, func(t *testing.T) {
			d := deploymentOf(test.results...)
			d.Queue = test.queue
			d.enqueue(test.positions, test.halves)
			if got := fmt.Sprint(d.Queue); got != test.want {
				t.Errorf("Queue is %s, want %s", got, test.want)
			}
		})
	}
}

// Where nobody says who the culprit is, halves find it, and every other patch is tried in the end.
func TestHalvesEnd(t *testing.T) {
	for culprits := range 1 << 7 {
		d := deploymentOf(ready(7)...)
		d.Queue = [][]int{d.positions(resultReady)}
		rounds := 0
		for ; len(d.Queue) > 0 && rounds < 100; rounds++ {
			batch, positions := d.batch(), d.Queue[0]
			d.Queue = d.Queue[1:]
			if slices.ContainsFunc(positions, func(p int) bool { return culprits>>p&1 == 1 }) {
				if len(batch) == 1 {
					batch[0].settle(resultFailed, "")
				}
				d.enqueue(positions, true)
				continue
			}
			for _, i := range batch {
				i.settle(resultInstalled, "")
			}
		}
		for n, i := range d.Patches {
			if want := []result{resultInstalled, resultFailed}[culprits>>n&1]; i.Result != want {
				t.Fatalf("With the culprits %b, p%d is %q after %d rounds", culprits, n, i.Result, rounds)
			}
		}
	}
}

func TestSettledStaysSo(t *testing.T) {
	d := deploymentOf(resultInstalled, resultFailed, resultDeferred, resultReady, resultOpen)
	d.Queue = [][]int{{3}}
	d.deferRest("the disk was full")
	var got []string
	for _, i := range d.Patches {
		got = append(got, string(i.Result)+" "+i.Message)
	}
	want := []string{"Installed because", "Failed because", "Deferred because", "Deferred the disk was full", "Deferred the disk was full"}
	if !slices.Equal(got, want) || len(d.Queue) != 0 {
		t.Errorf("Patches are %q, queue is %v", got, d.Queue)
	}
}

func TestConclude(t *testing.T) {
	installing, downloading := v1alpha1.StepInstalling, v1alpha1.StepDownloading
	full := &finding{Reason: v1alpha1.ReasonDiskFull, Message: "the disk is full"}
	for name, test := range map[string]struct {
		step     v1alpha1.Step
		results  []result
		blocked  int
		obstacle *finding
		cause    error

		want        v1alpha1.Step
		wantReason  string
		wantMessage string
		wantEntry   string
	}{
		"nothing was chosen": {step: installing, want: v1alpha1.StepDone, wantReason: v1alpha1.ReasonNothingToDo,
			wantMessage: "No patch was to be installed", wantEntry: v1alpha1.EventDeployFinished},
		"all installed": {step: installing, results: []result{resultInstalled, resultInstalled}, want: v1alpha1.StepDone, wantReason: v1alpha1.ReasonInstalled,
			wantMessage: "2 of 2 patches installed", wantEntry: v1alpha1.EventDeployFinished},
		"blocked ones are named and no failure": {step: installing, results: []result{resultInstalled}, blocked: 2, want: v1alpha1.StepDone,
			wantReason: v1alpha1.ReasonInstalled, wantMessage: "1 of 1 patch installed, 2 blocked", wantEntry: v1alpha1.EventDeployFinished},
		"all downloaded": {step: downloading, results: []result{resultReady}, want: v1alpha1.StepDone, wantReason: v1alpha1.ReasonDownloaded,
			wantMessage: "1 of 1 patch downloaded", wantEntry: v1alpha1.EventDownloadFinished},
		"one failed": {step: installing, results: []result{resultInstalled, resultFailed, resultDeferred}, want: v1alpha1.StepFailed, wantReason: v1alpha1.ReasonPatchesFailed,
			wantMessage: "1 of 3 patches installed, 1 failed, 1 left undone: p1 2: because", wantEntry: v1alpha1.EventDeployFailed},
		"a download failed": {step: downloading, results: []result{resultReady, resultFailed, resultFailed}, want: v1alpha1.StepFailed, wantReason: v1alpha1.ReasonPatchesFailed,
			wantMessage: "1 of 3 patches downloaded, 2 failed: p1 2: because (and 1 more)", wantEntry: v1alpha1.EventDeployFailed},
		"an obstacle": {step: installing, results: []result{resultDeferred}, obstacle: full, want: v1alpha1.StepFailed, wantReason: v1alpha1.ReasonDiskFull,
			wantMessage: "0 of 1 patch installed, 1 left undone: the disk is full", wantEntry: v1alpha1.EventDeployFailed},
		"a failure is said before an obstacle": {step: installing, results: []result{resultFailed, resultDeferred}, obstacle: full, want: v1alpha1.StepFailed,
			wantReason: v1alpha1.ReasonPatchesFailed, wantMessage: "0 of 2 patches installed, 1 failed, 1 left undone: p0 2: because", wantEntry: v1alpha1.EventDeployFailed},
		"left undone": {step: installing, results: []result{resultInstalled, resultDeferred}, want: v1alpha1.StepFailed, wantReason: v1alpha1.ReasonPatchesDeferred,
			wantMessage: "1 of 2 patches installed, 1 left undone: p1 2: because", wantEntry: v1alpha1.EventDeployFailed},
		"stopped": {step: installing, results: []result{resultInstalled, resultFailed, resultDeferred}, cause: &stopError{"lunch"}, want: v1alpha1.StepStopped,
			wantReason: v1alpha1.ReasonStopped, wantMessage: "lunch; 1 of 3 patches installed, 1 failed, 1 left undone", wantEntry: v1alpha1.EventDeployStopped},
		"taken back": {step: installing, results: []result{resultInstalled}, cause: errTakenBack, want: v1alpha1.StepStopped, wantReason: v1alpha1.ReasonAborted,
			wantMessage: errTakenBack.Error() + "; 1 of 1 patch installed", wantEntry: v1alpha1.EventDeployStopped},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, manager{})
			f.journal.Current = &record{Operation: v1alpha1.Operation{ID: "1", Task: "t-1", Step: test.step}, Phase: phaseVerify, Started: time.Now()}
			d := deploymentOf(test.results...)
			d.Blocked, d.Obstacle = test.blocked, test.obstacle
			f.conclude(d, test.cause, &v1alpha1.PatchCounts{Missing: 7})
			o := f.journal.Current.Outcome
			if o == nil || o.Step != test.want || o.Reason != test.wantReason || o.Message != test.wantMessage || o.Counts.Missing != 7 || f.journal.live() {
				t.Errorf("Ended with %+v", o)
			}
			if !slices.Equal(f.entries.reasons, []string{test.wantEntry}) {
				t.Errorf("Patch log: %v", f.entries.reasons)
			}
		})
	}
}

func TestMessagesFitTheAPI(t *testing.T) {
	f := newFixture(t, manager{})
	f.journal.Current = &record{Operation: v1alpha1.Operation{ID: "1", Task: "t-1", Step: v1alpha1.StepInstalling}, Phase: phaseVerify, Started: time.Now()}
	f.conclude(deploymentOf(resultInstalled), errors.New(strings.Repeat("ä", 1024)), nil)
	if got := len(f.journal.Current.Outcome.Message); got > 1024 {
		t.Errorf("The message has %d bytes", got)
	}
}
