package assignment

import (
	"fmt"
	"os"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver/specs"
)

// writesOfAWay are how many writes a node's way with drain and reboot costs, but for evictions, of which there is one
// for each pod, and for what is only said: 4 of the Node, 4 of its conditions, 3 of the assignment's spec, 5 of what the
// manager says, 5 entries of the patch log. What is only said also follows the names of the pods that a drain waits
// for, and the agent's presence.
const writesOfAWay = 4 + 4 + 3 + 5 + 5

// ending is what there is to see when a node's way is over.
type ending struct {
	Step    v1alpha1.Step
	Reason  string
	Counts  v1alpha1.PatchCounts
	Boots   int
	Raises  []v1alpha1.Step
	Evicted int
	Log     []string
}

// takeThrough takes a node through its disruption under managers of which each is
// as the one before it lets it be. The first is the machine's process.
func takeThrough(template v1alpha1.TaskTemplate, first *specs.Process, next func(*specs.Process) *specs.Process) (ending, int) {
	GinkgoHelper()
	m := newMachine(template)
	before := m.node()
	first.Log = events
	m.process = first
	m.boot()
	writes := 0
	for range 300 {
		if m.over() && !m.process.Killed() {
			break
		}
		_, err := m.round()
		if replaced := next(m.process); replaced != nil {
			writes += m.process.Writes()
			replaced.Log = events
			m.process = replaced
			m.boot()
		} else if err != nil && m.process.Struck() == "" {
			Expect(err).NotTo(HaveOccurred())
		}
	}
	Expect(m.over()).To(BeTrue(), "the way comes to its end")
	m.untouched(before)
	verdict := m.verdict()
	end := ending{
		Step: verdict.Step, Reason: verdict.Reason, Counts: *verdict.Counts, Boots: m.boots, Raises: m.raises,
		Evicted: 2 - len(m.workload()), Log: m.logged(),
	}
	writes += m.process.Writes()
	removeAll()
	return end, writes
}

var _ = Describe("A manager that dies, or whose API server does", func() {
	// A manager that was killed is replaced, one that met another mishap goes on.
	replaceKilled := func(process *specs.Process) *specs.Process {
		if process.Killed() {
			return &specs.Process{At: -1}
		}
		return nil
	}
	never := func(*specs.Process) *specs.Process { return nil }

	It("takes a node through its disruption all the same, whichever write it happens to", func() {
		template := v1alpha1.TaskTemplate{}
		// That a manager is killed before a write is that it is killed after the one before.
		mishaps := []specs.Mishap{specs.KilledAfter}
		if os.Getenv("NODEPATCH_CHAOS") != "" {
			template.Hooks, mishaps = allHooks(), specs.Mishaps
		}
		want, count := takeThrough(template, &specs.Process{At: -1}, never)
		Expect(want).To(And(HaveField("Step", v1alpha1.StepDone), HaveField("Boots", 2), HaveField("Evicted", 2),
			HaveField("Raises", []v1alpha1.Step{v1alpha1.StepInstalling, v1alpha1.StepRebooting})))
		for number := range count {
			for _, mishap := range mishaps {
				victim := &specs.Process{At: number, Mishap: mishap}
				got, _ := takeThrough(template, victim, replaceKilled)
				Expect(got).To(Equal(want), fmt.Sprintf("write %d (%s): %s", number, victim.Struck(), mishap))
			}
		}
	})

	DescribeTable("goes on where every other write goes wrong", func(mishap specs.Mishap) {
		want, _ := takeThrough(v1alpha1.TaskTemplate{}, &specs.Process{At: -1}, never)
		for _, at := range []int{0, 1} {
			got, _ := takeThrough(v1alpha1.TaskTemplate{}, &specs.Process{At: at, Mishap: mishap}, func(process *specs.Process) *specs.Process {
				if process.Writes() > process.At {
					process.At = process.Writes() + 1
				}
				return nil
			})
			Expect(got).To(Equal(want), fmt.Sprintf("from write %d on", at))
		}
	},
		Entry("refused", specs.Refused),
		Entry("somebody else was first", specs.Conflict),
		Entry("the answer is lost", specs.AnswerLost),
	)

	It("writes as little as it says", func() {
		_, count := takeThrough(v1alpha1.TaskTemplate{}, &specs.Process{At: -1}, never)
		Expect(count).To(BeNumerically("<=", writesOfAWay+4), "with what follows the pods and the agent's presence")
		GinkgoWriter.Println("Writes of a node's way:", count)
	})
})
