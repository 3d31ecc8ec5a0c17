package metrics

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// collector answers scrapes.
type collector struct {
	// reader reads from the manager's cache.
	reader   client.Reader
	clock    clock.PassiveClock
	recorder *recorder
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, f := range families {
		to <- f.desc
	}
	c.recorder.describe(to)
}

// Collect implements prometheus.Collector. Where the cache cannot be read nothing
// is published, nor that this manager leads: half of it would look like nodes
// that are gone.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	seen, err := c.look(ctx)
	if err != nil {
		ctrl.Log.WithName("metrics").Error(err, "Unable to read what to publish")
		return
	}
	seen.write(func(m prometheus.Metric) { to <- m })
	c.recorder.collect(to)
}

// look reads everything there is to publish. Nothing changes what it returns: it
// is the cache's own.
func (c *collector) look(ctx context.Context) (*snapshot, error) {
	var (
		nodes       corev1.NodeList
		policies    v1alpha1.PatchPolicyList
		tasks       v1alpha1.PatchTaskList
		reports     v1alpha1.PatchReportList
		retries     v1alpha1.PatchRetryList
		assignments v1alpha1.PatchAssignmentList
	)
	for _, list := range []client.ObjectList{&nodes, &policies, &tasks, &reports, &retries, &assignments} {
		if err := c.reader.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("listing %T for the metrics: %w", list, err)
		}
	}
	return &snapshot{
		now:      c.clock.Now(),
		nodes:    byName(nodes.Items, func(n *corev1.Node) string { return n.Name }),
		policies: byName(policies.Items, func(p *v1alpha1.PatchPolicy) string { return p.Name }),
		reports:  byName(reports.Items, func(r *v1alpha1.PatchReport) string { return r.Name }),
		retries:  byName(retries.Items, func(r *v1alpha1.PatchRetry) string { return r.Name }),
		tasks:    tasks.Items, assignments: assignments.Items,
	}, nil
}

func byName[T any](items []T, name func(*T) string) map[string]*T {
	named := make(map[string]*T, len(items))
	for i := range items {
		named[name(&items[i])] = &items[i]
	}
	return named
}

// snapshot is everything that the metrics follow from, but for what happened.
type snapshot struct {
	now time.Time
	// nodes, policies, reports and retries by name; a node may have no report and
	// no retry.
	nodes       map[string]*corev1.Node
	policies    map[string]*v1alpha1.PatchPolicy
	reports     map[string]*v1alpha1.PatchReport
	retries     map[string]*v1alpha1.PatchRetry
	tasks       []v1alpha1.PatchTask
	assignments []v1alpha1.PatchAssignment
}

// write gives every sample to emit.
func (s *snapshot) write(emit func(prometheus.Metric)) {
	emit(managerLeader.of(1))
	s.writeNodes(emit)
	s.writePolicies(emit)
	s.writeTasks(emit)
}

// truth is 1 for true and 0 for false.
func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// seconds is a time as Prometheus has them.
func seconds(t time.Time) float64 {
	return float64(t.UnixMilli()) / 1000
}
