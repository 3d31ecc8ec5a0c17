package main

import (
	"strings"
	"testing"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/rpmrepo"
)

// What is pinned is installed with other package managers too, beside a newer version, or reported where it is gone.
func TestPinRPM(t *testing.T) {
	for tool, test := range rpmTools {
		t.Run(tool, func(t *testing.T) {
			n, repo := test.node(t, "egg", "ham", "nut", "rye", "tea")
			repo.Add(rpmrepo.Good("ham", "2.0-1"), rpmrepo.Good("ham", "3.0-1"), rpmrepo.Good("egg", "2.0-1"), rpmrepo.Good("nut", "2.0-1"))
			repo.Remove("tea")
			repo.Add(rpmrepo.Good("tea", "3.0-1"))
			if err := repo.Publish(); err != nil {
				t.Fatal(err)
			}
			n.start()
			var pinned []v1alpha1.InstalledPatch
			for _, p := range []string{"egg 1.0-1", "ham 2.0-1", "oat 2.0-1", "rye 2.0-1", "tea 2.0-1"} {
				pinned = append(pinned, v1alpha1.InstalledPatch{Name: p[:3], Version: p[4:]})
			}
			uid := n.pins(tool, pinned)
			n.assign(tool, v1alpha1.StepInstalling, func(o *v1alpha1.Operation) { o.ID, o.Pin = uid, v1alpha1.OperationPinTask })
			status := n.outcome(uid, v1alpha1.StepFailed, v1alpha1.ReasonPatchesDeferred)
			if !strings.HasPrefix(status.Message, "1 of 3 patches installed, 2 left undone: tea 2.0-1: the task has pinned 2.0-1, and the repositories offer 3.0-1: ") {
				t.Errorf("It ends with %q", status.Message)
			}
			if got := n.logged(tool, v1alpha1.EventPatchesNotTried); !strings.Contains(got, "rye 1.0-1 -> 2.0-1: the task has pinned 2.0-1, and the repositories offer nothing newer than 1.0-1: ") {
				t.Errorf("The patch log says %q", got)
			}
			got := n.run("rpm", "-q", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\n", "egg", "ham", "nut", "rye", "tea")
			if want := "egg 1.0-1\nham 2.0-1\nnut 1.0-1\nrye 1.0-1\ntea 1.0-1"; strings.TrimSpace(got) != want {
				t.Errorf("Installed:\n%s", got)
			}
			n.wantStates(map[string]string{
				"egg": "Excluded the task has pinned 1.0-1, and this or a newer version is there; 2.0-1 is left to another task",
				"ham": "Excluded the task has pinned 2.0-1, and this or a newer version is there; 3.0-1 is left to another task",
				"nut": "Excluded the task has not pinned it", "tea": "Missing the task has pinned 2.0-1, and the repositories offer 3.0-1: ",
			})
			n.wantCounts()
		})
	}
}
