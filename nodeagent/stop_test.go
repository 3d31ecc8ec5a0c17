package main

import (
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

// stop asks the agent to end the operation, in a person's words.
func (n *node) stop(why string) {
	n.t.Helper()
	a := n.assignment()
	patch := client.MergeFrom(a.DeepCopy())
	a.Spec.Operation.Stop = why
	if err := n.client.Patch(n.t.Context(), a, patch); err != nil {
		n.t.Fatal(err)
	}
}

const words = "the shop opens early today"

func TestStop(t *testing.T) {
	n := newNode(t)
	n.start()

	t.Run("in the scan", func(t *testing.T) {
		n.t = t
		n.planner(slowPlan)
		n.assign("1", v1alpha1.StepInstalling)
		n.eventually("the scan runs", func() bool { return n.exists("/plan-began") })
		n.stop(words)
		status := n.outcome("1", v1alpha1.StepStopped, v1alpha1.ReasonStopped)
		if status.Message != words+"; nothing was installed" {
			t.Errorf("The status says %q", status.Message)
		}
		n.wantLog("1", v1alpha1.EventScanStarted, v1alpha1.EventPatchDataRefreshed, v1alpha1.EventDeployStopped)
		n.remove("/usr/local/sbin/apt-get", "/plan-began")
	})

	t.Run("in the download", func(t *testing.T) {
		n.t = t
		n.stock(aptrepo.Slow("slow", "2.0"))
		n.assign("2", v1alpha1.StepInstalling)
		n.eventually("the download runs", func() bool { return n.main.Requests("slow") > 0 })
		n.stop(words)
		status := n.outcome("2", v1alpha1.StepStopped, v1alpha1.ReasonStopped)
		if status.Message != words+"; nothing was installed" {
			t.Errorf("The status says %q", status.Message)
		}
		if got := n.logged("2", v1alpha1.EventDeployStopped); got != status.Message {
			t.Errorf("The patch log says %q", got)
		}
		n.wantCounts()
		// Nothing of it still holds apt's locks.
		n.run("apt-get", "-q", "-d", "-y", "install", "ham")
		n.offer(aptrepo.Good("slow", "2.0"))
	})

	t.Run("before it is seen", func(t *testing.T) {
		n.t = t
		n.assign("3", v1alpha1.StepInstalling, func(o *v1alpha1.Operation) { o.Stop = words })
		n.outcome("3", v1alpha1.StepStopped, v1alpha1.ReasonStopped)
		n.wantLog("3", v1alpha1.EventDeployStopped)
		if got := n.versions("egg", "ham", "slow"); got != "egg 1.0\nham 1.0\nslow 1.0" {
			t.Errorf("Installed:\n%s", got)
		}
	})
}

// A transaction is finished, with all its outcomes, and the next is not begun: here that of a package whose dependency
// failed and that is on its own then.
func TestStopInTransaction(t *testing.T) {
	for name, test := range map[string]struct {
		end            func(*node)
		reason, begins string
	}{
		"stopped":    {func(n *node) { n.stop(words) }, v1alpha1.ReasonStopped, words + "; 2 of 4 patches installed, 1 failed, 1 left undone"},
		"taken back": {func(n *node) { n.assign("", "") }, v1alpha1.ReasonAborted, "the manager took the operation back before it had ended; 2 of 4 patches installed"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			needy := aptrepo.Good("needy", "2.0")
			needy.Depends = "wall (>= 2.0)"
			n.stock(gated("wall", "2.0", "echo tried >>/wall-runs; exit 1"), needy)
			n.start()
			n.assign("1", v1alpha1.StepInstalling)
			n.eventually("the transaction runs", func() bool { return n.exists("/wall-began") })
			test.end(n)
			n.eventually("the agent has seen it", func() bool {
				a := n.assignment()
				return a.Spec.Operation == nil || a.Spec.Operation.Stop != ""
			})
			if s := n.assignment().Status.Agent; s != nil && s.Step.Ended() {
				t.Errorf("It ended in the middle of a transaction: %+v", s)
			}
			n.write("/wall-gate", "")
			status := n.outcome("1", v1alpha1.StepStopped, test.reason)
			if !strings.HasPrefix(status.Message, test.begins) || status.Counts == nil || status.Counts.Installed != 2 {
				t.Errorf("The status says %q, %+v", status.Message, status.Counts)
			}
			n.wantCounts("wall=2.0 D0 I1")
			if got := n.versions("egg", "ham", "needy", "wall"); got != "egg 2.0\nham 1.1\nneedy 2.0 unpacked\nwall 2.0 half-configured" {
				t.Errorf("Installed:\n%s", got)
			}
			if got := n.read("/wall-runs"); got != "tried" {
				t.Errorf("The script ran more than once: %q", got)
			}
			if got := n.logged("1", v1alpha1.EventDeployStopped); got != status.Message {
				t.Errorf("The patch log says %q", got)
			}
			if got := n.logged("1", v1alpha1.EventPatchesInstalled); got != "2 patches installed: egg 1.0 -> 2.0, ham 1.0 -> 1.1" {
				t.Errorf("The patch log says %q", got)
			}

			// The next task finds it so, and heals it.
			n.offer(aptrepo.Good("wall", "2.1"))
			n.deploy("2", v1alpha1.StepDone, v1alpha1.ReasonInstalled)
			if got := n.versions("needy", "wall"); got != "needy 2.0\nwall 2.1" {
				t.Errorf("Installed:\n%s", got)
			}
			n.wantCounts()
		})
	}
}
