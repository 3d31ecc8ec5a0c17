package api

import (
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// buttons are all there are, each with the resources that carry it, a value, and another.
var buttons = map[string]struct {
	on            []string
	value, second string
}{
	"stop":              {[]string{"patchtasks"}, "wrong week", "wrong month"},
	"clear-retries":     {[]string{"patchretries", "patchpolicies"}, "all", "ham,egg=1.1@2026-11-22"},
	"clear-log":         {[]string{"patchtasks", "patchreports", "patchpolicies"}, "", "2026-11-22"},
	"update-patch-data": {[]string{"patchreports", "patchpolicies"}, "", "2026-11-22"},
}

var _ = Describe("a button", Ordered, func() {
	var free, foreign map[string]*unstructured.Unstructured
	BeforeAll(func(ctx SpecContext) {
		employ(ctx)
		free, foreign = subjects(ctx, "people"), subjects(ctx, "strangers")
	})

	// What roles let people do before admission is asked.
	patches := func(user, resource string) bool {
		return slices.Contains([]string{operator, decider, root, editor, patcher}, user) || user == clearer && resource == "patchretries"
	}
	updates := func(user, resource string) bool {
		return user == editor || user == root || user == decider && slices.Contains([]string{"patchpolicies", "patchtasks"}, resource)
	}
	presses := func(user, resource string) bool {
		return slices.Contains([]string{operator, decider, root}, user) || user == clearer && resource == "patchretries"
	}
	ruling := func(user, way, resource, button string) string {
		switch {
		case way == "kubectl replace" && !updates(user, resource):
			return "cannot update resource"
		case !patches(user, resource):
			return "cannot patch resource"
		case !presses(user, resource):
			return user + " may not press nodepatch.io/" + button + " of " + resource + "/people: that takes the verb " + button
		default:
			return accepted
		}
	}

	for _, user := range everybody {
		for way, set := range ways {
			It("is pressed, changed and taken back by the "+user+" with "+way+" as far as the verbs go", func(ctx SpecContext) {
				u := person(user)
				for button, b := range buttons {
					key := "nodepatch.io/" + button
					for _, resource := range b.on {
						expected, what := answer(ruling(user, way, resource, button)), button+" of "+resource
						Expect(set(ctx, u, free[resource], key, &b.value)).To(expected, "pressing %s", what)
						Expect(set(ctx, u, free[resource], key, nil)).To(answer(unchanged(ruling(user, way, resource, button))), "not pressing %s", what)

						Expect(apply(ctx, admin, free[resource], key, &b.value)).To(Succeed())
						Expect(set(ctx, u, free[resource], key, &b.value)).To(answer(unchanged(ruling(user, way, resource, button))), "leaving %s", what)
						Expect(set(ctx, u, free[resource], key, &b.second)).To(expected, "changing %s", what)
						Expect(set(ctx, u, free[resource], key, nil)).To(expected, "taking back %s", what)
						Expect(apply(ctx, admin, free[resource], key, nil)).To(Succeed())
					}
				}
			})
		}
	}

	It("is pressed where a role names the object, and on no other", func(ctx SpecContext) {
		Expect(ways["kubectl annotate"](ctx, person(clearer), foreign["patchretries"], "nodepatch.io/clear-retries", ptr.To("all"))).
			To(answer("cannot patch resource"))
		hold(ctx, binding("people-clearer-patches", "people-patcher", clearer))
		Eventually(func() error {
			return ways["kubectl annotate"](ctx, person(clearer), foreign["patchretries"], "nodepatch.io/clear-retries", ptr.To("all"))
		}).Should(answer("clearer may not press nodepatch.io/clear-retries of patchretries/strangers"))
		Expect(ways["kubectl annotate"](ctx, person(clearer), free["patchretries"], "nodepatch.io/clear-retries", ptr.To("all"))).To(Succeed())
	})

	It("is pressed also by who creates its object", func(ctx SpecContext) {
		hold(ctx, binding("people-editor-starts", "people-starter", editor))
		Eventually(func() error {
			return person(editor).Create(ctx, object(named("PatchTask", "new", "spec: {policy: people, task: weekly}")), client.DryRunAll)
		}).Should(Succeed(), "the role is known")
		specs := map[string]string{"patchpolicies": "spec: {nodeSelector: {}}", "patchtasks": "spec: {policy: people, task: weekly}"}
		for button, b := range buttons {
			for _, resource := range b.on {
				o := object(named(kindsWithButtons[resource], "new", specs[resource]))
				o.SetAnnotations(map[string]string{"nodepatch.io/" + button: b.value})
				generated := o.DeepCopy()
				generated.SetName("")
				generated.SetGenerateName("new-")
				asApplied := func(user client.Client) error {
					body, err := o.MarshalJSON()
					Expect(err).NotTo(HaveOccurred())
					return user.Patch(ctx, o.DeepCopy(), client.RawPatch(types.ApplyPatchType, body), client.FieldOwner("person"), client.DryRunAll)
				}
				refused := "editor may not press nodepatch.io/" + button + " of " + resource + "/new"
				Expect(person(editor).Create(ctx, o.DeepCopy(), client.DryRunAll)).To(answer(refused))
				Expect(person(editor).Create(ctx, generated.DeepCopy(), client.DryRunAll)).To(answer(refused + "-"))
				Expect(asApplied(person(editor))).To(answer(refused))
				Expect(person(root).Create(ctx, o.DeepCopy(), client.DryRunAll)).To(Succeed())
				Expect(person(root).Create(ctx, generated.DeepCopy(), client.DryRunAll)).To(Succeed())
				Expect(asApplied(person(root))).To(Succeed())
			}
		}
	})

	It("is there on its kinds alone", func(ctx SpecContext) {
		for button, b := range buttons {
			for resource, target := range free {
				if slices.Contains(b.on, resource) {
					continue
				}
				Expect(ways["kubectl annotate"](ctx, person(root), target, "nodepatch.io/"+button, &b.value)).
					To(answer(resource + " have no button nodepatch.io/" + button + ": it is on " + strings.Join(b.on, " and ")))
			}
		}
	})

	It("is pressed and taken away by the manager without any verb", func(ctx SpecContext) {
		manager := theManager(ctx)
		for button, b := range buttons {
			for _, resource := range b.on {
				for _, way := range []string{"kubectl annotate", "kubectl apply --server-side"} {
					set, key := ways[way], "nodepatch.io/"+button
					Expect(set(ctx, manager, free[resource], key, &b.value)).To(Succeed())
					Expect(apply(ctx, admin, free[resource], key, &b.value)).To(Succeed())
					Expect(set(ctx, manager, free[resource], key, nil)).To(Succeed())
					Expect(apply(ctx, admin, free[resource], key, nil)).To(Succeed())
				}
			}
		}
	})

	It("is not pressed by who only has the manager's name", func(ctx SpecContext) {
		Expect(ways["kubectl annotate"](ctx, impostor(ctx), free["patchtasks"], "nodepatch.io/stop", ptr.To("x"))).
			To(answer("system:serviceaccount:elsewhere:nodepatch-manager may not press nodepatch.io/stop"))
	})
})

// unchanged is what becomes of a ruling if the request changes nothing: roles are asked, and no policy.
func unchanged(ruling string) string {
	if strings.HasPrefix(ruling, "cannot ") {
		return ruling
	}
	return accepted
}
