package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

// deployEntries is the patch log of a deployment in which nothing fails.
var deployEntries = []string{
	v1alpha1.EventScanStarted, v1alpha1.EventPatchDataRefreshed, v1alpha1.EventScanFinished,
	v1alpha1.EventPatchesDownloaded, v1alpha1.EventPatchesInstalled, v1alpha1.EventDeployFinished,
}

// stock installs version 1.0 of packages, and offers these newer ones.
func (n *node) stock(newer ...aptrepo.Package) {
	n.t.Helper()
	var names []string
	for _, p := range newer {
		n.main.Add(aptrepo.Good(p.Name, "1.0"))
		names = append(names, p.Name)
	}
	n.publish(n.main)
	n.run("apt-get", "-q", "update")
	n.run(append([]string{"apt-get", "-q", "-y", "install"}, names...)...)
	n.offer(newer...)
}

// offer puts packages into the repository.
func (n *node) offer(newer ...aptrepo.Package) {
	n.t.Helper()
	n.main.Add(newer...)
	n.publish(n.main)
}

// gated is a package whose postinst waits for the file /NAME-gate, and says with /NAME-began that it does.
func gated(name, version, afterwards string) aptrepo.Package {
	return aptrepo.Package{Name: name, Version: version, Postinst: fmt.Sprintf(
		"echo $$ >/%[1]s-began; while ! [ -e /%[1]s-gate ]; do sleep 0.05; done; rm -f /%[1]s-began\n%[2]s", name, afterwards)}
}

func (n *node) remove(names ...string) {
	n.t.Helper()
	for _, name := range names {
		if err := os.RemoveAll(filepath.Join(n.Path, name)); err != nil {
			n.t.Fatal(err)
		}
	}
}

func (n *node) read(name string) string {
	n.t.Helper()
	content, err := os.ReadFile(filepath.Join(n.Path, name))
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.TrimSpace(string(content))
}

// versions are what the package database has of packages: "1.0", or "1.0 half-configured" if something is wrong with it.
func (n *node) versions(names ...string) string {
	n.t.Helper()
	raw := n.run(append([]string{"dpkg-query", "-W", "-f", `${Package} ${Version} ${db:Status-Status}\n`}, names...)...)
	return strings.TrimSpace(strings.ReplaceAll(raw, " installed\n", "\n"))
}

func (n *node) retry() *v1alpha1.PatchRetry {
	n.t.Helper()
	r := &v1alpha1.PatchRetry{}
	if err := n.client.Get(n.t.Context(), client.ObjectKey{Name: n.name}, r); err != nil {
		n.t.Fatal(err)
	}
	return r
}

// counts are the node's failed attempts, such as "ham=2.0 D3 I1 Install".
func (n *node) counts() []string {
	n.t.Helper()
	var list []string
	for _, p := range n.retry().Status.Patches {
		list = append(list, strings.TrimSpace(fmt.Sprintf("%s=%s D%d I%d %s", p.Name, p.Version, p.DownloadFailures, p.InstallFailures, p.Blocked)))
	}
	slices.Sort(list)
	return list
}

func (n *node) wantCounts(want ...string) {
	n.t.Helper()
	if got := n.counts(); !slices.Equal(got, want) {
		n.t.Errorf("Failed attempts are %q, want %q", got, want)
	}
}

// states are those of the report's patches by name, each with the beginning of its reason.
func (n *node) states() map[string]string {
	n.t.Helper()
	states := map[string]string{}
	for _, p := range n.report().Status.Patches {
		states[p.Name] = strings.TrimSpace(string(p.State) + " " + p.Reason)
	}
	return states
}

// wantStates wants the report's patches to be in states whose text begins so, and no others.
func (n *node) wantStates(want map[string]string) {
	n.t.Helper()
	got := n.states()
	for name, begin := range want {
		if !strings.HasPrefix(got[name], begin) || got[name] == "" {
			n.t.Errorf("The report has %s as %q, want %q", name, got[name], begin)
		}
	}
	if len(got) != len(want) {
		n.t.Errorf("The report has %v, want %v", got, want)
	}
}

// entries are an operation's entries in the patch log, in the order of time and then of reasons.
func (n *node) entries(id string) []corev1.Event {
	n.t.Helper()
	list := &corev1.EventList{}
	if err := n.client.List(n.t.Context(), list, client.InNamespace("default"),
		client.MatchingLabels{v1alpha1.NodeLabel: n.name, v1alpha1.TaskLabel: "task-" + id}); err != nil {
		n.t.Fatal(err)
	}
	slices.SortFunc(list.Items, func(a, b corev1.Event) int {
		return cmp.Or(a.EventTime.Compare(b.EventTime.Time), strings.Compare(a.Reason, b.Reason), strings.Compare(a.Message, b.Message))
	})
	return list.Items
}

// logged waits for an entry of an operation with a reason, and returns the messages of all of them.
func (n *node) logged(id, reason string) string {
	n.t.Helper()
	var notes []string
	n.eventually("operation "+id+" has logged "+reason, func() bool {
		notes = nil
		for _, e := range n.entries(id) {
			if e.Reason == reason {
				notes = append(notes, e.Message)
			}
		}
		return len(notes) > 0
	})
	return strings.Join(notes, "\n")
}

// wantLog waits for as many entries of an operation, and wants these reasons and no others.
func (n *node) wantLog(id string, want ...string) {
	n.t.Helper()
	if got := n.events(id, len(want)); !slices.Equal(got, want) {
		n.t.Errorf("Patch log of operation %s: %v, want %v", id, got, want)
	}
}

