package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

// boots gives the machine boots of its own, and a reboot program that tries to install something before it does as it is told.
func (n *node) boots() {
	n.t.Helper()
	n.remove("/usr/sbin/reboot") // a link to systemctl
	n.write("/usr/sbin/reboot", "#!/bin/sh\necho ordered >>/reboots\napt-get -q -y install salt --allow-change-held-packages >/reboot-apt 2>&1\n[ ! -e /no-reboot ]\n")
	n.write("/boot-id", "")
	target := filepath.Join(n.Path, "proc/sys/kernel/random/boot_id")
	if err := unix.Mount(filepath.Join(n.Path, "boot-id"), target, "", unix.MS_BIND, ""); err != nil {
		n.t.Fatal(err)
	}
	n.owner.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	n.boot("first")
}

// boot is the machine's next boot, for which what asked for it is gone.
func (n *node) boot(id string) {
	n.t.Helper()
	n.write("/boot-id", id+"\n")
	n.remove("/run/reboot-required", "/run/reboot-required.pkgs")
}

// needing is a package that takes effect with a reboot.
func needing(name, version string) aptrepo.Package {
	return aptrepo.Package{Name: name, Version: version, Postinst: "echo required >/run/reboot-required; echo " + name + " >>/run/reboot-required.pkgs"}
}

func deploying(when v1alpha1.RebootWhen) func(*v1alpha1.Operation) {
	return func(o *v1alpha1.Operation) { o.Action, o.Reboot = v1alpha1.ActionDeploy, when }
}

// raise lets the operation go up to a step.
func (n *node) raise(step v1alpha1.Step) {
	n.t.Helper()
	a := n.assignment()
	patch := client.MergeFrom(a.DeepCopy())
	a.Spec.Operation.Step = step
	a.Spec.Operation.Deadline = metav1.NewTime(time.Now().Add(10 * time.Minute))
	if err := n.client.Patch(n.t.Context(), a, patch); err != nil {
		n.t.Fatal(err)
	}
}

// waits waits until the agent says that the operation waits for a reason.
func (n *node) waits(id, reason string) *v1alpha1.AgentStatus {
	n.t.Helper()
	var status *v1alpha1.AgentStatus
	n.eventually("operation "+id+" waits, "+reason, func() bool {
		status = n.assignment().Status.Agent
		if status != nil && status.OperationID == id && status.Step.Ended() {
			n.t.Fatalf("It ended: %+v", status)
		}
		return status != nil && status.OperationID == id && status.Step == v1alpha1.StepWaiting && status.Reason == reason
	})
	return status
}

// orders are how often the host was asked to reboot.
func (n *node) orders() int {
	if !n.exists("/reboots") {
		return 0
	}
	return strings.Count(n.read("/reboots")+"\n", "ordered\n")
}

func (n *node) ordered(times int) {
	n.t.Helper()
	n.eventually(fmt.Sprintf("the host was asked to reboot %d times", times), func() bool { return n.orders() == times })
}

