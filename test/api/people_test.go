package api

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/test/apiserver"
)

// People, by what they may do. The objects that they try things on are named "people" all.
const (
	viewer   = "viewer"   // looks
	operator = "operator" // and starts tasks, and presses buttons
	decider  = "decider"  // and writes policies: nodepatch-admin
	root     = "root"     // everything: cluster-admin
	editor   = "editor"   // changes everything of ours, and holds no verb of ours
	patcher  = "patcher"  // patches everything of ours, and holds no verb of ours
	clearer  = "clearer"  // clears the counts of the node people, and nothing else
	starter  = "starter"  // starts the tasks of the policy people, and nothing else
)

var everybody = []string{viewer, operator, decider, root, editor, patcher, clearer, starter}

// kindsWithButtons are the kinds that carry buttons, by resource.
var kindsWithButtons = map[string]string{
	"patchpolicies": "PatchPolicy", "patchtasks": "PatchTask", "patchreports": "PatchReport", "patchretries": "PatchRetry",
}

// person is a client of one of the people.
func person(name string) client.Client {
	GinkgoHelper()
	config := rest.CopyConfig(server.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: name}
	return clientOf(config)
}

// employ gives everybody their rights until the end of the container, and waits until roles and policies
// are in force.
func employ(ctx SpecContext) {
	GinkgoHelper()
	const all = `{apiGroups: [nodepatch.io], resources: [patchpolicies, patchtasks, patchreports, patchretries], verbs: `
	for name, rules := range map[string]string{
		editor:  `- ` + all + `[get, list, watch, create, update, patch, delete]}`,
		patcher: `- ` + all + `[get, list, watch, patch]}`,
		clearer: `- {apiGroups: [nodepatch.io], resources: [patchretries], resourceNames: [people], verbs: [get, patch, clear-retries]}`,
		starter: `- {apiGroups: [nodepatch.io], resources: [patchpolicies], resourceNames: [people], verbs: [start]}
- {apiGroups: [nodepatch.io], resources: [patchtasks], verbs: [create]}`,
	} {
		hold(ctx, "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: people-"+name+"}\nrules:\n"+rules)
	}
	for name, role := range map[string]string{
		viewer: "nodepatch-viewer", operator: "nodepatch-operator", decider: "nodepatch-admin", root: "cluster-admin",
		editor: "people-editor", patcher: "people-patcher", clearer: "people-clearer", starter: "people-starter",
	} {
		hold(ctx, binding("people-"+name, role, name))
	}
	probe := named("PatchTask", "probe", "spec: {policy: people, task: weekly}")
	stored, task := store(ctx, named("PatchReport", "probe", "")), store(ctx, named("PatchTask", "probe-1", "spec: {policy: people, task: weekly}"))
	for name, refused := range map[string]string{
		viewer: byRole, operator: "", decider: "", root: "", editor: "may not start", patcher: byRole, clearer: byRole, starter: "",
	} {
		user := person(name)
		Eventually(func() error { return user.Create(ctx, object(probe), client.DryRunAll) }).Should(answer(refused), name)
	}
	Eventually(func() error {
		return person(patcher).Patch(ctx, stored.DeepCopy(), mergePatch(`{"metadata":{"labels":{"a":"b"}}}`), client.DryRunAll)
	}).Should(answer("change nothing else"))
	Eventually(func() error {
		return person(patcher).Patch(ctx, stored.DeepCopy(), mergePatch(`{"metadata":{"annotations":{"nodepatch.io/clear-log":""}}}`), client.DryRunAll)
	}).Should(answer("may not press"))
	for metadata, refused := range map[string]string{
		`{"annotations":{"nodepatch.io/stopped-by":"root"}}`:                                                          stampMessage,
		`{"ownerReferences":[{"apiVersion":"nodepatch.io/v1alpha1","kind":"PatchPolicy","name":"people","uid":"1"}]}`: "only the schedule of a policy owns tasks",
	} {
		Eventually(func() error {
			return admin.Patch(ctx, task.DeepCopy(), mergePatch(`{"metadata":`+metadata+`}`), client.DryRunAll)
		}).Should(answer(refused))
	}
}

// hold creates a manifest's object until the end of the spec or container.
func hold(ctx SpecContext, manifest string) {
	GinkgoHelper()
	o := object(manifest)
	Expect(admin.Create(ctx, o)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, o)).To(Succeed()) })
}

