package blockers

import (
	"fmt"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

var _ = Describe("A node's Lease", func() {
	var node string
	BeforeEach(func() { node = newNode().Name })
	acquire := func(checker *Checker, d time.Duration) *Block {
		GinkgoHelper()
		block, err := checker.Acquire(ctx, node, d)
		Expect(err).NotTo(HaveOccurred())
		return block
	}

	It("is taken, renewed before it ends, and given back", func() {
		checker, clock := newChecker("nodepatch")
		other, _ := newChecker("node-maintenance")
		began := clock.Now()
		Expect(acquire(checker, time.Hour)).To(BeNil())
		lease := leaseOf(node)
		Expect(lease.Spec.HolderIdentity).To(HaveValue(Equal("nodepatch")))
		Expect(lease.Spec.LeaseDurationSeconds).To(HaveValue(BeEquivalentTo(3600)))
		Expect(lease.Spec.RenewTime.Time).To(BeTemporally("~", began, time.Millisecond))
		Expect(lease.OwnerReferences).To(ConsistOf(HaveField("Name", node)), "it goes with its node")
		Expect(checker.Coordinator(ctx, node)).To(BeNil(), "ours does not block us")
		Expect(other.Coordinator(ctx, node)).To(Equal(&Block{
			Reason: v1alpha1.ReasonBlockedByCoordinator, Message: "nodepatch holds the node, by the Lease medik8s-leases/node-" + node,
		}))

		clock.SetTime(began.Add(29 * time.Minute))
		Expect(acquire(checker, time.Hour)).To(BeNil())
		Expect(leaseOf(node).ResourceVersion).To(Equal(lease.ResourceVersion), "nothing is written before half of it is over")
		clock.SetTime(began.Add(31 * time.Minute))
		Expect(acquire(checker, time.Hour)).To(BeNil())
		Expect(leaseOf(node).Spec.RenewTime.Time).To(BeTemporally("~", clock.Now(), time.Millisecond))
		Expect(leaseOf(node).Spec.AcquireTime.Time).To(BeTemporally("~", began, time.Millisecond))

		Expect(checker.Release(ctx, node)).To(Succeed())
		err := admin.Get(ctx, client.ObjectKeyFromObject(lease), &coordinationv1.Lease{})
		Expect(client.IgnoreNotFound(err)).To(Succeed())
		Expect(err).To(HaveOccurred())
		Expect(checker.Release(ctx, node)).To(Succeed(), "a second time")
	})

	It("of another blocks, and is neither taken nor given back, until it has ended", func() {
		checker, clock := newChecker("nodepatch")
		lend(node, "node-maintenance", clock.Now(), time.Minute)
		want := &Block{Reason: v1alpha1.ReasonBlockedByCoordinator, Message: "node-maintenance holds the node, by the Lease medik8s-leases/node-" + node}
		Expect(checker.Coordinator(ctx, node)).To(Equal(want))
		Expect(acquire(checker, time.Hour)).To(Equal(want))
		Expect(checker.Release(ctx, node)).To(Succeed())
		Expect(leaseOf(node).Spec.HolderIdentity).To(HaveValue(Equal("node-maintenance")))

		clock.SetTime(clock.Now().Add(time.Minute))
		Expect(checker.Coordinator(ctx, node)).To(BeNil())
		Expect(acquire(checker, time.Hour)).To(BeNil())
		Expect(leaseOf(node).Spec).To(SatisfyAll(
			HaveField("HolderIdentity", HaveValue(Equal("nodepatch"))), HaveField("LeaseTransitions", HaveValue(BeEquivalentTo(1))),
		))
	})

	It("of another without times never ends", func() {
		checker, _ := newChecker("nodepatch")
		Expect(admin.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: leaseNamespace, Name: "node-" + node},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: ptr.To("somebody")},
		})).To(Succeed())
		Expect(acquire(checker, time.Hour)).To(HaveField("Reason", v1alpha1.ReasonBlockedByCoordinator))
	})

	It("goes to one of many who want it at once", func() {
		const many = 8
		var all sync.WaitGroup
		blocks, errs := make([]*Block, many), make([]error, many)
		for i := range many {
			checker, _ := newChecker(fmt.Sprintf("tool-%d", i))
			all.Go(func() { blocks[i], errs[i] = checker.Acquire(ctx, node, time.Hour) })
		}
		all.Wait()
		Expect(errs).To(HaveEach(BeNil()))
		holders := 0
		for _, block := range blocks {
			if block == nil {
				holders++
			}
		}
		Expect(holders).To(Equal(1))
	})

	It("is shared by the managers of a cluster", func() {
		const many = 8
		var all sync.WaitGroup
		errs := make([]error, many)
		for i := range many {
			checker, _ := newChecker("nodepatch")
			all.Go(func() { _, errs[i] = checker.Acquire(ctx, node, time.Hour) })
		}
		all.Wait()
		Expect(errs).To(HaveEach(BeNil()))
		Expect(leaseOf(node).Spec.HolderIdentity).To(HaveValue(Equal("nodepatch")))
	})

	It("blocks, with what to do, where the manager may not read it", func() {
		checker := New(manager, manager, Options{LeaseNamespace: "default"})
		want := SatisfyAll(HaveField("Reason", v1alpha1.ReasonBlockerUnknown), HaveField("Message", HaveSuffix("see config/rbac/maintenance-lease.yaml")))
		Expect(checker.Coordinator(ctx, node)).To(want)
		checker = New(admin, admin, Options{LeaseNamespace: "not-there"})
		Expect(checker.Coordinator(ctx, node)).To(BeNil())
		Expect(acquire(checker, time.Hour)).To(want)
	})

	It("is not asked for where nobody opted in", func() {
		checker := New(manager, manager, Options{})
		before := len(requests.Forbidden())
		Expect(acquire(checker, time.Hour)).To(BeNil())
		Expect(checker.Release(ctx, node)).To(Succeed())
		Expect(checker.Coordinator(ctx, node)).To(BeNil())
		Expect(requests.Forbidden()).To(HaveLen(before))
	})

	It("is an error of a node that is gone, and of an API server that is away", func() {
		checker, _ := newChecker("nodepatch")
		_, err := checker.Acquire(ctx, "gone", time.Hour)
		Expect(client.IgnoreNotFound(err)).To(Succeed())
		Expect(err).To(MatchError(ContainSubstring("reading node gone for its Lease")))

		config := rest.AnonymousClientConfig(server.Config)
		config.Host = "https://127.0.0.1:1"
		away, err := client.New(config, client.Options{Scheme: manager.Scheme(), Mapper: manager.RESTMapper()})
		Expect(err).NotTo(HaveOccurred())
		checker = New(away, away, Options{LeaseNamespace: leaseNamespace})
		_, err = checker.Acquire(ctx, node, time.Hour)
		Expect(err).To(MatchError(ContainSubstring("taking the Lease of node " + node)))
		Expect(checker.Release(ctx, node)).To(MatchError(ContainSubstring("giving back the Lease of node " + node)))
	})
})

var _ = AfterSuite(func() {
	Expect(requests.Forbidden()).To(HaveEach(ContainSubstring("/namespaces/default/leases")), "the manager may do all that is asked of it")
})
