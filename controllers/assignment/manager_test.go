package assignment

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/blockers"
)

var _ = Describe("A running manager", func() {
	BeforeEach(runManager)

	// Nothing but watches and the manager's own timers bring it on: the node does what follows at once.
	play := func(m *machine) (took time.Duration) {
		GinkgoHelper()
		started := time.Now()
		Eventually(func() bool {
			for m.kubelet() || m.agent() {
				continue
			}
			return m.over()
		}).WithTimeout(time.Minute).Should(BeTrue())
		return time.Since(started)
	}

	It("takes a node through its disruption without anybody waiting for it", func() {
		m := newMachine(v1alpha1.TaskTemplate{})
		before := m.fresh
		took := play(m)
		m.untouched(before)
		Expect(m.boots).To(Equal(2))
		Expect(m.verdict().Step).To(Equal(v1alpha1.StepDone))
		Eventually(presence(m.name)).Should(Equal(v1alpha1.ControllerStatus{Agent: v1alpha1.AgentReady}))
		// One look a second at pods that go is all that no watch brings.
		Expect(took).To(BeNumerically("<", 50*time.Second), "on a machine that has much else to do")
		GinkgoWriter.Println("A node's way took", took)
	})

	It("uncordons a node whose task is deleted, and one whose assignment is", func() {
		for _, what := range []string{"task", "assignment"} {
			m := newMachine(v1alpha1.TaskTemplate{})
			before := m.fresh
			m.hangs.Insert("pods")
			Eventually(func() bool {
				m.agent()
				return m.said(v1alpha1.StepDraining)()
			}).Should(BeTrue())
			Expect(m.node().Spec.Unschedulable).To(BeTrue())
			if what == "task" {
				Expect(admin.Delete(ctx, m.task)).To(Succeed())
			} else {
				Expect(admin.Delete(ctx, m.assignment())).To(Succeed())
			}
			Eventually(func() bool { return carriesRecord(m.node()) }).Should(BeFalse(), what)
			Eventually(func(g Gomega) { g.Expect(m.node().Status.Conditions).To(HaveLen(1)) }).Should(Succeed())
			m.hangs.Clear()
			m.kubelet()
			m.untouched(before)
		}
	})
})

var _ = Describe("Another reboot coordinator", func() {
	const namespace = metav1.NamespaceDefault
	lease := func(m *machine, holder string) *coordinationv1.Lease {
		GinkgoHelper()
		m.coordinators = blockers.Options{LeaseNamespace: namespace}
		m.boot()
		lease := &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "node-" + m.name},
			Spec: coordinationv1.LeaseSpec{
				HolderIdentity: ptr.To(holder), LeaseDurationSeconds: ptr.To[int32](3600),
				AcquireTime: ptr.To(metav1.NowMicro()), RenewTime: ptr.To(metav1.NowMicro()),
			},
		}
		Expect(admin.Create(ctx, lease)).To(Succeed())
		return lease
	}

	It("that holds the node is waited for, then its Lease is ours until the end", func() {
		m := newMachine(v1alpha1.TaskTemplate{})
		held := lease(m, "node-healthcheck")
		m.until("Rebooting", m.said(v1alpha1.StepRebooting))
		Expect(m.assignment().Status.Controller).To(HaveValue(And(HaveField("Reason", v1alpha1.ReasonBlockedByCoordinator),
			HaveField("Message", ContainSubstring("node-healthcheck")))))
		Expect(m.raises).NotTo(ContainElement(v1alpha1.StepRebooting))
		Expect(admin.Delete(ctx, held)).To(Succeed())
		m.until("the reboot", func() bool { return m.boots == 2 })
		holder := func() string {
			current := &coordinationv1.Lease{}
			if err := admin.Get(ctx, client.ObjectKeyFromObject(held), current); err != nil {
				return ""
			}
			return ptr.Deref(current.Spec.HolderIdentity, "")
		}
		Expect(holder()).To(Equal("nodepatch"))
		m.until("the end", m.over)
		Expect(holder()).NotTo(Equal("nodepatch"))
		Expect(m.verdict().Step).To(Equal(v1alpha1.StepDone))
	})

	It("that never lets go fails the node in time, and the node is put back", func() {
		m := newMachine(v1alpha1.TaskTemplate{Drain: v1alpha1.DrainOptions{Timeout: metav1.Duration{Duration: time.Minute}}})
		held := lease(m, "node-healthcheck")
		before := m.fresh
		m.until("the end", m.over)
		m.untouched(before)
		Expect(m.boots).To(Equal(1))
		Expect(m.verdict()).To(And(HaveField("Step", v1alpha1.StepFailed), HaveField("Reason", v1alpha1.ReasonBlockedByCoordinator)))
		Expect(admin.Delete(ctx, held)).To(Succeed())
	})
})
