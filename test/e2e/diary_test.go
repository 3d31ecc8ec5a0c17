package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// diary is what anybody who watches the nodes' assignments sees of a rollout, in order.
type diary struct {
	operation types.UID
	mu        sync.Mutex
	pages     []page
	// ready is when the agent of each node was last seen to become ready, and unready has those that are not.
	ready   map[string]time.Time
	unready map[string]bool
}

// page is a node's stage, from a moment on.
type page struct {
	at    time.Time
	node  string
	stage v1alpha1.Step
	// admitted says that the node may be disrupted.
	admitted bool
	// why is the reason and the message that stand beside the stage.
	why string
	// reason alone, of whoever holds the node there.
	reason string
}

// keepDiary writes down what the assignments say of a task until the context ends.
func keepDiary(ctx context.Context, operation types.UID) *diary {
	GinkgoHelper()
	d := &diary{operation: operation, ready: map[string]time.Time{}, unready: map[string]bool{}}
	objects, err := ctrlcache.New(config, ctrlcache.Options{Scheme: client.Scheme(), DefaultNamespaces: map[string]ctrlcache.Config{namespace: {}}})
	Expect(err).NotTo(HaveOccurred())
	for kind, see := range map[ctrlclient.Object]func(any){
		&v1alpha1.PatchAssignment{}: func(object any) { d.write(object.(*v1alpha1.PatchAssignment)) },
		&corev1.Pod{}:               func(object any) { d.see(object.(*corev1.Pod)) },
	} {
		informer, err := objects.GetInformer(ctx, kind, ctrlcache.BlockUntilSynced(false))
		Expect(err).NotTo(HaveOccurred())
		_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc: see, UpdateFunc: func(_, object any) { see(object) },
		})
		Expect(err).NotTo(HaveOccurred())
	}
	go func() {
		defer GinkgoRecover()
		Expect(objects.Start(ctx)).To(Succeed())
	}()
	return d
}

// see notes when an agent becomes ready again.
func (d *diary) see(pod *corev1.Pod) {
	if pod.Labels["app.kubernetes.io/component"] != "agent" {
		return
	}
	ready := slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	if ready && d.unready[pod.Spec.NodeName] {
		d.ready[pod.Spec.NodeName] = time.Now()
	}
	d.unready[pod.Spec.NodeName] = !ready
}

// whole is when the agent of a node, the last of a machine that boots, was ready again after a moment; that
// moment, if it was before.
func (d *diary) whole(node string, after time.Time) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ready := d.ready[node]; ready.After(after) {
		return ready
	}
	return after
}

func (d *diary) write(assignment *v1alpha1.PatchAssignment) {
	p := page{at: time.Now(), node: assignment.Name, stage: stageOf(assignment, d.operation)}
	if operation := assignment.Spec.Operation; operation != nil && operation.ID == string(d.operation) {
		p.admitted = operation.AdmittedAt != nil
	}
	by, status := "agent", assignment.Status
	switch controller := status.Controller; {
	case controller != nil && controller.OperationID == string(d.operation) && controller.Step != "":
		by, p.reason, p.why = "manager", controller.Reason, controller.Message
	case p.stage == v1alpha1.StepWaiting && status.Rollout != nil && status.Rollout.OperationID == string(d.operation):
		by, p.reason, p.why = "rollout", status.Rollout.Reason, status.Rollout.Message
	case status.Agent != nil && status.Agent.OperationID == string(d.operation):
		p.reason, p.why = status.Agent.Reason, status.Agent.Message
	}
	p.why = strings.TrimSpace(fmt.Sprintf("%s: %s %s", by, p.reason, p.why))
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, last := range slices.Backward(d.pages) {
		if last.node == p.node {
			if last.stage == p.stage && last.why == p.why && last.admitted == p.admitted {
				return
			}
			break
		}
	}
	d.pages = append(d.pages, p)
}

// of returns what was seen of a node.
func (d *diary) of(node string) []page {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(d.pages), func(p page) bool { return p.node != node })
}

// stages are the stages that a node went through, each once in a row.
func (d *diary) stages(node string) []v1alpha1.Step {
	var stages []v1alpha1.Step
	for _, p := range d.of(node) {
		stages = append(stages, p.stage)
	}
	return slices.Compact(stages)
}

