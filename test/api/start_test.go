package api

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	namedTask   = "{policy: people, task: weekly}"
	ownTask     = "{policy: people, template: {action: Scan}}"
	foreignTask = "{policy: strangers, task: weekly}"
)

var _ = Describe("a task", Ordered, func() {
	BeforeAll(employ)

	DescribeTable("is started by who holds the verb on its policy",
		func(ctx SpecContext, user, spec, refused string) {
			task := object(named("PatchTask", "mine", "spec: "+spec))
			generated := task.DeepCopy()
			generated.SetName("")
			generated.SetGenerateName("mine-")
			u := person(user)
			Expect(u.Create(ctx, task.DeepCopy(), client.DryRunAll)).To(answer(refused))
			Expect(u.Create(ctx, generated, client.DryRunAll)).To(answer(refused))
			body, err := task.MarshalJSON()
			Expect(err).NotTo(HaveOccurred())
			if user == starter {
				refused = "cannot patch resource"
			}
			Expect(u.Patch(ctx, task.DeepCopy(), client.RawPatch(types.ApplyPatchType, body), client.FieldOwner("person"), client.DryRunAll)).To(answer(refused))
		},
		Entry("the viewer", viewer, namedTask, byRole),
		Entry("the operator", operator, namedTask, accepted),
		Entry("the operator, of another policy", operator, foreignTask, accepted),
		Entry("the operator, with a template", operator, ownTask,
			"operator may not start a task with a template of its own on the nodes of the policy people: "+
				"that takes the verb override on patchpolicies/people; name one of its tasks instead"),
		Entry("the admin", decider, namedTask, accepted),
		Entry("the admin, with a template", decider, ownTask, accepted),
		Entry("the cluster's admin, with a template", root, ownTask, accepted),
		Entry("the editor", editor, namedTask, "editor may not start a task of the policy people: that takes the verb start on patchpolicies/people"),
		Entry("the editor, with a template", editor, ownTask, "editor may not start a task with a template of its own on the nodes of the policy people"),
		Entry("who may start that policy's", starter, namedTask, accepted),
		Entry("who may start another policy's", starter, foreignTask, "starter may not start a task of the policy strangers"),
		Entry("who may start that policy's, with a template", starter, ownTask, "starter may not start a task with a template of its own"),
	)

	It("is refused to who may override and not start, if it is the policy's own", func(ctx SpecContext) {
		hold(ctx, "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: people-overrider}\nrules:\n"+
			"- {apiGroups: [nodepatch.io], resources: [patchpolicies], verbs: [override]}\n- {apiGroups: [nodepatch.io], resources: [patchtasks], verbs: [create]}")
		hold(ctx, binding("people-overrider", "people-overrider", "overrider"))
		Eventually(func() error {
			return person("overrider").Create(ctx, object(named("PatchTask", "mine", "spec: "+ownTask)), client.DryRunAll)
		}).Should(Succeed(), "the role is known")
		Expect(person("overrider").Create(ctx, object(named("PatchTask", "mine", "spec: "+namedTask)), client.DryRunAll)).To(answer("overrider may not start a task of"))
	})

	It("is refused by a policy that leaves it to its schedule", func(ctx SpecContext) {
		policy := store(ctx, named("PatchPolicy", "people", "spec: {nodeSelector: {}, manualTasks: Denied}"))
		store(ctx, named("PatchPolicy", "strangers", "spec: {nodeSelector: {}}"))
		const denied = "the policy people lets only its schedule start tasks (manualTasks: Denied)"
		try := func(user client.Client, spec string) error {
			return user.Create(ctx, object(named("PatchTask", "mine", "spec: "+spec)), client.DryRunAll)
		}
		Eventually(func() error { return try(person(operator), namedTask) }).Should(beForbidden(denied), "the policy is known")
		for _, user := range []string{operator, decider, root, starter} {
			Expect(try(person(user), namedTask)).To(beForbidden(denied), user)
		}
		Expect(try(person(root), ownTask)).To(beForbidden(denied))
		Expect(try(impostor(ctx), namedTask)).To(beForbidden(""))
		Expect(try(person(operator), foreignTask)).To(Succeed(), "another policy")
		Expect(try(person(operator), "{policy: nowhere, task: weekly}")).To(Succeed(), "the manager waits for a policy that is not there yet")
		Expect(admin.Patch(ctx, policy, mergePatch(`{"spec":{"manualTasks":"Allowed"}}`))).To(Succeed())
		Eventually(func() error { return try(person(operator), namedTask) }).Should(Succeed(), "the policy is known")
	})

	It("is the manager's to start for the schedule, with the policy as its owner", func(ctx SpecContext) {
		manager := theManager(ctx)
		policy := store(ctx, named("PatchPolicy", "people", "spec: {nodeSelector: {}, manualTasks: Denied}"))
		Eventually(func() error {
			return person(operator).Create(ctx, object(named("PatchTask", "mine", "spec: "+namedTask)), client.DryRunAll)
		}).Should(answer("manualTasks: Denied"), "the policy is known")
		for _, spec := range []string{namedTask, ownTask} {
			task := object(named("PatchTask", "people-weekly-1", "spec: "+spec))
			task.Object["metadata"].(map[string]any)["ownerReferences"] = []any{map[string]any{
				"apiVersion": "nodepatch.io/v1alpha1", "kind": "PatchPolicy", "name": "people", "uid": string(policy.GetUID()), "controller": true,
			}}
			Expect(manager.Create(ctx, task)).To(Succeed())
			Expect(manager.Status().Patch(ctx, task.DeepCopy(), mergePatch(`{"status":{"phase":"Complete"}}`))).To(Succeed())
			Expect(manager.Delete(ctx, task)).To(Succeed())
		}
	})
})

