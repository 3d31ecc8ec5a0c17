package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// writePolicies publishes the policies, and the steps of the nodes they govern.
func (s *snapshot) writePolicies(emit func(prometheus.Metric)) {
	for name, policy := range s.policies {
		status := &policy.Status
		emit(policyReady.of(truth(meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionReady)), name))
		emit(policySuspended.of(truth(policy.Spec.Suspend), name))
		if status.NextRun != nil {
			emit(policyNextRun.of(seconds(status.NextRun.Time), name))
		}
		var missed int32
		for i := range status.Tasks {
			missed += status.Tasks[i].Missed
		}
		emit(policyMissedRuns.of(float64(missed), name))
		if nodes := status.Nodes; nodes != nil {
			for _, state := range []struct {
				label string
				count int32
			}{
				{"Selected", nodes.Selected}, {"Governed", nodes.Governed}, {"Scanned", nodes.Scanned}, {"Patched", nodes.Patched},
				{"Overdue", nodes.Overdue}, {"Unreachable", nodes.Unreachable}, {"RebootRequired", nodes.RebootRequired},
			} {
				emit(policyNodes.of(float64(state.count), name, state.label))
			}
		}
	}
	s.writeSteps(emit)
}

// wait is what nodes of a policy wait for.
type wait struct {
	policy string
	step   v1alpha1.Step
	reason string
}

// writeSteps publishes where the nodes of each policy stand.
func (s *snapshot) writeSteps(emit func(prometheus.Metric)) {
	counts := make(map[string]map[v1alpha1.Step]int, len(s.policies))
	for name := range s.policies {
		counts[name] = map[v1alpha1.Step]int{}
	}
	waits := map[wait]int{}
	for i := range s.assignments {
		assignment := &s.assignments[i]
		governor := assignment.Spec.Policy
		if s.nodes[assignment.Name] == nil || counts[governor] == nil {
			continue
		}
		at := positionOf(assignment)
		counts[governor][at.step]++
		if reason := waitsFor(assignment, at); reason != "" {
			waits[wait{governor, at.step, reason}]++
		}
	}
	for name, steps := range counts {
		for _, step := range append([]v1alpha1.Step{idle}, workSteps...) {
			emit(nodesByStep.of(float64(steps[step]), name, string(step)))
		}
	}
	for of, count := range waits {
		emit(nodesWaiting.of(float64(count), of.policy, string(of.step), of.reason))
	}
}

// writeTasks publishes the runs under way, and of each policy and action the one
// that ended last.
func (s *snapshot) writeTasks(emit func(prometheus.Metric)) {
	type kind struct {
		policy string
		action v1alpha1.Action
	}
	last := map[kind]*v1alpha1.PatchTask{}
	for i := range s.tasks {
		task := &s.tasks[i]
		status := &task.Status
		if s.policies[task.Spec.Policy] == nil || status.StartTime == nil || status.Template == nil {
			continue
		}
		if !task.Finished() {
			emit(taskStart.of(seconds(status.StartTime.Time), task.Name, task.Spec.Policy, string(status.Template.Action)))
			writeTaskNodes(task, emit)
			continue
		}
		of := kind{task.Spec.Policy, status.Template.Action}
		if before := last[of]; status.CompletionTime != nil && (before == nil || before.Status.CompletionTime.Before(status.CompletionTime)) {
			last[of] = task
		}
	}
	for of, task := range last {
		emit(policyLastRun.of(seconds(task.Status.CompletionTime.Time),
			of.policy, string(of.action), task.Name, string(task.Status.Phase), endReason(task)))
	}
}

// endReason is the reason of the condition with which a task ended.
func endReason(task *v1alpha1.PatchTask) string {
	for _, kind := range []string{v1alpha1.ConditionComplete, v1alpha1.ConditionFailed, v1alpha1.ConditionStopped} {
		if condition := meta.FindStatusCondition(task.Status.Conditions, kind); condition != nil {
			return condition.Reason
		}
	}
	return ""
}

func writeTaskNodes(task *v1alpha1.PatchTask, emit func(prometheus.Metric)) {
	nodes := task.Status.Nodes
	if nodes == nil {
		return
	}
	for _, step := range []struct {
		label string
		count int32
	}{
		{"Pending", nodes.Pending}, {"Scanning", nodes.Scanning}, {"Downloading", nodes.Downloading}, {"Waiting", nodes.Waiting},
		{"Draining", nodes.Draining}, {"Installing", nodes.Installing}, {"Rebooting", nodes.Rebooting}, {"Verifying", nodes.Verifying},
		{"Done", nodes.Done}, {"Stopped", nodes.Stopped}, {"Skipped", nodes.Skipped}, {"Failed", nodes.Failed},
		{"Unreachable", nodes.Unreachable},
	} {
		emit(taskNodes.of(float64(step.count), task.Name, task.Spec.Policy, step.label))
	}
}
