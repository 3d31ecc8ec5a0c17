package openreports

import (
	"encoding/json"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	reportsv1alpha1 "github.com/openreports/reports-api/apis/openreports.io/v1alpha1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

var _ = Describe("ClusterReports", Ordered, func() {
	var (
		node     *corev1.Node
		curl     = patch("curl", v1alpha1.PatchMissing, v1alpha1.SeverityImportant)
		held     = patch("bash", v1alpha1.PatchHeld, v1alpha1.SeverityCritical)
		notFound = MatchError(ContainSubstring("not found"))
	)
	// unchanged says that nothing is written in what follows.
	unchanged := func(why string, what func()) {
		GinkgoHelper()
		before := len(writes())
		what()
		Consistently(writes, "700ms").Should(HaveLen(before), why)
	}

	BeforeAll(func() {
		policy := &v1alpha1.PatchPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: "workers"},
			Spec: v1alpha1.PatchPolicySpec{
				NodeSelector: &metav1.LabelSelector{}, MaxScanAge: &metav1.Duration{Duration: 24 * time.Hour},
			},
		}
		Expect(admin.Create(ctx, policy)).To(Succeed())
		running = start()
		DeferCleanup(func() { running.stop() })
	})

	AfterAll(func() {
		Expect(asked.Forbidden()).To(BeEmpty(), "config/rbac allows all that this does")
		Expect(logged.of(`"error"=`)).To(BeEmpty())
	})

	It("are nobody's business where OpenReports is not", func() {
		node = report("one", scanned(time.Now(), curl, held))
		Consistently(writes, "1s").Should(BeEmpty())
		Expect(logged.of("ClusterReport")).To(BeEmpty(), "nothing is said of what is not there")
	})

	It("come with OpenReports, without a restart", func() {
		install()
		Eventually(shown("one")).Should(summary(0, 1, 0, 0, 1))
		found, err := shown("one")()
		Expect(err).NotTo(HaveOccurred())
		Expect(found.Labels).To(Equal(map[string]string{
			"app.kubernetes.io/managed-by": "nodepatch", v1alpha1.NodeLabel: "one", v1alpha1.PolicyLabel: "workers",
		}))
		Expect(found.OwnerReferences).To(Equal([]metav1.OwnerReference{
			{APIVersion: "v1", Kind: "Node", Name: "one", UID: node.UID},
		}))
		Expect(found.Source).To(Equal("nodepatch"))
		Expect(found.Scope).To(Equal(&corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: "one", UID: node.UID}))
		Expect(found.Results).To(HaveLen(2))
		Expect(found.Results[0]).To(Equal(reportsv1alpha1.ReportResult{
			Source: "nodepatch", Policy: "security-patches", Rule: "curl", Category: "Node Security Patches",
			Severity: "high", Timestamp: metav1.Timestamp{Seconds: seen.Unix()}, Result: "fail", Scored: true,
			Description: "curl 1.0 is to become 1.1 (Missing)",
			Properties: map[string]string{
				"installedVersion": "1.0", "availableVersion": "1.1", "state": "Missing", "firstSeen": "2026-11-20T06:00:00Z",
			},
		}))
		Expect(found.Results[1]).To(And(
			HaveField("Rule", "bash"), HaveField("Result", reportsv1alpha1.Result("skip")), HaveField("Scored", false)))
		Expect(writes()).To(HaveLen(1))
		Expect(logged.of("Keeps a ClusterReport of each node")).To(HaveLen(1))
		table, err := server.Kubectl(ctx, "get", "creps", "-o", "wide")
		Expect(err).NotTo(HaveOccurred())
		Expect(table).To(MatchRegexp(`nodepatch-one +Node +one +0 +1 +0 +0 +1 `))
	})

	It("are not written again while they say the same", func() {
		unchanged("a scan that finds the same", func() { say("one", scanned(time.Now().Add(time.Second), curl, held)) })
		unchanged("another manager finds all in order", func() {
			running.stop()
			running = start()
			Eventually(func() []string { return logged.of("Keeps a ClusterReport of each node") }).Should(HaveLen(2))
		})
	})

	It("follow what the agent finds, with one write for each change", func() {
		before := len(writes())
		blocked := curl
		blocked.State, blocked.Reason = v1alpha1.PatchBlocked, "4 installations failed"
		say("one", scanned(time.Now(), blocked, held))
		Eventually(shown("one")).Should(HaveField("Results", ContainElement(
			HaveField("Description", "curl 1.0 is to become 1.1 (Blocked): 4 installations failed"))))
		say("one", scanned(time.Now()))
		Eventually(shown("one")).Should(And(summary(1, 0, 0, 0, 0), HaveField("Results", ConsistOf(And(
			HaveField("Result", reportsv1alpha1.Result("pass")), HaveField("Timestamp.Seconds", begun.Unix()),
		)))))
		failed := scanned(time.Now(), curl)
		failed.Conditions[0].Status, failed.Conditions[0].Reason, failed.Conditions[0].Message = metav1.ConditionFalse, "MirrorUnreachable", "no route"
		say("one", failed)
		Eventually(shown("one")).Should(And(summary(0, 1, 0, 1, 0), HaveField("Results", ContainElement(
			HaveField("Description", "The last scan failed (MirrorUnreachable): no route")))))
		say("one", scanned(time.Now(), curl, held))
		Eventually(shown("one")).Should(summary(0, 1, 0, 0, 1))
		Consistently(writes, "500ms").Should(HaveLen(before + 4))
	})

	It("say when a scan is overdue, as soon as it is", func() {
		say("one", scanned(time.Now().Add(-24*time.Hour+12*time.Second), curl))
		Eventually(shown("one")).Should(summary(0, 1, 0, 0, 0))
		Eventually(shown("one")).WithTimeout(40 * time.Second).Should(And(summary(0, 1, 0, 1, 0), HaveField("Results", ContainElement(
			HaveField("Description", ContainSubstring("is overdue: the policy workers wants a scan every 24h0m0s"))))))
		relaxed := &v1alpha1.PatchPolicy{ObjectMeta: metav1.ObjectMeta{Name: "workers"}}
		Expect(admin.Patch(ctx, relaxed, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"maxScanAge":"48h"}}`)))).To(Succeed())
		Eventually(shown("one")).Should(summary(0, 1, 0, 0, 0))
	})

	It("come back when somebody deletes them or takes them from their node", func() {
		Expect(admin.DeleteAllOf(ctx, &reportsv1alpha1.ClusterReport{})).To(Succeed())
		Eventually(shown("one")).Should(summary(0, 1, 0, 0, 0))
		for _, patch := range []string{`{"metadata":{"ownerReferences":null}}`, `{"metadata":{"labels":null}}`} {
			found, err := shown("one")()
			Expect(err).NotTo(HaveOccurred())
			Expect(admin.Patch(ctx, found, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
			Eventually(shown("one")).Should(And(
				HaveField("OwnerReferences", HaveLen(1)), HaveField("Labels", HaveKeyWithValue(v1alpha1.NodeLabel, "one"))))
		}
	})

	It("go with the PatchReport, also while no manager runs; those of others stay", func() {
		foreign := &reportsv1alpha1.ClusterReport{ObjectMeta: metav1.ObjectMeta{Name: "nodepatch-foreign"}}
		Expect(admin.Create(ctx, foreign)).To(Succeed())
		report("two", scanned(time.Now(), curl))
		report("three", scanned(time.Now()))
		Eventually(shown("two")).Should(summary(0, 1, 0, 0, 0))
		Eventually(shown("three")).Should(summary(1, 0, 0, 0, 0))
		remove := func(node string) {
			Expect(admin.Delete(ctx, &v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: node}})).To(Succeed())
		}
		gone := func(node string) func() error {
			return func() error { _, err := shown(node)(); return err }
		}
		remove("two")
		Eventually(gone("two")).Should(notFound)
		running.stop()
		remove("three")
		running = start()
		Eventually(gone("three")).Should(notFound)
		Expect(shown("one")()).To(summary(0, 1, 0, 0, 0))
		Expect(shown("foreign")()).NotTo(BeNil())
	})

	It("end with OpenReports, and come again with it", func() {
		ended := func() []string { return logged.of("Keeps no ClusterReports any more") }
		uninstall()
		Eventually(ended).Should(HaveLen(1))
		unchanged("OpenReports is gone", func() {
			say("one", scanned(time.Now(), curl, held))
			report("four", scanned(time.Now()))
		})
		install()
		Eventually(shown("one")).Should(summary(0, 1, 0, 0, 1))
		Eventually(shown("four")).Should(summary(1, 0, 0, 0, 0))
		uninstall()
		Eventually(ended).Should(HaveLen(2))
		install()
		Eventually(shown("one")).Should(summary(0, 1, 0, 0, 1))
		Eventually(shown("four")).Should(summary(1, 0, 0, 0, 0))
	})

	It("are bounded, and there for many patches on many nodes", func() {
		const nodes = 100
		var many []v1alpha1.Patch
		for i := range v1alpha1.MaxReportedPatches {
			p := patch(fmt.Sprintf("package-%04d", i), v1alpha1.PatchMissing, v1alpha1.SeverityModerate)
			p.CVEs = []string{"CVE-2026-10001", "CVE-2026-10002"}
			many = append(many, p)
		}
		report("large", scanned(time.Now(), many...))
		Eventually(shown("large")).Should(summary(0, 1000, 0, 0, 0))
		found, err := shown("large")()
		Expect(err).NotTo(HaveOccurred())
		Expect(found.Results).To(HaveLen(maxResults))
		Expect(found.Results[maxResults-1].Properties).To(HaveKeyWithValue("patches", "501"))
		text, err := json.Marshal(found)
		Expect(err).NotTo(HaveOccurred())
		Expect(len(text)).To(BeNumerically("<", 400<<10))
		AddReportEntry("ClusterReport of 1,000 patches", fmt.Sprintf("%d bytes", len(text)))

		running.stop()
		for i := range nodes {
			report(fmt.Sprintf("node-%d", i), scanned(time.Now(), curl))
		}
		before, begin := len(writes()), time.Now()
		running = start()
		Eventually(func() []string { return writes()[before:] }).Should(HaveLen(nodes))
		AddReportEntry("New ClusterReports", fmt.Sprintf("%d in %s", nodes, time.Since(begin).Round(time.Millisecond)))
		Consistently(func() []string { return writes()[before:] }, "500ms").Should(HaveLen(nodes), "one write for each")
	})
})
