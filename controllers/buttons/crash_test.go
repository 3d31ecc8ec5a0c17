package buttons

import (
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver/specs"
)

// ending is what there is to see after a press.
type ending struct {
	Status      v1alpha1.PatchRetryStatus
	Annotations map[string]string
	Told        int64
	Answers     []string
}

// takeThrough presses the button on a new node while a write of the first
// manager goes wrong. As soon as the counts are cleared the agent counts another
// failure.
func takeThrough(value string, victim *specs.Process) ending {
	GinkgoHelper()
	base, err := client.NewWithWatch(server.Config, client.Options{Scheme: admin.Scheme(), Mapper: admin.RESTMapper()})
	Expect(err).NotTo(HaveOccurred())
	addNode("a")
	press("a", value)
	victim.Log = events
	current := victim
	counted := false
	for range 10 {
		r := newReconciler()
		r.Client, r.Log = current.Client(base, nil), current
		result, err := look(r, "a")
		if !counted && retryNow("a").Status.Clears > 0 {
			counted = true
			count("a", "spam")
		}
		if err == nil && result.IsZero() {
			break
		}
		if current.Killed() {
			current = &specs.Process{At: -1, Log: events}
		}
	}
	retry := retryNow("a")
	end := ending{Status: retry.Status, Annotations: retry.Annotations, Told: assignmentNow("a").Spec.RetryClears, Answers: answers("a")}
	removeAll()
	return end
}

var _ = Describe("A manager that dies, or whose API server does", func() {
	DescribeTable("clears once, keeps what is counted since, and answers, whichever write it happens to",
		func(value, remembers string) {
			undisturbed := &specs.Process{At: -1}
			want := takeThrough(value, undisturbed)
			Expect(want.Status.Summary).To(Equal("1 failed: spam 9.0 (1 download)"))
			Expect(want.Status.Clears).To(BeEquivalentTo(1))
			Expect(want.Status.Handled).To(HaveValue(Equal(v1alpha1.HandledButtons{ClearRetries: remembers})))
			Expect(want.Annotations).To(BeEmpty())
			Expect(want.Told).To(BeEquivalentTo(1))
			Expect(want.Answers).To(ConsistOf(everything))
			Expect(undisturbed.Writes()).To(Equal(5))
			for number := range undisturbed.Writes() {
				for _, mishap := range specs.Mishaps {
					got := takeThrough(value, &specs.Process{At: number, Mishap: mishap})
					Expect(got).To(Equal(want), fmt.Sprintf("write %d: %s", number, mishap))
				}
			}
		},
		Entry("without a token", "all", ""),
		Entry("with a token", "all@t1", "all@t1"),
	)
})
