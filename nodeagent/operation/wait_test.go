package operation

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// waitingFor has an operation wait in a phase, with one patch that was chosen.
func waitingFor(t *testing.T, f *fixture, p phase, o *v1alpha1.Operation, r result) {
	t.Helper()
	f.journal.AssignmentUID = "uid-1"
	f.journal.Current = &record{
		Operation: *o, Phase: p, BootID: f.boot(), Started: time.Now(),
		Wait: &waiting{Since: time.Now(), Reason: v1alpha1.ReasonReadyToInstall, Message: "waiting", Counts: &v1alpha1.PatchCounts{Downloaded: 1}},
	}
	d := deploymentOf(r)
	d.Operation = o.ID
	if err := errors.Join(f.journal.store(deploymentFile, d), f.journal.save()); err != nil {
		t.Fatal(err)
	}
	f.restart(t)
}

func deploy(id string, step v1alpha1.Step, deadline time.Time) *v1alpha1.PatchAssignment {
	a := assign(id, deadline)
	a.Spec.Operation.Action, a.Spec.Operation.Step, a.Spec.Operation.Reboot = v1alpha1.ActionDeploy, step, v1alpha1.RebootIfRequired
	return a
}

func TestWaitingCostsNothing(t *testing.T) {
	f := newFixture(t, manager{scan: func() (packages.Scan, error) { return packages.Scan{}, errors.New("not asked for") }})
	a := deploy("1", v1alpha1.StepDownloading, time.Now().Add(-time.Hour)) // a node that waits has no deadline to fear
	waitingFor(t, f, phaseReady, a.Spec.Operation, resultReady)
	for range 30 { // as often as its agent may be restarted
		f.see(t, a)
		f.restart(t)
	}
	if f.api.last() != nil || len(f.entries.reasons) != 0 || f.journal.Current.Attempts != 0 {
		t.Errorf("It said %+v, logged %v, and took it up %d times", f.api.last(), f.entries.reasons, f.journal.Current.Attempts)
	}
}

func TestWaitingIsSaidAgainWhereProgressOvertookIt(t *testing.T) {
	f := newFixture(t, manager{})
	a := deploy("1", v1alpha1.StepDownloading, later())
	waitingFor(t, f, phaseReady, a.Spec.Operation, resultReady)
	a.Status.Agent = &v1alpha1.AgentStatus{OperationID: "1", Step: v1alpha1.StepDownloading}
	f.see(t, a)
	if s := f.api.last(); s == nil || s.Step != v1alpha1.StepWaiting || s.Reason != v1alpha1.ReasonReadyToInstall || s.Counts.Downloaded != 1 {
		t.Errorf("Status is %+v", s)
	}
}

// What is let on is not begun when the manager has stopped waiting for it.
func TestLetOnTooLate(t *testing.T) {
	for p, test := range map[phase]struct {
		step   v1alpha1.Step
		result result
		begins string
	}{
		phaseReady: {v1alpha1.StepInstalling, resultReady, "0 of 1 patch installed, 1 left undone: The deadline "},
		phaseDue:   {v1alpha1.StepRebooting, resultInstalled, "1 of 1 patch installed: The deadline "},
	} {
		t.Run(string(p), func(t *testing.T) {
			f := newFixture(t, manager{})
			a := deploy("1", test.step, time.Now().Add(-time.Second))
			waitingFor(t, f, p, a.Spec.Operation, test.result)
			f.see(t, a)
			if s := f.api.last(); s == nil || s.Step != v1alpha1.StepFailed || s.Reason != v1alpha1.ReasonTimeout || !strings.HasPrefix(s.Message, test.begins) {
				t.Errorf("Status is %+v", s)
			}
			if want := []string{v1alpha1.EventDeployFailed}; !slices.Equal(f.entries.reasons, want) {
				t.Errorf("Patch log: %v", f.entries.reasons)
			}
		})
	}
}

