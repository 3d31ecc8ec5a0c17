package task

import (
	"cmp"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// prepare gives nodes their part of the task: as many at once as may scan and
// download, which disturbs nobody, so that neither windows nor budgets matter.
// Earlier waves come first, then it goes by name.
func (r *run) prepare(plan *Plan, waves waves) {
	free := int(r.template.Rollout.MaxParallelScans)
	order := make([]int, 0, len(plan.Nodes))
	for i := range plan.Nodes {
		switch node := &plan.Nodes[i]; node.Place {
		case PlaceWorking:
			free--
		case PlacePending:
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(waves.of[a], waves.of[b]) })
	for _, i := range order {
		node := &plan.Nodes[i]
		refusal := r.checkPin(waves.of[i])
		switch {
		case node.Reason != "":
		case r.policy.Spec.Suspend:
			node.Reason = v1alpha1.ReasonPolicySuspended
		case refusal != nil:
			node.Reason, node.Message = refusal.reason, refusal.message
		case free <= 0:
			node.Reason = v1alpha1.ReasonParallelLimit
		default:
			free--
			node.Place, node.Assign = PlaceWorking, r.operation()
			r.wake(node.Assign.Deadline.Time)
		}
	}
}

// operation is a node's part of the task, if the node gets it now.
func (r *run) operation() *v1alpha1.Operation {
	limits := r.policy.Spec.RetryLimits
	if limits.Download == 0 {
		limits.Download = defaultDownloadLimit
	}
	if limits.Install == 0 {
		limits.Install = defaultInstallLimit
	}
	operation := &v1alpha1.Operation{
		ID:          r.id,
		Task:        r.in.Task.Name,
		Step:        v1alpha1.StepDownloading,
		Action:      r.template.Action,
		Patches:     r.template.Patches.DeepCopy(),
		RetryLimits: &limits,
		AssignedAt:  metav1.NewTime(r.in.Now),
		Deadline:    metav1.NewTime(r.in.Now.Add(timeout(&r.template))),
	}
	switch r.template.Action {
	case v1alpha1.ActionScan:
		operation.Step = v1alpha1.StepScanning
	case v1alpha1.ActionDeploy:
		operation.Reboot = r.template.Reboot.When
		if r.pins() && r.pinned() != nil {
			operation.Pin = v1alpha1.OperationPinTask
		}
	}
	return operation
}

// timeout is how long a node may take to prepare itself: as long as for all the
// steps together, as what one of them does not need the next may have.
func timeout(template *v1alpha1.TaskTemplate) time.Duration {
	if template.Action == v1alpha1.ActionScan {
		return template.Scan.Timeout.Duration
	}
	return template.Scan.Timeout.Duration + template.Download.Timeout.Duration
}