// deploy has the node install what is missing, and waits until it says how it ended.
func (n *node) deploy(id string, want v1alpha1.Step, reason string, change ...func(*v1alpha1.Operation)) *v1alpha1.AgentStatus {
	n.t.Helper()
	n.assign(id, v1alpha1.StepInstalling, change...)
	return n.outcome(id, want, reason)
}

func (n *node) outcome(id string, want v1alpha1.Step, reason string) *v1alpha1.AgentStatus {
	n.t.Helper()
	status := n.ended(id)
	if status.Step != want || status.Reason != reason {
		n.t.Errorf("Operation %s ended with %s (%s), want %s (%s): %s", id, status.Step, status.Reason, want, reason, status.Message)
	}
	return status
}

func TestDeploy(t *testing.T) {
	n := newNode(t)
	n.stock(aptrepo.Good("kubelet", "2.0"), aptrepo.Good("oil", "2.0"), aptrepo.Good("tea", "2.0"))
	n.start()
	age := func(d time.Duration) func(*v1alpha1.Operation) {
		return func(o *v1alpha1.Operation) {
			o.Patches = &v1alpha1.PatchSelection{MinimumAge: &metav1.Duration{Duration: d}}
		}
	}

	status := n.deploy("1", v1alpha1.StepDone, v1alpha1.ReasonNothingToDo, age(time.Hour))
	if c := status.Counts; c.Missing != 6 || c.Excluded != 5 || c.Held != 1 {
		t.Errorf("Counts of patches that are too young: %+v", c)
	}
	n.wantStates(map[string]string{
		"ham": "Excluded it was first seen at ", "egg": "Excluded it was first seen at ", "oil": "Excluded it was first seen at ",
		"tea": "Excluded it was first seen at ", "kubelet": "Excluded packages of Kubernetes", "salt": "Held ",
	})

	status = n.deploy("2", v1alpha1.StepDone, v1alpha1.ReasonInstalled, age(0), func(o *v1alpha1.Operation) {
		o.Patches.Classifications = []v1alpha1.Classification{v1alpha1.ClassificationSecurity}
	})
	if c := status.Counts; c.Installed != 1 || c.Missing != 5 || c.Excluded != 4 || status.Message != "1 of 1 patch installed" {
		t.Errorf("Counts are %+v: %s", c, status.Message)
	}
	n.wantLog("2", deployEntries...)
	if got := n.logged("2", v1alpha1.EventPatchesInstalled); got != "1 patch installed: ham 1.0 -> 1.1" {
		t.Errorf("The patch log says %q", got)
	}

	status = n.deploy("3", v1alpha1.StepDone, v1alpha1.ReasonInstalled)
	if c := status.Counts; c.Installed != 3 || c.Missing != 2 || c.Excluded != 1 || c.Held != 1 {
		t.Errorf("Counts are %+v", c)
	}
	if len(status.Earlier) != 2 || status.Earlier[0].OperationID != "2" || status.Earlier[0].Reason != v1alpha1.ReasonInstalled {
		t.Errorf("Earlier operations are %+v", status.Earlier)
	}
	if got := n.logged("3", v1alpha1.EventPatchesInstalled); got != "3 patches installed: egg 1.0 -> 2.0, oil 1.0 -> 2.0, tea 1.0 -> 2.0" {
		t.Errorf("The patch log says %q", got)
	}
	n.wantStates(map[string]string{"kubelet": "Excluded packages of Kubernetes", "salt": "Held "})

	n.deploy("4", v1alpha1.StepDone, v1alpha1.ReasonInstalled, func(o *v1alpha1.Operation) {
		o.Patches = &v1alpha1.PatchSelection{KubernetesPackages: v1alpha1.KubernetesPackagesInclude}
	})
	n.wantStates(map[string]string{"salt": "Held "})
	if got := n.versions("egg", "ham", "kubelet", "oil", "salt", "tea"); got != "egg 2.0\nham 1.1\nkubelet 2.0\noil 2.0\nsalt 1.0\ntea 2.0" {
		t.Errorf("Installed:\n%s", got)
	}
	n.wantCounts()
}

func TestDownloadThenInstallWithoutTheMirror(t *testing.T) {
	n := newNode(t)
	n.start()
	n.assign("1", v1alpha1.StepDownloading)
	status := n.outcome("1", v1alpha1.StepDone, v1alpha1.ReasonDownloaded)
	if c := status.Counts; c.Downloaded != 2 || c.Missing != 3 || c.Installed != 0 || status.Message != "2 of 2 patches downloaded" {
		t.Errorf("Counts are %+v: %s", c, status.Message)
	}
	n.wantStates(map[string]string{"ham": "Downloaded", "egg": "Downloaded", "salt": "Held "})
	n.wantLog("1", append(slices.Clone(deployEntries[:4]), v1alpha1.EventDownloadFinished)...)
	if got := n.versions("egg", "ham"); got != "egg 1.0\nham 1.0" {
		t.Errorf("Installed by a download:\n%s", got)
	}

	n.mirror.down.Store(true)
	n.deploy("2", v1alpha1.StepDone, v1alpha1.ReasonInstalled)
	n.wantLog("2", v1alpha1.EventScanStarted, v1alpha1.EventPatchDataStale, v1alpha1.EventScanFinished,
		v1alpha1.EventPatchesDownloaded, v1alpha1.EventPatchesInstalled, v1alpha1.EventDeployFinished)
	if got := n.versions("egg", "ham"); got != "egg 2.0\nham 1.1" {
		t.Errorf("Installed:\n%s", got)
	}
	n.wantCounts()
}