var _ = Describe("the owner of a task", Ordered, func() {
	BeforeAll(employ)
	owned := func(kind string, controller bool) map[string]any {
		return map[string]any{"apiVersion": "nodepatch.io/v1alpha1", "kind": kind, "name": "people", "uid": "5b2a", "controller": controller}
	}
	DescribeTable("is given by nobody but the manager",
		func(ctx SpecContext, owner map[string]any, refused string) {
			task := object(named("PatchTask", "mine", "spec: "+namedTask))
			task.Object["metadata"].(map[string]any)["ownerReferences"] = []any{owner}
			for _, user := range []string{operator, decider, root} {
				Expect(person(user).Create(ctx, task.DeepCopy(), client.DryRunAll)).To(answer(refused), user)
			}
			stored := store(ctx, named("PatchTask", "mine", "spec: "+namedTask))
			for _, user := range []string{decider, root} {
				changed := stored.DeepCopy()
				changed.Object["metadata"].(map[string]any)["ownerReferences"] = []any{owner}
				Expect(person(user).Update(ctx, changed, client.DryRunAll)).To(answer(refused), user)
			}
		},
		Entry("if it is a policy that controls it", owned("PatchPolicy", true), "only the schedule of a policy owns tasks: leave out the owner PatchPolicy/people"),
		Entry("if it is a policy", owned("PatchPolicy", false), "only the schedule of a policy owns tasks: leave out the owner PatchPolicy/people"),
		Entry("if it controls it under another name", owned("Workflow", true), "only the schedule of a policy owns tasks: leave out the owner Workflow/people"),
		Entry("unless it is something else", owned("Workflow", false), accepted),
	)

	It("is let go by the garbage collector by whatever patch, and stays where people press buttons", func(ctx SpecContext) {
		policy := store(ctx, named("PatchPolicy", "people", "spec: {nodeSelector: {}}"))
		task := object(named("PatchTask", "people-weekly-1", "spec: "+namedTask))
		owner := owned("PatchPolicy", true)
		owner["uid"], owner["blockOwnerDeletion"] = string(policy.GetUID()), true
		task.Object["metadata"].(map[string]any)["ownerReferences"] = []any{owner}
		Expect(admin.Create(ctx, task.DeepCopy())).To(answer("only the schedule of a policy owns tasks"), "not even an administrator")
		Expect(theManager(ctx).Create(ctx, task)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, task)).To(Succeed()) })

		Expect(person(operator).Patch(ctx, task.DeepCopy(), mergePatch(`{"metadata":{"annotations":{"nodepatch.io/stop":"x"}}}`))).To(Succeed())
		collector := person("system:serviceaccount:kube-system:generic-garbage-collector")
		unblocked := `{"metadata":{"uid":"` + string(task.GetUID()) + `","ownerReferences":[{"apiVersion":"nodepatch.io/v1alpha1","kind":"PatchPolicy","name":"people","uid":"` +
			string(policy.GetUID()) + `","controller":true,"blockOwnerDeletion":false}]}}`
		Expect(collector.Patch(ctx, task.DeepCopy(), mergePatch(unblocked))).To(Succeed())
		Expect(collector.Patch(ctx, task.DeepCopy(), mergePatch(`{"metadata":{"finalizers":["foregroundDeletion"]}}`), client.DryRunAll)).To(Succeed())
		Expect(collector.Patch(ctx, task.DeepCopy(), mergePatch(`{"metadata":{"ownerReferences":null}}`))).To(Succeed())
		Expect(person(operator).Patch(ctx, task.DeepCopy(), mergePatch(`{"metadata":{"annotations":{"nodepatch.io/stop":null}}}`))).To(Succeed())
		Expect(collector.Delete(ctx, policy.DeepCopy(), client.DryRunAll)).To(Succeed())
	})
})
