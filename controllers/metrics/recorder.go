package metrics

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// resultRefused is the result of a task that was not accepted.
const resultRefused = "Refused"

// stepBuckets are in seconds: from a scan to an installation's default timeout.
var stepBuckets = []float64{1, 5, 15, 30, 60, 120, 300, 600, 1200, 3600, 7200}

// recorder counts what happens. To be shown an object again changes nothing. What
// ended before the manager led was counted by the one before it, as Prometheus
// remembers.
type recorder struct {
	results   *prometheus.CounterVec
	installed *prometheus.CounterVec
	steps     *prometheus.HistogramVec

	mutex    sync.Mutex
	policies map[string]bool
	// finished are the tasks that are known, and whether they have ended.
	finished map[types.UID]bool
	// positions are where each node was last seen.
	positions map[string]position
}

func newRecorder() *recorder {
	return &recorder{
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nodepatch_task_results_total",
			Help: "Runs that ended, by how: Complete, Failed, Stopped, or Refused if it was not accepted.",
		}, []string{"policy", "result"}),
		installed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nodepatch_patches_installed_total",
			Help: "Patches that runs which ended have installed.",
		}, []string{"policy"}),
		steps: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "nodepatch_step_duration_seconds",
			Help:    "How long nodes were in a step of a task. Of steps shorter than a second, and of an operation that was taken back, nothing may be known.",
			Buckets: stepBuckets,
		}, []string{"policy", "step"}),
		policies: map[string]bool{}, finished: map[types.UID]bool{}, positions: map[string]position{},
	}
}

func (r *recorder) describe(to chan<- *prometheus.Desc) {
	r.results.Describe(to)
	r.installed.Describe(to)
	r.steps.Describe(to)
}

func (r *recorder) collect(to chan<- prometheus.Metric) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.results.Collect(to)
	r.installed.Collect(to)
	r.steps.Collect(to)
}

// begin gives a policy its series at zero: Prometheus does not see the first
// increase of a series that begins with it.
func (r *recorder) begin(policy string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.policies[policy] {
		return
	}
	r.policies[policy] = true
	r.installed.WithLabelValues(policy)
	for _, result := range []string{string(v1alpha1.TaskComplete), string(v1alpha1.TaskFailed), string(v1alpha1.TaskStopped), resultRefused} {
		r.results.WithLabelValues(policy, result)
	}
	for _, step := range workSteps {
		r.steps.WithLabelValues(policy, string(step))
	}
}

// forget deletes the series of a policy that is gone.
func (r *recorder) forget(policy string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	delete(r.policies, policy)
	labels := prometheus.Labels{"policy": policy}
	r.results.DeletePartialMatch(labels)
	r.installed.DeletePartialMatch(labels)
	r.steps.DeletePartialMatch(labels)
}

// seeTask counts a task that has ended since it was seen last. An initial one is
// as the manager found it when it began to lead.
func (r *recorder) seeTask(task *v1alpha1.PatchTask, initial bool) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	before, ended := r.finished[task.UID], task.Finished()
	r.finished[task.UID] = ended
	policy := task.Spec.Policy
	if !ended || before || initial || !r.policies[policy] {
		return
	}
	result := string(task.Status.Phase)
	if task.Status.StartTime == nil && task.Status.Phase == v1alpha1.TaskFailed {
		result = resultRefused
	}
	r.results.WithLabelValues(policy, result).Inc()
	if patches := task.Status.Patches; patches != nil {
		r.installed.WithLabelValues(policy).Add(float64(max(patches.Installed, 0)))
	}
}

func (r *recorder) forgetTask(task *v1alpha1.PatchTask) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	delete(r.finished, task.UID)
}

// seeNode counts how long a node was in the step that it has left. Words of the
// agent or the manager about a step that goes on do not make it begin anew.
func (r *recorder) seeNode(assignment *v1alpha1.PatchAssignment) {
	at := positionOf(assignment)
	r.mutex.Lock()
	defer r.mutex.Unlock()
	before, known := r.positions[assignment.Name]
	if known && before.operation == at.operation && before.step == at.step {
		return
	}
	r.positions[assignment.Name] = at
	policy := assignment.Spec.Policy
	if !known || before.step == idle || !r.policies[policy] {
		return
	}
	left := before.left(assignment, at)
	if left.IsZero() || before.since.IsZero() || left.Before(before.since) {
		return
	}
	r.steps.WithLabelValues(policy, string(before.step)).Observe(left.Sub(before.since).Seconds())
}

func (r *recorder) forgetNode(assignment *v1alpha1.PatchAssignment) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	delete(r.positions, assignment.Name)
}
