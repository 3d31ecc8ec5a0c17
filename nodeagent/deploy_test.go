package main

import (
	"slices"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

func (n *node) retry() *v1alpha1.PatchRetry {
	n.t.Helper()
	r := &v1alpha1.PatchRetry{}
	if err := n.client.Get(n.t.Context(), client.ObjectKey{Name: n.name}, r); err != nil {
		n.t.Fatal(err)
	}
	return r
}

func TestDeploy(t *testing.T) {
	n := newNode(t)
	n.start()
	n.assign("1", v1alpha1.StepInstalling)
	status := n.ended("1")
	if status.Step != v1alpha1.StepDone || status.Reason != v1alpha1.ReasonInstalled || status.Counts.Installed != 2 || status.Counts.Held != 1 {
		t.Errorf("Ended with %+v, counts %+v", status, status.Counts)
	}
	want := []string{
		v1alpha1.EventScanStarted, v1alpha1.EventPatchDataRefreshed, v1alpha1.EventScanFinished,
		v1alpha1.EventPatchesDownloaded, v1alpha1.EventPatchesInstalled, v1alpha1.EventDeployFinished,
	}
	if got := n.events("1", len(want)); !slices.Equal(got, want) {
		t.Errorf("Patch log: %v", got)
	}
	if r := n.retry(); r.Status.Counted != 0 {
		t.Errorf("Counts are %+v", r.Status)
	}
}
