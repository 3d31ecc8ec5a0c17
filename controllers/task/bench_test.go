package task

import (
	"fmt"
	"testing"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/policy"
)

// BenchmarkDecide measures a whole decision in the middle of a run, from the
// membership to the status: a third of the nodes each are done, failed and left.
func BenchmarkDecide(b *testing.B) {
	for _, nodes := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			in := newInput()
			for i := range nodes {
				name := fmt.Sprintf("node-%04d", i)
				in.Nodes = append(in.Nodes, newNode(name))
				in.Assignments[name] = newAssignment(name)
			}
			for i := range 20 {
				in.Policies = append(in.Policies, newPolicy(fmt.Sprintf("policy-%d", i)))
			}
			for i := range in.Nodes {
				switch name := in.Nodes[i].Name; i % 3 {
				case 0:
					in.done(name, 40, 10)
				case 1:
					in.failed(name, v1alpha1.ReasonScanFailed, "E: broken")
				}
			}
			in.apply(ptrPlan(in.decide()))
			b.ReportAllocs()
			for b.Loop() {
				in.Membership = policy.Govern(in.Policies, in.Nodes)
				plan := Decide(in)
				_ = plan.Entries()
				_ = plan.Status(in.Task.Status)
			}
		})
	}
}

func ptrPlan(plan Plan) *Plan { return &plan }