// first is when a node was first seen at a stage, the zero time if it never was.
func (d *diary) first(node string, stage v1alpha1.Step) time.Time {
	for _, p := range d.of(node) {
		if p.stage == stage {
			return p.at
		}
	}
	return time.Time{}
}

// mostAdmitted is how many nodes at most were admitted at the same time.
func (d *diary) mostAdmitted() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	admitted, most := map[string]bool{}, 0
	for _, p := range d.pages {
		if delete(admitted, p.node); p.admitted {
			admitted[p.node] = true
		}
		most = max(most, len(admitted))
	}
	return most
}

// silent is for how long a node waited for its admission without a reason of the rollout's.
func (d *diary) silent(node string) time.Duration {
	var silent time.Duration
	pages := d.of(node)
	for i, p := range pages[:max(len(pages)-1, 0)] {
		if p.stage == v1alpha1.StepWaiting && !p.admitted && !strings.HasPrefix(p.why, "rollout: ") {
			silent += pages[i+1].at.Sub(p.at)
		}
	}
	return silent
}

func (d *diary) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var b strings.Builder
	for _, p := range d.pages {
		fmt.Fprintf(&b, "%s %s %s admitted=%t %s\n", p.at.Format("15:04:05.000"), p.node, p.stage, p.admitted, p.why)
	}
	return b.String()
}

// journal is a rollout as the patch log tells it: for each node the first entry of each reason.
type journal map[string]map[string]time.Time

func journalOf(ctx context.Context, task *v1alpha1.PatchTask) journal {
	GinkgoHelper()
	j := journal{}
	for _, entry := range entriesOf(ctx, task) {
		node, reason := entry.InvolvedObject.Name, entry.Reason
		if entry.InvolvedObject.Kind != "Node" {
			continue
		}
		if j[node] == nil {
			j[node] = map[string]time.Time{}
		}
		if _, again := j[node][reason]; !again {
			j[node][reason] = entry.EventTime.Time
		}
	}
	return j
}

// gap is time in which a rollout neither prepared, installed, drained, booted nor scanned: a machine has
// booted when the kubelet says that the agent's pod is ready again.
type gap struct {
	what string
	took time.Duration
}

// waiting returns how long a rollout of one node after the other took from the moment when the first was
// ready to be disrupted, and in which gaps of it nodepatch itself was what everybody waited for. What a
// node does is bounded by the entries of its log; only what has none is taken from the diary: the beginning
// of its installation, and the end of its boot.
func (j journal) waiting(seen *diary) (whole time.Duration, gaps []gap) {
	GinkgoHelper()
	nodes := slices.SortedFunc(maps.Keys(j), func(a, b string) int {
		return j[a][v1alpha1.EventNodeAdmitted].Compare(j[b][v1alpha1.EventNodeAdmitted])
	})
	var ready time.Time
	for _, node := range nodes {
		if at := seen.first(node, v1alpha1.StepWaiting); ready.IsZero() || at.Before(ready) {
			ready = at
		}
	}
	end := ready
	for _, node := range nodes {
		at := j[node]
		for _, between := range []struct {
			what     string
			from, to time.Time
		}{
			{"until it was admitted", end, at[v1alpha1.EventNodeAdmitted]},
			{"from its admission to its installation", at[v1alpha1.EventNodeAdmitted], seen.first(node, v1alpha1.StepInstalling)},
			{"from its installation to its drain", at[v1alpha1.EventRebootRequired], at[v1alpha1.EventNodeCordoned]},
			{"from its drain to its reboot", at[v1alpha1.EventNodeDrained], at[v1alpha1.EventNodeRebooting]},
			{"from its last scan and its agent's readiness to its service",
				seen.whole(node, at[v1alpha1.EventDeployFinished]), at[v1alpha1.EventNodeDone]},
		} {
			Expect(between.from).NotTo(BeZero(), "%s: the log has no beginning of the time %s", node, between.what)
			Expect(between.to).NotTo(BeZero(), "%s: the log has no end of the time %s", node, between.what)
			gaps = append(gaps, gap{node + " " + between.what, between.to.Sub(between.from)})
		}
		end = at[v1alpha1.EventNodeDone]
	}
	return end.Sub(ready), gaps
}
