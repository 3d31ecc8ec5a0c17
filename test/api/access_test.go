package api

import (
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

// beForbidden matches the refusal of a role or a policy, by a part of its message.
func beForbidden(message string) OmegaMatcher {
	return And(WithTransform(apierrors.IsForbidden, BeTrue()), MatchError(ContainSubstring(message)))
}

// What roles answer, and what the policies do.
const (
	byRole     = "cannot "
	notOwn     = "may not write "
	onlyStatus = "an agent writes the status of its node's PatchAssignment, PatchReport and PatchRetry and nothing else"
	noNode     = "the agent's token names no node, as it is not that of a pod on a node"
)

// ownKinds are the kinds of which an agent has an object.
var ownKinds = []string{"PatchAssignment", "PatchReport", "PatchRetry"}

var _ = Describe("an agent", Ordered, func() {
	var config *rest.Config
	var agent client.Client

	BeforeAll(func(ctx SpecContext) {
		var err error
		config, err = server.AgentConfig(ctx, "node-a")
		Expect(err).NotTo(HaveOccurred())
		agent = clientOf(config)
		_, err = server.CreateNode(ctx, "node-b", nil)
		Expect(err).NotTo(HaveOccurred())
	})

	for _, kind := range ownKinds {
		Context("and its "+kind, func() {
			// status is one that an agent may write, and secrets are ones that are the manager's.
			status, secrets := `{"summary":"fine"}`, []string{`{"handled":{"clearLog":"x"}}`}
			switch kind {
			case "PatchAssignment":
				status, secrets = `{"agent":{"message":"fine"}}`, []string{`{"controller":{"message":"x"}}`}
			case "PatchRetry":
				status = `{"counted":1,"sequence":7}`
				secrets = append(secrets, `{"clears":1}`, `{"handled":{"answer":"x"}}`)
			}
			apply := func(name, status string) (*unstructured.Unstructured, client.Patch) {
				body := fmt.Sprintf(`{"apiVersion":"nodepatch.io/v1alpha1","kind":%q,"metadata":{"name":%q},"status":%s}`, kind, name, status)
				return object(named(kind, name, "")), client.RawPatch(types.ApplyPatchType, []byte(body))
			}
			options := []client.SubResourcePatchOption{client.FieldOwner(v1alpha1.AgentFieldOwner), client.ForceOwnership}
			var own, foreign *unstructured.Unstructured
			BeforeEach(func(ctx SpecContext) {
				own, foreign = store(ctx, named(kind, "node-a", "")), store(ctx, named(kind, "node-b", ""))
			})

			It("writes its status", func(ctx SpecContext) {
				o, patch := apply("node-a", status)
				Expect(agent.Status().Patch(ctx, o, patch, options...)).To(Succeed())
				Expect(agent.Status().Patch(ctx, own.DeepCopy(), mergePatch(`{"status":`+status+`}`))).To(Succeed())
				Expect(admin.Get(ctx, client.ObjectKeyFromObject(own), own)).To(Succeed())
				want := object(`status: ` + status).Object["status"].(map[string]any)
				for key, value := range want {
					Expect(own.Object["status"]).To(HaveKeyWithValue(key, BeEquivalentTo(value)))
				}
			})
			It("leaves the manager's part of the status alone", func(ctx SpecContext) {
				for _, secret := range secrets {
					o, patch := apply("node-a", secret)
					Expect(agent.Status().Patch(ctx, o, patch, options...)).To(beForbidden("is the manager's"), secret)
					Expect(agent.Status().Patch(ctx, own.DeepCopy(), mergePatch(`{"status":`+secret+`}`))).To(beForbidden("is the manager's"), secret)
				}
				// Nor does it take away or change what is there, and what is there does not stop it.
				for _, secret := range secrets {
					stored := own.DeepCopy()
					Expect(admin.Status().Patch(ctx, stored, mergePatch(`{"status":`+secret+`}`))).To(Succeed())
					Expect(agent.Status().Patch(ctx, own.DeepCopy(), mergePatch(`{"status":null}`))).To(beForbidden("is the manager's"), secret)
					o, patch := apply("node-a", status)
					Expect(agent.Status().Patch(ctx, o, patch, options...)).To(Succeed(), secret)
					Expect(admin.Status().Patch(ctx, stored, mergePatch(`{"status":null}`))).To(Succeed())
				}
			})
			It("writes no other node's", func(ctx SpecContext) {
				o, patch := apply("node-b", status)
				Expect(agent.Status().Patch(ctx, o, patch, options...)).To(beForbidden(notOwn))
				Expect(agent.Status().Patch(ctx, foreign.DeepCopy(), mergePatch(`{"status":`+status+`}`))).To(beForbidden(notOwn))
				Expect(agent.Status().Patch(ctx, foreign.DeepCopy(), mergePatch(`{}`))).To(beForbidden(notOwn))
				Expect(agent.Status().Update(ctx, foreign.DeepCopy())).To(beForbidden(byRole))
			})
			It("changes nothing but the status", func(ctx SpecContext) {
				Expect(agent.Status().Patch(ctx, own.DeepCopy(), mergePatch(
					`{"metadata":{"labels":{"a":"b"},"annotations":{"nodepatch.io/clear-retries":"all"},"finalizers":["a.example/b"],
					  "ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"node-a","uid":"1"}]},"status":`+status+`}`))).To(Succeed())
				Expect(admin.Get(ctx, client.ObjectKeyFromObject(own), own)).To(Succeed())
				Expect(own.GetLabels()).To(BeEmpty())
				Expect(own.GetAnnotations()).To(BeEmpty())
				Expect(own.GetFinalizers()).To(BeEmpty())
				Expect(own.GetOwnerReferences()).To(BeEmpty())
			})
			It("creates, updates, patches and deletes none", func(ctx SpecContext) {
				for _, name := range []string{"node-a", "node-c"} {
					Expect(agent.Create(ctx, object(named(kind, name, "")))).To(beForbidden(byRole))
				}
				generated := object(named(kind, "x", ""))
				generated.SetName("")
				generated.SetGenerateName("node-a")
				Expect(agent.Create(ctx, generated)).To(beForbidden(byRole))
				Expect(agent.Update(ctx, own.DeepCopy())).To(beForbidden(byRole))
				Expect(agent.Patch(ctx, own.DeepCopy(), mergePatch(`{}`))).To(beForbidden(byRole))
				Expect(agent.Delete(ctx, own.DeepCopy())).To(beForbidden(byRole))
				Expect(agent.DeleteAllOf(ctx, own.DeepCopy())).To(beForbidden(byRole))
			})
			It("reads none but assignments, and these without getting one", func(ctx SpecContext) {
				Expect(agent.Get(ctx, client.ObjectKeyFromObject(foreign), foreign.DeepCopy())).To(beForbidden(byRole))
				list := &unstructured.UnstructuredList{}
				list.SetGroupVersionKind(foreign.GroupVersionKind())
				err := agent.List(ctx, list, client.MatchingFields{"metadata.name": "node-a"})
				if kind == "PatchAssignment" {
					Expect(err).NotTo(HaveOccurred())
					Expect(list.Items).To(HaveLen(1))
				} else {
					Expect(err).To(beForbidden(byRole))
				}
			})
			It("is stopped by the policy where a role would allow more", func(ctx SpecContext) {
				trusted := withMoreRights(ctx, config)
				Expect(trusted.Create(ctx, object(named(kind, "node-c", "")))).To(beForbidden(notOwn))
				Expect(trusted.Update(ctx, own.DeepCopy())).To(beForbidden(onlyStatus))
				Expect(trusted.Patch(ctx, own.DeepCopy(), mergePatch(`{}`))).To(beForbidden(onlyStatus))
				Expect(trusted.Delete(ctx, own.DeepCopy())).To(beForbidden(onlyStatus))
				Expect(trusted.Delete(ctx, foreign.DeepCopy())).To(beForbidden(notOwn))
				Expect(trusted.DeleteAllOf(ctx, foreign.DeepCopy())).To(beForbidden("nodepatch-agent-own-node"))
				Expect(trusted.Status().Update(ctx, foreign.DeepCopy())).To(beForbidden(notOwn))
				generated := object(named(kind, "x", ""))
				generated.SetName("")
				generated.SetGenerateName("node-a")
				Expect(trusted.Create(ctx, generated)).To(beForbidden("nodepatch-agent-own-node"))
				Expect(admin.Delete(ctx, own.DeepCopy())).To(Succeed())
				Expect(trusted.Create(ctx, object(named(kind, "node-a", "")))).To(beForbidden(onlyStatus))
			})
			It("writes nothing with a token of no pod, or of a pod on no node", func(ctx SpecContext) {
				pod, err := server.AgentPod(ctx, "")
				Expect(err).NotTo(HaveOccurred())
				for _, pod := range []*corev1.Pod{nil, pod} {
					config, err := server.AccountConfig(ctx, apiserver.AgentAccount, pod)
					Expect(err).NotTo(HaveOccurred())
					Expect(clientOf(config).Status().Patch(ctx, own.DeepCopy(), mergePatch(`{"status":`+status+`}`))).To(beForbidden(noNode))
				}
			})
		})
	}

	It("touches no policy and no task, even of its node's name", func(ctx SpecContext) {
		task := store(ctx, named("PatchTask", "node-a", "spec: {policy: a, task: b}"))
		Expect(agent.Status().Patch(ctx, task.DeepCopy(), mergePatch(`{"status":{"phase":"Complete"}}`))).To(beForbidden(byRole))
		Expect(agent.Get(ctx, client.ObjectKeyFromObject(task), task.DeepCopy())).To(Succeed(), "it reads what its task has pinned")
		Expect(withMoreRights(ctx, config).Status().Patch(ctx, task.DeepCopy(), mergePatch(`{"status":{"phase":"Complete"}}`))).To(beForbidden(onlyStatus))
	})

	It("reads and changes nothing else in the cluster", func(ctx SpecContext) {
		for _, list := range []client.ObjectList{
			&corev1.SecretList{}, &corev1.NodeList{}, &corev1.PodList{}, &corev1.EventList{}, &corev1.ConfigMapList{},
			&v1alpha1.PatchReportList{}, &v1alpha1.PatchRetryList{}, &v1alpha1.PatchPolicyList{}, &v1alpha1.PatchTaskList{},
		} {
			Expect(agent.List(ctx, list)).To(beForbidden(byRole))
			Expect(agent.List(ctx, list, client.InNamespace(apiserver.Namespace))).To(beForbidden(byRole))
		}
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}}
		Expect(agent.Get(ctx, client.ObjectKeyFromObject(node), node.DeepCopy())).To(beForbidden(byRole))
		Expect(agent.Patch(ctx, node.DeepCopy(), mergePatch(`{"spec":{"unschedulable":true}}`))).To(beForbidden(byRole))
		Expect(agent.Status().Patch(ctx, node.DeepCopy(), mergePatch(`{"status":{}}`))).To(beForbidden(byRole))
	})
})

