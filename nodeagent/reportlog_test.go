package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// told are the reasons of the entries in the node's report, after a look at what else they say.
func (n *node) told() (reasons []string) {
	n.t.Helper()
	log := n.report().Status.Log
	for i, entry := range log {
		if entry.Node != n.name || entry.Message == "" || entry.Time.IsZero() || i > 0 && entry.Time.Before(&log[i-1].Time) {
			n.t.Errorf("entry %d of the report is %+v, after %+v", i, entry, log[max(0, i-1)])
		}
		reasons = append(reasons, entry.Reason)
	}
	return reasons
}

// clearLog presses nodepatch.io/clear-log on a task, or on the node if it is empty, as far as the agent sees it.
func (n *node) clearLog(number int64, task string) {
	n.t.Helper()
	a := n.assignment()
	patch := client.MergeFrom(a.DeepCopy())
	a.Spec.LogClears = append(a.Spec.LogClears, v1alpha1.LogClear{Number: number, Task: task, Until: metav1.NowMicro()})
	if err := n.client.Patch(n.t.Context(), a, patch); err != nil {
		n.t.Fatal(err)
	}
}

// reportWrites is how often agents of the node have sent its report.
func (n *node) reportWrites() int {
	return strings.Count(n.api.list(), "PATCH /apis/nodepatch.io/v1alpha1/patchreports/")
}

// The report tells what happened on its node in order, whichever agent did it and whatever people have deleted since.
func TestReportTellsTheNodesStory(t *testing.T) {
	n := newNode(t)
	a := n.start()
	n.assign("1", v1alpha1.StepScanning)
	n.ended("1")
	if got := n.told(); !slices.Equal(got, scanEntries) {
		t.Errorf("after a scan the report tells %v", got)
	}
	n.deploy("2", v1alpha1.StepDone, v1alpha1.ReasonInstalled)
	story := slices.Concat(scanEntries, deployEntries)
	if got := n.told(); !slices.Equal(got, story) {
		t.Errorf("after a deployment the report tells %v, want %v", got, story)
	}
	// A deployment sends one before it installs, and one after it.
	const before = 3
	if got := n.reportWrites(); got != before {
		t.Errorf("a scan and a deployment have sent %d reports:\n%s", got, n.api.list())
	}

	becomes := func(want ...string) {
		t.Helper()
		n.eventually(fmt.Sprintf("the report tells %v", want), func() bool { return slices.Equal(n.told(), want) })
	}
	n.clearLog(1, "task-1")
	becomes(append(slices.Clone(deployEntries), v1alpha1.EventLogCleared)...)
	if got := n.reportWrites(); got != before+1 {
		t.Errorf("the clear of a task has sent %d reports:\n%s", got-before, n.api.list())
	}

	// The button is pressed while no agent is there.
	a.kill()
	n.clearLog(2, "")
	n.start()
	becomes(v1alpha1.EventLogCleared)
	n.assign("3", v1alpha1.StepScanning)
	n.ended("3")
	if got, want := n.told(), append([]string{v1alpha1.EventLogCleared}, scanEntries...); !slices.Equal(got, want) {
		t.Errorf("after another scan the report tells %v, want %v", got, want)
	}
	// What an agent had sent but not noted when it was killed is sent once more.
	if got := n.reportWrites(); got < before+3 || got > before+4 {
		t.Errorf("the clear of the node and a scan have sent %d reports:\n%s", got-before-1, n.api.list())
	}
	if n.report().Status.Installed == nil {
		t.Error("the report lost what the deployment has installed")
	}
}
