package task

import (
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// slots is how many of its nodes the run may have at work at once. A scan and a
// download disturb nobody, so that only the load on the mirrors bounds them. An
// installation restarts services: it works on no more nodes than may be
// unavailable, over all the policy's tasks together.
func (r *run) slots() int {
	if r.template.Action != v1alpha1.ActionDeploy {
		return int(r.template.Rollout.MaxParallelScans)
	}
	governed := 0
	if members := r.in.Membership.Policies[r.policy.Name]; members != nil {
		governed = len(members.Governed)
	}
	return maxUnavailable(r.template.Rollout.MaxUnavailable, governed) - r.elsewhere()
}

// maxUnavailable is a number of nodes: a percentage is rounded down, but there
// is always one, without which nothing would ever be installed.
func maxUnavailable(value *intstr.IntOrString, governed int) int {
	if value == nil {
		return 1
	}
	number, err := intstr.GetScaledValueFromIntOrPercent(value, governed, false)
	if err != nil {
		return 1 // The API server lets nothing else in.
	}
	return max(number, 1)
}

// elsewhere counts the policy's nodes on which other tasks deploy.
func (r *run) elsewhere() int {
	count := 0
	for name, assignment := range r.in.Assignments {
		operation := assignment.Spec.Operation
		if operation == nil || operation.ID == r.id || operation.Step != v1alpha1.StepInstalling {
			continue
		}
		// One that is not done by its deadline is about to be given up by its task.
		if r.in.Membership.Governor[name] == r.policy.Name && r.occupant(assignment) != "" && r.in.Now.Before(operation.Deadline.Time) {
			count++
		}
	}
	return count
}
