package buttons

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
	"github.com/nodepatch/nodepatch/test/apiserver/specs"
)

const everything = "Counts cleared: egg 1.1 (4 installs), ham 2.0 (11 downloads), spam 3.0 (2 downloads)"

var _ = Describe("nodepatch.io/clear-retries on a PatchRetry", func() {
	BeforeEach(func() { addNode("a") })

	It("clears the counts, tells the agent, leaves an answer and is gone", func() {
		press("a", "all")
		Expect(look(newReconciler(), "a")).To(Equal(ctrl.Result{}))

		retry := retryNow("a")
		Expect(retry.Status.Patches).To(BeEmpty())
		Expect(retry.Status.Summary).To(Equal("No failed attempt"))
		Expect([]int32{retry.Status.Counted, retry.Status.Blocked}).To(Equal([]int32{0, 0}))
		Expect(retry.Status.Sequence).To(BeEquivalentTo(17))
		Expect(retry.Status.Clears).To(BeEquivalentTo(1))
		Expect(retry.Annotations).NotTo(HaveKey(v1alpha1.ClearRetriesAnnotation))
		Expect(retry.Status.Handled).To(HaveValue(BeZero()), "it can be pressed again")
		Expect(assignmentNow("a").Spec.RetryClears).To(BeEquivalentTo(1))
		Expect(answers("a")).To(ConsistOf(everything))

		var list corev1.EventList
		Expect(admin.List(ctx, &list, client.InNamespace(patchlog.Namespace))).To(Succeed())
		Expect(list.Items[0].Labels).To(And(HaveKeyWithValue(v1alpha1.NodeLabel, "a"), HaveKeyWithValue(v1alpha1.PolicyLabel, "workers")))
	})

	It("clears what is named and answers for what is not there", func() {
		press("a", "ham, spam=2.9,eggs")
		Expect(look(newReconciler(), "a")).To(Equal(ctrl.Result{}))
		Expect(retryNow("a").Status.Summary).To(Equal("1 blocked: egg 1.1 (4 installs); 1 failed: spam 3.0 (2 downloads)"))
		Expect(answers("a")).To(ConsistOf("Counts cleared: ham 2.0 (11 downloads); no counts for: spam=2.9, eggs"))
	})

	It("can be pressed again and again", func() {
		r := newReconciler()
		for range 3 {
			press("a", "ham")
			Expect(look(r, "a")).To(Equal(ctrl.Result{}))
			count("a", "ham")
		}
		Expect(retryNow("a").Status.Clears).To(BeEquivalentTo(3))
		Expect(assignmentNow("a").Spec.RetryClears).To(BeEquivalentTo(3))
		Expect(answers("a")).To(ConsistOf(
			"Counts cleared: ham 2.0 (11 downloads)", "Counts cleared: ham 9.0 (1 download)", "Counts cleared: ham 9.0 (1 download)"))
	})

	DescribeTable("takes a value that makes no sense away, and says so",
		func(value string) {
			press("a", value)
			Expect(look(newReconciler(), "a")).To(Equal(ctrl.Result{}))
			retry := retryNow("a")
			Expect(retry.Status.Patches).To(HaveLen(3))
			Expect(retry.Annotations).NotTo(HaveKey(v1alpha1.ClearRetriesAnnotation))
			Expect(answers("a")).To(ConsistOf(HavePrefix("No counts cleared: nodepatch.io/clear-retries takes all, or names")))
		},
		Entry("empty", ""), Entry("blank", " "), Entry("commas", ",,"), Entry("a token alone", "@t1"),
	)

	It("acts once for a token that Git puts back", func() {
		r := newReconciler()
		press("a", "ham@t1")
		Expect(look(r, "a")).To(Equal(ctrl.Result{}))
		Expect(retryNow("a").Status.Handled.ClearRetries).To(Equal("ham@t1"))
		Expect(retryNow("a").Annotations).NotTo(HaveKey(v1alpha1.ClearRetriesAnnotation))
		Expect(admin.DeleteAllOf(ctx, &corev1.Event{}, client.InNamespace(patchlog.Namespace))).To(Succeed(), "an hour later")

		press("a", "ham@t1")
		count("a", "ham")
		before := retryNow("a")
		Expect(look(r, "a")).To(Equal(ctrl.Result{}))
		Expect(retryNow("a")).To(Equal(before), "nothing was written")
		Expect(answers("a")).To(BeEmpty())

		press("a", "ham")
		Expect(look(r, "a")).To(Equal(ctrl.Result{}))
		Expect(answers("a")).To(ConsistOf("Counts cleared: ham 9.0 (1 download)"))
		press("a", "ham@t1")
		count("a", "ham")
		Expect(look(r, "a")).To(Equal(ctrl.Result{}))
		Expect(retryNow("a").Status.Patches).To(ContainElement(HaveField("Name", "ham")), "a press without a token lets no old one act again")
		Expect(admin.DeleteAllOf(ctx, &corev1.Event{}, client.InNamespace(patchlog.Namespace))).To(Succeed())

		press("a", "ham@t2")
		Expect(look(r, "a")).To(Equal(ctrl.Result{}))
		Expect(answers("a")).To(ConsistOf("Counts cleared: ham 9.0 (1 download)"))
		Expect(retryNow("a").Status.Handled.ClearRetries).To(Equal("ham@t2"))
	})

	It("can be pressed after an earlier version that ended while it acted on the same value", func() {
		retry := retryNow("a")
		retry.Status.Clears = 1
		retry.Status.Handled = &v1alpha1.HandledButtons{ClearRetries: "all", Answer: "Counts cleared: of old"}
		Expect(admin.Status().Update(ctx, retry)).To(Succeed())
		press("a", "all")
		Expect(look(newReconciler(), "a")).To(Equal(ctrl.Result{}))
		Expect(look(newReconciler(), "a")).To(Equal(ctrl.Result{}))
		Expect(retryNow("a").Annotations).NotTo(HaveKey(v1alpha1.ClearRetriesAnnotation))
		Expect(answers("a")).To(ConsistOf("Counts cleared: of old", everything))
	})

	It("does without the assignment of a node that has none", func() {
		Expect(admin.Delete(ctx, assignmentNow("a"))).To(Succeed())
		press("a", "all")
		Expect(look(newReconciler(), "a")).To(Equal(ctrl.Result{}))
		Expect(answers("a")).To(ConsistOf(everything))
		Expect(retryNow("a").Annotations).NotTo(HaveKey(v1alpha1.ClearRetriesAnnotation))
	})

	It("tells the agent also if its PatchRetry was made anew, and counts clears from the beginning", func() {
		assignment := assignmentNow("a")
		assignment.Spec.RetryClears = 1
		Expect(admin.Update(ctx, assignment)).To(Succeed())
		press("a", "all")
		Expect(look(newReconciler(), "a")).To(Equal(ctrl.Result{}))
		Expect(assignmentNow("a").Spec.RetryClears).To(BeEquivalentTo(2))
		Expect(retryNow("a").Status.Clears).To(BeEquivalentTo(2))
	})

	It("leaves a PatchRetry alone that is being deleted, and one that is gone", func() {
		press("a", "all")
		retry := retryNow("a")
		retry.Finalizers = []string{"nodepatch.io/test"}
		Expect(admin.Update(ctx, retry)).To(Succeed())
		Expect(admin.Delete(ctx, retry)).To(Succeed())
		Expect(look(newReconciler(), "a")).To(Equal(ctrl.Result{}))
		Expect(retryNow("a").Status.Patches).To(HaveLen(3))
		Expect(answers("a")).To(BeEmpty())
		retry = retryNow("a")
		retry.Finalizers = nil
		Expect(admin.Update(ctx, retry)).To(Succeed())
		Expect(look(newReconciler(), "a")).To(Equal(ctrl.Result{}))
	})

	It("clears once where two managers see it", func() {
		press("a", "all")
		second := newReconciler()
		first := newReconciler()
		first.Client = before(func(string) { // each write of the first comes after a whole look of the second
			_, err := look(second, "a")
			Expect(err).NotTo(HaveOccurred())
		})
		result, err := look(first, "a")
		Expect(err).NotTo(HaveOccurred())
		Expect(result.RequeueAfter).To(Equal(afterConflict))
		Expect(look(first, "a")).To(Equal(ctrl.Result{}))
		Expect(retryNow("a").Status.Clears).To(BeEquivalentTo(1))
		Expect(answers("a")).To(ConsistOf(everything))
	})

	It("keeps what the agent counts while it clears, whichever write that comes before", func() {
		for number := range 4 {
			press("a", "all")
			r, writes := newReconciler(), 0
			r.Client = before(func(string) {
				if writes++; writes == number+1 {
					count("a", "spam")
				}
			})
			for range 5 {
				result, err := look(r, "a")
				Expect(err).NotTo(HaveOccurred())
				if result == (ctrl.Result{}) {
					break
				}
			}
			retry := retryNow("a")
			Expect(retry.Annotations).NotTo(HaveKey(v1alpha1.ClearRetriesAnnotation))
			Expect(retry.Status.Clears).To(BeEquivalentTo(number + 1))
			if number == 0 {
				Expect(retry.Status.Patches).To(BeEmpty(), "it was counted before they were cleared")
			} else {
				Expect(retry.Status.Summary).To(Equal("1 failed: spam 9.0 (1 download)"), "write %d", number)
			}
		}
	})

	It("does not miss a press that comes while it ends the one before", func() {
		press("a", "all")
		r := newReconciler()
		again := false
		r.Client = before(func(what string) {
			if what == "JSON patch" && !again {
				again = true
				count("a", "spam")
				press("a", "all")
			}
		})
		Expect(look(r, "a")).To(Equal(ctrl.Result{}))
		Expect(retryNow("a").Annotations).To(HaveKey(v1alpha1.ClearRetriesAnnotation))
		Expect(look(r, "a")).To(Equal(ctrl.Result{}))
		Expect(answers("a")).To(ConsistOf(everything, "Counts cleared: spam 9.0 (1 download)"))
	})

	It("acts on another value that comes while it answers the one before", func() {
		press("a", "ham")
		r := newReconciler()
		r.Client = before(func(what string) {
			if what == "assignment" {
				press("a", "spam")
			}
		})
		for range 5 {
			_, err := look(r, "a")
			Expect(err).NotTo(HaveOccurred())
		}
		Expect(answers("a")).To(ConsistOf("Counts cleared: ham 2.0 (11 downloads)", "Counts cleared: spam 3.0 (2 downloads)"))
		Expect(retryNow("a").Annotations).NotTo(HaveKey(v1alpha1.ClearRetriesAnnotation))
	})
})

