package policy

import (
	"encoding/json"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apitypes "k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

var _ = Describe("The status of a policy", func() {
	workers := map[string]string{"pool": "workers"}
	status := func(name string) func() (v1alpha1.PatchPolicyStatus, error) {
		return func() (v1alpha1.PatchPolicyStatus, error) {
			existing := &v1alpha1.PatchPolicy{}
			err := admin.Get(ctx, client.ObjectKey{Name: name}, existing)
			return existing.Status, err
		}
	}
	condition := func(kind string, is metav1.ConditionStatus, reason string) types.GomegaMatcher {
		return HaveField("Conditions", ContainElement(And(
			HaveField("Type", kind), HaveField("Status", is), HaveField("Reason", reason))))
	}
	counts := func(selected, governed, scanned, patched, reboot int32) types.GomegaMatcher {
		return HaveField("Nodes", HaveValue(And(HaveField("Selected", selected), HaveField("Governed", governed),
			HaveField("Scanned", scanned), HaveField("Patched", patched), HaveField("RebootRequired", reboot))))
	}
	away := func(overdue, unreachable int32) types.GomegaMatcher {
		return HaveField("Nodes", HaveValue(And(HaveField("Overdue", overdue), HaveField("Unreachable", unreachable))))
	}
	create := func(policy v1alpha1.PatchPolicy) {
		GinkgoHelper()
		policy.CreationTimestamp = metav1.Time{}
		Expect(admin.Create(ctx, &policy)).To(Succeed())
	}
	join := func(name string, labels map[string]string) {
		GinkgoHelper()
		_, err := server.CreateNode(ctx, name, labels)
		Expect(err).NotTo(HaveOccurred())
	}
	// report writes what a node's agent found.
	report := func(node string, scannedAt time.Time, missing int32, reboot v1alpha1.RebootState) {
		GinkgoHelper()
		existing := &v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: node}}
		Expect(client.IgnoreAlreadyExists(admin.Create(ctx, existing.DeepCopy()))).To(Succeed())
		body, err := json.Marshal(map[string]any{"status": v1alpha1.PatchReportStatus{
			Scan:   &v1alpha1.ScanRun{Time: new(metav1.NewTime(scannedAt))},
			Counts: &v1alpha1.ReportCounts{PatchCounts: v1alpha1.PatchCounts{Missing: missing, Other: missing}},
			Reboot: &v1alpha1.Reboot{State: reboot},
		}})
		Expect(err).NotTo(HaveOccurred())
		Expect(admin.Status().Patch(ctx, existing, client.RawPatch(apitypes.MergePatchType, body))).To(Succeed())
	}

	It("says what a policy governs, and follows its nodes and their reports", func() {
		create(newPolicy("workers", workers))
		Eventually(status("workers")).Should(And(
			HaveField("ObservedGeneration", BeEquivalentTo(1)),
			condition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonNoNodes),
			condition(v1alpha1.ConditionStalled, metav1.ConditionFalse, v1alpha1.ReasonNoNodes),
			counts(0, 0, 0, 0, 0)))

		join("one", workers)
		join("two", workers)
		join("other", nil)
		Eventually(status("workers")).Should(And(
			condition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonGoverning), counts(2, 2, 0, 0, 0)))

		report("one", time.Now(), 7, v1alpha1.RebootRequired)
		report("two", time.Now(), 0, v1alpha1.RebootNotRequired)
		report("other", time.Now(), 100, v1alpha1.RebootRequired)
		Eventually(status("workers")).Should(And(counts(2, 2, 2, 1, 1),
			HaveField("Patches", HaveValue(And(HaveField("Missing", BeEquivalentTo(7)), HaveField("Other", BeEquivalentTo(7)))))))

		report("one", time.Now(), 0, v1alpha1.RebootNotRequired)
		Eventually(status("workers")).Should(counts(2, 2, 2, 2, 0))
	})

	It("counts a scan out when it grows too old, though nothing happens then", func() {
		policy := newPolicy("workers", workers)
		policy.Spec.MaxScanAge = &metav1.Duration{Duration: time.Hour}
		join("one", workers)
		report("one", time.Now().Add(-time.Hour).Add(12*time.Second), 0, v1alpha1.RebootNotRequired)
		create(policy)
		Eventually(status("workers")).Should(And(counts(1, 1, 1, 1, 0), away(0, 1)))
		Eventually(status("workers")).WithTimeout(40 * time.Second).Should(And(counts(1, 1, 0, 0, 0), away(1, 1)))
	})

	It("tells whether nodes can be reached, and for how long a security patch has been missing", func() {
		join("one", workers)
		given := &v1alpha1.PatchAssignment{ObjectMeta: metav1.ObjectMeta{Name: "one"}, Spec: v1alpha1.PatchAssignmentSpec{Policy: "workers"}}
		Expect(admin.Create(ctx, given)).To(Succeed())
		DeferCleanup(func() { Expect(admin.Delete(ctx, given)).To(Succeed()) })
		create(newPolicy("workers", workers))
		Eventually(status("workers")).Should(away(0, 1), "no agent has been seen on it")

		patch := func(object client.Object, body string) {
			GinkgoHelper()
			Expect(admin.Status().Patch(ctx, object, client.RawPatch(apitypes.MergePatchType, []byte(body)))).To(Succeed())
		}
		patch(given, `{"status":{"controller":{"agent":"Ready"}}}`)
		Eventually(status("workers")).Should(away(0, 0))
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "one"}}
		patch(node, `{"status":{"conditions":[{"type":"Ready","status":"Unknown"}]}}`)
		Eventually(status("workers")).Should(away(0, 1))

		report("one", time.Now(), 1, v1alpha1.RebootNotRequired)
		patch(&v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: "one"}},
			`{"status":{"counts":{"oldestSecurity":"2026-10-01T00:00:00Z"}}}`)
		Eventually(status("workers")).Should(HaveField("OldestSecurity", HaveValue(HaveField("Time", BeTemporally("==", time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC))))))
	})

	It("tells both policies of a conflict, and none once it is mended", func() {
		join("one", workers)
		create(newPolicy("first", workers))
		create(newPolicy("second", nil))
		for _, name := range []string{"first", "second"} {
			Eventually(status(name)).Should(condition(v1alpha1.ConditionConflicting, metav1.ConditionTrue, v1alpha1.ReasonEqualPriority))
		}
		Expect(status("second")()).To(HaveField("Conditions", ContainElement(
			HaveField("Message", HavePrefix("Policy first also has priority 0 and selects one.")))))
		mended := &v1alpha1.PatchPolicy{ObjectMeta: metav1.ObjectMeta{Name: "second"}}
		Expect(admin.Patch(ctx, mended, client.RawPatch(apitypes.MergePatchType, []byte(`{"spec":{"priority":5}}`)))).To(Succeed())
		for _, name := range []string{"first", "second"} {
			Eventually(status(name)).Should(condition(v1alpha1.ConditionConflicting, metav1.ConditionFalse, v1alpha1.ReasonNoConflict))
		}
		Expect(status("second")()).To(HaveField("ObservedGeneration", BeEquivalentTo(2)))
		Eventually(status("first")).Should(condition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonOverruled))
		Expect(admin.Delete(ctx, mended)).To(Succeed())
		Eventually(status("first")).Should(condition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonGoverning))
	})

	It("names what a person has to mend in the spec", func() {
		never := newPolicy("never", workers)
		never.Spec.Tasks = []v1alpha1.NamedTask{{
			Name: "weekly", Schedule: new(v1alpha1.Schedule("0 0 30 2 *")),
			Template: v1alpha1.TaskTemplate{Action: v1alpha1.ActionScan},
		}}
		create(never)
		Eventually(status("never")).Should(And(
			condition(v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonInvalidSchedule),
			condition(v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonInvalidSchedule)))

		near := newPolicy("near", nil)
		near.Spec.NodeSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "pool", Operator: "Near"}}
		create(near)
		Eventually(status("near")).Should(condition(v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonInvalidSelector))
	})

	It("says when agents may not run", func() {
		join("one", workers)
		create(newPolicy("workers", workers))
		Eventually(status("workers")).Should(condition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonGoverning))
		binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "nodepatch-agent-own-node"}}
		Expect(admin.Delete(ctx, binding)).To(Succeed())
		Eventually(status("workers")).Should(And(
			condition(v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonAdmissionMissing),
			condition(v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonAdmissionMissing)))
		_, err := server.Kubectl(ctx, "apply", "--server-side", "-k", "config/admission")
		Expect(err).NotTo(HaveOccurred())
		Eventually(status("workers")).Should(condition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonGoverning))
	})

	It("is written about once a second while many nodes report, and not when nothing changes", func() {
		create(newPolicy("busy", workers))
		Eventually(status("busy")).Should(condition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonNoNodes))
		written := func() int { return len(writes.To("/patchpolicies/busy/status")) }
		before, began := written(), time.Now()
		Expect(before).NotTo(BeZero(), "it says that there are no nodes")
		const many = 150
		for i := range many {
			name := fmt.Sprintf("node-%d", i)
			join(name, workers)
			report(name, time.Now(), 1, v1alpha1.RebootNotRequired)
		}
		Eventually(status("busy")).Should(counts(many, many, many, 0, 0))
		took := time.Since(began)
		Expect(written()-before).To(BeNumerically("<=", int(took/settle)+1), "in %v", took)

		before = written()
		report("node-0", time.Now(), 1, v1alpha1.RebootNotRequired)
		Consistently(func() int { return written() - before }, 2*settle).Should(BeZero(), "the counts are the same")
	})

	It("keeps what others write in it", func() {
		create(newPolicy("workers", workers))
		Eventually(status("workers")).Should(HaveField("ObservedGeneration", BeEquivalentTo(1)))
		handled := &v1alpha1.PatchPolicy{ObjectMeta: metav1.ObjectMeta{Name: "workers"}}
		Expect(admin.Status().Patch(ctx, handled, client.RawPatch(apitypes.MergePatchType,
			[]byte(`{"status":{"handled":{"clearLog":"token"}}}`)))).To(Succeed())
		join("one", workers)
		Eventually(status("workers")).Should(And(counts(1, 1, 0, 0, 0),
			HaveField("Handled", HaveValue(HaveField("ClearLog", "token")))))
	})
})
