package main

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

// What dashboards of policies show: the whole manager, with the definition that
// OpenReports publishes.
var _ = Describe("OpenReports in a running manager", Ordered, func() {
	var (
		crd  string
		read = func(format string) func() (string, error) {
			return func() (string, error) {
				return server.Kubectl(ctx, "get", "clusterreports", "nodepatch-shown", "--ignore-not-found", "-o", "jsonpath="+format)
			}
		}
	)

	BeforeAll(func() {
		var err error
		crd, err = apiserver.OpenReports(ctx)
		Expect(err).NotTo(HaveOccurred())
		_, err = server.CreateNode(ctx, "shown", map[string]string{"pool": "shown"})
		Expect(err).NotTo(HaveOccurred())
		Expect(admin.Create(ctx, &v1alpha1.PatchPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: "shown"},
			Spec:       v1alpha1.PatchPolicySpec{NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "shown"}}},
		})).To(Succeed())
		manager := start("manager-openreports")
		DeferCleanup(func() {
			manager.stop()
			_, err := server.Kubectl(ctx, "delete", "--ignore-not-found", "-f", crd)
			Expect(err).NotTo(HaveOccurred())
			_, err = server.Kubectl(ctx, "delete", "--ignore-not-found", "patchpolicy/shown", "node/shown", "patchreport/shown", "patchretry/shown", "patchassignment/shown")
			Expect(err).NotTo(HaveOccurred())
		})
		Eventually(object(&v1alpha1.PatchReport{}, "shown")).Should(HaveField("Name", "shown"))
		Eventually(object(&v1alpha1.PatchAssignment{}, "shown")).Should(HaveField("Spec.Policy", "shown"))
	})

	It("shows a node's patches, which the manager's cache drops", func() {
		_, err := server.Kubectl(ctx, "apply", "--server-side", "-f", crd)
		Expect(err).NotTo(HaveOccurred())
		Eventually(read(`{.summary.error}{.results[*].message}`)).Should(Equal("1The node was not scanned yet"))
		found := `{"status":{"counts":{"missing":1,"security":1},
			"conditions":[{"type":"Scanned","status":"True","reason":"Scanned","message":"","lastTransitionTime":"2026-11-23T06:00:00Z"}],
			"patches":[{"name":"curl","installed":"7","available":"8","classification":"Security","severity":"Critical","state":"Missing"}]}}`
		report := &v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: "shown"}}
		Expect(admin.Status().Patch(ctx, report, client.RawPatch(types.MergePatchType, []byte(found)))).To(Succeed())
		Eventually(read(`{.summary.fail} {.summary.error} {.results[*].rule} {.results[*].severity}`)).Should(Equal("1 0 curl critical"))
	})

	It("writes nothing while nothing changes", func() {
		const own = "/clusterreports/nodepatch-shown" // those of other specs' nodes may still come
		quiet()
		before := len(asked.To(own))
		report := &v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: "shown"}}
		Expect(admin.Status().Patch(ctx, report, client.RawPatch(types.MergePatchType,
			[]byte(`{"status":{"scan":{"time":"2026-11-23T07:00:00Z"},"summary":"1 not installed yet"}}`)))).To(Succeed())
		Consistently(func() []string { return asked.To(own) }, "700ms").Should(HaveLen(before))
	})

	It("takes it away with the node's policy, with no right too few", func() {
		Expect(admin.Delete(ctx, &v1alpha1.PatchPolicy{ObjectMeta: metav1.ObjectMeta{Name: "shown"}})).To(Succeed())
		Eventually(read(`{.metadata.name}`)).Should(BeEmpty())
		Expect(asked.Forbidden()).To(BeEmpty())
	})
})
