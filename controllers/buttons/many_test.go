package buttons

import (
	"fmt"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
	"github.com/nodepatch/nodepatch/test/apiserver/specs"
)

const many = 1000

// forMany does something for each of many nodes, sixteen at a time.
func forMany(do func(node string)) {
	GinkgoHelper()
	group := sync.WaitGroup{}
	for worker := range 16 {
		group.Go(func() {
			defer GinkgoRecover()
			for i := worker; i < many; i += 16 {
				do(fmt.Sprintf("node-%04d", i))
			}
		})
	}
	group.Wait()
}

// writesOf says how often each kind of thing was written since the last call.
func writesOf(requests *apiserver.Requests, former map[string]int) map[string]int {
	now := map[string]int{}
	for _, part := range []string{"/patchreports/", "/patchretries/", "/patchassignments/", "/patchpolicies/", "/events", "/"} {
		total := len(requests.To(part))
		now[part], former[part] = total-former[part], total
	}
	return now
}

var _ = Describe("The buttons of a thousand nodes", func() {
	It("are acted on with the same few writes for each, whether pressed on all of them or on their policy", func() {
		forMany(func(node string) {
			assignment := &v1alpha1.PatchAssignment{ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: v1alpha1.PatchAssignmentSpec{Policy: "workers"}}
			Expect(admin.Create(ctx, assignment)).To(Succeed())
			Expect(admin.Create(ctx, &v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: node}})).To(Succeed())
			Expect(admin.Create(ctx, &v1alpha1.PatchRetry{ObjectMeta: metav1.ObjectMeta{Name: node}})).To(Succeed())
		})
		requests, former := &apiserver.Requests{}, map[string]int{}
		watched := requests.Watch(server.Config)
		apiserver.RunManager(GinkgoTB(), watched, func(mgr ctrl.Manager) error {
			return SetupWithManager(mgr, specs.ManagerLog(GinkgoTB(), watched))
		})

		began := time.Now()
		forMany(func(node string) {
			report := &v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: node}}
			pressOn(report, v1alpha1.UpdatePatchDataAnnotation, "")
		})
		pressed := time.Since(began)
		Eventually(func(g Gomega) {
			var reports v1alpha1.PatchReportList
			g.Expect(admin.List(ctx, &reports)).To(Succeed())
			for _, report := range reports.Items {
				g.Expect(report.Annotations).To(BeEmpty())
				g.Expect(report.Status.Handled).NotTo(BeNil())
				g.Expect(report.Status.Handled.Press).To(BeNil())
			}
		}, "3m", "1s").Should(Succeed())
		AddReportEntry("reports", fmt.Sprintf("%d pressed in %s, acted on in %s", many, pressed.Round(time.Millisecond), time.Since(began).Round(time.Millisecond)))
		Expect(writesOf(requests, former)).To(Equal(map[string]int{
			"/patchreports/": 3 * many, "/patchassignments/": many, "/events": many, "/patchretries/": 0, "/patchpolicies/": 0, "/": 5 * many,
		}))

		policy := addPolicy("workers")
		for _, button := range []struct {
			annotation, value, path string
		}{
			{v1alpha1.UpdatePatchDataAnnotation, "", "/patchassignments/"},
			{v1alpha1.ClearRetriesAnnotation, "all", "/patchretries/"},
		} {
			began = time.Now()
			pressOn(policy, button.annotation, button.value)
			Eventually(func(g Gomega) {
				g.Expect(read(policy).Annotations).To(BeEmpty())
				g.Expect(pressOf(policy)).To(BeNil())
			}, "3m", "100ms").Should(Succeed())
			AddReportEntry("policy", fmt.Sprintf("%s acted on for %d nodes in %s", button.annotation, many, time.Since(began).Round(time.Millisecond)))
			writes := writesOf(requests, former)
			Expect([]int{writes[button.path], writes["/patchpolicies/"], writes["/events"], writes["/"]}).To(Equal([]int{many, 3, 1, many + 4}))
		}
		var assignments v1alpha1.PatchAssignmentList
		Expect(admin.List(ctx, &assignments)).To(Succeed())
		for _, assignment := range assignments.Items {
			Expect(assignment.Spec.PatchDataRefreshes).To(BeEquivalentTo(2), assignment.Name)
		}
	})
})
