package schedule

import (
	"cmp"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// defaultHistory is how many tasks are kept where the API server did not say it.
const defaultHistory = 3

// surplus are the finished tasks that are more than the policy's history keeps,
// of each named task and of the scans of overdue nodes, the oldest first. A scan
// of overdue nodes is kept as long as it says that they are not to be scanned
// again yet: wake is when that of one of them is over.
func (o *observation) surplus() (surplus []*v1alpha1.PatchTask, wake time.Time) {
	type kind struct {
		named     string
		succeeded bool
	}
	kept := map[kind]int32{}
	ended := slices.DeleteFunc(slices.Clone(o.tasks), func(task *v1alpha1.PatchTask) bool {
		return !task.Finished() || !task.DeletionTimestamp.IsZero() || !metav1.IsControlledBy(task, o.policy)
	})
	slices.SortFunc(ended, func(a, b *v1alpha1.PatchTask) int {
		return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), cmp.Compare(b.Name, a.Name))
	})
	for _, task := range ended {
		kind := kind{named: task.Spec.Task, succeeded: task.Status.Phase == v1alpha1.TaskComplete}
		limit := o.policy.Spec.History.Failed
		if kind.succeeded {
			limit = o.policy.Spec.History.Succeeded
		}
		most := int32(defaultHistory)
		if limit != nil {
			most = *limit
		}
		if kept[kind]++; kept[kind] <= most {
			continue
		}
		if until := quietUntil(task, o.now); until.After(o.now) {
			wake = earlier(wake, until)
			continue
		}
		surplus = append(surplus, task)
	}
	slices.Reverse(surplus)
	return surplus, wake
}

// earlier of two times, of which the zero one means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
