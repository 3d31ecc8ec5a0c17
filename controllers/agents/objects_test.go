package agents

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

var _ = Describe("The objects of a node", func() {
	var (
		workers    = map[string]string{"pool": "workers"}
		assignment = &v1alpha1.PatchAssignment{}
		report     = &v1alpha1.PatchReport{}
		retry      = &v1alpha1.PatchRetry{}
		kinds      = []client.Object{assignment, report, retry}
		notFound   = MatchError(ContainSubstring("not found"))
	)
	operation := &v1alpha1.Operation{
		ID: "4a1c", Task: "scan", Step: v1alpha1.StepScanning, AssignedAt: metav1.Now(), Deadline: metav1.Now(),
	}
	ownedBy := func(node *corev1.Node) OmegaMatcher {
		return WithTransform(client.Object.GetOwnerReferences, Equal([]metav1.OwnerReference{
			{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID},
		}))
	}
	assign := func(node string) {
		GinkgoHelper()
		existing, err := get(assignment, node)()
		Expect(err).NotTo(HaveOccurred())
		patch := client.MergeFrom(existing.DeepCopy())
		existing.Spec.Operation = operation
		Expect(admin.Patch(ctx, existing, patch)).To(Succeed())
	}

	It("are made for the nodes that policies select, owned by them", func() {
		node := createNode("selected", workers)
		createNode("other", nil)
		createNode("windows", map[string]string{"pool": "workers", corev1.LabelOSStable: "windows"})
		createPolicy("workers", 0, workers)

		for _, kind := range kinds {
			Eventually(get(kind, node.Name)).Should(ownedBy(node))
			Consistently(gone(kind, "other"), "300ms").Should(notFound, "no policy selects it")
			Expect(gone(kind, "windows")()).To(notFound, "it does not run Linux")
		}
		Expect(get(assignment, node.Name)()).To(HaveField("Spec.Policy", "workers"))
		Expect(get(report, node.Name)()).To(HaveField("Status.Summary", "Not scanned yet"))
	})

	It("are made for a node that joins later, and for one that gets the label", func() {
		createPolicy("workers", 0, workers)
		createNode("joined", workers)
		late := createNode("relabelled", nil)
		Eventually(get(assignment, "joined")).Should(HaveField("Spec.Policy", "workers"))
		Expect(gone(assignment, late.Name)()).To(notFound)
		Expect(admin.Patch(ctx, late, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"pool":"workers"}}}`)))).To(Succeed())
		Eventually(get(assignment, late.Name)).Should(HaveField("Spec.Policy", "workers"))
	})

	It("follow the node to a stronger policy, and keep the operation", func() {
		createNode("node", workers)
		createPolicy("weak", 0, nil)
		Eventually(get(assignment, "node")).Should(HaveField("Spec.Policy", "weak"))
		assign("node")
		strong := createPolicy("strong", 1, workers)
		Eventually(get(assignment, "node")).Should(HaveField("Spec.Policy", "strong"))
		Expect(get(assignment, "node")()).To(HaveField("Spec.Operation.ID", operation.ID))
		Expect(admin.Delete(ctx, strong)).To(Succeed())
		Eventually(get(assignment, "node")).Should(HaveField("Spec.Policy", "weak"))
		Expect(get(assignment, "node")()).To(HaveField("Spec.Operation.ID", operation.ID))
	})

	It("say in the patch log when another policy takes the node over, once each time", func() {
		createNode("node", workers)
		createPolicy("weak", 0, nil)
		Eventually(get(assignment, "node")).Should(HaveField("Spec.Policy", "weak"))
		Expect(toldOf("node")).To(BeEmpty(), "its first policy takes it from nobody")
		before, err := get(assignment, "node")()
		Expect(err).NotTo(HaveOccurred())

		strong := createPolicy("strong", 1, workers)
		Eventually(get(assignment, "node")).Should(HaveField("Spec.Policy", "strong"))
		Expect(toldOf("node")).To(ConsistOf("strong: Governed by the policy strong now, before by weak"))

		By("writing it again, as a manager that died before the change does")
		again := &Objects{Client: admin, Log: log, Clock: clock.RealClock{}}
		wanted := before.DeepCopy()
		wanted.Spec.Policy = "strong"
		Expect(again.correct(ctx, before, wanted)).To(Satisfy(apierrors.IsConflict))
		Expect(toldOf("node")).To(HaveLen(1))

		Expect(admin.Delete(ctx, strong)).To(Succeed())
		Eventually(get(assignment, "node")).Should(HaveField("Spec.Policy", "weak"))
		Expect(toldOf("node")).To(ConsistOf(
			"strong: Governed by the policy strong now, before by weak", "weak: Governed by the policy weak now, before by strong"))
		createPolicy("strong", 1, workers)
		Eventually(get(assignment, "node")).Should(HaveField("Spec.Policy", "strong"))
		Expect(toldOf("node")).To(HaveLen(3), "it is another time")
		Expect(server.Kubectl(ctx, "describe", "node", "node")).To(ContainSubstring(v1alpha1.EventNodeTakenOver))
	})

	It("go when no policy selects the node, but for failures that were counted", func() {
		createNode("clean", workers)
		createNode("failed", workers)
		policy := createPolicy("workers", 0, workers)
		Eventually(get(assignment, "clean")).Should(HaveField("Spec.Policy", "workers"))
		Eventually(get(assignment, "failed")).Should(HaveField("Spec.Policy", "workers"))
		counts := []byte(`{"status":{"counted":1,"sequence":2,"patches":[{"name":"curl","version":"8","installFailures":2}]}}`)
		counted := &v1alpha1.PatchRetry{ObjectMeta: metav1.ObjectMeta{Name: "failed"}}
		Expect(admin.Status().Patch(ctx, counted, client.RawPatch(types.MergePatchType, counts))).To(Succeed())

		Expect(admin.Delete(ctx, policy)).To(Succeed())
		for _, kind := range kinds {
			Eventually(gone(kind, "clean")).Should(notFound)
		}
		Eventually(gone(assignment, "failed")).Should(notFound)
		Eventually(gone(report, "failed")).Should(notFound)
		Consistently(get(retry, "failed"), "300ms").Should(HaveField("Status.Patches", HaveLen(1)), "a failure is never forgotten")

		cleared := []byte(`{"status":{"counted":0,"clears":1,"patches":null}}`)
		Expect(admin.Status().Patch(ctx, counted, client.RawPatch(types.MergePatchType, cleared))).To(Succeed())
		Consistently(get(retry, "failed"), "300ms").Should(HaveField("Status.Clears", BeEquivalentTo(1)), "nor is it that they were cleared")
		createPolicy("workers", 0, workers)
		Eventually(get(assignment, "failed")).Should(HaveField("Spec.RetryClears", BeEquivalentTo(1)), "the agent comes back and is told")
		Eventually(get(assignment, "clean")).Should(HaveField("Spec.RetryClears", BeZero()))
	})

	It("stay while the node is at work, though its policy is gone, and so does its agent", func() {
		createNode("node", workers)
		policy := createPolicy("workers", 0, workers)
		Eventually(get(assignment, "node")).Should(HaveField("Spec.Policy", "workers"))
		Eventually(daemonSetNow).Should(HaveField("Name", Name))
		assign("node")
		Eventually(func(g Gomega) {
			seen := &v1alpha1.PatchAssignment{}
			g.Expect(cached.Get(ctx, client.ObjectKey{Name: "node"}, seen)).To(Succeed())
			g.Expect(seen.Busy()).To(BeTrue())
		}).Should(Succeed(), "the manager has seen that the node is at work")
		Expect(admin.Delete(ctx, policy)).To(Succeed())
		Consistently(get(assignment, "node"), "500ms").Should(HaveField("Spec.Operation.ID", operation.ID))
		Expect(daemonSetNow()).To(HaveField("DeletionTimestamp", BeNil()))

		ended := &v1alpha1.PatchAssignment{ObjectMeta: metav1.ObjectMeta{Name: "node"}}
		Expect(admin.Status().Patch(ctx, ended, client.RawPatch(types.MergePatchType, []byte(`{"status":{"agent":{"operationID":"4a1c","step":"Stopped"}}}`)))).To(Succeed())
		for _, kind := range kinds {
			Eventually(gone(kind, "node")).Should(notFound)
		}
		Eventually(func() error { _, err := daemonSetNow(); return err }).Should(notFound)
	})

	It("are made anew for a node that comes back under its name", func() {
		old := createNode("node", workers)
		createPolicy("workers", 0, workers)
		Eventually(get(assignment, "node")).Should(ownedBy(old))
		assign("node")
		scanned := &v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: "node"}}
		Expect(admin.Status().Patch(ctx, scanned, client.RawPatch(types.MergePatchType, []byte(`{"status":{"summary":"3 missing"}}`)))).To(Succeed())

		Expect(admin.Delete(ctx, old)).To(Succeed())
		node := createNode("node", workers)
		Expect(node.UID).NotTo(Equal(old.UID))
		for _, kind := range kinds {
			Eventually(get(kind, "node")).Should(ownedBy(node))
		}
		Expect(get(report, "node")()).To(HaveField("Status.Summary", "Not scanned yet"), "that was another machine")
		Expect(get(assignment, "node")()).To(HaveField("Spec.Operation", BeNil()), "and so was that")
	})

	It("come back when somebody deletes or changes them", func() {
		node := createNode("node", workers)
		createPolicy("workers", 0, workers)
		for _, kind := range kinds {
			Eventually(get(kind, "node")).Should(ownedBy(node))
		}
		for _, kind := range kinds {
			existing, err := get(kind, "node")()
			Expect(err).NotTo(HaveOccurred())
			Expect(admin.Delete(ctx, existing)).To(Succeed())
			Eventually(get(kind, "node")).Should(And(ownedBy(node),
				WithTransform(client.Object.GetUID, Not(Equal(existing.GetUID())))))
		}
		for _, kind := range kinds {
			existing, err := get(kind, "node")()
			Expect(err).NotTo(HaveOccurred())
			Expect(admin.Patch(ctx, existing, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"ownerReferences":null}}`)))).To(Succeed())
			Eventually(get(kind, "node")).Should(And(ownedBy(node), WithTransform(client.Object.GetUID, Equal(existing.GetUID()))))
		}
		stray := &v1alpha1.PatchAssignment{ObjectMeta: metav1.ObjectMeta{Name: "node"}}
		Expect(admin.Patch(ctx, stray, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"policy":"stray"}}`)))).To(Succeed())
		Eventually(get(assignment, "node")).Should(HaveField("Spec.Policy", "workers"))
	})

	It("are not written while an agent works on them and its kubelet reports", func() {
		node := createNode("busy", workers)
		createPolicy("workers", 0, workers)
		for _, kind := range kinds {
			Eventually(get(kind, "busy")).Should(ownedBy(node))
		}
		before := len(writes.To("/busy"))
		assign("busy")
		for range 5 {
			status := []byte(`{"status":{"agent":{"operationID":"4a1c","step":"Scanning","message":"` + rand() + `"}}}`)
			existing := &v1alpha1.PatchAssignment{ObjectMeta: metav1.ObjectMeta{Name: "busy"}}
			Expect(admin.Status().Patch(ctx, existing, client.RawPatch(types.MergePatchType, status))).To(Succeed())
			found := &v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: "busy"}}
			Expect(admin.Status().Patch(ctx, found, client.RawPatch(types.MergePatchType, []byte(`{"status":{"summary":"`+rand()+`"}}`)))).To(Succeed())
			node.Status.Conditions[0].LastHeartbeatTime = metav1.Now()
			Expect(admin.Status().Update(ctx, node)).To(Succeed())
		}
		Consistently(func() int { return len(writes.To("/busy")) - before }, "500ms").Should(BeZero())
	})
})
