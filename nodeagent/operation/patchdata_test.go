package operation

import (
	"errors"
	"os"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// refreshAndScan are the entries of an update of the patch data, as of an operation that scans.
var refreshAndScan = []string{v1alpha1.EventScanStarted, v1alpha1.EventPatchDataRefreshed, v1alpha1.EventScanFinished}

// request is an assignment with a number of requests for fresh patch data, and an operation if it has an ID.
func request(number int64, id string) *v1alpha1.PatchAssignment {
	a := assign(id, later())
	a.Spec.Policy, a.Spec.PatchDataRefreshes = "workers", number
	return a
}

// manage gives the host another package manager.
func (f *fixture) manage(m manager) {
	f.Options.Packages = func(packages.Runner, packages.Locks) (packages.Manager, error) { return m, nil }
	f.options.Packages = f.Options.Packages
}

// updates checks how often patch data was refreshed and scanned, and reported.
func (f *fixture) updates(t *testing.T, want int) {
	t.Helper()
	if got := slices.Repeat(refreshAndScan, want); !slices.Equal(f.entries.reasons, got) {
		t.Errorf("patch log is %v, want %v", f.entries.reasons, got)
	}
	if len(f.api.reports) != want {
		t.Errorf("%d reports were sent, want %d", len(f.api.reports), want)
	}
}

func TestPatchDataIsUpdatedOnceForEachRequest(t *testing.T) {
	f := newFixture(t, manager{})
	f.see(t, request(0, ""))
	f.updates(t, 0)
	for range 2 {
		f.see(t, request(1, ""))
	}
	f.restart(t)
	f.see(t, request(1, ""))
	f.updates(t, 1)
	f.see(t, request(4, "")) // three more, while it was away
	f.updates(t, 2)
	if report := f.api.reports[1]; report.Policy != "workers" || report.Counts.Missing != 1 || report.Scan.Task != "" || report.Scan.OperationID == "" {
		t.Errorf("report is %+v", report)
	}
	if len(f.api.status) != 0 {
		t.Errorf("the assignment's status tells of an operation: %+v", f.api.status)
	}
}

func TestPatchDataOfAnAssignmentMadeAnew(t *testing.T) {
	f := newFixture(t, manager{})
	f.see(t, request(3, ""))
	f.updates(t, 1)
	anew := request(0, "")
	anew.UID = "uid-2"
	f.see(t, anew)
	f.restart(t)
	again := anew.DeepCopy()
	again.Spec.PatchDataRefreshes = 3
	reports := len(f.api.reports) // the last one is sent to the new objects
	f.see(t, again)
	if len(f.entries.reasons) != 6 || len(f.api.reports) != reports+1 {
		t.Errorf("patch log is %v, %d reports after %d", f.entries.reasons, len(f.api.reports), reports)
	}
}

func TestPatchDataIsUpdatedBesideOperations(t *testing.T) {
	t.Run("which goes first, and will do", func(t *testing.T) {
		f := newFixture(t, manager{})
		f.see(t, request(1, "1"))
		f.see(t, request(1, "1"))
		f.updates(t, 1)
		if s := f.api.last(); s == nil || s.OperationID != "1" || s.Step != v1alpha1.StepDone {
			t.Errorf("outcome of the operation is %+v", s)
		}
	})
	t.Run("which had refreshed before", func(t *testing.T) {
		f := newFixture(t, manager{})
		f.see(t, request(0, "1"))
		f.see(t, request(1, "1"))
		f.updates(t, 2)
	})
	t.Run("which had refreshed before, and goes on", func(t *testing.T) {
		f := newFixture(t, manager{})
		scans := 0
		f.manage(manager{scan: func() (packages.Scan, error) {
			if scans++; scans == 1 {
				f.Assign(request(1, "1"))
			}
			return packages.Scan{}, nil
		}})
		f.see(t, request(0, "1"))
		f.see(t, request(1, "1"))
		f.updates(t, 2)
	})
	t.Run("which waits, until it has ended", func(t *testing.T) {
		f := newFixture(t, manager{})
		a := deploy("1", v1alpha1.StepDownloading, later())
		waitingFor(t, f, phaseReady, a.Spec.Operation, resultReady)
		a.Spec.PatchDataRefreshes = 1
		f.see(t, a)
		f.updates(t, 0)
		f.see(t, request(1, "")) // it is taken back
		if want := append([]string{v1alpha1.EventDeployStopped}, refreshAndScan...); !slices.Equal(f.entries.reasons, want) {
			t.Errorf("patch log is %v, want %v", f.entries.reasons, want)
		}
	})
	t.Run("which comes meanwhile, goes first, and will do", func(t *testing.T) {
		f := newFixture(t, manager{})
		scans := 0
		f.manage(manager{scan: func() (packages.Scan, error) {
			if scans++; scans == 1 {
				f.Assign(request(1, "1"))
				return packages.Scan{}, errors.New("it was killed")
			}
			return packages.Scan{}, nil
		}})
		f.see(t, request(1, ""))
		if len(f.api.reports) != 0 {
			t.Errorf("an update that was ended is reported: %+v", f.api.reports[0])
		}
		f.see(t, request(1, "1"))
		f.see(t, request(1, "1"))
		if s := f.api.last(); s == nil || s.OperationID != "1" || s.Step != v1alpha1.StepDone || scans != 2 {
			t.Errorf("outcome of the operation is %+v after %d scans", s, scans)
		}
	})
	t.Run("which comes meanwhile and cannot refresh", func(t *testing.T) {
		f := newFixture(t, manager{})
		m := manager{refresh: errors.New("no route to host")}
		m.scan = func() (packages.Scan, error) {
			if f.api.last() == nil {
				f.Assign(request(1, "1"))
			}
			return packages.Scan{}, nil
		}
		f.manage(m)
		f.see(t, request(1, ""))
		f.see(t, request(1, "1"))
		if last := f.api.reports[len(f.api.reports)-1]; last.Scan.Task != "" || len(f.api.reports) != 2 {
			t.Errorf("%d reports, the last for task %q", len(f.api.reports), last.Scan.Task)
		}
	})
}

func TestPatchDataOfARepositoryThatIsAway(t *testing.T) {
	f := newFixture(t, manager{refresh: errors.New("no route to host")})
	for range 2 {
		f.see(t, request(1, ""))
	}
	want := []string{v1alpha1.EventScanStarted, v1alpha1.EventPatchDataStale, v1alpha1.EventScanFinished}
	if !slices.Equal(f.entries.reasons, want) || len(f.api.reports) != 1 {
		t.Fatalf("patch log is %v, %d reports", f.entries.reasons, len(f.api.reports))
	}
	if meta.IsStatusConditionTrue(f.api.reports[0].Conditions, v1alpha1.ConditionPatchDataCurrent) {
		t.Errorf("conditions are %+v", f.api.reports[0].Conditions)
	}
}

// An agent that dies of an update takes it up again, and not for ever.
func TestAgentDiesOfUpdate(t *testing.T) {
	for _, deadly := range []int{1, 100} {
		f := newFixture(t, manager{})
		deaths := 0
		f.manage(manager{scan: func() (packages.Scan, error) {
			if deaths < deadly {
				deaths++
				panic("killed")
			}
			return packages.Scan{}, nil
		}})
		for range 20 {
			func() {
				defer func() { _ = recover() }()
				f.see(t, request(1, ""))
			}()
			f.restart(t)
		}
		if deaths != min(deadly, maxAttempts) {
			t.Errorf("it died %d times of %d", deaths, deadly)
		}
		last := v1alpha1.EventScanFinished
		if deadly > maxAttempts {
			last = v1alpha1.EventScanFailed
		}
		want := []string{v1alpha1.EventScanStarted, v1alpha1.EventPatchDataRefreshed, last}
		if !slices.Equal(f.entries.reasons, want) || len(f.api.reports) != 1 {
			t.Errorf("patch log is %v, want %v; %d reports", f.entries.reasons, want, len(f.api.reports))
		}
	}
}

// Whatever was written last when the agent died, the update is reported, and not repeated once it ended.
func TestUpdateEndedBeforeItWasNoted(t *testing.T) {
	f := newFixture(t, manager{})
	f.api.refuse = errors.New("connection refused")
	f.Assign(request(1, ""))
	if err := f.reconcile(t.Context()); err == nil {
		t.Error("nothing is to be tried again")
	}
	f.journal.Refreshes, f.journal.ReportPending = 0, false
	f.save()
	f.restart(t)
	f.api.refuse = nil
	f.see(t, request(1, ""))
	f.updates(t, 1)
}

func TestJournalOfTheUpdateLost(t *testing.T) {
	f := newFixture(t, manager{})
	f.see(t, request(1, ""))
	if err := os.WriteFile(f.options.Host.Path("journal", patchDataFile), []byte(`{"current"`), 0o600); err != nil {
		t.Fatal(err)
	}
	f.restart(t)
	f.see(t, request(1, ""))
	f.updates(t, 1)
	f.see(t, request(2, ""))
	f.updates(t, 2)
}
