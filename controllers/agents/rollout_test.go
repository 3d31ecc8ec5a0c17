package agents

import (
	"strconv"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/test/apiserver"
)

// sequence makes rand unique, which an API server needs to see a change.
var sequence int

func rand() string {
	sequence++
	return strconv.Itoa(sequence)
}

var _ = Describe("The agents' DaemonSet", func() {
	workers := map[string]string{"pool": "workers"}
	notFound := MatchError(ContainSubstring("not found"))
	absent := func() error { _, err := daemonSetNow(); return err }
	terms := func(g Gomega) []corev1.NodeSelectorTerm {
		existing, err := daemonSetNow()
		g.Expect(err).NotTo(HaveOccurred())
		return existing.Spec.Template.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	}
	pools := func(values ...string) OmegaMatcher {
		var want []corev1.NodeSelectorTerm
		for _, value := range values {
			want = append(want, nodeSelectorTerm(selectors["empty"]))
			want[len(want)-1].MatchExpressions = append(want[len(want)-1].MatchExpressions,
				corev1.NodeSelectorRequirement{Key: "pool", Operator: corev1.NodeSelectorOpIn, Values: []string{value}})
		}
		return ConsistOf(want)
	}

	It("runs the agent privileged on the host of every selected node, and drops no other right", func() {
		createPolicy("workers", 0, workers)
		Eventually(terms).Should(pools("workers"))
		existing, err := daemonSetNow()
		Expect(err).NotTo(HaveOccurred())
		Expect(existing.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable).To(HaveValue(Equal(intstr.FromString("10%"))))

		pod := existing.Spec.Template.Spec
		Expect(existing.Spec.Template.Labels).To(Equal(PodLabels))
		Expect(pod.HostPID).To(BeTrue(), "it sees the host's processes")
		Expect(pod.HostNetwork).To(BeFalse(), "its port is its own")
		Expect(pod.Tolerations).To(ConsistOf(corev1.Toleration{Operator: corev1.TolerationOpExists}), "tainted nodes are patched, too")
		Expect(pod.PriorityClassName).To(Equal("nodepatch-agent"), "which config/manager has")
		Expect(pod.ServiceAccountName).To(Equal(apiserver.AgentAccount))
		Expect(pod.TerminationGracePeriodSeconds).To(HaveValue(BeEquivalentTo(30)))
		Expect(pod.Volumes).To(ConsistOf(HaveField("HostPath.Path", "/")))

		Expect(pod.Containers).To(HaveLen(1))
		container := pod.Containers[0]
		Expect(container.Image).To(Equal(image))
		Expect(container.Command).To(Equal([]string{"/agent"}))
		Expect(container.SecurityContext.Privileged).To(HaveValue(BeTrue()))
		Expect(container.SecurityContext.RunAsUser).To(HaveValue(BeZero()), "the image's user is the manager's")
		Expect(container.VolumeMounts).To(ConsistOf(And(
			HaveField("MountPath", "/host"),
			HaveField("MountPropagation", HaveValue(Equal(corev1.MountPropagationHostToContainer))))))
		Expect(container.Env).To(ConsistOf(And(
			HaveField("Name", "NODE_NAME"), HaveField("ValueFrom.FieldRef.FieldPath", "spec.nodeName"))))
		Expect(container.ReadinessProbe.HTTPGet.Path).To(Equal("/readyz"))
		Expect(container.Ports).To(ConsistOf(HaveField("ContainerPort", BeEquivalentTo(8081))))
		Expect(container.Resources.Requests.Cpu().String()).To(Equal("10m"))
		Expect(container.Resources.Requests.Memory().String()).To(Equal("24Mi"))
		Expect(container.Resources.Limits.Memory().String()).To(Equal("128Mi"))
		Expect(container.Resources.Limits.Cpu().IsZero()).To(BeTrue())
	})

	It("follows the policies, and goes with the last of them", func() {
		Expect(absent()).To(notFound)
		createPolicy("workers", 0, workers)
		Eventually(terms).Should(pools("workers"))
		canary := createPolicy("canary", 0, map[string]string{"pool": "canary"})
		Eventually(terms).Should(pools("workers", "canary"))
		Expect(admin.Patch(ctx, canary, client.RawPatch(types.MergePatchType,
			[]byte(`{"spec":{"nodeSelector":{"matchLabels":{"pool":"edge"}}}}`)))).To(Succeed())
		Eventually(terms).Should(pools("workers", "edge"))
		Expect(admin.Delete(ctx, canary)).To(Succeed())
		Eventually(terms).Should(pools("workers"))
	})

	It("is not made for a selector that is none", func() {
		broken := policyOf("broken", selectors["invalid"])
		Expect(admin.Create(ctx, &broken)).To(Succeed())
		Consistently(absent, "500ms").Should(notFound)
		createPolicy("workers", 0, workers)
		Eventually(terms).Should(pools("workers"))
	})

	It("is put right when somebody changes or deletes it", func() {
		createPolicy("workers", 0, workers)
		Eventually(terms).Should(pools("workers"))
		existing, err := daemonSetNow()
		Expect(err).NotTo(HaveOccurred())
		everywhere := client.RawPatch(types.JSONPatchType, []byte(`[{"op":"remove","path":"/spec/template/spec/affinity"},
			{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"evil"}]`))
		Expect(admin.Patch(ctx, existing, everywhere)).To(Succeed())
		Eventually(func(g Gomega) {
			restored, err := daemonSetNow()
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(restored.Spec.Template.Spec.Affinity).NotTo(BeNil())
			g.Expect(restored.Spec.Template.Spec.Containers[0].Image).To(Equal(image))
		}).Should(Succeed())
		Expect(admin.Delete(ctx, existing)).To(Succeed())
		Eventually(daemonSetNow).Should(HaveField("UID", Not(Equal(existing.UID))))
	})

	It("is left alone while only its status and the schedules of policies change", func() {
		policy := createPolicy("workers", 0, workers)
		Eventually(terms).Should(pools("workers"))
		path := "/daemonsets/" + Name
		// The first apply shows as a change, which leads to a second one.
		count := -1
		Eventually(func() bool {
			before := count
			count = len(writes.To(path))
			return count == before
		}).MustPassRepeatedly(20).Should(BeTrue())
		existing, err := daemonSetNow()
		Expect(err).NotTo(HaveOccurred())
		before := len(writes.To(path))
		for i := range 5 {
			existing.Status.DesiredNumberScheduled = int32(i)
			Expect(admin.Status().Update(ctx, existing)).To(Succeed())
			Expect(admin.Patch(ctx, policy, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"suspend":`+strconv.FormatBool(i%2 == 0)+`}}`)))).To(Succeed())
		}
		Consistently(func() int { return len(writes.To(path)) - before }, "500ms").Should(BeZero())
		Expect(daemonSetNow()).To(HaveField("Generation", existing.Generation))
	})

	Describe("without the admission policies", func() {
		AfterEach(func() {
			_, err := server.Kubectl(ctx, "apply", "--server-side", "--force-conflicts", "-k", "config/admission")
			Expect(err).NotTo(HaveOccurred())
		})

		DescribeTable("is removed, and comes back with them",
			func(harm func() error) {
				createPolicy("workers", 0, workers)
				Eventually(terms).Should(pools("workers"))
				Expect(harm()).To(Succeed())
				Eventually(absent).Should(notFound)
				_, err := server.Kubectl(ctx, "apply", "--server-side", "--force-conflicts", "-k", "config/admission")
				Expect(err).NotTo(HaveOccurred())
				Eventually(terms).Should(pools("workers"))
			},
			Entry("policy deleted", func() error {
				policy := &admissionv1.ValidatingAdmissionPolicy{}
				policy.Name = "nodepatch-agent-own-node"
				return admin.Delete(ctx, policy)
			}),
			Entry("binding deleted", func() error {
				binding := &admissionv1.ValidatingAdmissionPolicyBinding{}
				binding.Name = "nodepatch-agent-events"
				return admin.Delete(ctx, binding)
			}),
			Entry("policy that fails open", func() error {
				policy := &admissionv1.ValidatingAdmissionPolicy{}
				policy.Name = "nodepatch-agent-events"
				return admin.Patch(ctx, policy, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"failurePolicy":"Ignore"}}`)))
			}),
			Entry("binding that only audits", func() error {
				binding := &admissionv1.ValidatingAdmissionPolicyBinding{}
				binding.Name = "nodepatch-agent-own-node"
				return admin.Patch(ctx, binding, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"validationActions":["Audit"]}}`)))
			}),
		)
	})
})