var _ = Describe("The buttons in a running manager", func() {
	It("are pressed with five writes, and not bothered by what agents count", func() {
		addNode("a")
		requests := &apiserver.Requests{}
		watched := requests.Watch(server.Config)
		apiserver.RunManager(GinkgoTB(), watched, func(mgr ctrl.Manager) error {
			return SetupWithManager(mgr, specs.ManagerLog(GinkgoTB(), watched))
		})
		for range 3 {
			count("a", "ham")
		}
		press("a", "all")
		Eventually(func() *v1alpha1.HandledButtons { return retryNow("a").Status.Handled }).Should(HaveValue(BeZero()))
		Expect(retryNow("a").Status.Patches).To(BeEmpty())
		Expect(assignmentNow("a").Spec.RetryClears).To(BeEquivalentTo(1))
		Consistently(func() []string { return requests.To("/") }, "500ms").Should(Equal([]string{
			"PATCH /apis/nodepatch.io/v1alpha1/patchretries/a/status",
			"PATCH /apis/nodepatch.io/v1alpha1/patchassignments/a",
			"POST /api/v1/namespaces/default/events",
			"PATCH /apis/nodepatch.io/v1alpha1/patchretries/a",
			"PATCH /apis/nodepatch.io/v1alpha1/patchretries/a/status",
		}))
	})
})

// before makes a client that does something before each write; what says which.
func before(do func(what string)) client.Client {
	GinkgoHelper()
	base, err := client.NewWithWatch(server.Config, client.Options{Scheme: admin.Scheme(), Mapper: admin.RESTMapper()})
	Expect(err).NotTo(HaveOccurred())
	return interceptor.NewClient(base, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			if _, ok := object.(*v1alpha1.PatchAssignment); ok {
				do("assignment")
			} else {
				do("annotation")
			}
			return c.Patch(ctx, object, patch, options...)
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, subresource string, object client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
			if patch.Type() == "application/json-patch+json" {
				do("JSON patch")
			} else {
				do("status")
			}
			return c.SubResource(subresource).Patch(ctx, object, patch, options...)
		},
	})
}