// binding is a manifest that gives a user a role.
func binding(name, role, user string) string {
	return "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: " + name + "}\n" +
		"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: " + role + "}\n" +
		"subjects: [{kind: User, name: \"" + user + "\"}]"
}

// answer matches success, or a refusal by a part of its message.
func answer(refused string) OmegaMatcher {
	if refused == accepted {
		return Succeed()
	}
	return MatchError(ContainSubstring(refused))
}

// subjects creates an object of each kind with buttons, on which there is something to act.
func subjects(ctx SpecContext, name string) map[string]*unstructured.Unstructured {
	GinkgoHelper()
	return map[string]*unstructured.Unstructured{
		"patchpolicies": store(ctx, named("PatchPolicy", name, "spec: {nodeSelector: {}}")),
		"patchtasks":    store(ctx, named("PatchTask", name, "spec: {policy: people, task: weekly}\nstatus: {phase: Running}")),
		"patchreports":  store(ctx, named("PatchReport", name, "")),
		"patchretries":  store(ctx, named("PatchRetry", name, "status: {counted: 1, patches: [{name: ham, version: \"1\", downloadFailures: 1}]}")),
	}
}

// ways are how a person sets the annotations of an object, all but stores them. A nil value is none. What
// was there is owned by field manager "person".
var ways = map[string]func(ctx SpecContext, user client.Client, target *unstructured.Unstructured, key string, value *string) error{
	"kubectl annotate": func(ctx SpecContext, user client.Client, target *unstructured.Unstructured, key string, value *string) error {
		text := "null"
		if value != nil {
			text = fmt.Sprintf("%q", *value)
		}
		return user.Patch(ctx, target.DeepCopy(), mergePatch(fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, key, text)), client.DryRunAll)
	},
	"kubectl replace": func(ctx SpecContext, user client.Client, target *unstructured.Unstructured, key string, value *string) error {
		target = target.DeepCopy()
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(target), target)).To(Succeed())
		unstructured.RemoveNestedField(target.Object, "metadata", "annotations", key)
		if value != nil {
			Expect(unstructured.SetNestedField(target.Object, *value, "metadata", "annotations", key)).To(Succeed())
		}
		return user.Update(ctx, target, client.DryRunAll)
	},
	"kubectl apply --server-side": func(ctx SpecContext, user client.Client, target *unstructured.Unstructured, key string, value *string) error {
		return apply(ctx, user, target, key, value, client.DryRunAll)
	},
}

func apply(ctx SpecContext, user client.Client, target *unstructured.Unstructured, key string, value *string, options ...client.PatchOption) error {
	annotations := ""
	if value != nil {
		annotations = fmt.Sprintf(`,"annotations":{%q:%q}`, key, *value)
	}
	body := fmt.Sprintf(`{"apiVersion":"nodepatch.io/v1alpha1","kind":%q,"metadata":{"name":%q%s}}`, target.GetKind(), target.GetName(), annotations)
	options = append(slices.Clone(options), client.FieldOwner("person"), client.ForceOwnership)
	return user.Patch(ctx, target.DeepCopy(), client.RawPatch(types.ApplyPatchType, []byte(body)), options...)
}

// theManager is a client with the manager's own token.
func theManager(ctx SpecContext) client.Client {
	GinkgoHelper()
	config, err := server.ManagerConfig(ctx)
	Expect(err).NotTo(HaveOccurred())
	return clientOf(config)
}

// impostor is a client of a ServiceAccount of the manager's name in a namespace of somebody else's, who gave
// it all the rights that he has himself: those of an editor.
func impostor(ctx SpecContext) client.Client {
	GinkgoHelper()
	name := "system:serviceaccount:elsewhere:" + apiserver.ManagerAccount
	hold(ctx, binding("people-impostor", "people-editor", name))
	user := person(name)
	Eventually(func() error {
		return user.Create(ctx, object(named("PatchReport", "probe-2", "")), client.DryRunAll)
	}).Should(Succeed(), "the role is known")
	return user
}

// overlayOf makes a directory with a kustomization in it, inside of the project as kustomize has it.
func overlayOf(kustomization string) string {
	GinkgoHelper()
	dir, err := os.MkdirTemp(filepath.Join(apiserver.Root(), "bin"), "overlay-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, dir)
	Expect(os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(kustomization), 0o600)).To(Succeed())
	return dir
}
