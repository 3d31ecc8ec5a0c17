package metrics

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// now is a whole hour, 1794000000 to Prometheus.
var now = time.Unix(1794000000, 0)

// still is a collector of what one snapshot says.
type still struct {
	*snapshot
	*recorder
}

func (s still) Describe(to chan<- *prometheus.Desc) {
	for _, f := range families {
		to <- f.desc
	}
	s.recorder.describe(to)
}

func (s still) Collect(to chan<- prometheus.Metric) {
	s.write(func(m prometheus.Metric) { to <- m })
	s.recorder.collect(to)
}

// fleet is a policy with a node that misses patches, one that is disrupted, one
// that waits and one that was never scanned, and the policy's last runs.
func fleet() *snapshot {
	s := &snapshot{
		now:      now,
		nodes:    map[string]*corev1.Node{},
		policies: map[string]*v1alpha1.PatchPolicy{"workers": workers()},
		reports:  map[string]*v1alpha1.PatchReport{},
		retries:  map[string]*v1alpha1.PatchRetry{},
	}
	for _, name := range []string{"missing", "disrupted", "waiting", "new"} {
		s.nodes[name] = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		s.retries[name] = &v1alpha1.PatchRetry{}
		s.reports[name] = &v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: ago(time.Minute)}}
		s.assignments = append(s.assignments, v1alpha1.PatchAssignment{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.PatchAssignmentSpec{Policy: "workers"},
			Status: v1alpha1.PatchAssignmentStatus{Controller: &v1alpha1.ControllerStatus{Agent: v1alpha1.AgentReady}},
		})
	}
	s.reports["missing"].Status = v1alpha1.PatchReportStatus{
		AgentVersion: "v1", OS: &v1alpha1.OperatingSystem{Name: "Debian GNU/Linux 12 (bookworm)"},
		Kernel: &v1alpha1.Kernel{Running: "6.1.0"}, PackageManager: &v1alpha1.PackageManager{Name: "apt"},
		Scan: &v1alpha1.ScanRun{Time: new(ago(2 * time.Hour))}, PatchData: &v1alpha1.PatchData{Time: new(ago(3 * time.Hour))},
		Reboot: &v1alpha1.Reboot{State: v1alpha1.RebootRequired},
		Counts: &v1alpha1.ReportCounts{
			PatchCounts: v1alpha1.PatchCounts{Missing: 9, Security: 4, Bugfix: 3, Enhancement: 2},
			Critical:    1, Important: 2, Moderate: 1, OldestSecurity: new(ago(24 * time.Hour)),
		},
		Conditions: []metav1.Condition{
			{Type: v1alpha1.ConditionScanned, Status: metav1.ConditionTrue},
			{Type: v1alpha1.ConditionPatchDataCurrent, Status: metav1.ConditionFalse},
			{Type: v1alpha1.ConditionPackagesConsistent, Status: metav1.ConditionUnknown},
		},
	}
	s.retries["missing"].Status = v1alpha1.PatchRetryStatus{Counted: 3, Blocked: 1}
	disrupted, waiting, unseen := &s.assignments[1], &s.assignments[2], &s.assignments[3]
	s.nodes["disrupted"].Annotations = map[string]string{v1alpha1.MaintenanceAnnotation: `{"version":1,"operation":"u","task":"patch","policy":"workers","since":"` +
		now.Add(-time.Minute).UTC().Format("2006-01-02T15:04:05.000000Z07:00") + `"}`}
	disrupted.Spec.Operation = operation(v1alpha1.StepInstalling, ago(time.Minute))
	disrupted.Status.Controller = &v1alpha1.ControllerStatus{Agent: v1alpha1.AgentReady, OperationID: "u", Step: v1alpha1.StepDraining}
	waiting.Spec.Operation = operation(v1alpha1.StepDownloading, metav1.Time{})
	waiting.Status.Agent = &v1alpha1.AgentStatus{OperationID: "u", Step: v1alpha1.StepWaiting}
	waiting.Status.Rollout = &v1alpha1.RolloutStatus{OperationID: "u", Reason: v1alpha1.ReasonBudget}
	unseen.Status.Controller.Agent = v1alpha1.AgentAbsent
	s.tasks = []v1alpha1.PatchTask{
		run("patch", v1alpha1.TaskRunning, "", 0), run("older", v1alpha1.TaskComplete, v1alpha1.ReasonAllNodesDone, 3*time.Hour),
		run("newer", v1alpha1.TaskFailed, v1alpha1.ReasonTooManyFailures, time.Hour),
		{Spec: v1alpha1.PatchTaskSpec{Policy: "workers"}, Status: v1alpha1.PatchTaskStatus{Phase: v1alpha1.TaskFailed}},
	}
	return s
}

func workers() *v1alpha1.PatchPolicy {
	return &v1alpha1.PatchPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "workers"},
		Spec:       v1alpha1.PatchPolicySpec{MaxScanAge: &metav1.Duration{Duration: time.Hour}},
		Status: v1alpha1.PatchPolicyStatus{
			Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue}},
			Nodes:      &v1alpha1.PolicyNodeCounts{Selected: 5, Governed: 4, Scanned: 3, Patched: 2, Overdue: 1, Unreachable: 1, RebootRequired: 1},
			NextRun:    new(ago(-time.Hour)), Tasks: []v1alpha1.ScheduledTask{{Missed: 2}, {Missed: 1}},
		},
	}
}

