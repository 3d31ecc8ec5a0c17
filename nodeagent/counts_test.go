package main

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

// limits are those that a policy sets.
func limits(download, install int32) func(*v1alpha1.Operation) {
	return func(o *v1alpha1.Operation) {
		o.RetryLimits = &v1alpha1.RetryLimits{Download: download, Install: install}
	}
}

// clear clears all counts, or those of the named patches, as the manager does it.
func (n *node) clear(names ...string) {
	n.t.Helper()
	r := n.retry()
	patch := client.MergeFromWithOptions(r.DeepCopy(), client.MergeFromWithOptimisticLock{})
	var kept []v1alpha1.PatchAttempts
	for _, p := range r.Status.Patches {
		if len(names) > 0 && !strings.Contains(" "+strings.Join(names, " ")+" ", " "+p.Name+" ") {
			kept = append(kept, p)
		}
	}
	r.Status.Patches = kept
	r.Status.Clears++
	r.Status.Summarize()
	if err := n.client.Status().Patch(n.t.Context(), r, patch); err != nil {
		n.t.Fatal(err)
	}
	a := n.assignment()
	patch = client.MergeFrom(a.DeepCopy())
	a.Spec.RetryClears = r.Status.Clears
	if err := n.client.Patch(n.t.Context(), a, patch); err != nil {
		n.t.Fatal(err)
	}
}

// counting is a package whose preinst counts how often it was run, and fails.
func counting(name, version string) aptrepo.Package {
	p := aptrepo.FailingPreinst(name, version)
	p.Preinst = "echo x >>/" + name + "-runs\n" + p.Preinst
	return p
}

// One node goes the way from failures to blocked patches to cleared counts to installed patches.
func TestFailuresAreCounted(t *testing.T) {
	n := newNode(t)
	var good []aptrepo.Package
	for i := range 20 {
		good = append(good, aptrepo.Good(fmt.Sprintf("good%02d", i), "2.0"))
	}
	n.stock(append(good, counting("pre", "2.0"), aptrepo.FailingTimes("post", "2.0", 2), aptrepo.Missing("gone", "2.0"), aptrepo.Corrupt("bad", "2.0"))...)
	n.start()

	status := n.deploy("1", v1alpha1.StepFailed, v1alpha1.ReasonPatchesFailed, limits(3, 3))
	if c := status.Counts; c.Installed != 22 || c.Failed != 4 || c.Missing != 5 || !strings.HasPrefix(status.Message, "22 of 26 patches installed, 4 failed: ") {
		t.Errorf("Counts are %+v: %s", c, status.Message)
	}
	n.wantCounts("bad=2.0 D1 I0", "gone=2.0 D1 I0", "post=2.0 D0 I1", "pre=2.0 D0 I1")
	n.wantStates(map[string]string{
		"bad": "Failed 1 download failed, the last time with: ", "gone": "Failed 1 download failed, the last time with: 404",
		"post": "Failed 1 installation failed, the last time with: postinst of post fails on purpose",
		"pre":  "Failed 1 installation failed, the last time with: preinst of pre fails on purpose", "salt": "Held ",
	})
	n.wantLog("1", v1alpha1.EventScanStarted, v1alpha1.EventPatchDataRefreshed, v1alpha1.EventScanFinished,
		v1alpha1.EventDownloadFailed, v1alpha1.EventPatchesDownloaded, v1alpha1.EventInstallFailed, v1alpha1.EventPatchesInstalled, v1alpha1.EventDeployFailed)
	if got := n.logged("1", v1alpha1.EventInstallFailed); !strings.Contains(got, "pre 1.0 -> 2.0 (1 of 3): ") || !strings.Contains(got, "post 1.0 -> 2.0 (1 of 3): ") {
		t.Errorf("The patch log says %q", got)
	}

	t.Run("up to the limit", func(t *testing.T) {
		n.t = t
		n.deploy("2", v1alpha1.StepFailed, v1alpha1.ReasonPatchesFailed, limits(3, 3))
		n.wantCounts("bad=2.0 D2 I0", "gone=2.0 D2 I0", "post=2.0 D0 I2", "pre=2.0 D0 I2")
		// What fails half-way is taken up again by itself, and its count goes when it is installed.
		n.deploy("3", v1alpha1.StepFailed, v1alpha1.ReasonPatchesFailed, limits(3, 3))
		n.wantCounts("bad=2.0 D3 I0 Download", "gone=2.0 D3 I0 Download", "pre=2.0 D0 I3 Install")
		if got := n.versions("post"); got != "post 2.0" {
			t.Errorf("Installed: %s", got)
		}
		if got := n.logged("3", v1alpha1.EventPatchesInstalled); got != "1 patch installed: post 1.0 -> 2.0" {
			t.Errorf("The patch log says %q", got)
		}
		got := n.logged("3", v1alpha1.EventPatchesBlocked)
		for _, want := range []string{"gone 2.0 after 3 downloads", "bad 2.0 after 3 downloads", "pre 2.0 after 3 installations"} {
			if !strings.Contains(got, want) {
				t.Errorf("The patch log says %q, and not %q", got, want)
			}
		}
		if s := n.retry().Status; s.Counted != 3 || s.Blocked != 3 || !strings.HasPrefix(s.Summary, "3 blocked: bad 2.0") {
			t.Errorf("PatchRetry says %+v", s)
		}
	})

	t.Run("blocked is not tried", func(t *testing.T) {
		n.t = t
		requests, runs := n.main.Requests("gone")+n.main.Requests("bad"), n.read("/pre-runs")
		status := n.deploy("4", v1alpha1.StepDone, v1alpha1.ReasonNothingToDo, limits(3, 3))
		if status.Counts.Blocked != 3 || status.Counts.Missing != 4 {
			t.Errorf("Counts are %+v", status.Counts)
		}
		n.wantStates(map[string]string{"bad": "Blocked 3 downloads failed", "gone": "Blocked 3 downloads failed", "pre": "Blocked 3 installations failed", "salt": "Held "})
		if now := n.main.Requests("gone") + n.main.Requests("bad"); now != requests {
			t.Errorf("Blocked patches were asked for %d times", now-requests)
		}
		if now := n.read("/pre-runs"); now != runs || strings.Count(runs, "x") != 3 {
			t.Errorf("The failing script ran %d times in three tasks, and then %d", strings.Count(runs, "x"), strings.Count(now, "x"))
		}
	})

	t.Run("cleared", func(t *testing.T) {
		n.t = t
		scan := n.report().Status.Scan.OperationID
		n.clear("gone", "bad")
		n.eventually("the report has them as missing", func() bool {
			s := n.states()
			return s["gone"] == "Missing" && s["bad"] == "Missing" && strings.HasPrefix(s["pre"], "Blocked ")
		})
		r := n.report().Status
		if r.Scan.OperationID != scan || r.Counts.Blocked != 1 || r.Counts.Failed != 0 || r.Summary != "2 not installed yet, 1 blocked until their counts are cleared, 1 on hold" {
			t.Errorf("The report is of operation %s: %s, %+v", r.Scan.OperationID, r.Summary, r.Counts)
		}
		n.clear()
		n.eventually("the report has the last one as missing", func() bool { return n.states()["pre"] == "Missing" })
		// They still fail, and are counted from one again.
		n.deploy("5", v1alpha1.StepFailed, v1alpha1.ReasonPatchesFailed, limits(3, 3))
		n.wantCounts("bad=2.0 D1 I0", "gone=2.0 D1 I0", "pre=2.0 D0 I1")
		n.offer(aptrepo.Good("gone", "2.0"), aptrepo.Good("bad", "2.0"), aptrepo.Good("pre", "2.1"))
		n.deploy("6", v1alpha1.StepDone, v1alpha1.ReasonInstalled, limits(3, 3))
		n.wantCounts()
		n.wantStates(map[string]string{"salt": "Held "})
		if s := n.retry().Status; s.Clears != 2 || s.Counted != 0 || s.Blocked != 0 {
			t.Errorf("PatchRetry says %+v", s)
		}
	})
}

