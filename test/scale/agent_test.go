package scale

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/kube"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

// missing is how many patches each node lacks, about those of a Debian that was not patched for three months.
const missing = 40

// agent does what a node's agent does at the API server, and nothing on a host.
type agent struct {
	node   string
	client *kube.Client
	events *patchlog.Events
	writes *atomic.Int64
	// seen is the assignment as the watch brought it last; wake says that there is a new one.
	mutex sync.Mutex
	seen  *v1alpha1.PatchAssignment
	wake  chan struct{}
}

// runAgents runs the agents of a fleet until the context ends, and counts their writes. They act as the agents'
// ServiceAccount with the claim that binds its token to their node.
func runAgents(ctx context.Context, server *apiserver.Server, size int, writes *atomic.Int64) (wait func(), err error) {
	var running sync.WaitGroup
	quiet := slog.New(slog.DiscardHandler)
	for i := range size {
		config := rest.CopyConfig(server.Config)
		config.QPS = -1
		config.Impersonate = rest.ImpersonationConfig{
			UserName: "system:serviceaccount:" + apiserver.Namespace + ":" + apiserver.AgentAccount,
			Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + apiserver.Namespace, "system:authenticated"},
			Extra:    map[string][]string{"authentication.kubernetes.io/node-name": {nodeName(i)}},
		}
		client, err := kube.New(config, nodeName(i))
		if err != nil {
			return running.Wait, err
		}
		a := &agent{
			node: nodeName(i), client: client, writes: writes, wake: make(chan struct{}, 1),
			events: patchlog.NewEvents(client.REST(), patchlog.AgentComponent, nodeName(i), nil),
		}
		running.Go(func() { client.Watch(ctx, quiet, a.assign) })
		running.Go(func() { a.work(ctx) })
	}
	return running.Wait, nil
}

func (a *agent) assign(assignment *v1alpha1.PatchAssignment) {
	a.mutex.Lock()
	a.seen = assignment
	a.mutex.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// work carries out what is assigned, and tries again what the API server did not take.
func (a *agent) work(ctx context.Context) {
	reached := v1alpha1.AgentStatus{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		}
		a.mutex.Lock()
		assignment := a.seen
		a.mutex.Unlock()
		if assignment == nil || assignment.Spec.Operation == nil {
			continue
		}
		next, err := a.step(ctx, assignment, reached)
		if err != nil {
			time.AfterFunc(time.Second, func() { a.assign(assignment) })
			continue
		}
		reached = next
	}
}

// step goes as far as the operation's step lets it, from what was reached before.
func (a *agent) step(ctx context.Context, assignment *v1alpha1.PatchAssignment, reached v1alpha1.AgentStatus) (v1alpha1.AgentStatus, error) {
	operation, run := assignment.Spec.Operation, patchlog.RunOfAssignment(assignment)
	counts := v1alpha1.ReportCounts{PatchCounts: v1alpha1.PatchCounts{Missing: missing, Security: missing / 2}}
	say := func(step v1alpha1.Step, reason string) error {
		reached = v1alpha1.AgentStatus{
			OperationID: operation.ID, Task: operation.Task, Step: step, Reason: reason,
			Time: ptr.To(metav1.Now()), Counts: &counts.PatchCounts, Version: "scale",
		}
		return a.write(a.client.ApplyStatus(ctx, &reached))
	}
	tell := func(entry patchlog.Entry) error { return a.write(a.events.Write(ctx, entry)) }
	scan := func() error {
		if err := a.write(a.client.ApplyReport(ctx, report(assignment, counts))); err != nil {
			return err
		}
		return tell(patchlog.ScanFinished(time.Now(), run, a.node, counts, v1alpha1.RebootNotRequired, time.Second))
	}
	switch {
	case reached.OperationID != operation.ID && operation.Action != v1alpha1.ActionDeploy:
		if err := say(v1alpha1.StepScanning, ""); err != nil {
			return reached, err
		}
		if err := scan(); err != nil {
			return reached, err
		}
		return reached, say(v1alpha1.StepDone, v1alpha1.ReasonScanned)
	case reached.OperationID != operation.ID:
		for _, step := range []v1alpha1.Step{v1alpha1.StepScanning, v1alpha1.StepDownloading} {
			if err := say(step, ""); err != nil {
				return reached, err
			}
		}
		if err := scan(); err != nil {
			return reached, err
		}
		if err := tell(patchlog.PatchesDownloaded(time.Now(), run, a.node, missing, 1<<20, time.Second)); err != nil {
			return reached, err
		}
		counts.Downloaded = missing
		return reached, say(v1alpha1.StepWaiting, v1alpha1.ReasonReadyToInstall)
	case operation.Step == v1alpha1.StepInstalling && !reached.Step.Ended():
		if err := say(v1alpha1.StepInstalling, ""); err != nil {
			return reached, err
		}
		if err := say(v1alpha1.StepVerifying, ""); err != nil {
			return reached, err
		}
		counts.PatchCounts = v1alpha1.PatchCounts{Installed: missing}
		if err := tell(patchlog.DeployFinished(time.Now(), run, a.node, fmt.Sprintf("%d patches installed", missing))); err != nil {
			return reached, err
		}
		if err := scan(); err != nil {
			return reached, err
		}
		return reached, say(v1alpha1.StepDone, v1alpha1.ReasonInstalled)
	}
	return reached, nil
}

// write counts a write that was taken.
func (a *agent) write(err error) error {
	if err == nil {
		a.writes.Add(1)
	}
	return err
}

// report is what an agent found, of the size that reports have.
func report(assignment *v1alpha1.PatchAssignment, counts v1alpha1.ReportCounts) *v1alpha1.PatchReportStatus {
	status := &v1alpha1.PatchReportStatus{
		Summary: fmt.Sprintf("%d not installed yet", counts.Missing), Policy: assignment.Spec.Policy, AgentVersion: "scale",
		OS:             &v1alpha1.OperatingSystem{Name: "Debian GNU/Linux 12 (bookworm)", ID: "debian", VersionID: "12"},
		Kernel:         &v1alpha1.Kernel{Running: "6.1.0-40-amd64", NewestInstalled: "6.1.0-40-amd64"},
		PackageManager: &v1alpha1.PackageManager{Name: "apt", Version: "2.6.1"},
		PatchData:      &v1alpha1.PatchData{Time: ptr.To(metav1.Now())},
		Scan: &v1alpha1.ScanRun{
			Time: ptr.To(metav1.Now()), DurationMilliseconds: 1000,
			Task: assignment.Spec.Operation.Task, OperationID: assignment.Spec.Operation.ID,
		},
		Counts: &counts,
		Reboot: &v1alpha1.Reboot{State: v1alpha1.RebootNotRequired},
	}
	for i := range counts.Missing {
		status.Patches = append(status.Patches, v1alpha1.Patch{
			Name: fmt.Sprintf("libsomething%d", i), Installed: "1.2.3-4+deb12u1", Available: "1.2.3-4+deb12u2",
			Classification: v1alpha1.ClassificationSecurity, Severity: v1alpha1.SeverityImportant,
			Advisories: []string{"DSA-5900-1"}, CVEs: []string{"CVE-2026-10001", "CVE-2026-10002"},
			DownloadBytes: 123456, FirstSeen: ptr.To(metav1.Now()), State: v1alpha1.PatchMissing,
		})
	}
	return status
}