func operation(step v1alpha1.Step, admitted metav1.Time) *v1alpha1.Operation {
	given := &v1alpha1.Operation{ID: "u", Task: "patch", Step: step, AssignedAt: ago(time.Hour)}
	if !admitted.IsZero() {
		given.AdmittedAt = &admitted
	}
	return given
}

func run(name string, phase v1alpha1.TaskPhase, reason string, ended time.Duration) v1alpha1.PatchTask {
	task := v1alpha1.PatchTask{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: "u"}, Spec: v1alpha1.PatchTaskSpec{Policy: "workers"},
		Status: v1alpha1.PatchTaskStatus{
			Phase: phase, Template: &v1alpha1.TaskTemplate{Action: v1alpha1.ActionDeploy}, StartTime: new(ago(4 * time.Hour)),
			Nodes: &v1alpha1.TaskNodeCounts{Total: 3, Waiting: 1, Draining: 1, Done: 1},
		},
	}
	if reason != "" {
		task.Status.CompletionTime = new(ago(ended))
		task.Status.Conditions = []metav1.Condition{{Type: string(phase), Status: metav1.ConditionTrue, Reason: reason}}
	}
	return task
}

func ago(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }

func TestWhatIsPublished(t *testing.T) {
	tests := map[string]struct {
		families []string
		want     string
	}{
		"patches": {[]string{"node_missing_patches", "node_missing_patches_by_severity", "node_failed_patches", "node_blocked_patches"}, `
nodepatch_node_blocked_patches{node="disrupted",policy="workers"} 0
nodepatch_node_blocked_patches{node="missing",policy="workers"} 1
nodepatch_node_blocked_patches{node="new",policy="workers"} 0
nodepatch_node_blocked_patches{node="waiting",policy="workers"} 0
nodepatch_node_failed_patches{node="disrupted",policy="workers"} 0
nodepatch_node_failed_patches{node="missing",policy="workers"} 2
nodepatch_node_failed_patches{node="new",policy="workers"} 0
nodepatch_node_failed_patches{node="waiting",policy="workers"} 0
nodepatch_node_missing_patches{classification="Bugfix",node="missing",policy="workers"} 3
nodepatch_node_missing_patches{classification="Enhancement",node="missing",policy="workers"} 2
nodepatch_node_missing_patches{classification="Other",node="missing",policy="workers"} 0
nodepatch_node_missing_patches{classification="Security",node="missing",policy="workers"} 4
nodepatch_node_missing_patches_by_severity{node="missing",policy="workers",severity="Critical"} 1
nodepatch_node_missing_patches_by_severity{node="missing",policy="workers",severity="Important"} 2
nodepatch_node_missing_patches_by_severity{node="missing",policy="workers",severity="Low"} 0
nodepatch_node_missing_patches_by_severity{node="missing",policy="workers",severity="Moderate"} 1
nodepatch_node_missing_patches_by_severity{node="missing",policy="workers",severity="Unknown"} 5
`},
		"times": {[]string{"node_oldest_missing_security_patch_timestamp_seconds", "node_last_scan_timestamp_seconds",
			"node_patch_data_timestamp_seconds", "node_disruption_start_timestamp_seconds", "policy_next_run_timestamp_seconds", "task_start_timestamp_seconds"}, `
nodepatch_node_disruption_start_timestamp_seconds{node="disrupted",policy="workers",task="patch"} 1793999940
nodepatch_node_last_scan_timestamp_seconds{node="missing",policy="workers"} 1793992800
nodepatch_node_oldest_missing_security_patch_timestamp_seconds{node="missing",policy="workers"} 1793913600
nodepatch_node_patch_data_timestamp_seconds{node="missing",policy="workers"} 1793989200
nodepatch_policy_next_run_timestamp_seconds{policy="workers"} 1794003600
nodepatch_task_start_timestamp_seconds{action="Deploy",policy="workers",task="patch"} 1793985600
`},
		"states of nodes": {[]string{"node_reboot_required", "node_overdue", "node_condition", "node_agent_ready", "node_info"}, `
nodepatch_node_agent_ready{node="disrupted",policy="workers"} 1
nodepatch_node_agent_ready{node="missing",policy="workers"} 1
nodepatch_node_agent_ready{node="new",policy="workers"} 0
nodepatch_node_agent_ready{node="waiting",policy="workers"} 1
nodepatch_node_condition{condition="PatchDataCurrent",node="missing",policy="workers"} 0
nodepatch_node_condition{condition="Scanned",node="missing",policy="workers"} 1
nodepatch_node_info{agent_version="v1",kernel="6.1.0",node="missing",os="Debian GNU/Linux 12 (bookworm)",package_manager="apt",policy="workers"} 1
nodepatch_node_overdue{node="disrupted",policy="workers"} 0
nodepatch_node_overdue{node="missing",policy="workers"} 1
nodepatch_node_overdue{node="new",policy="workers"} 0
nodepatch_node_overdue{node="waiting",policy="workers"} 0
nodepatch_node_reboot_required{node="missing",policy="workers"} 1
`},
		"steps and waits": {[]string{"nodes", "nodes_waiting"}, `
nodepatch_nodes{policy="workers",step="Downloading"} 0
nodepatch_nodes{policy="workers",step="Draining"} 1
nodepatch_nodes{policy="workers",step="Idle"} 2
nodepatch_nodes{policy="workers",step="Installing"} 0
nodepatch_nodes{policy="workers",step="Rebooting"} 0
nodepatch_nodes{policy="workers",step="Scanning"} 0
nodepatch_nodes{policy="workers",step="Verifying"} 0
nodepatch_nodes{policy="workers",step="Waiting"} 1
nodepatch_nodes_waiting{policy="workers",reason="Budget",step="Waiting"} 1
`},
		"policies": {[]string{"policy_nodes", "policy_ready", "policy_suspended", "policy_missed_runs_total", "policy_last_run_timestamp_seconds"}, `
nodepatch_policy_last_run_timestamp_seconds{action="Deploy",policy="workers",reason="TooManyFailures",result="Failed",task="newer"} 1793996400
nodepatch_policy_missed_runs_total{policy="workers"} 3
nodepatch_policy_nodes{policy="workers",state="Governed"} 4
nodepatch_policy_nodes{policy="workers",state="Overdue"} 1
nodepatch_policy_nodes{policy="workers",state="Patched"} 2
nodepatch_policy_nodes{policy="workers",state="RebootRequired"} 1
nodepatch_policy_nodes{policy="workers",state="Scanned"} 3
nodepatch_policy_nodes{policy="workers",state="Selected"} 5
nodepatch_policy_nodes{policy="workers",state="Unreachable"} 1
nodepatch_policy_ready{policy="workers"} 1
nodepatch_policy_suspended{policy="workers"} 0
`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := text(t, still{fleet(), newRecorder()}, test.families...); got != strings.TrimSpace(test.want) {
				t.Errorf("got:\n%s\nwant:%s", got, test.want)
			}
		})
	}
}

