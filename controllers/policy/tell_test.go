package policy

import (
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apitypes "k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

var _ = Describe("The patch log of a policy", func() {
	const (
		suspended = "PolicySuspended: Suspended: nothing begins any more on 1 node: one; a node that is at work finishes"
		resumed   = "PolicyResumed: Resumed: runs begin and go on again on 1 node: one; those that fell due meanwhile are not made up"
		notReady  = `PolicyNotReady: InvalidSchedule: Task weekly: schedule "0 0 30 2 *" never comes true`
		again     = "PolicyReady: Ready again: Governs 1 node"
	)
	workers := map[string]string{"pool": "workers"}
	now := func() *v1alpha1.PatchPolicy {
		GinkgoHelper()
		policy := &v1alpha1.PatchPolicy{}
		Expect(admin.Get(ctx, client.ObjectKey{Name: "workers"}, policy)).To(Succeed())
		return policy
	}
	// seen is when the controller has stored what it makes of the present spec.
	seen := func() {
		GinkgoHelper()
		Eventually(func() bool { p := now(); return p.Status.ObservedGeneration == p.Generation }).Should(BeTrue())
	}
	change := func(spec string) {
		GinkgoHelper()
		Expect(admin.Patch(ctx, now(), client.RawPatch(apitypes.MergePatchType, []byte(`{"spec":`+spec+`}`)))).To(Succeed())
		seen()
	}
	// told lists the entries that regard the policy, the oldest first.
	told := func() []string {
		GinkgoHelper()
		var list corev1.EventList
		Expect(admin.List(ctx, &list, client.InNamespace(patchlog.Namespace))).To(Succeed())
		slices.SortFunc(list.Items, func(a, b corev1.Event) int { return a.EventTime.Compare(b.EventTime.Time) })
		var lines []string
		for _, event := range list.Items {
			if event.InvolvedObject.UID == now().UID {
				lines = append(lines, event.Reason+": "+event.Message)
			}
		}
		return lines
	}
	create := func(change func(*v1alpha1.PatchPolicy)) {
		GinkgoHelper()
		_, err := server.CreateNode(ctx, "one", workers)
		Expect(err).NotTo(HaveOccurred())
		Eventually(cached.Get).WithArguments(ctx, client.ObjectKey{Name: "one"}, &corev1.Node{}).Should(Succeed())
		policy := newPolicy("workers", workers)
		policy.CreationTimestamp = metav1.Time{}
		change(&policy)
		Expect(admin.Create(ctx, &policy)).To(Succeed())
		seen()
	}
	unchanged := func(*v1alpha1.PatchPolicy) {}

	It("tells each time that it is suspended and resumed, and whom that concerns", func() {
		create(unchanged)
		Expect(told()).To(BeEmpty(), "a policy that works from the first is no news")
		change(`{"suspend":true}`)
		Expect(told()).To(Equal([]string{suspended}))
		Expect(meta.IsStatusConditionTrue(now().Status.Conditions, v1alpha1.ConditionSuspended)).To(BeTrue())
		change(`{"priority":5}`)
		Expect(told()).To(HaveLen(1), "it is suspended still")
		change(`{"suspend":false}`)
		change(`{"suspend":true}`)
		change(`{"suspend":false}`)
		Expect(told()).To(Equal([]string{suspended, resumed, suspended, resumed}), "however soon one follows the other")
		Expect(server.Kubectl(ctx, "describe", "pp", "workers")).To(And(
			ContainSubstring(v1alpha1.EventPolicySuspended), ContainSubstring(v1alpha1.EventPolicyResumed)))
	})

	It("tells of one that begins suspended", func() {
		create(func(policy *v1alpha1.PatchPolicy) { policy.Spec.Suspend = true })
		Expect(told()).To(Equal([]string{suspended}))
	})

	It("tells what a person has to mend, and that it is mended", func() {
		create(unchanged)
		change(`{"tasks":[{"name":"weekly","schedule":"0 0 30 2 *","template":{"action":"Scan"}}]}`)
		Expect(told()).To(Equal([]string{notReady}))
		change(`{"tasks":[{"name":"weekly","schedule":"0 0 28 2 *","template":{"action":"Scan"}}]}`)
		Expect(told()).To(Equal([]string{notReady, again}))
	})

	It("tells once what two managers see, or one that died before it stored it", func() {
		create(unchanged)
		stored := now()
		change(`{"suspend":true}`)
		Expect(told()).To(HaveLen(1))

		By("looking once more at what was stored before, later")
		node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "one", Labels: workers}}
		stored.Spec.Suspend = true
		stored.Generation = now().Generation
		look := observe("workers", []v1alpha1.PatchPolicy{*stored}, []corev1.Node{node})
		look.now = time.Now().Add(time.Minute)
		other := &Reconciler{Client: admin, Log: log, Clock: clock.RealClock{}}
		Expect(other.keep(ctx, look)).To(Satisfy(apierrors.IsConflict))
		Expect(told()).To(HaveLen(1))

		By("looking as a manager that has just started does")
		_, err := other.Reconcile(ctx, pass{})
		Expect(err).NotTo(HaveOccurred())
		Expect(told()).To(HaveLen(1))
	})
})
