package api

import (
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

var _ = Describe("the roles", func() {
	It("have no wildcard", func(ctx SpecContext) {
		var rules []rbacv1.PolicyRule
		clusterRoles, roles := &rbacv1.ClusterRoleList{}, &rbacv1.RoleList{}
		Expect(admin.List(ctx, clusterRoles)).To(Succeed())
		Expect(admin.List(ctx, roles)).To(Succeed())
		found := 0
		for _, role := range clusterRoles.Items {
			if len(role.Name) > 10 && role.Name[:10] == "nodepatch-" {
				found++
				rules = append(rules, role.Rules...)
			}
		}
		for _, role := range roles.Items {
			if len(role.Name) > 10 && role.Name[:10] == "nodepatch-" {
				found++
				rules = append(rules, role.Rules...)
			}
		}
		Expect(found).To(BeNumerically(">=", 7))
		for _, rule := range rules {
			all := slices.Concat(rule.APIGroups, rule.Resources, rule.Verbs, rule.NonResourceURLs)
			Expect(all).NotTo(ContainElement(ContainSubstring("*")), "%v", rule)
		}
	})

	It("let the manager read what it needs and not what it has no business with", func(ctx SpecContext) {
		config, err := server.ManagerConfig(ctx)
		Expect(err).NotTo(HaveOccurred())
		manager := clientOf(config)
		for _, list := range []client.ObjectList{
			&corev1.NodeList{}, &v1alpha1.PatchPolicyList{}, &v1alpha1.PatchTaskList{},
			&v1alpha1.PatchReportList{}, &v1alpha1.PatchRetryList{}, &v1alpha1.PatchAssignmentList{},
		} {
			Expect(manager.List(ctx, list)).To(Succeed())
		}
		Expect(manager.List(ctx, &corev1.PodList{})).To(Succeed())
		for _, list := range []client.ObjectList{&corev1.SecretList{}, &corev1.ConfigMapList{}, &corev1.ServiceAccountList{}} {
			Expect(manager.List(ctx, list)).To(beForbidden(byRole))
		}
		Expect(manager.List(ctx, &corev1.SecretList{}, client.InNamespace(apiserver.Namespace))).To(beForbidden(byRole))

		// It answers people, and never rewrites what they asked for.
		policy := object(named("PatchPolicy", "roles", "spec: {nodeSelector: {}}"))
		Expect(manager.Create(ctx, policy.DeepCopy(), client.DryRunAll)).To(beForbidden(byRole))
		stored := store(ctx, named("PatchPolicy", "roles", "spec: {nodeSelector: {}}"))
		Expect(manager.Patch(ctx, stored.DeepCopy(), mergePatch(`{"spec":{"suspend":true}}`))).To(beForbidden("and change nothing else"))
		Expect(manager.Status().Patch(ctx, stored.DeepCopy(), mergePatch(`{"status":{"observedGeneration":1}}`), client.FieldOwner("x"))).To(Succeed())

		// The manager clears counts, and takes the button away that asked for it.
		retry := store(ctx, named("PatchRetry", "roles", "status: {counted: 1}"))
		Expect(manager.Status().Patch(ctx, retry.DeepCopy(), mergePatch(`{"status":{"clears":1}}`))).To(Succeed())
		Expect(manager.Patch(ctx, retry.DeepCopy(), mergePatch(`{"metadata":{"annotations":{"nodepatch.io/clear-retries":null}}}`))).To(Succeed())
		Expect(manager.Status().Update(ctx, retry.DeepCopy())).To(beForbidden(byRole))

		// A report is what the agent found, but for the buttons that were pressed on it.
		report := store(ctx, named("PatchReport", "roles", "status: {summary: 1 is missing, counts: {missing: 1}}"))
		for _, patch := range []string{
			`{"status":{"summary":"all is well"}}`, `{"status":{"summary":null}}`, `{"status":{"counts":{"missing":0}}}`,
			`{"status":{"policy":"workers"}}`, `{"status":null}`, `{"status":{"handled":{"presses":1},"agentVersion":"v9"}}`,
		} {
			Expect(manager.Status().Patch(ctx, report.DeepCopy(), mergePatch(patch))).To(beForbidden("the rest is the agent's"), patch)
		}
		for _, patch := range []string{`{"status":{"handled":{"presses":1}}}`, `{"status":{"handled":{"presses":2}}}`, `{"status":{"handled":null}}`} {
			Expect(manager.Status().Patch(ctx, report.DeepCopy(), mergePatch(patch))).To(Succeed(), patch)
		}

		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}}
		Expect(manager.Delete(ctx, node)).To(beForbidden(byRole))

		// Pods are evicted, with respect to their PodDisruptionBudgets. It makes pods, of hooks, in its own namespace alone.
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "roles", Namespace: "default"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		}
		Expect(manager.Create(ctx, pod.DeepCopy(), client.DryRunAll)).To(beForbidden(byRole))
		Expect(manager.Delete(ctx, pod.DeepCopy())).To(beForbidden(byRole))
		hook := pod.DeepCopy()
		hook.Namespace = apiserver.Namespace
		Expect(manager.Create(ctx, hook, client.DryRunAll)).To(Succeed())
		Expect(manager.Patch(ctx, hook, mergePatch(`{"metadata":{"labels":{"a":"b"}}}`))).To(beForbidden(byRole))
		eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "roles", Namespace: "default"}}
		Expect(manager.SubResource("eviction").Create(ctx, pod.DeepCopy(), eviction)).To(Satisfy(apierrors.IsNotFound), "allowed, but there is no such pod")
	})

	It("let a viewer look and not touch", func(ctx SpecContext) {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "viewer", Namespace: apiserver.Namespace}}
		Expect(admin.Create(ctx, account)).To(Succeed())
		binding := object("apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: viewer}\n" +
			"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: nodepatch-viewer}\n" +
			"subjects: [{kind: ServiceAccount, name: viewer, namespace: " + apiserver.Namespace + "}]")
		Expect(admin.Create(ctx, binding)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) {
			Expect(admin.Delete(ctx, binding)).To(Succeed())
			Expect(admin.Delete(ctx, account)).To(Succeed())
		})
		config, err := server.AccountConfig(ctx, "viewer", nil)
		Expect(err).NotTo(HaveOccurred())
		viewer := clientOf(config)
		Eventually(func() error { return viewer.List(ctx, &v1alpha1.PatchReportList{}) }).Should(Succeed(), "the role is known")
		Expect(viewer.List(ctx, &corev1.EventList{})).To(Succeed())
		task := object(named("PatchTask", "viewer", "spec: {policy: a, task: b}"))
		Expect(viewer.Create(ctx, task)).To(Satisfy(apierrors.IsForbidden))
		stored := store(ctx, named("PatchTask", "viewer", "spec: {policy: a, task: b}"))
		Expect(viewer.Patch(ctx, stored, mergePatch(`{"metadata":{"annotations":{"nodepatch.io/stop":"x"}}}`))).To(beForbidden(byRole))
	})
})

