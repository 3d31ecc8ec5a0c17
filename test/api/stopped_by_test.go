package api

import (
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

const stampMessage = "nodepatch.io/stopped-by is the name of who pressed nodepatch.io/stop, and nobody changes it"

var _ = Describe("the name of who stopped a task", Ordered, func() {
	BeforeAll(employ)

	// A nil value is left alone.
	annotate := func(ctx SpecContext, user string, task *unstructured.Unstructured, stop, by *string, options ...client.PatchOption) error {
		return person(user).Patch(ctx, task.DeepCopy(), mergePatch(fmt.Sprintf(`{"metadata":{"annotations":{%s}}}`, annotations(stop, by))), options...)
	}

	Context("where nobody stamps", func() {
		It("is one's own or none", func(ctx SpecContext) {
			task := store(ctx, named("PatchTask", "people", "spec: {policy: people, task: weekly}"))
			Expect(annotate(ctx, operator, task, nil, ptr.To(operator), client.DryRunAll)).To(answer(stampMessage), "nothing was stopped")
			Expect(annotate(ctx, operator, task, ptr.To("x"), ptr.To(root), client.DryRunAll)).To(answer(stampMessage), "somebody else")
			Expect(annotate(ctx, root, task, ptr.To("x"), ptr.To(operator), client.DryRunAll)).To(answer(stampMessage), "not even an administrator")
			Expect(annotate(ctx, operator, task, ptr.To("x"), nil, client.DryRunAll)).To(Succeed(), "none")
			Expect(annotate(ctx, operator, task, ptr.To("x"), ptr.To(operator))).To(Succeed(), "one's own")
			Expect(annotate(ctx, root, task, nil, ptr.To(root), client.DryRunAll)).To(answer(stampMessage), "one who came later")
			Expect(annotate(ctx, root, task, nil, ptr.To("-"), client.DryRunAll)).To(answer(stampMessage), "to take it away")
			Expect(annotate(ctx, root, task, ptr.To("y"), nil, client.DryRunAll)).To(answer(stampMessage), "to change the words of another")
			Expect(annotate(ctx, root, task, ptr.To("y"), ptr.To("-"), client.DryRunAll)).To(Succeed(), "to press it again")
			Expect(annotate(ctx, operator, task, ptr.To("-"), ptr.To(root), client.DryRunAll)).To(answer(stampMessage), "when it is taken back")
			Expect(annotate(ctx, operator, task, ptr.To("-"), ptr.To("-"), client.DryRunAll)).To(Succeed(), "it goes with the button")
			Expect(annotate(ctx, operator, task, ptr.To("-"), nil)).To(Succeed(), "or after it")
			Expect(annotate(ctx, operator, task, nil, ptr.To("-"))).To(Succeed(), "or after it")
		})

		It("is not written on creation either, nor on anything else", func(ctx SpecContext) {
			task := object(named("PatchTask", "people", "spec: {policy: people, task: weekly}"))
			task.SetAnnotations(map[string]string{v1alpha1.StopAnnotation: "x", v1alpha1.StoppedByAnnotation: root})
			Expect(person(operator).Create(ctx, task.DeepCopy(), client.DryRunAll)).To(answer(stampMessage))
			Expect(person(root).Create(ctx, task.DeepCopy(), client.DryRunAll)).To(Succeed())
			task.SetAnnotations(map[string]string{v1alpha1.StoppedByAnnotation: root})
			Expect(person(root).Create(ctx, task.DeepCopy(), client.DryRunAll)).To(answer(stampMessage))
			report := store(ctx, named("PatchReport", "people", ""))
			Expect(annotate(ctx, root, report, nil, ptr.To(root), client.DryRunAll)).To(answer(stampMessage))
		})
	})

	Context("where the component is applied", func() {
		BeforeAll(func(ctx SpecContext) {
			if !strings.Contains(kubectl(ctx, "get", "--raw", "/apis/admissionregistration.k8s.io/v1"), "mutatingadmissionpolicies") {
				unable("These specs need an API server with MutatingAdmissionPolicy v1, that of Kubernetes 1.36 or later")
			}
			overlay := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\ncomponents: [../../config/admission/optional]\n"
			kubectl(ctx, "apply", "--server-side", "-k", overlayOf(overlay))
			DeferCleanup(func(ctx SpecContext) { kubectl(ctx, "delete", "-f", "config/admission/optional/stop-stamp.yaml") })
			probe := store(ctx, named("PatchTask", "probe", "spec: {policy: people, task: weekly}"))
			Eventually(func() map[string]string {
				stopped := probe.DeepCopy()
				Expect(admin.Patch(ctx, stopped, mergePatch(`{"metadata":{"annotations":{"nodepatch.io/stop":"x"}}}`), client.DryRunAll)).To(Succeed())
				return stopped.GetAnnotations()
			}, "10s").Should(HaveKey(v1alpha1.StoppedByAnnotation), "the policy is in force")
		})

		It("is written for everybody", func(ctx SpecContext) {
			task := store(ctx, named("PatchTask", "people", "spec: {policy: people, task: weekly}"))
			named := func(annotations map[string]string) OmegaMatcher {
				return WithTransform(func(o *unstructured.Unstructured) map[string]string {
					Expect(admin.Get(ctx, client.ObjectKeyFromObject(o), o)).To(Succeed())
					return o.GetAnnotations()
				}, Equal(annotations))
			}
			stopped := func(why, by string) map[string]string {
				return map[string]string{v1alpha1.StopAnnotation: why, v1alpha1.StoppedByAnnotation: by}
			}
			Expect(annotate(ctx, operator, task, ptr.To("enough"), nil)).To(Succeed())
			Expect(task).To(named(stopped("enough", operator)))
			Expect(annotate(ctx, root, task, ptr.To("enough"), nil)).To(Succeed())
			Expect(task).To(named(stopped("enough", operator)), "root changed nothing")
			Expect(annotate(ctx, root, task, ptr.To("really enough"), nil)).To(Succeed())
			Expect(task).To(named(stopped("really enough", root)))
			Expect(annotate(ctx, operator, task, ptr.To("too much"), ptr.To("nobody"))).To(Succeed(), "a forged name is overwritten")
			Expect(task).To(named(stopped("too much", operator)))
			Expect(annotate(ctx, root, task, nil, ptr.To("nobody"))).To(answer(stampMessage))
			Expect(annotate(ctx, patcher, task, ptr.To("x"), nil)).To(answer("patcher may not press nodepatch.io/stop"))
			Expect(annotate(ctx, operator, task, ptr.To("-"), nil)).To(Succeed())
			Expect(task).To(named(nil), "the name goes with the button")

			Expect(apply(ctx, person(operator), task, v1alpha1.StopAnnotation, ptr.To("applied"))).To(Succeed())
			Expect(task).To(named(stopped("applied", operator)))
			Expect(apply(ctx, person(operator), task, v1alpha1.StopAnnotation, ptr.To("applied"))).To(Succeed(), "as Git does again and again")
			Expect(task).To(named(stopped("applied", operator)))
			Expect(apply(ctx, person(operator), task, v1alpha1.StopAnnotation, nil)).To(Succeed())
			Expect(task).To(named(nil))
		})

		It("is written on creation, and on no task that nobody stops", func(ctx SpecContext) {
			task := object(named("PatchTask", "people", "spec: {policy: people, task: weekly}"))
			Expect(person(operator).Create(ctx, task, client.DryRunAll)).To(Succeed())
			Expect(task.GetAnnotations()).To(BeEmpty())
			task = object(named("PatchTask", "people", "spec: {policy: people, task: weekly}"))
			task.SetAnnotations(map[string]string{v1alpha1.StopAnnotation: ""})
			body, err := task.MarshalJSON()
			Expect(err).NotTo(HaveOccurred())
			applied := task.DeepCopy()
			Expect(person(operator).Create(ctx, task, client.DryRunAll)).To(Succeed())
			Expect(task.GetAnnotations()).To(HaveKeyWithValue(v1alpha1.StoppedByAnnotation, operator))
			Expect(person(operator).Patch(ctx, applied, client.RawPatch(types.ApplyPatchType, body), client.FieldOwner("person"), client.DryRunAll)).To(Succeed())
			Expect(applied.GetAnnotations()).To(HaveKeyWithValue(v1alpha1.StoppedByAnnotation, operator))
		})
	})
})

// annotations are the members of a merge patch; "-" removes one.
func annotations(stop, by *string) string {
	text := ""
	for key, value := range map[string]*string{v1alpha1.StopAnnotation: stop, v1alpha1.StoppedByAnnotation: by} {
		if value == nil {
			continue
		}
		if text != "" {
			text += ","
		}
		if *value == "-" {
			text += fmt.Sprintf("%q:null", key)
		} else {
			text += fmt.Sprintf("%q:%q", key, *value)
		}
	}
	return text
}
