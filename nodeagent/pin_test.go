package main

import (
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

// pins makes the task of an operation, which has pinned patches, and returns its UID: the ID that the operation has to have.
func (n *node) pins(id string, patches []v1alpha1.InstalledPatch) string {
	n.t.Helper()
	task := &v1alpha1.PatchTask{
		ObjectMeta: metav1.ObjectMeta{Name: "task-" + id}, Spec: v1alpha1.PatchTaskSpec{Policy: "everything", Task: "weekly"},
	}
	n.create(task)
	task.Status.Pinned = &v1alpha1.PinnedPatches{Time: metav1.Now(), Nodes: 1, Patches: patches}
	if err := n.client.Status().Update(n.t.Context(), task); err != nil {
		n.t.Fatal(err)
	}
	return string(task.UID)
}

// TestPin has one node install what is offered, and another exactly that after the repository has moved on.
func TestPin(t *testing.T) {
	stocked := []aptrepo.Package{
		aptrepo.Good("fig", "2.0"), aptrepo.Good("oil", "2.0"), aptrepo.Good("rye", "2.0"), aptrepo.Good("tea", "2.0"),
	}
	var installed []v1alpha1.InstalledPatch
	t.Run("canary", func(t *testing.T) {
		n := newNode(t)
		n.stock(stocked...)
		n.start()
		deploying := func(o *v1alpha1.Operation) { o.Action, o.Reboot = v1alpha1.ActionDeploy, v1alpha1.RebootNever }
		n.deploy("first", v1alpha1.StepDone, v1alpha1.ReasonInstalled, deploying)
		said := n.report().Status.Installed
		if said == nil || said.Task != "task-first" || said.OperationID != "first" || said.PatchesOmitted != 0 {
			t.Fatalf("The report says of what was installed %+v", said)
		}
		installed = said.Patches
		want := []v1alpha1.InstalledPatch{
			{Name: "egg", Version: "2.0"}, {Name: "fig", Version: "2.0"}, {Name: "ham", Version: "1.1"},
			{Name: "oil", Version: "2.0"}, {Name: "rye", Version: "2.0"}, {Name: "tea", Version: "2.0"},
		}
		if !slices.Equal(installed, want) {
			t.Fatalf("Installed are %v, want %v", installed, want)
		}

		n.assign("scan", v1alpha1.StepScanning)
		n.outcome("scan", v1alpha1.StepDone, v1alpha1.ReasonScanned)
		if said := n.report().Status.Installed; said == nil || said.OperationID != "first" {
			t.Errorf("After a scan the report says of what was installed %+v", said)
		}
		n.deploy("second", v1alpha1.StepDone, v1alpha1.ReasonNothingToDo, deploying)
		if said := n.report().Status.Installed; said == nil || said.OperationID != "second" || len(said.Patches) != 0 {
			t.Errorf("After a deployment without anything to do the report says %+v", said)
		}
	})
	if len(installed) == 0 {
		return
	}
	t.Run("later", func(t *testing.T) {
		n := newNode(t)
		n.stock(append(stocked, aptrepo.Good("nut", "2.0"))...)
		n.run("apt-get", "-q", "update")
		n.run("apt-get", "-q", "-y", "install", "egg")
		n.main.Remove("rye", "tea")
		n.offer(aptrepo.Good("egg", "3.0"), aptrepo.Good("oil", "3.0"), aptrepo.Good("rye", "1.0"), aptrepo.Good("tea", "3.0"))
		a := n.start()

		uid := n.pins("later", installed)
		pinned := func(o *v1alpha1.Operation) {
			o.ID, o.Action, o.Pin, o.Reboot = uid, v1alpha1.ActionDeploy, v1alpha1.OperationPinTask, v1alpha1.RebootNever
			// It chose for the first wave, and for nobody else.
			o.Patches = &v1alpha1.PatchSelection{Include: []v1alpha1.PackagePattern{"nut"}}
		}
		n.assign("later", v1alpha1.StepDownloading, pinned)
		n.eventually("the node is ready to install", func() bool {
			status := n.assignment().Status.Agent
			return status != nil && status.OperationID == uid && status.Step == v1alpha1.StepWaiting
		})
		const (
			tea = "the task has pinned 2.0, and the repositories offer 3.0: Version '2.0' for 'tea' was not found"
			rye = "the task has pinned 2.0, and the repositories offer nothing newer than 1.0: Version '2.0' for 'rye' was not found"
		)
		unpinned := map[string]string{
			"egg": "Excluded the task has pinned 2.0, and this or a newer version is there; 3.0 is left to another task",
			"nut": "Excluded the task has not pinned it, as its first wave has not installed it",
			"tea": "Missing " + tea, "salt": "Held ",
		}
		waiting := map[string]string{"ham": "Downloaded", "fig": "Downloaded", "oil": "Downloaded"}
		for name, state := range unpinned {
			waiting[name] = state
		}
		n.wantStates(waiting)
		if got := n.assignment().Status.Agent.Message; got != "3 of 5 patches downloaded, 2 left undone, waiting to install" {
			t.Errorf("It says %q", got)
		}
		if got := n.versions("oil", "fig"); got != "fig 1.0\noil 1.0" {
			t.Errorf("Installed before it may:\n%s", got)
		}
		if got := n.logged("later", v1alpha1.EventPatchesNotTried); !strings.Contains(got, "tea 1.0 -> 2.0: "+tea) || !strings.Contains(got, "rye 1.0 -> 2.0: "+rye) {
			t.Errorf("The patch log says %q", got)
		}

		// The mirror moves again, and another agent goes on: what lies ready is what is installed.
		a.kill()
		n.main.Remove("fig", "oil")
		n.offer(aptrepo.Good("fig", "3.0"), aptrepo.Good("oil", "4.0"))
		n.start()
		n.assign("later", v1alpha1.StepInstalling, pinned)
		status := n.outcome(uid, v1alpha1.StepFailed, v1alpha1.ReasonPatchesDeferred)
		if want := "3 of 5 patches installed, 2 left undone: tea 2.0: " + tea + " (and 1 more)"; status.Message != want {
			t.Errorf("It ends with\n%q, want\n%q", status.Message, want)
		}
		if got := n.versions("egg", "fig", "ham", "nut", "oil", "rye", "salt", "tea"); got != "egg 2.0\nfig 2.0\nham 1.1\nnut 1.0\noil 2.0\nrye 1.0\nsalt 1.0\ntea 1.0" {
			t.Errorf("Installed:\n%s", got)
		}
		unpinned["oil"] = "Excluded the task has pinned 2.0, and this or a newer version is there; 3.0 is left to another task"
		n.wantStates(unpinned)
		n.wantCounts()

		t.Run("without a pin nothing is installed", func(t *testing.T) {
			n.t = t
			status := n.deploy("gone", v1alpha1.StepFailed, v1alpha1.ReasonPinUnknown, func(o *v1alpha1.Operation) { o.Pin = v1alpha1.OperationPinTask })
			if status.Message != "the task task-gone is gone, and with it what it has pinned" {
				t.Errorf("It ends with %q", status.Message)
			}
			n.pins("other", installed) // a task of the name that is not the operation's
			n.deploy("other", v1alpha1.StepFailed, v1alpha1.ReasonPinUnknown, func(o *v1alpha1.Operation) { o.Pin = v1alpha1.OperationPinTask })
			uid := n.pins("wild", []v1alpha1.InstalledPatch{{Name: "nut", Version: "2.*"}})
			n.assign("wild", v1alpha1.StepInstalling, func(o *v1alpha1.Operation) { o.ID, o.Pin = uid, v1alpha1.OperationPinTask })
			if status := n.outcome(uid, v1alpha1.StepFailed, v1alpha1.ReasonPinUnknown); status.Message != `the task has pinned nut at "2.*", which is no version` {
				t.Errorf("It ends with %q", status.Message)
			}
			if got := n.versions("nut"); got != "nut 1.0" {
				t.Errorf("Installed: %s", got)
			}
		})
	})
}