// An operation that the version before this one had under way goes on as it would have with that one.
func TestJournalOfTheVersionBefore(t *testing.T) {
	const text = `{"assignmentUID":"uid-1","current":{"id":"1","task":"t-1","step":"Installing","retryLimits":{"download":11,"install":4},` +
		`"assignedAt":"2026-11-22T01:00:00Z","deadline":"2026-11-22T02:00:00Z","policy":"everything","phase":"Verify","bootID":"former",` +
		`"attempts":1,"started":"2026-11-22T01:00:00Z","refresh":{"ok":true,"reason":"Refreshed","time":"2026-11-22T01:00:10Z"}},` +
		`"earlier":[{"operationID":"0","step":"Done","time":"2026-11-21T01:00:00Z","reason":"Installed","message":"1 of 1 patch installed"}]}`
	const patches = `{"operation":"1","patches":[{"Name":"oil","Architecture":"all","Version":"2","from":"1","result":"Installed"}],"blocked":0,"round":1}`
	if !json.Valid([]byte(text)) || !json.Valid([]byte(patches)) {
		t.Fatal("The journal is none")
	}
	f := newFixture(t, manager{})
	for name, content := range map[string]string{journalFile: text, deploymentFile: patches} {
		if err := os.WriteFile(f.options.Host.Path("journal", name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.restart(t)
	a := assign("1", later())
	a.Spec.Operation.Step = v1alpha1.StepInstalling
	f.see(t, a)
	s := f.api.last()
	if s == nil || s.Step != v1alpha1.StepDone || s.Message != "1 of 1 patch installed" || s.Counts.Installed != 1 || s.Reboots != 0 || len(s.Earlier) != 1 {
		t.Errorf("Status is %+v", s)
	}
}

func TestNeedsReboot(t *testing.T) {
	required := packages.Scan{Reboot: packages.Reboot{Required: true, Reasons: []string{"kernel 2 is installed, 1 is running", "glibc"}}}
	unknown := packages.Scan{Reboot: packages.Reboot{Unknown: true, Reasons: []string{"no /proc"}}}
	cut := required
	cut.Problems = []packages.Problem{{Kind: packages.InterruptedTransaction, Message: "dpkg was interrupted"}}
	broken := required
	broken.Problems = []packages.Problem{{Kind: packages.BrokenPackage, Message: "oil is half-configured"}}
	for name, test := range map[string]struct {
		when      v1alpha1.RebootWhen
		action    v1alpha1.Action
		found     packages.Scan
		installed bool
		former    [][]string

		want        string
		wantTrouble string
	}{
		"not required":                        {when: v1alpha1.RebootIfRequired, installed: true},
		"required":                            {when: v1alpha1.RebootIfRequired, found: required, want: "kernel 2 is installed, 1 is running; glibc"},
		"required for a cause that is silent": {when: v1alpha1.RebootIfRequired, found: packages.Scan{Reboot: packages.Reboot{Required: true}}, want: "the host asks for it"},
		"required, and never":                 {when: v1alpha1.RebootNever, found: required, installed: true},
		"required, and nobody says when":      {found: required, installed: true},
		"required, and it is a scan":          {when: v1alpha1.RebootIfRequired, action: v1alpha1.ActionScan, found: required},
		"required, and a package is broken":   {when: v1alpha1.RebootIfRequired, found: broken, want: "kernel 2 is installed, 1 is running; glibc"},
		"required, and the database is cut":   {when: v1alpha1.RebootIfRequired, found: cut, wantTrouble: v1alpha1.ReasonInterrupted},
		"unknown after an installation":       {when: v1alpha1.RebootIfRequired, found: unknown, installed: true, wantTrouble: v1alpha1.ReasonRebootUnknown},
		"unknown, and nothing was installed":  {when: v1alpha1.RebootIfRequired, found: unknown},
		"always, and something was installed": {when: v1alpha1.RebootAlways, installed: true, want: "the task reboots every node on which patches were installed"},
		"always, and it is unknown":           {when: v1alpha1.RebootAlways, found: unknown, installed: true, want: "the task reboots every node on which patches were installed"},
		"always, and nothing was installed":   {when: v1alpha1.RebootAlways},
		"always, and required":                {when: v1alpha1.RebootAlways, found: required, want: "kernel 2 is installed, 1 is running; glibc"},
		"again for the same reason":           {when: v1alpha1.RebootIfRequired, found: required, former: [][]string{{"glibc"}}, wantTrouble: v1alpha1.ReasonRebootStillRequired},
		"again for another reason":            {when: v1alpha1.RebootIfRequired, found: required, former: [][]string{{"systemd"}}, want: "kernel 2 is installed, 1 is running; glibc"},
		"a third time":                        {when: v1alpha1.RebootIfRequired, found: required, former: [][]string{{"systemd"}, {"dbus"}}, wantTrouble: v1alpha1.ReasonRebootStillRequired},
		"always, and once is enough":          {when: v1alpha1.RebootAlways, former: [][]string{{"the task reboots every node on which patches were installed"}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &record{Operation: v1alpha1.Operation{Action: v1alpha1.ActionDeploy, Reboot: test.when, Deadline: metav1.Now()}}
			if test.action != "" {
				r.Action = test.action
			}
			for _, reasons := range test.former {
				r.Reboots = append(r.Reboots, rebootOrder{BootID: "former", Reasons: reasons, Back: time.Now()})
			}
			why, trouble := r.needsReboot(&test.found, test.installed)
			got := ""
			if trouble != nil {
				got = trouble.Reason
			}
			if strings.Join(why, "; ") != test.want || got != test.wantTrouble || trouble != nil && trouble.Message == "" {
				t.Errorf("It is %q, with the trouble %+v, want %q and %q", why, trouble, test.want, test.wantTrouble)
			}
		})
	}
}

// An operation that is begun again must not reboot its node for ever.
func TestJournalLostInReboot(t *testing.T) {
	for name, test := range map[string]struct {
		told v1alpha1.AgentStatus
		want v1alpha1.Step
	}{
		"it was rebooting":           {v1alpha1.AgentStatus{OperationID: "1", Step: v1alpha1.StepRebooting}, v1alpha1.StepFailed},
		"it was back":                {v1alpha1.AgentStatus{OperationID: "1", Step: v1alpha1.StepVerifying, Reboots: 1}, v1alpha1.StepFailed},
		"it had not come that far":   {v1alpha1.AgentStatus{OperationID: "1", Step: v1alpha1.StepInstalling}, v1alpha1.StepWaiting},
		"it was another operation's": {v1alpha1.AgentStatus{OperationID: "0", Step: v1alpha1.StepRebooting}, v1alpha1.StepWaiting},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, manager{scan: func() (packages.Scan, error) {
				return packages.Scan{Reboot: packages.Reboot{Required: true, Reasons: []string{"glibc"}}}, nil
			}})
			a := deploy("1", v1alpha1.StepInstalling, later())
			a.Status.Agent = &test.told
			f.see(t, a)
			s := f.api.last()
			if s == nil || s.Step != test.want || (s.Reason == v1alpha1.ReasonRebootStillRequired) != (test.want == v1alpha1.StepFailed) {
				t.Errorf("Status is %+v", s)
			}
		})
	}
}
