package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

// commands are how many commands of a name an operation has started in a step.
func (n *node) commands(id, step, name string) int {
	n.t.Helper()
	found, err := filepath.Glob(filepath.Join(n.Path, "var/lib/nodepatch/run", id, step, "*-"+name))
	if err != nil {
		n.t.Fatal(err)
	}
	return len(found)
}

// An agent that is killed in the middle of something goes on with it: nothing is begun twice, and nothing is missing.
func TestAgentKilledInDeployment(t *testing.T) {
	n := newNode(t)
	n.stock(counting("pre", "2.0"))
	a := n.start()

	t.Run("in the download", func(t *testing.T) {
		n.t = t
		n.offer(aptrepo.Slow("egg", "3.0"))
		n.assign("1", v1alpha1.StepInstalling)
		n.eventually("the download runs", func() bool { return n.main.Requests("egg") > 1 })
		a.kill()
		a = n.start()
		n.eventually("the new agent goes on", func() bool { return strings.Contains(a.log.String(), "Operation goes on where") })
		n.main.ReleaseSlow()
		n.outcome("1", v1alpha1.StepFailed, v1alpha1.ReasonPatchesFailed)
		if got := n.commands("1", "download", "apt-download"); got > 1 {
			t.Errorf("The download was begun again %d times", got)
		}
		n.wantLog("1", v1alpha1.EventScanStarted, v1alpha1.EventPatchDataRefreshed, v1alpha1.EventScanFinished, v1alpha1.EventPatchesDownloaded,
			v1alpha1.EventInstallFailed, v1alpha1.EventPatchesInstalled, v1alpha1.EventDeployFailed)
		n.wantCounts("pre=2.0 D0 I1")
		if got := n.versions("egg", "ham"); got != "egg 3.0\nham 1.1" {
			t.Errorf("Installed:\n%s", got)
		}
	})

	t.Run("in the transaction", func(t *testing.T) {
		n.t = t
		n.offer(gated("egg", "4.0", ""))
		n.assign("2", v1alpha1.StepInstalling)
		n.eventually("the transaction runs", func() bool { return n.exists("/egg-began") })
		a.kill()
		a = n.start()
		n.eventually("the new agent goes on", func() bool { return strings.Contains(a.log.String(), "Operation goes on where") })
		n.write("/egg-gate", "")
		n.outcome("2", v1alpha1.StepFailed, v1alpha1.ReasonPatchesFailed)
		n.wantOnce("2", "pre=2.0 D0 I2", "egg 3.0 -> 4.0")
	})

	t.Run("when the transaction has ended", func(t *testing.T) {
		n.t = t
		n.remove("/egg-gate")
		n.offer(gated("egg", "5.0", ""))
		n.assign("3", v1alpha1.StepInstalling)
		n.eventually("the transaction runs", func() bool { return n.exists("/egg-began") })
		a.kill()
		n.write("/egg-gate", "")
		n.eventually("the transaction has ended", func() bool {
			ended, _ := filepath.Glob(filepath.Join(n.Path, "var/lib/nodepatch/run/3/install-1/*-apt-install/exit"))
			return len(ended) == 1
		})
		a = n.start()
		n.outcome("3", v1alpha1.StepFailed, v1alpha1.ReasonPatchesFailed)
		n.wantOnce("3", "pre=2.0 D0 I3", "egg 4.0 -> 5.0")
	})

	t.Run("terminated in the transaction", func(t *testing.T) {
		n.t = t
		n.remove("/egg-gate")
		n.offer(gated("egg", "6.0", ""))
		n.assign("4", v1alpha1.StepInstalling)
		n.eventually("the transaction runs", func() bool { return n.exists("/egg-began") })
		if err := a.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		<-a.ended
		a = n.start()
		n.write("/egg-gate", "")
		n.outcome("4", v1alpha1.StepFailed, v1alpha1.ReasonPatchesFailed)
		n.wantOnce("4", "pre=2.0 D0 I4 Install", "egg 5.0 -> 6.0")
	})
	if runs := strings.Count(n.read("/pre-runs"), "x"); runs != 4 {
		t.Errorf("The failing script ran %d times in four tasks", runs)
	}
}