// text is what a scrape of some families says, without their help; of all families
// if none is named.
func text(t *testing.T, c prometheus.Collector, names ...string) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	all, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var page strings.Builder
	for _, metrics := range all {
		if len(names) == 0 || slices.Contains(names, strings.TrimPrefix(metrics.GetName(), "nodepatch_")) {
			if _, err := expfmt.MetricFamilyToText(&page, metrics); err != nil {
				t.Fatal(err)
			}
		}
	}
	var lines []string
	for line := range strings.Lines(page.String()) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, numbers.Replace(strings.TrimSpace(line)))
		}
	}
	return strings.Join(lines, "\n")
}

// numbers writes the times of the tests out.
var numbers = func() *strings.Replacer {
	var pairs []string
	for _, at := range []int64{1793999940, 1793992800, 1793913600, 1793989200, 1794003600, 1793985600, 1793996400} {
		pairs = append(pairs, fmt.Sprint(float64(at)), fmt.Sprint(at))
	}
	return strings.NewReplacer(pairs...)
}()

func TestSeriesGoWithTheirObjects(t *testing.T) {
	tests := map[string]struct {
		remove func(*snapshot)
		gone   string
	}{
		"a node":          {func(s *snapshot) { delete(s.nodes, "missing") }, `node="missing"`},
		"a policy":        {func(s *snapshot) { delete(s.policies, "workers") }, `policy="workers",s`},
		"a task":          {func(s *snapshot) { s.tasks = s.tasks[1:] }, `nodepatch_task_`},
		"a finished task": {func(s *snapshot) { s.tasks = s.tasks[:2] }, `task="newer"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			seen := fleet()
			if before := text(t, still{seen, newRecorder()}); !strings.Contains(before, test.gone) {
				t.Fatalf("nothing has %s to begin with:\n%s", test.gone, before)
			}
			test.remove(seen)
			if after := text(t, still{seen, newRecorder()}); strings.Contains(after, test.gone) {
				t.Errorf("%s is still there:\n%s", test.gone, after)
			}
		})
	}
}

func TestANodeHasFewSeries(t *testing.T) {
	seen := fleet()
	report := seen.reports["missing"]
	report.Status.Conditions[2].Status = metav1.ConditionTrue
	seen.nodes["missing"].Annotations = seen.nodes["disrupted"].Annotations
	count := strings.Count(text(t, still{seen, newRecorder()}), `node="missing"`)
	t.Logf("%d series of a node that has all there are", count)
	if count != 22 {
		t.Errorf("A node that has all series has %d of them, and the package says 22", count)
	}
}

func TestNamesAndHelpFollowPrometheus(t *testing.T) {
	problems, err := testutil.CollectAndLint(still{fleet(), newRecorder()})
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		t.Errorf("%s: %s", problem.Metric, problem.Text)
	}
}
