package task

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment"
)

// rival is a deployment that began before the task's own and has not ended.
type rival struct {
	task   *v1alpha1.PatchTask
	chosen selection
}

// findRivals finds the rivals of a deployment. A node that waits may do so for
// days and in another wave of each task: were nodes given to whoever comes first,
// two deployments could wait for each other's nodes for ever. So the one that
// began earlier has a node first.
func findRivals(in Input) []rival {
	if in.Task.Status.Template.Action != v1alpha1.ActionDeploy {
		return nil
	}
	var rivals []rival
	for i := range in.Tasks {
		task := &in.Tasks[i]
		deploys := task.Status.Template != nil && task.Status.Template.Action == v1alpha1.ActionDeploy
		if !deploys || task.Finished() || !task.DeletionTimestamp.IsZero() || task.Status.Stop != nil || !before(task, in.Task) {
			continue
		}
		if chosen, err := taskSelection(task); err == nil {
			rivals = append(rivals, rival{task: task, chosen: chosen})
		}
	}
	return rivals
}

// before says whether a task began before another; the names decide within a second.
func before(a, b *v1alpha1.PatchTask) bool {
	if a.UID == b.UID || a.Status.StartTime == nil {
		return false
	}
	if a.Status.StartTime.Equal(b.Status.StartTime) {
		return a.Name < b.Name
	}
	return a.Status.StartTime.Before(b.Status.StartTime)
}

// rival names an earlier deployment that has yet to have a node, if there is one.
func (r *run) rival(node *corev1.Node, given *v1alpha1.PatchAssignment) string {
	for i := range r.rivals {
		rival := &r.rivals[i]
		id, scan := string(rival.task.UID), withDefaults(*rival.task.Status.Template).Scan.Timeout.Duration
		switch {
		case r.in.Membership.Governor[node.Name] != rival.task.Spec.Policy:
		case !rival.chosen.has(node):
		case node.CreationTimestamp.After(rival.task.Status.StartTime.Add(scan)):
		case assignment.Outcome(given, id) != nil, assignment.Verdict(given, id) != nil:
		default:
			return rival.task.Name
		}
	}
	return ""
}