// wantOnce wants a failure counted once and a patch logged once by one transaction of an operation.
func (n *node) wantOnce(id, count, change string) {
	n.t.Helper()
	n.wantCounts(count)
	if got := n.commands(id, "install-1", "apt-install"); got != 1 || n.exists("/var/lib/nodepatch/run/"+id+"/install-2") {
		n.t.Errorf("The transaction was begun %d times", got)
	}
	want := []string{
		v1alpha1.EventScanStarted, v1alpha1.EventPatchDataRefreshed, v1alpha1.EventScanFinished, v1alpha1.EventPatchesDownloaded,
		v1alpha1.EventInstallFailed, v1alpha1.EventPatchesInstalled, v1alpha1.EventDeployFailed,
	}
	if strings.HasSuffix(count, "Install") {
		want = slices.Insert(want, 5, v1alpha1.EventPatchesBlocked)
	}
	n.wantLog(id, want...)
	if got := n.logged(id, v1alpha1.EventPatchesInstalled); got != "1 patch installed: "+change {
		n.t.Errorf("The patch log says %q", got)
	}
}

// What happened while the API server was away arrives when it is back, complete and in order, also from another agent.
func TestAPIServerAwayInTransaction(t *testing.T) {
	n := newNode(t)
	n.stock(gated("late", "2.0", ""), counting("pre", "2.0"))
	a := n.start()
	n.assign("1", v1alpha1.StepInstalling)
	n.eventually("the transaction runs", func() bool { return n.exists("/late-began") })
	back := n.api.away()
	n.write("/late-gate", "")
	n.eventually("the operation has ended", func() bool { return strings.Contains(a.log.String(), "Operation ended") })
	a.kill()
	n.start()
	n.wantCounts()
	back()
	status := n.outcome("1", v1alpha1.StepFailed, v1alpha1.ReasonPatchesFailed)
	if status.Counts.Installed != 3 || status.Counts.Failed != 1 {
		t.Errorf("Counts are %+v", status.Counts)
	}
	n.wantCounts("pre=2.0 D0 I1")
	n.wantStates(map[string]string{"pre": "Failed 1 installation failed", "salt": "Held "})
	n.wantLog("1", v1alpha1.EventScanStarted, v1alpha1.EventPatchDataRefreshed, v1alpha1.EventScanFinished, v1alpha1.EventPatchesDownloaded,
		v1alpha1.EventInstallFailed, v1alpha1.EventPatchesInstalled, v1alpha1.EventDeployFailed)
}

// An operation that begins while nobody can say which counts were cleared waits for that, and does not go on with old ones.
func TestAPIServerAwayBeforeTheFirstAttempt(t *testing.T) {
	n := newNode(t)
	n.planner(slowPlan)
	a := n.start()
	n.assign("1", v1alpha1.StepInstalling)
	n.eventually("the scan runs", func() bool { return n.exists("/plan-began") })
	back := n.api.away()
	n.write("/plan-gate", "")
	n.eventually("the agent waits", func() bool { return strings.Contains(a.log.String(), "Counts of failed attempts are not known yet") })
	if got := n.versions("egg", "ham"); got != "egg 1.0\nham 1.0" {
		t.Errorf("Installed:\n%s", got)
	}
	back()
	n.outcome("1", v1alpha1.StepDone, v1alpha1.ReasonInstalled)
	n.wantLog("1", deployEntries...)
}

// cutOff is a package whose preinst kills, once, who runs it: dpkg, or everything up to the wrapper of the command.
func cutOff(name, version, kill string) aptrepo.Package {
	return aptrepo.Package{
		Name: name, Version: version,
		Preinst: "[ -e /" + name + "-cut ] && exit 0\ntouch /" + name + "-cut\n" + kill + "\nsleep 60",
	}
}

