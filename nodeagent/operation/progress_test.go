package operation

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// locked is a package manager that waits for a lock that changes hands.
type locked struct {
	manager
	locks packages.Locks
	waits time.Duration
}

func (m locked) Refresh(context.Context) (packages.Refresh, error) {
	for waited := time.Duration(0); waited < m.waits; waited += 2 * time.Second {
		held := &packages.LockHeldError{Path: "/lock", PID: 7, Process: "unattended-upgr"}
		if waited >= time.Minute {
			held = &packages.LockHeldError{Path: "/lock", PID: 8, Process: "apt-get"}
		}
		if err := m.locks.Waiting(held); err != nil {
			return packages.Refresh{}, err
		}
		time.Sleep(2 * time.Second)
	}
	return packages.Refresh{}, nil
}

func TestProgressIsSaidWhereItTakesLong(t *testing.T) {
	for name, test := range map[string]struct {
		waits time.Duration
		want  []string // holders that the status names before the outcome
	}{
		"a short wait costs no write":         {waits: 10 * time.Second},
		"a long wait names the holder once":   {waits: 50 * time.Second, want: []string{"unattended-upgr (process 7)"}},
		"a lock that changes hands is a news": {waits: 2 * time.Minute, want: []string{"unattended-upgr (process 7)", "apt-get (process 8)"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, manager{})
				f.Packages = func(_ packages.Runner, locks packages.Locks) (packages.Manager, error) {
					return locked{locks: locks, waits: test.waits}, nil
				}
				f.see(t, assign("1", later()))
				if len(f.api.status) != len(test.want)+1 {
					t.Fatalf("%d writes of the status, want %d and the outcome", len(f.api.status), len(test.want))
				}
				for i, holder := range test.want {
					s := f.api.status[i]
					if s.Step != v1alpha1.StepScanning || s.Reason != v1alpha1.ReasonLocked || !strings.Contains(s.Message, holder) {
						t.Errorf("Status %d is %+v, want the holder %s", i, s, holder)
					}
				}
				if s := f.api.last(); s.Step != v1alpha1.StepDone {
					t.Errorf("The last status is %+v", s)
				}
			})
		})
	}
}

func TestOutcomeIsSaidAgainWhereProgressOvertookIt(t *testing.T) {
	f := newFixture(t, manager{})
	a := assign("1", later())
	f.see(t, a)
	a.Status.Agent = &v1alpha1.AgentStatus{OperationID: "1", Step: v1alpha1.StepScanning}
	f.see(t, a)
	if len(f.api.status) != 2 || f.api.last().Step != v1alpha1.StepDone {
		t.Errorf("Status is %+v after %d writes", f.api.last(), len(f.api.status))
	}
}