// withMoreRights is the same token where somebody gave agents every right in nodepatch.io: the policies
// hold nevertheless. The role goes at the end of the spec.
func withMoreRights(ctx SpecContext, config *rest.Config) client.Client {
	GinkgoHelper()
	more := clientOf(config)
	DeferCleanup(func(ctx SpecContext) {
		Eventually(func() error { return more.List(ctx, &v1alpha1.PatchReportList{}) }).Should(beForbidden(byRole), "the role is gone")
	})
	grant(ctx, "extra", `- {apiGroups: [nodepatch.io], resources: ["*"], verbs: ["*"]}
- {apiGroups: ["", events.k8s.io], resources: [events], verbs: ["*"]}`, apiserver.AgentAccount)
	Eventually(func() error { return more.List(ctx, &v1alpha1.PatchReportList{}) }).Should(Succeed(), "the role is known")
	Eventually(func() error { return more.List(ctx, &eventsv1.EventList{}) }).Should(Succeed(), "the role is known")
	return more
}

// grant gives an account rights until the end of the spec.
func grant(ctx SpecContext, name, rules, account string) {
	GinkgoHelper()
	for _, manifest := range []string{
		"apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: " + name + "}\nrules:\n" + rules,
		"apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: " + name + "}\n" +
			"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: " + name + "}\n" +
			"subjects: [{kind: ServiceAccount, name: " + account + ", namespace: " + apiserver.Namespace + "}]",
	} {
		o := object(manifest)
		Expect(admin.Create(ctx, o)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, o)).To(Succeed()) })
	}
}