// What the node knows of failed attempts goes back into objects that were deleted and made anew, alone or with their node.
func TestCountsReturnToObjectsMadeAnew(t *testing.T) {
	n := newNode(t)
	n.stock(counting("pre", "2.0"))
	a := n.start()
	n.deploy("1", v1alpha1.StepFailed, v1alpha1.ReasonPatchesFailed)
	n.wantCounts("pre=2.0 D0 I1")

	anew := func(objects ...client.Object) {
		t.Helper()
		for _, o := range objects {
			if err := n.client.Delete(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		}
	}
	anew(n.retry())
	n.create(&v1alpha1.PatchRetry{ObjectMeta: metav1.ObjectMeta{Name: n.name}})
	n.deploy("2", v1alpha1.StepFailed, v1alpha1.ReasonPatchesFailed)
	n.wantCounts("pre=2.0 D0 I2")

	a.kill()
	anew(n.retry(), n.report(), n.assignment())
	n.create(&v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: n.name}})
	n.create(&v1alpha1.PatchRetry{ObjectMeta: metav1.ObjectMeta{Name: n.name}})
	n.create(&v1alpha1.PatchAssignment{ObjectMeta: metav1.ObjectMeta{Name: n.name}})
	n.start()
	n.ended("2")
	n.wantCounts("pre=2.0 D0 I2")
	n.wantStates(map[string]string{"pre": "Failed 2 installations failed", "salt": "Held "})

	// What was cleared stays so, also if the object is lost right after.
	n.clear()
	n.eventually("the agent knows that counts were cleared", func() bool { return n.states()["pre"] == "Missing" })
	anew(n.retry())
	n.create(&v1alpha1.PatchRetry{ObjectMeta: metav1.ObjectMeta{Name: n.name}})
	n.deploy("3", v1alpha1.StepFailed, v1alpha1.ReasonPatchesFailed)
	n.wantCounts("pre=2.0 D0 I1")
	if runs := strings.Count(n.read("/pre-runs"), "x"); runs != 3 {
		t.Errorf("The failing script ran %d times in three tasks", runs)
	}
}
