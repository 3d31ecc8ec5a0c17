package operation

import (
	"errors"
	"slices"
	"testing"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// told are the reasons of the entries in the report that was sent last.
func (f *fixture) told() (reasons []string) {
	for _, entry := range f.api.reports[len(f.api.reports)-1].Log {
		reasons = append(reasons, entry.Reason)
	}
	return reasons
}

var scanned = []string{v1alpha1.EventScanStarted, v1alpha1.EventPatchDataRefreshed, v1alpha1.EventScanFinished}

// Each scan sends one report, with the entries of its own and of those before it, also of earlier agents.
func TestReportHasTheEndOfTheLog(t *testing.T) {
	f := newFixture(t, manager{})
	for i, id := range []string{"1", "2", "3", "4", "5", "6", "7", "8"} {
		f.see(t, assign(id, later()))
		f.restart(t)
		want := slices.Repeat(scanned, i+1)
		want = want[max(0, len(want)-v1alpha1.MaxReportedEntries):]
		if len(f.api.reports) != i+1 || !slices.Equal(f.told(), want) {
			t.Fatalf("after %d scans, %d reports, the last with %v, want %v", i+1, len(f.api.reports), f.told(), want)
		}
	}
}

// An operation that found nothing new has its end in the report nevertheless.
func TestReportTellsThatAnOperationWasStopped(t *testing.T) {
	f := newFixture(t, manager{})
	f.see(t, assign("1", later()))
	stopped := assign("2", later())
	stopped.Spec.Operation.Stop = "A person wanted it"
	f.see(t, stopped)
	if want := append(slices.Clone(scanned), v1alpha1.EventScanStopped); !slices.Equal(f.told(), want) || len(f.api.reports) != 2 {
		t.Errorf("%d reports, the last with %v, want %v", len(f.api.reports), f.told(), want)
	}
	if last := f.api.reports[1]; last.Scan == nil || last.Scan.OperationID != "1" {
		t.Errorf("the report is no longer of the scan before it: %+v", last.Scan)
	}
}

// What people have deleted goes from the report with one write, also if the agent or the API server was away just then.
func TestReportIsSentAnewAfterAClear(t *testing.T) {
	for name, between := range map[string]func(*fixture){
		"at once":          func(*fixture) {},
		"after a restart":  func(f *fixture) { f.restart(t) },
		"API server away":  func(f *fixture) { f.refused(t) },
		"away and restart": func(f *fixture) { f.refused(t); f.restart(t) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, manager{})
			f.see(t, assign("1", later()))
			f.entries.all, f.entries.cleared = nil, "uid-1/1"
			between(f)
			for range 3 {
				f.see(t, assign("1", later()))
			}
			if len(f.api.reports) != 2 || len(f.told()) != 0 {
				t.Errorf("%d reports, the last with %v, want one more without entries", len(f.api.reports), f.told())
			}
			if last := f.api.reports[1]; last.Counts == nil || last.Counts.Missing != 1 {
				t.Errorf("the report lost what the scan has found: %+v", last)
			}
		})
	}
}

// refused lets the worker try while the API server does not answer.
func (f *fixture) refused(t *testing.T) {
	t.Helper()
	f.api.refuse = errors.New("connection refused")
	f.Assign(assign("1", later()))
	if err := f.reconcile(t.Context()); err == nil {
		t.Error("a report that was not taken counts as sent")
	}
	f.api.refuse = nil
}

// A log that cannot be read costs the report nothing else.
func TestReportWithoutLog(t *testing.T) {
	f := newFixture(t, manager{})
	f.entries.broken = errors.New("input/output error")
	f.see(t, assign("1", later()))
	if s := f.api.last(); len(f.api.reports) != 1 || s == nil || s.Step != v1alpha1.StepDone {
		t.Errorf("%d reports, status %+v", len(f.api.reports), s)
	}
}
