package buttons

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver/specs"
)

var _ = Describe("nodepatch.io/clear-retries on a PatchPolicy", func() {
	BeforeEach(func() {
		addNode("a")
		addNode("b")
	})

	It("clears what is named on the policy's nodes alone, and each answers that has something to say", func() {
		addNode("other")
		other := assignmentNow("other")
		other.Spec.Policy = "others"
		Expect(admin.Update(ctx, other)).To(Succeed())
		bare := retryNow("b")
		bare.Status.Patches = bare.Status.Patches[:1] // no ham
		Expect(admin.Status().Update(ctx, bare)).To(Succeed())

		policy := addPolicy("workers")
		pressOn(policy, v1alpha1.ClearRetriesAnnotation, "ham,eggs")
		act(newPresses(), policy)
		Expect(said("PatchPolicy", "workers", v1alpha1.EventRetriesCleared)).To(ConsistOf(
			"Counts of ham, eggs are cleared on the policy's 2 nodes; each says itself what that was"))
		Expect(answers("a")).To(ConsistOf("Counts cleared: ham 2.0 (11 downloads); no counts for: eggs"))
		Expect(answers("b")).To(BeEmpty())
		Expect(answers("other")).To(BeEmpty())
		Expect(retryNow("a").Status.Patches).To(HaveLen(2))
		Expect(retryNow("other").Status.Patches).To(HaveLen(3))
		Expect(retryNow("b").Status.Clears).To(BeZero())
	})

	It("waits for a node's own button, so that both are answered", func() {
		base, err := client.NewWithWatch(server.Config, client.Options{Scheme: admin.Scheme(), Mapper: admin.RESTMapper()})
		Expect(err).NotTo(HaveOccurred())
		press("a", "ham")
		dies := &specs.Process{At: 0, Mishap: specs.KilledAfter, Log: events}
		r := newReconciler()
		r.Client, r.Log = dies.Client(base, nil), dies
		_, err = look(r, "a")
		Expect(err).To(HaveOccurred())
		Expect(owed(retryNow("a"))).To(Equal("Counts cleared: ham 2.0 (11 downloads)"))

		policy := addPolicy("workers")
		pressOn(policy, v1alpha1.ClearRetriesAnnotation, "all")
		Expect(lookAt(newPresses(), policy)).To(Equal(ctrl.Result{RequeueAfter: afterConflict}))
		Expect(retryNow("b").Status.Patches).To(BeEmpty(), "nobody else waits")
		Expect(retryNow("a").Status.Patches).To(HaveLen(2))
		act(newPresses(), policy)
		Expect(retryNow("a").Status.Patches).To(BeEmpty())
		Expect(answers("a")).To(ConsistOf("Counts cleared: ham 2.0 (11 downloads)", "Counts cleared: egg 1.1 (4 installs), spam 3.0 (2 downloads)"))
	})

	It("does without the counts of a node that is being deleted or has none yet", func() {
		Expect(admin.Delete(ctx, retryNow("a"))).To(Succeed())
		policy := addPolicy("workers")
		pressOn(policy, v1alpha1.ClearRetriesAnnotation, "all")
		act(newPresses(), policy)
		Expect(read(policy).Annotations).To(BeEmpty())
		Expect(answers("b")).To(ConsistOf(everything))
	})
})