func TestDeployWaitsAndReboots(t *testing.T) {
	n := newNode(t)
	n.boots()
	n.stock(needing("oil", "2.0"))
	a := n.start()

	t.Run("to install", func(t *testing.T) {
		n.t = t
		n.assign("1", v1alpha1.StepDownloading, deploying(v1alpha1.RebootIfRequired))
		status := n.waits("1", v1alpha1.ReasonReadyToInstall)
		if c := status.Counts; status.Message != "3 of 3 patches downloaded, waiting to install" || c == nil || c.Downloaded != 3 || c.Missing != 4 || c.Installed != 0 {
			t.Errorf("The status says %q, %+v", status.Message, c)
		}
		n.wantStates(map[string]string{"egg": "Downloaded", "ham": "Downloaded", "oil": "Downloaded", "salt": "Held "})
		n.wantLog("1", deployEntries[:4]...)
		all, _ := n.api.count()
		time.Sleep(3 * time.Second)
		if now, _ := n.api.count(); now != all {
			t.Errorf("An agent that waits made %d requests:\n%s", now-all, n.api.list())
		}
		_, writes := n.api.count()
		a.kill()
		a = n.start()
		n.eventually("the new agent is ready", func() bool { return n.ready() == 200 })
		time.Sleep(time.Second)
		if _, now := n.api.count(); now != writes {
			t.Errorf("An agent that found an operation waiting wrote:\n%s", n.api.list())
		}
		if got := n.versions("egg", "ham", "oil"); got != "egg 1.0\nham 1.0\noil 1.0" {
			t.Errorf("Installed while it waits:\n%s", got)
		}
	})

	t.Run("to reboot", func(t *testing.T) {
		n.t = t
		n.mirror.down.Store(true) // what is installed is what lies ready
		n.raise(v1alpha1.StepInstalling)
		status := n.waits("1", v1alpha1.ReasonRebootRequired)
		const begins = "3 of 3 patches installed, waiting to reboot: "
		if c := status.Counts; !strings.HasPrefix(status.Message, begins) || !strings.Contains(status.Message, "oil") || c == nil || c.Installed != 3 || c.Missing != 1 {
			t.Errorf("The status says %q, %+v", status.Message, c)
		}
		t.Log(status.Message)
		if got := n.versions("egg", "ham", "oil"); got != "egg 2.0\nham 1.1\noil 2.0" {
			t.Errorf("Installed:\n%s", got)
		}
		if got := n.logged("1", v1alpha1.EventRebootRequired); got != "Reboot required: "+strings.TrimPrefix(status.Message, begins) {
			t.Errorf("The patch log says %q", got)
		}
		if n.orders() != 0 {
			t.Error("The host was asked to reboot before it may be")
		}
	})

	t.Run("and reboots once", func(t *testing.T) {
		n.t = t
		n.raise(v1alpha1.StepRebooting)
		n.ordered(1)
		n.eventually("the status says so", func() bool { return n.assignment().Status.Agent.Step == v1alpha1.StepRebooting })
		if status := n.assignment().Status.Agent; !strings.HasPrefix(status.Message, "Rebooting: ") || status.Reboots != 0 {
			t.Errorf("The status is %+v", status)
		}
		n.eventually("apt has tried", func() bool { return n.exists("/reboot-apt") && strings.Contains(n.read("/reboot-apt"), "lock") })
		if got := n.read("/reboot-apt"); !strings.Contains(got, fmt.Sprintf("held by process %d (agent)", a.Process.Pid)) {
			t.Errorf("Apt was not kept from installing: %s", got)
		}
		// It may not have been given: the next agent in the same boot gives it again, and the host reboots once.
		a.kill()
		a = n.start()
		n.ordered(2)
		a.kill()
		n.boot("second")
		a = n.start()
		status := n.outcome("1", v1alpha1.StepDone, v1alpha1.ReasonInstalled)
		if c := status.Counts; status.Message != "3 of 3 patches installed, rebooted" || status.Reboots != 1 || c.Installed != 3 || c.Missing != 1 {
			t.Errorf("It ended with %q, %+v", status.Message, status)
		}
		n.wantLog("1", append(slices.Clone(deployEntries[:5]), v1alpha1.EventRebootRequired, v1alpha1.EventNodeRebooting, v1alpha1.EventNodeRebooted, v1alpha1.EventDeployFinished)...)
		if n.orders() != 2 {
			t.Errorf("The host was asked to reboot %d times", n.orders())
		}
	})
}

// A node without anything to do ends by itself, and one that only needs a reboot says so at once.
func TestDeployWithNothingToInstall(t *testing.T) {
	n := newNode(t)
	n.boots()
	a := n.start()
	nothing := func(o *v1alpha1.Operation) {
		deploying(v1alpha1.RebootIfRequired)(o)
		o.Patches = &v1alpha1.PatchSelection{Include: []v1alpha1.PackagePattern{"nothing"}}
	}
	n.assign("1", v1alpha1.StepDownloading, nothing)
	n.outcome("1", v1alpha1.StepDone, v1alpha1.ReasonNothingToDo)

	n.write("/run/reboot-required", "required\n")
	n.write("/run/reboot-required.pkgs", "libc6\n")
	n.assign("2", v1alpha1.StepDownloading, nothing)
	status := n.waits("2", v1alpha1.ReasonRebootRequired)
	if !strings.HasPrefix(status.Message, "No patch was to be installed, waiting to reboot: ") || status.Counts == nil {
		t.Errorf("The status is %+v", status)
	}
	// That a step below it is let on makes no difference.
	n.raise(v1alpha1.StepInstalling)
	n.raise(v1alpha1.StepRebooting)
	n.ordered(1)
	a.kill()
	n.boot("second")
	a = n.start()
	if status := n.outcome("2", v1alpha1.StepDone, v1alpha1.ReasonNothingToDo); status.Reboots != 1 || status.Message != "No patch was to be installed, rebooted" {
		t.Errorf("It ended with %+v", status)
	}

	// A host that wants to reboot again for the same reason is not rebooted for ever.
	n.write("/run/reboot-required", "required\n")
	n.write("/run/reboot-required.pkgs", "libc6\n")
	n.assign("3", v1alpha1.StepRebooting, nothing)
	n.ordered(2)
	a.kill()
	n.boot("third")
	n.write("/run/reboot-required", "required\n")
	n.write("/run/reboot-required.pkgs", "libc6\n")
	n.start()
	status = n.outcome("3", v1alpha1.StepFailed, v1alpha1.ReasonRebootStillRequired)
	t.Log(status.Message)
	if status.Reboots != 1 || n.orders() != 2 {
		t.Errorf("It ended with %+v after %d orders", status, n.orders())
	}

	// A task that never reboots leaves the node as it is.
	n.assign("4", v1alpha1.StepDownloading, nothing, func(o *v1alpha1.Operation) { o.Reboot = v1alpha1.RebootNever })
	n.outcome("4", v1alpha1.StepDone, v1alpha1.ReasonNothingToDo)

	// A host that refuses is believed.
	n.write("/no-reboot", "")
	n.remove("/run/reboot-required", "/run/reboot-required.pkgs")
	n.assign("5", v1alpha1.StepRebooting, deploying(v1alpha1.RebootAlways))
	status = n.outcome("5", v1alpha1.StepFailed, v1alpha1.ReasonRebootFailed)
	if c := status.Counts; status.Reboots != 0 || c == nil || c.Installed != 2 || !strings.Contains(status.Message, "/usr/sbin/reboot: exit status 1") {
		t.Errorf("It ended with %q, %+v", status.Message, status)
	}
	// The locks are free again.
	n.run("apt-get", "-q", "check")
}

