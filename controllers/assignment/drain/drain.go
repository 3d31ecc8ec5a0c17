// Package drain empties a node of its pods as kubectl drain does, one look at a
// time: it never waits, and remembers nothing between two looks.
package drain

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubectl/pkg/drain"
	"k8s.io/utils/clock"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

const (
	// maxEvictions bounds the requests of one pass.
	maxEvictions = 20
	// parallelEvictions bounds how many of them are under way at once.
	parallelEvictions = 4
	// evictionTimeout bounds one of them: an admission webhook may answer late.
	evictionTimeout = 10 * time.Second
)

// Drainer drains nodes. It is safe for use by many goroutines, and two of them,
// or two managers, that drain the same node do no more than one.
type Drainer struct {
	client    kubernetes.Interface
	namespace string
	clock     clock.PassiveClock
}

// New makes a Drainer; namespace is the one of nodepatch's own pods.
func New(client kubernetes.Interface, namespace string) *Drainer {
	return &Drainer{client: client, namespace: namespace, clock: clock.RealClock{}}
}

// Pass looks at a node's pods once and asks for the eviction of those that may
// go: of up to 20, chosen at random, so that pods that are blocked keep no others
// back. It never waits for a pod. As kubectl drain, it evicts none as long as one
// is refused.
//
// An error says that the API server could not be asked, and another Pass goes on.
// The Result is empty then if the pods could not be listed, and else has what
// became of the others.
func (d *Drainer) Pass(ctx context.Context, node string, options *v1alpha1.DrainOptions) (Result, error) {
	if options == nil {
		options = &v1alpha1.DrainOptions{}
	}
	sorter := newSorter(options, d.namespace, d.clock.Now())
	lister := &drain.Helper{
		Ctx:                ctx,
		Client:             d.client,
		GracePeriodSeconds: -1,
		// What kubectl refuses without these, and names in one message for all
		// pods together, the sorter refuses for each.
		Force:               true,
		DeleteEmptyDirData:  true,
		IgnoreAllDaemonSets: true,
		AdditionalFilters:   []drain.PodFilter{sorter.sort},
	}
	list, errs := lister.GetPodsForDeletion(node)
	if len(errs) > 0 {
		return Result{}, fmt.Errorf("listing the pods to drain from node %s: %w", node, errors.Join(errs...))
	}
	pods := list.Pods()
	result := Result{
		Remaining: len(pods) + len(sorter.ending) + len(sorter.refused),
		Ending:    sorter.ending,
		Refused:   sorter.refused,
	}
	var err error
	if len(result.Refused) == 0 {
		err = d.evict(ctx, pods, options.GracePeriodSeconds, &result)
	}
	for _, names := range [][]string{result.Evicted, result.Blocked, result.Ending, result.Refused} {
		slices.Sort(names)
	}
	return result, err
}

// evict asks for the eviction of some of the pods, and adds what became of it to
// the result.
func (d *Drainer) evict(ctx context.Context, pods []corev1.Pod, grace *int64, result *Result) error {
	rand.Shuffle(len(pods), func(i, j int) { pods[i], pods[j] = pods[j], pods[i] })
	asked := pods[:min(len(pods), maxEvictions)]
	answers := make([]error, len(asked))
	var group sync.WaitGroup
	slots := make(chan struct{}, parallelEvictions)
	for i := range asked {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			answers[i] = d.request(ctx, &asked[i], grace)
		})
	}
	group.Wait()

	budgets := budgets{client: d.client, known: map[string]budgetList{}}
	var failed []error
	for i := range asked {
		pod, name := &asked[i], name(&asked[i])
		verdict, cause, err := budgets.judge(ctx, pod, answers[i])
		switch verdict {
		case accepted:
			result.Evicted = append(result.Evicted, name)
		case gone:
			result.Remaining--
		case blocked:
			result.Blocked = append(result.Blocked, fmt.Sprintf("%s (%s)", name, cause))
		case ending:
			result.Ending = append(result.Ending, fmt.Sprintf("%s (%s)", name, cause))
		case undecided:
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("evicting pod %s: %w", name, err))
		}
	}
	// The others of a budget that is used up need not be asked to be named, so
	// that the list does not depend on which were.
	for i := range pods[len(asked):] {
		pod := &pods[len(asked)+i]
		if cause := budgets.usedUp(pod); cause != "" {
			result.Blocked = append(result.Blocked, fmt.Sprintf("%s (%s)", name(pod), cause))
		}
	}
	return errors.Join(failed...)
}

// name is how a pod is called in a Result.
func name(pod *corev1.Pod) string {
	return pod.Namespace + "/" + pod.Name
}
