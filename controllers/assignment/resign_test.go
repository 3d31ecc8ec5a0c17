package assignment

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

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

var _ = Describe("A manager whose own node reboots", func() {
	// resigns has the managers of a machine run on a node, and is what the API server had
	// the operation at each time that one resigned.
	resigns := func(m *machine, node string) *[]v1alpha1.Step {
		GinkgoHelper()
		var at []v1alpha1.Step
		m.r.Node, m.r.Resign = node, func() { at = append(at, m.assignment().Spec.Operation.Step) }
		return &at
	}

	It("resigns once it has let the node reboot, and leaves the rest to the next", func() {
		m := newMachine(v1alpha1.TaskTemplate{})
		before := m.node()
		at := resigns(m, m.name)
		m.until("its end", func() bool { return len(*at) > 0 })
		Expect(*at).To(Equal([]v1alpha1.Step{v1alpha1.StepRebooting}), "its leave to reboot is stored by then")
		Expect(m.boots).To(Equal(1))

		m.boot()
		next := resigns(m, "another")
		m.until("the end", m.over)
		m.untouched(before)
		Expect(m.boots).To(Equal(2))
		Expect(m.verdict().Step).To(Equal(v1alpha1.StepDone))
		Expect(*at).To(HaveLen(1))
		Expect(*next).To(BeEmpty())
	})

	It("does so once where it is the only one, and goes on when it is started again", func() {
		m := newMachine(v1alpha1.TaskTemplate{})
		first := resigns(m, m.name)
		m.until("its end", func() bool { return len(*first) > 0 })
		m.boot()
		again := resigns(m, m.name)
		m.until("the end", m.over)
		Expect(m.boots).To(Equal(2))
		Expect(*again).To(BeEmpty(), "a manager that is started before the node goes down does not end over and over")
	})

	It("stays for other nodes, and for its own without a reboot", func() {
		for _, reboots := range []bool{true, false} {
			m := newMachine(v1alpha1.TaskTemplate{})
			m.reboots = reboots
			node := m.name
			if reboots {
				node = "another"
			}
			at := resigns(m, node)
			m.until("the end", m.over)
			Expect(*at).To(BeEmpty(), fmt.Sprint("reboots: ", reboots))
			removeAll()
		}
	})

	DescribeTable("stays as long as its leave to reboot is not stored", func(refusal error) {
		m := newMachine(v1alpha1.TaskTemplate{})
		at := resigns(m, m.name)
		base, err := client.NewWithWatch(server.Config, client.Options{Scheme: admin.Scheme(), Mapper: admin.RESTMapper()})
		Expect(err).NotTo(HaveOccurred())
		refusals := 0
		m.r.Client = interceptor.NewClient(base, interceptor.Funcs{
			Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
				assignment, ok := object.(*v1alpha1.PatchAssignment)
				if ok && assignment.Spec.Operation != nil && assignment.Spec.Operation.Step == v1alpha1.StepRebooting && refusals < 3 {
					refusals++
					return refusal
				}
				return c.Patch(ctx, object, patch, options...)
			},
		})
		for range 100 {
			if refusals == 3 {
				break
			}
			_, _ = m.round() // Fails where the leave to reboot is refused.
		}
		Expect(refusals).To(Equal(3))
		Expect(*at).To(BeEmpty())
		m.until("its end", func() bool { return len(*at) > 0 })
		Expect(*at).To(Equal([]v1alpha1.Step{v1alpha1.StepRebooting}))
	},
		Entry("as the API server refuses it", apierrors.NewInternalError(errors.New("etcdserver: no leader"))),
		Entry("as somebody else wrote first", apierrors.NewConflict(schema.GroupResource{Resource: "patchassignments"}, "a", errors.New("modified"))),
	)
})
