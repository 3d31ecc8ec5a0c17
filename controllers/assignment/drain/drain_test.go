package drain

import (
	"fmt"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

var _ = Describe("A pass", func() {
	var s stage
	BeforeEach(func() { s = newStage() })

	It("evicts pods with their own grace period, waits for them, and is done when they are gone", func() {
		s.pod("web-1")
		s.pod("web-2")
		first := s.pass(v1alpha1.DrainOptions{})
		Expect(first).To(Equal(Result{Remaining: 2, Evicted: []string{s.name("web-1"), s.name("web-2")}}))
		Expect(s.now("web-1").DeletionGracePeriodSeconds).To(HaveValue(BeEquivalentTo(30)))

		requestsBefore := len(requests.To(s.namespace))
		Expect(s.pass(v1alpha1.DrainOptions{})).To(Equal(Result{Remaining: 2, Ending: []string{s.name("web-1"), s.name("web-2")}}))
		Expect(requests.To(s.namespace)).To(HaveLen(requestsBefore), "a pod is evicted once")

		s.leave("web-1")
		s.leave("web-2")
		Expect(s.pass(v1alpha1.DrainOptions{})).To(Equal(Result{}))
	})

	It("gives pods the grace period that the task asks for", func() {
		s.pod("web-1")
		s.pass(v1alpha1.DrainOptions{GracePeriodSeconds: ptr.To[int64](7)})
		Expect(s.now("web-1").DeletionGracePeriodSeconds).To(HaveValue(BeEquivalentTo(7)))
	})

	It("leaves alone what a drain does not concern", func() {
		s.pod("proxy-1", s.daemonSet("proxy"))
		s.pod("static-1", func(pod *corev1.Pod) {
			pod.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "1"}
			pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: s.node, UID: "node", Controller: ptr.To(true)}}
		})
		s.pod("job-1", inPhase(corev1.PodSucceeded), unmanaged)
		s.pod("job-2", inPhase(corev1.PodFailed), withEmptyDir)
		s.pod("cache-1", labelled("app", "cache"), withEmptyDir)
		result := s.pass(v1alpha1.DrainOptions{SkipPods: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "cache"}}})
		Expect(result).To(Equal(Result{}))
		Expect(requests.To(s.namespace)).To(BeEmpty())
	})

	It("leaves nodepatch's own pods alone, and nobody else's that look like them", func() {
		for _, component := range []string{"hook", "manager"} {
			own := s.pod(component+"-"+s.node, unmanaged, func(pod *corev1.Pod) { pod.Namespace = apiserver.Namespace },
				labelled("app.kubernetes.io/name", "nodepatch"), labelled("app.kubernetes.io/component", component))
			DeferCleanup(func() { Expect(admin.Delete(ctx, own)).To(Succeed()) })
		}
		s.pod("manager-1", labelled("app.kubernetes.io/name", "nodepatch"), labelled("app.kubernetes.io/component", "manager"))
		Expect(s.pass(v1alpha1.DrainOptions{})).To(Equal(Result{Remaining: 1, Evicted: []string{s.name("manager-1")}}))
	})

	It("waits for pods that are to end by themselves, and evicts the others", func() {
		s.pod("batch-1", labelled("app", "batch"), unmanaged, withEmptyDir)
		s.pod("web-1")
		result := s.pass(v1alpha1.DrainOptions{WaitForPods: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "batch"}}})
		Expect(result).To(Equal(Result{
			Remaining: 2, Evicted: []string{s.name("web-1")}, Ending: []string{s.name("batch-1") + " (drain.waitForPods)"},
		}))
		Expect(s.now("batch-1").DeletionTimestamp).To(BeNil())
	})

	It("evicts nothing while a person has to decide, and says what about", func() {
		s.pod("web-1")
		s.pod("cache-1", withEmptyDir)
		s.pod("bare-1", unmanaged)
		s.pod("both-1", unmanaged, withEmptyDir)
		s.pod("orphan-1", ownedByDaemonSet("forgotten"))
		result := s.pass(v1alpha1.DrainOptions{EmptyDirData: v1alpha1.DrainRefuse, UnmanagedPods: v1alpha1.DrainRefuse})
		Expect(result).To(Equal(Result{Remaining: 5, Refused: []string{
			s.name("bare-1") + " (no controller makes it anew: set drain.unmanagedPods=Evict)",
			s.name("both-1") + " (emptyDir data: set drain.emptyDirData=Evict; no controller makes it anew: set drain.unmanagedPods=Evict)",
			s.name("cache-1") + " (emptyDir data: set drain.emptyDirData=Evict)",
			s.name("orphan-1") + " (its DaemonSet forgotten is gone: set drain.unmanagedPods=Evict)",
		}}))
		Expect(requests.To(s.namespace)).To(BeEmpty())

		result = s.pass(v1alpha1.DrainOptions{EmptyDirData: v1alpha1.DrainEvict, UnmanagedPods: v1alpha1.DrainEvict})
		Expect(result.Refused).To(BeEmpty())
		Expect(result.Evicted).To(HaveLen(5))
	})

	It("refuses all where a selector cannot be read, as it might mean any of them", func() {
		s.pod("web-1")
		result := s.pass(v1alpha1.DrainOptions{SkipPods: &metav1.LabelSelector{
			MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Is"}},
		}})
		Expect(result.Remaining).To(Equal(1))
		Expect(result.Refused).To(ConsistOf(HavePrefix(s.name("web-1") + " (drain.skipPods cannot be read: ")))
		Expect(requests.To(s.namespace)).To(BeEmpty())
	})

	It("names the budget that blocks a pod, and evicts the others", func() {
		s.budget("db", map[string]string{"app": "db"}, 0)
		s.budget("web", map[string]string{"app": "web"}, 1)
		s.pod("db-1", labelled("app", "db"))
		s.pod("web-1")
		result := s.pass(v1alpha1.DrainOptions{})
		Expect(result).To(Equal(Result{
			Remaining: 2, Evicted: []string{s.name("web-1")}, Blocked: []string{s.name("db-1") + " (PodDisruptionBudget db)"},
		}))
		Expect(s.now("db-1").DeletionTimestamp).To(BeNil())
	})

	It("does not wait where the eviction API says when to ask again", func() {
		s.budget("web", map[string]string{"app": "web"}, -1)
		s.pod("web-1")
		began := time.Now()
		Expect(s.pass(v1alpha1.DrainOptions{}).Blocked).To(Equal([]string{s.name("web-1") + " (PodDisruptionBudget web)"}))
		Expect(time.Since(began)).To(BeNumerically("<", 8*time.Second), "the API server says: in 10 s")
		Expect(requests.To(s.namespace)).To(HaveLen(1))
	})

	It("names the budgets where there is more than one for a pod", func() {
		s.budget("web", map[string]string{"app": "web"}, 1)
		s.budget("also-web", map[string]string{"app": "web"}, 1)
		s.pod("web-1")
		Expect(s.pass(v1alpha1.DrainOptions{}).Blocked).To(Equal([]string{
			s.name("web-1") + " (evictions know only one PodDisruptionBudget for a pod, not also-web, web)",
		}))
	})

	It("asks for a bounded number, and comes to a pod that may go among many that may not", func() {
		s.budget("db", map[string]string{"app": "db"}, 0)
		var want []string
		for i := range 30 {
			name := fmt.Sprintf("db-%02d", i)
			s.pod(name, labelled("app", "db"))
			want = append(want, s.name(name)+" (PodDisruptionBudget db)")
		}
		s.pod("web-1")
		// It is chosen with 20 of 31 in each pass: not once in 40 passes is 1 in 10^18.
		for passes := 1; s.now("web-1").DeletionTimestamp == nil; passes++ {
			Expect(passes).To(BeNumerically("<=", 40))
			result := s.pass(v1alpha1.DrainOptions{})
			Expect(result.Blocked).To(Equal(want), "the same in each pass")
			Expect(result.Remaining).To(Equal(31))
			Expect(requests.To(s.namespace)).To(HaveLen(passes * maxEvictions))
		}
	})

	It("says why a pod is still there after its grace period", func() {
		s.pod("web-1", func(pod *corev1.Pod) { pod.Finalizers = []string{"example.com/keep"} })
		s.pod("web-2")
		s.pass(v1alpha1.DrainOptions{})
		later := *drainer
		clock := clocktesting.NewFakePassiveClock(s.now("web-1").DeletionTimestamp.Add(stuckAfter - time.Second))
		later.clock = clock
		look := func() []string {
			result, err := later.Pass(ctx, s.node, nil)
			Expect(err).NotTo(HaveOccurred())
			return result.Ending
		}
		Expect(look()).To(Equal([]string{s.name("web-1"), s.name("web-2")}))
		clock.SetTime(clock.Now().Add(5 * time.Second))
		Expect(look()).To(Equal([]string{
			s.name("web-1") + " (held by its finalizer example.com/keep)", s.name("web-2") + " (still there after its grace period)",
		}))
		pod := s.now("web-1")
		pod.Finalizers = nil
		Expect(admin.Update(ctx, pod)).To(Succeed())
	})

	It("does not evict a pod that was made anew under the name in between", func() {
		s.pod("web-1")
		watched := newDrainer(before(config, func() {
			s.leave("web-1")
			s.pod("web-1", func(pod *corev1.Pod) { pod.Spec.NodeName = "elsewhere" })
		}))
		result, err := watched.Pass(ctx, s.node, nil)
		Expect(err).NotTo(HaveOccurred())
		Expect(result).To(Equal(Result{Remaining: 1}))
		Expect(s.now("web-1").DeletionTimestamp).To(BeNil())
		Expect(s.pass(v1alpha1.DrainOptions{})).To(Equal(Result{}))
	})

	It("takes a pod that went by itself in between for gone", func() {
		s.pod("web-1")
		watched := newDrainer(before(config, func() { s.leave("web-1") }))
		result, err := watched.Pass(ctx, s.node, nil)
		Expect(err).NotTo(HaveOccurred())
		Expect(result).To(Equal(Result{}))
	})

	It("waits for the pods of a namespace that is being deleted", func() {
		s.pod("web-1")
		Expect(admin.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}})).To(Succeed())
		Expect(newDrainer(config).Pass(ctx, s.node, nil)).To(Equal(Result{
			Remaining: 1, Ending: []string{s.name("web-1") + " (its namespace is being deleted)"},
		}))
	})

	It("passes on what an admission policy says against an eviction", func() {
		const words = "Not before the auction is over"
		policy := &admissionv1.ValidatingAdmissionPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: "auction"},
			Spec: admissionv1.ValidatingAdmissionPolicySpec{
				MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
					RuleWithOperations: admissionv1.RuleWithOperations{
						Operations: []admissionv1.OperationType{admissionv1.Create},
						Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods/eviction"}},
					},
				}}},
				Validations: []admissionv1.Validation{{Expression: "!request.name.startsWith('refused-')", Message: words}},
			},
		}
		Expect(admin.Create(ctx, policy)).To(Succeed())
		binding := &admissionv1.ValidatingAdmissionPolicyBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "auction"},
			Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
				PolicyName: "auction", ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
			},
		}
		Expect(admin.Create(ctx, binding)).To(Succeed())
		DeferCleanup(func() {
			Expect(admin.Delete(ctx, binding)).To(Succeed())
			Expect(admin.Delete(ctx, policy)).To(Succeed())
		})
		tries := 0
		Eventually(func(g Gomega) {
			// Until the policy is in force, a pod goes.
			tries++
			name := fmt.Sprintf("refused-%d", tries)
			s.pod(name)
			g.Expect(s.pass(v1alpha1.DrainOptions{}).Blocked).To(ContainElement(SatisfyAll(
				HavePrefix(s.name(name)+" ("), ContainSubstring(words),
			)))
		}).Should(Succeed())
	})

	It("does no harm twice where two managers drain a node", func() {
		for i := range 12 {
			s.pod(fmt.Sprintf("web-%d", i))
		}
		var both sync.WaitGroup
		errs := make([]error, 2)
		for i := range errs {
			both.Go(func() { _, errs[i] = newDrainer(config).Pass(ctx, s.node, nil) })
		}
		both.Wait()
		Expect(errs).To(HaveEach(BeNil()))
		Expect(s.pass(v1alpha1.DrainOptions{})).To(SatisfyAll(HaveField("Remaining", 12), HaveField("Ending", HaveLen(12))))
	})

	It("fails where the API server is away, and takes the node for anything but drained", func() {
		away := rest.AnonymousClientConfig(config)
		away.Host = "https://127.0.0.1:1"
		result, err := newDrainer(away).Pass(ctx, s.node, nil)
		Expect(err).To(MatchError(ContainSubstring("listing the pods to drain from node " + s.node)))
		Expect(result).To(Equal(Result{}))
	})
})