const (
	killDpkg = "kill -9 $PPID"
	// The field after the name in brackets and the state is the parent, and then the process group.
	killAll = `group=$(sed 's/.*) //' /proc/$$/stat | cut -d' ' -f3); kill -9 -"$group"`
)

// A transaction that was cut off is reported, its database put right, and its patches are verified one by one: nobody's
// failure is counted.
func TestTransactionCutOff(t *testing.T) {
	n := newNode(t)
	n.start()
	for name, kill := range map[string]string{"dpkg": killDpkg, "all": killAll} {
		t.Run(name, func(t *testing.T) {
			n.t = t
			defer func() {
				n.remove("/wreck-cut")
				n.main.Remove("alpha", "wreck", "zulu")
				n.run("apt-get", "-q", "-y", "purge", "alpha", "wreck", "zulu")
			}()
			n.stock(aptrepo.Good("alpha", "2.0"), cutOff("wreck", "2.0", kill), aptrepo.Good("zulu", "2.0"))
			status := n.deploy(name, v1alpha1.StepDone, v1alpha1.ReasonInstalled)
			n.logged(name, v1alpha1.EventTransactionInterrupted)
			if got := n.logged(name, v1alpha1.EventPackagesRepaired); !strings.Contains(got, "wreck") {
				t.Errorf("The patch log says %q", got)
			}
			var installed strings.Builder
			for _, e := range n.entries(name) {
				if e.Reason == v1alpha1.EventPatchesInstalled {
					installed.WriteString(e.Message + ", ")
				}
			}
			for _, p := range []string{"alpha", "wreck", "zulu"} {
				if strings.Count(installed.String(), p+" 1.0 -> 2.0,") != 1 {
					t.Errorf("%s is not logged once: %s", p, installed.String())
				}
			}
			if got, want := n.versions("alpha", "wreck", "zulu"), "alpha 2.0\nwreck 2.0\nzulu 2.0"; got != want {
				t.Errorf("Installed:\n%s\n%s", got, status.Message)
			}
			n.wantCounts()
		})
	}
}

// A database that somebody else left in the middle of a transaction is put right before anything is installed.
func TestInterruptedDatabaseOnArrival(t *testing.T) {
	n := newNode(t)
	n.stock(cutOff("wreck", "2.0", killDpkg), aptrepo.FailingTimes("limp", "2.0", 1))
	n.start()
	n.run("apt-get", "-q", "update")
	for _, name := range []string{"limp", "wreck"} {
		if out, err := n.Command(t.Context(), "apt-get", "-q", "-y", "install", name).CombinedOutput(); err == nil {
			t.Fatalf("Nothing was interrupted: %s", out)
		}
	}
	if updates, err := os.ReadDir(filepath.Join(n.Path, "var/lib/dpkg/updates")); err != nil || len(updates) == 0 {
		t.Fatalf("Dpkg was not interrupted: %v, %v", updates, err)
	}
	n.assign("scan", v1alpha1.StepScanning)
	n.outcome("scan", v1alpha1.StepDone, v1alpha1.ReasonScanned)
	if r := n.report().Status; !strings.Contains(r.Summary, "dpkg was interrupted") {
		t.Errorf("The report says %q", r.Summary)
	}

	n.deploy("1", v1alpha1.StepDone, v1alpha1.ReasonInstalled)
	got := n.logged("1", v1alpha1.EventPackagesRepaired)
	if !strings.Contains(got, "limp 2.0") || !strings.Contains(got, "wreck ") {
		t.Errorf("The patch log says %q", got)
	}
	if got := n.versions("egg", "ham", "limp", "wreck"); got != "egg 2.0\nham 1.1\nlimp 2.0\nwreck 2.0" {
		t.Errorf("Installed:\n%s", got)
	}
	n.wantCounts()
	n.wantStates(map[string]string{"salt": "Held "})
}
