package task

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

const (
	// defaultMaxFailures is rollout.maxFailures, where it is not set.
	defaultMaxFailures = 1
	// culpritsShown is how many failed nodes a halted rollout names.
	culpritsShown = 5
)

// tooManyFailures says whether a rollout has to halt: more nodes failed after they
// were admitted than a wave's own maxFailures allows, or than the rollout's over
// all waves without one. A rollout of which every node has ended has nothing to halt.
func (r *run) tooManyFailures(nodes []Node, waves waves) *v1alpha1.TaskStop {
	rest := len(waves.list)
	culprits := make([][]*Node, rest+1)
	open := false
	for i := range nodes {
		open = open || !nodes[i].Place.Ended()
		if !nodes[i].Disrupted || nodes[i].Place != PlaceFailed {
			continue
		}
		number := waves.of[i]
		if waves.list[number].limit == nil {
			number = rest
		}
		culprits[number] = append(culprits[number], &nodes[i])
	}
	if !open {
		return nil
	}
	for number, failed := range culprits {
		limit, of := ptr.Deref(r.template.Rollout.MaxFailures, defaultMaxFailures), "rollout.maxFailures"
		if number < rest {
			limit, of = ptr.Deref(waves.list[number].limit, limit), "maxFailures of its wave"
		}
		more := 0
		if number == rest {
			more = int(r.in.Task.Status.DisruptedOmitted)
		}
		if len(failed)+more > int(limit) {
			return &v1alpha1.TaskStop{
				Time: metav1.NewTime(r.in.Now), Reason: v1alpha1.ReasonTooManyFailures,
				Message: fmt.Sprintf("More nodes failed than %s allows (%d): %s; mend what failed there, then start another task",
					of, limit, blame(failed, more)),
			}
		}
	}
	return nil
}

// blame names the first failed nodes and why they failed, and counts them with so
// many more.
func blame(failed []*Node, more int) string {
	var named []string
	for _, node := range failed[:min(len(failed), culpritsShown)] {
		named = append(named, fmt.Sprintf("%s (%s)", node.Name, node.Reason))
	}
	text := strings.Join(named, ", ")
	if more += len(failed) - len(named); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
