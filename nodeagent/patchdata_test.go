package main

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// askForPatchData presses nodepatch.io/update-patch-data, as far as the agent sees it.
func (n *node) askForPatchData(number int64) {
	n.t.Helper()
	a := n.assignment()
	patch := client.MergeFrom(a.DeepCopy())
	a.Spec.PatchDataRefreshes = number
	if err := n.client.Patch(n.t.Context(), a, patch); err != nil {
		n.t.Fatal(err)
	}
}

// about are the entries of the patch log about the node, in the order of time.
func (n *node) about() []corev1.Event {
	n.t.Helper()
	list := &corev1.EventList{}
	if err := n.client.List(n.t.Context(), list, client.InNamespace(patchlog.Namespace),
		client.MatchingLabels{v1alpha1.NodeLabel: patchlog.LabelValue(n.name)}); err != nil {
		n.t.Fatal(err)
	}
	slices.SortFunc(list.Items, func(a, b corev1.Event) int { return a.EventTime.Compare(b.EventTime.Time) })
	return list.Items
}

// said waits until there are so many of them, none of which belongs to a task, and returns their reasons.
func (n *node) said(want int) (reasons []string) {
	n.t.Helper()
	n.eventually(fmt.Sprintf("%d entries in the patch log", want), func() bool { return len(n.about()) >= want })
	for _, e := range n.about() {
		if e.Related != nil || e.Labels[v1alpha1.TaskLabel] != "" || e.Labels[v1alpha1.PolicyLabel] != "everything" {
			n.t.Errorf("entry %s is of task %v, with labels %v", e.Reason, e.Related, e.Labels)
		}
		reasons = append(reasons, e.Reason)
	}
	return reasons
}

func TestUpdatePatchData(t *testing.T) {
	n := newNode(t)
	a := n.start()
	n.eventually("the agent is ready", func() bool { return n.ready() == 200 })
	_, before := n.api.count()
	n.askForPatchData(1)
	n.eventually("a report", func() bool { return n.report().Status.Scan != nil })
	n.check()
	if got := n.said(3); !slices.Equal(got, scanEntries) {
		t.Errorf("patch log: %v", got)
	}
	if _, writes := n.api.count(); writes-before != 4 {
		t.Errorf("%d writes, want 3 entries and 1 report:\n%s", writes-before, n.api.list())
	}
	if s := n.assignment().Status.Agent; s != nil {
		t.Errorf("the assignment's status tells of an operation: %+v", s)
	}
	first := n.report().Status

	// Two more requests while the agent is away are one; and it is killed in the middle of what it does for them.
	a.kill()
	n.askForPatchData(3)
	open := n.mirror.close()
	a = n.start()
	n.said(4) // apt waits for the mirror
	a.kill()
	open()
	a = n.start()
	n.eventually("another report", func() bool { return n.report().Status.Scan.OperationID != first.Scan.OperationID })
	n.check()
	if got := n.said(6)[3:]; !slices.Equal(got, scanEntries) {
		t.Errorf("patch log after a kill: %v", got)
	}
	second := n.report().Status
	if second.PatchData.Time.Before(first.PatchData.Time) {
		t.Errorf("patch data of %s, after that of %s", second.PatchData.Time, first.PatchData.Time)
	}

	// A restart repeats nothing.
	a.kill()
	n.start()
	n.eventually("the agent is ready again", func() bool { return n.ready() == 200 })
	n.assign("1", v1alpha1.StepScanning)
	n.ended("1")
	if got := n.events("1", 3); !slices.Equal(got, scanEntries) {
		t.Errorf("patch log of the operation: %v", got)
	}
	if got := len(n.about()); got != 9 {
		t.Errorf("%d entries in the patch log", got)
	}
}