func TestStopWhileWaiting(t *testing.T) {
	n := newNode(t)
	n.boots()
	n.stock(needing("oil", "2.0"))
	a := n.start()

	for id, test := range map[string]struct {
		end    func()
		reason string
		says   string
	}{
		"stopped":    {func() { n.stop(words) }, v1alpha1.ReasonStopped, words + "; nothing was installed"},
		"taken-back": {func() { n.assign("", "") }, v1alpha1.ReasonAborted, "the manager took the operation back before it had ended; nothing was installed"},
	} {
		t.Run(id, func(t *testing.T) {
			n.t = t
			n.assign(id, v1alpha1.StepDownloading, deploying(v1alpha1.RebootIfRequired))
			n.waits(id, v1alpha1.ReasonReadyToInstall)
			test.end()
			if status := n.outcome(id, v1alpha1.StepStopped, test.reason); status.Message != test.says {
				t.Errorf("The status says %q", status.Message)
			}
			if got := n.versions("egg", "ham", "oil"); got != "egg 1.0\nham 1.0\noil 1.0" {
				t.Errorf("Installed:\n%s", got)
			}
		})
	}

	t.Run("before a reboot, while no agent is there", func(t *testing.T) {
		n.t = t
		n.assign("3", v1alpha1.StepInstalling, deploying(v1alpha1.RebootIfRequired))
		n.waits("3", v1alpha1.ReasonRebootRequired)
		a.kill()
		n.stop(words)
		a = n.start()
		status := n.outcome("3", v1alpha1.StepStopped, v1alpha1.ReasonStopped)
		if status.Message != words+"; 3 of 3 patches installed" || status.Counts.Installed != 3 || n.orders() != 0 {
			t.Errorf("The status says %q, %+v", status.Message, status)
		}
	})

	t.Run("a host that reboots by itself is looked at again", func(t *testing.T) {
		n.t = t
		n.assign("4", v1alpha1.StepInstalling, deploying(v1alpha1.RebootIfRequired))
		n.waits("4", v1alpha1.ReasonRebootRequired)
		a.kill()
		n.boot("second")
		a = n.start()
		if status := n.outcome("4", v1alpha1.StepDone, v1alpha1.ReasonNothingToDo); status.Reboots != 0 || n.orders() != 0 {
			t.Errorf("It ended with %+v", status)
		}
	})
}

// What the node waits for reaches the API server some time, also one that has forgotten it.
func TestWaitingIsSaid(t *testing.T) {
	n := newNode(t)
	n.stock(aptrepo.Slow("oil", "2.0"))
	n.start()
	n.assign("1", v1alpha1.StepDownloading, deploying(v1alpha1.RebootNever))
	n.eventually("the download runs", func() bool { return n.main.Requests("oil") > 1 })
	back := n.api.away()
	n.main.ReleaseSlow()
	n.eventually("it waits", func() bool {
		return strings.Contains(n.read("/var/lib/nodepatch/journal/operation.json"), `"phase":"Ready"`)
	})
	time.Sleep(time.Second)
	back()
	n.waits("1", v1alpha1.ReasonReadyToInstall)

	operation := n.assignment().Spec.Operation
	if err := n.client.Delete(t.Context(), n.assignment()); err != nil {
		t.Fatal(err)
	}
	a := &v1alpha1.PatchAssignment{ObjectMeta: metav1.ObjectMeta{Name: n.name}}
	a.Spec.Operation = operation
	n.create(a)
	// Without an assignment it was not asked for any more, if the agent has seen that: then it has ended.
	n.eventually("the new object says how it stands", func() bool {
		s := n.assignment().Status.Agent
		return s != nil && s.OperationID == "1" && (s.Step == v1alpha1.StepWaiting || s.Step == v1alpha1.StepStopped)
	})
	if _, err := os.Stat(filepath.Join(n.Path, "reboots")); err == nil {
		t.Error("The host was asked to reboot")
	}
}
