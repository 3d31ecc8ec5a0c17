package buttons

import (
	"context"
	"errors"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// mishap is what happens to one write of the manager.
type mishap string

const (
	none         mishap = "no mishap"
	killedBefore mishap = "the manager is killed before it"
	killedAfter  mishap = "the manager is killed after it"
	refused      mishap = "the API server refuses it"
	conflict     mishap = "somebody else wrote first"
	answerLost   mishap = "it succeeds and the answer is lost"
)

var errKilled = errors.New("this process was killed")

// process is a manager's life: after it was killed it writes nothing.
type process struct {
	at     int
	mishap mishap
	writes int
	killed bool
}

func (p *process) write(do func() error) error {
	if p.killed {
		return errKilled
	}
	p.writes++
	if p.writes-1 != p.at {
		return do()
	}
	switch p.mishap {
	case killedBefore:
		p.killed = true
		return errKilled
	case killedAfter:
		p.killed = true
		return errors.Join(do(), errKilled)
	case refused:
		return apierrors.NewInternalError(errors.New("etcdserver: no leader"))
	case conflict:
		return apierrors.NewConflict(schema.GroupResource{Resource: "things"}, "a", errors.New("modified"))
	case answerLost:
		return errors.Join(do(), apierrors.NewTimeoutError("the answer was lost", 1))
	default:
		return do()
	}
}

// Write is the patch log of the process.
func (p *process) Write(ctx context.Context, entry patchlog.Entry) error {
	return p.write(func() error { return events.Write(ctx, entry) })
}

// client is the API server as the process sees it.
func (p *process) client() client.Client {
	GinkgoHelper()
	base, err := client.NewWithWatch(server.Config, client.Options{Scheme: admin.Scheme(), Mapper: admin.RESTMapper()})
	Expect(err).NotTo(HaveOccurred())
	return interceptor.NewClient(base, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			return p.write(func() error { return c.Patch(ctx, object, patch, options...) })
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, subresource string, object client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
			return p.write(func() error { return c.SubResource(subresource).Patch(ctx, object, patch, options...) })
		},
	})
}

// ending is what there is to see after a press.
type ending struct {
	Status      v1alpha1.PatchRetryStatus
	Annotations map[string]string
	Told        int64
	Answers     []string
}

// takeThrough presses the button on a new node while the write of a number goes
// wrong. As soon as the counts are cleared the agent counts another failure.
func takeThrough(value string, number int, mishap mishap) (ending, *process) {
	GinkgoHelper()
	addNode("a")
	press("a", value)
	victim := &process{at: number, mishap: mishap}
	current := victim
	counted := false
	for range 10 {
		r := newReconciler()
		r.Client, r.Log = current.client(), current
		result, err := look(r, "a")
		if !counted && retryNow("a").Status.Clears > 0 {
			counted = true
			count("a", "spam")
		}
		if err == nil && result.IsZero() {
			break
		}
		if current.killed {
			current = &process{at: -1}
		}
	}
	retry := retryNow("a")
	end := ending{Status: retry.Status, Annotations: retry.Annotations, Told: assignmentNow("a").Spec.RetryClears, Answers: answers("a")}
	removeAll()
	return end, victim
}

var _ = Describe("A manager that dies, or whose API server does", func() {
	DescribeTable("clears once, keeps what is counted since, and answers, whichever write it happens to",
		func(value, remembers string) {
			want, victim := takeThrough(value, -1, none)
			Expect(want.Status.Summary).To(Equal("1 failed: spam 9.0 (1 download)"))
			Expect(want.Status.Clears).To(BeEquivalentTo(1))
			Expect(want.Status.Handled).To(HaveValue(Equal(v1alpha1.HandledButtons{ClearRetries: remembers})))
			Expect(want.Annotations).To(BeEmpty())
			Expect(want.Told).To(BeEquivalentTo(1))
			Expect(want.Answers).To(ConsistOf(everything))
			Expect(victim.writes).To(Equal(5))
			for number := range victim.writes {
				for _, mishap := range []mishap{killedBefore, killedAfter, refused, conflict, answerLost} {
					got, _ := takeThrough(value, number, mishap)
					Expect(got).To(Equal(want), fmt.Sprintf("write %d: %s", number, mishap))
				}
			}
		},
		Entry("without a token", "all", ""),
		Entry("with a token", "all@t1", "all@t1"),
	)
})