var _ = Describe("the manifests", func() {
	It("set the image of the manager and of the agents in one place", func(ctx SpecContext) {
		deployment := object(kubectl(ctx, "get", "deployment", "-n", apiserver.Namespace, "nodepatch-manager", "-o", "yaml"))
		spec := deployment.Object["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
		container := spec["containers"].([]any)[0].(map[string]any)
		Expect(container["image"]).To(Equal("nodepatch:dev"))
		Expect(container["env"]).To(ContainElement(Equal(map[string]any{"name": "AGENT_IMAGE", "value": container["image"]})))
		Expect(container["args"]).To(ContainElement("--agent-image=$(AGENT_IMAGE)"))
	})

	It("would run the manager where pods may do nothing special", func(ctx SpecContext) {
		namespace := object("apiVersion: v1\nkind: Namespace\nmetadata: {name: restricted, labels: {pod-security.kubernetes.io/enforce: restricted}}")
		Expect(admin.Create(ctx, namespace)).To(Succeed())
		deployment := object(kubectl(ctx, "get", "deployment", "-n", apiserver.Namespace, "nodepatch-manager", "-o", "yaml"))
		pod := object("apiVersion: v1\nkind: Pod\nmetadata: {name: manager, namespace: restricted}")
		pod.Object["spec"] = deployment.Object["spec"].(map[string]any)["template"].(map[string]any)["spec"]
		Expect(admin.Create(ctx, pod, client.DryRunAll)).To(Succeed())
		security := pod.Object["spec"].(map[string]any)["securityContext"].(map[string]any)
		security["runAsNonRoot"] = false
		Expect(admin.Create(ctx, pod, client.DryRunAll)).To(beForbidden("violates PodSecurity"))
	})
})
