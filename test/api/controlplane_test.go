package api

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

var _ = Describe("beside the controllers of Kubernetes", Ordered, func() {
	BeforeAll(func(ctx SpecContext) {
		runControllerManager(ctx)
		employ(ctx)
	})

	It("an owned task goes with its policy, and one that is orphaned stays", func(ctx SpecContext) {
		for name, propagation := range map[string]string{"background": "background", "foreground": "foreground", "orphan": "orphan"} {
			policy := object(named("PatchPolicy", "people-"+name, "spec: {nodeSelector: {}}"))
			Expect(admin.Create(ctx, policy)).To(Succeed())
			task := object(named("PatchTask", "people-"+name+"-1", "spec: {policy: people-"+name+", task: weekly}"))
			task.Object["metadata"].(map[string]any)["ownerReferences"] = []any{map[string]any{
				"apiVersion": "nodepatch.io/v1alpha1", "kind": "PatchPolicy", "name": policy.GetName(), "uid": string(policy.GetUID()), "controller": true,
			}}
			Expect(theManager(ctx).Create(ctx, task)).To(Succeed())
			DeferCleanup(func(ctx SpecContext) { Expect(client.IgnoreNotFound(admin.Delete(ctx, task))).To(Succeed()) })
			kubectl(ctx, "delete", "patchpolicy", policy.GetName(), "--cascade="+propagation, "--wait=false")
			tasks := func() []v1alpha1.PatchTask {
				list := &v1alpha1.PatchTaskList{}
				Expect(admin.List(ctx, list, client.MatchingFields{"metadata.name": task.GetName()})).To(Succeed())
				return list.Items
			}
			if propagation == "orphan" {
				Eventually(tasks, "30s").Should(ConsistOf(HaveField("OwnerReferences", BeEmpty())), "it was let go")
			} else {
				Eventually(tasks, "30s").Should(BeEmpty(), propagation)
			}
			Eventually(func() error { return admin.Get(ctx, client.ObjectKeyFromObject(policy), policy) }, "30s").Should(answer("not found"))
		}
	})

	It("who holds view looks, and neither edit nor admin carries a verb that does anything", func(ctx SpecContext) {
		task := store(ctx, named("PatchTask", "people", "spec: {policy: people, task: weekly}"))
		for _, role := range []string{"view", "edit", "admin"} {
			hold(ctx, binding("people-"+role, role, "a-"+role))
			user := person("a-" + role)
			Eventually(func() error { return user.List(ctx, &v1alpha1.PatchReportList{}) }, "30s").Should(Succeed(), "the role is known")
			Expect(user.Create(ctx, object(named("PatchTask", "mine", "spec: {policy: people, task: weekly}")))).To(beForbidden(byRole))
			Expect(user.Patch(ctx, task.DeepCopy(), mergePatch(`{"metadata":{"annotations":{"nodepatch.io/stop":""}}}`))).To(beForbidden(byRole))
			Expect(user.Delete(ctx, task.DeepCopy())).To(beForbidden(byRole))
			stored := &rbacv1.ClusterRole{}
			Expect(admin.Get(ctx, client.ObjectKey{Name: role}, stored)).To(Succeed())
			for _, rule := range stored.Rules {
				if len(rule.APIGroups) == 1 && rule.APIGroups[0] == v1alpha1.GroupVersion.Group {
					Expect(rule.Verbs).To(ConsistOf("get", "list", "watch"), role)
				}
			}
		}
	})

	It("the expressions of the policies fit the types", func(ctx SpecContext) {
		list := &admissionv1.ValidatingAdmissionPolicyList{}
		Eventually(func() []admissionv1.ValidatingAdmissionPolicy {
			Expect(admin.List(ctx, list)).To(Succeed())
			return list.Items
		}, "30s").Should(HaveEach(HaveField("Status.TypeChecking", Not(BeNil()))), "all were looked at")
		for _, policy := range list.Items {
			Expect(policy.Status.TypeChecking.ExpressionWarnings).To(BeEmpty(), policy.Name)
		}
	})
})

// runControllerManager runs those of Kubernetes' controllers that roles, owners and admission policies have to
// do with, under their own accounts, until the end of the container.
func runControllerManager(ctx SpecContext) {
	GinkgoHelper()
	program := filepath.Join(cmp.Or(os.Getenv("KUBEBUILDER_ASSETS"), filepath.Join(apiserver.Root(), "bin", "k8s")), "kube-controller-manager")
	if _, err := os.Stat(program); err != nil {
		unable("These specs need kube-controller-manager, which \"make k8s\" builds: " + err.Error())
	}
	dir := GinkgoT().TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	Expect(os.WriteFile(kubeconfig, []byte(kubectl(ctx, "config", "view", "--raw")), 0o600)).To(Succeed())
	command := exec.CommandContext(context.Background(), program, "--kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig,
		"--authorization-kubeconfig="+kubeconfig, "--leader-elect=false", "--use-service-account-credentials", "--secure-port=0",
		"--controllers=garbage-collector-controller,clusterrole-aggregation-controller,validatingadmissionpolicy-status-controller")
	command.Stdout, command.Stderr = GinkgoWriter, GinkgoWriter
	Expect(command.Start()).To(Succeed())
	DeferCleanup(func() {
		Expect(command.Process.Signal(syscall.SIGTERM)).To(Succeed())
		kill := time.AfterFunc(20*time.Second, func() { _ = command.Process.Kill() })
		defer kill.Stop()
		_ = command.Wait() // it says that it was told to end
	})
}

// unable skips specs that cannot run here. Under CI=true they fail instead.
func unable(why string) {
	GinkgoHelper()
	if os.Getenv("CI") == "true" {
		Fail(why)
	}
	Skip(why)
}
