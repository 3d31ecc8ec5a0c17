package api

import (
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// Whatever can be changed of an object that is not its status.
var (
	metadataChanges = map[string]string{
		"a label":              `{"metadata":{"labels":{"a":"b"}}}`,
		"the loss of a label":  `{"metadata":{"labels":{"kept":null}}}`,
		"an annotation":        `{"metadata":{"annotations":{"a":"b"}}}`,
		"another annotation":   `{"metadata":{"annotations":{"kept":"c"}}}`,
		"a lost annotation":    `{"metadata":{"annotations":{"kept":null}}}`,
		"no annotations":       `{"metadata":{"annotations":null}}`,
		"one beside a button":  `{"metadata":{"annotations":{"nodepatch.io/clear-log":"","nodepatch.io/clear-logs":""}}}`,
		"an annotation nearby": `{"metadata":{"annotations":{"nodepatch.io/maintenance":"{}"}}}`,
		"a finalizer":          `{"metadata":{"finalizers":["a.example/b"]}}`,
		"an owner":             `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n","uid":"1"}]}}`,
		"a generated name":     `{"metadata":{"generateName":"x-"}}`,
	}
	specChanges = map[string]string{
		"a suspension": `{"spec":{"suspend":true}}`,
		"a task":       `{"spec":{"tasks":[{"name":"mine","template":{"action":"Deploy"}}]}}`,
		"a lost field": `{"spec":{"priority":null}}`,
	}
)

var _ = Describe("who may patch and not update", Ordered, func() {
	const onlyButtons = " and change nothing else: that takes the verb update"
	var targets map[string]*unstructured.Unstructured
	BeforeAll(func(ctx SpecContext) {
		employ(ctx)
		targets = subjects(ctx, "people")
		for _, target := range targets {
			Expect(admin.Patch(ctx, target, mergePatch(`{"metadata":{"labels":{"kept":"a"},"annotations":{"kept":"a"}}}`))).To(Succeed())
		}
		Expect(admin.Patch(ctx, targets["patchpolicies"], mergePatch(`{"spec":{"priority":7}}`))).To(Succeed())
	})

	It("changes nothing but buttons", func(ctx SpecContext) {
		for resource, target := range targets {
			changes := map[string]string{}
			for what, patch := range metadataChanges {
				changes[what] = patch
			}
			if resource == "patchpolicies" {
				for what, patch := range specChanges {
					changes[what] = patch
				}
			}
			for what, patch := range changes {
				if resource == "patchretries" && what == "one beside a button" {
					continue
				}
				for _, user := range []string{operator, patcher} {
					err := person(user).Patch(ctx, target.DeepCopy(), mergePatch(patch), client.DryRunAll)
					if user == patcher && what == "one beside a button" {
						Expect(err).To(beForbidden("patcher may "), "two policies refuse, in any order")
						continue
					}
					Expect(err).To(beForbidden(user+" may press the buttons of "+resource+"/people"+onlyButtons), "%s on %s", what, resource)
				}
				for _, user := range []string{editor, root} {
					if user == editor && what == "one beside a button" {
						continue
					}
					Expect(person(user).Patch(ctx, target.DeepCopy(), mergePatch(patch), client.DryRunAll)).To(Succeed(), "%s on %s", what, resource)
				}
			}
		}
	})

	It("changes nothing by other kinds of patches either", func(ctx SpecContext) {
		policy := targets["patchpolicies"]
		jsonPatch := client.RawPatch(types.JSONPatchType, []byte(`[{"op":"add","path":"/spec/suspend","value":true}]`))
		Expect(person(operator).Patch(ctx, policy.DeepCopy(), jsonPatch, client.DryRunAll)).To(beForbidden(onlyButtons))
		applied := client.RawPatch(types.ApplyPatchType, []byte(
			`{"apiVersion":"nodepatch.io/v1alpha1","kind":"PatchPolicy","metadata":{"name":"people","annotations":{"nodepatch.io/clear-log":""}},"spec":{"suspend":true}}`))
		options := []client.PatchOption{client.FieldOwner("person"), client.ForceOwnership, client.DryRunAll}
		Expect(person(operator).Patch(ctx, policy.DeepCopy(), applied, options...)).To(beForbidden(onlyButtons))
		Expect(person(decider).Patch(ctx, policy.DeepCopy(), applied, options...)).To(Succeed())
		Expect(person(operator).Patch(ctx, policy.DeepCopy(), mergePatch(`{"spec":{"priority":7},"metadata":{"labels":{"kept":"a"}}}`), client.DryRunAll)).
			To(Succeed(), "nothing changes")
	})

	It("writes no status, and deletes nothing", func(ctx SpecContext) {
		for _, target := range targets {
			Expect(person(operator).Status().Patch(ctx, target.DeepCopy(), mergePatch(`{"status":{}}`))).To(beForbidden(byRole))
			Expect(person(operator).Delete(ctx, target.DeepCopy())).To(beForbidden(byRole))
			Expect(person(operator).DeleteAllOf(ctx, target.DeepCopy())).To(beForbidden(byRole))
		}
	})

	It("is the manager too, where people decide, and not where it does", func(ctx SpecContext) {
		manager := theManager(ctx)
		for _, resource := range []string{"patchpolicies", "patchtasks"} {
			Expect(manager.Patch(ctx, targets[resource].DeepCopy(), mergePatch(`{"metadata":{"labels":{"a":"b"}}}`), client.DryRunAll)).To(beForbidden(onlyButtons))
		}
		for _, resource := range []string{"patchreports", "patchretries"} {
			for what, patch := range metadataChanges {
				Expect(manager.Patch(ctx, targets[resource].DeepCopy(), mergePatch(patch), client.DryRunAll)).To(Succeed(), "%s on %s", what, resource)
			}
		}
	})
})

var _ = Describe("a thousand nodes", func() {
	It("have their counts cleared with one kubectl annotate", func(ctx SpecContext) {
		const nodes = 1000
		config := rest.CopyConfig(server.Config)
		config.QPS = -1
		quick := clientOf(config)
		var writers errgroup.Group
		writers.SetLimit(8)
		for i := range nodes {
			writers.Go(func() error {
				retry := &v1alpha1.PatchRetry{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("thousand-%d", i)}}
				if err := quick.Create(ctx, retry); err != nil {
					return err
				}
				return quick.Status().Patch(ctx, retry, mergePatch(`{"status":{"counted":1,"patches":[{"name":"ham","version":"1","downloadFailures":1}]}}`))
			})
		}
		Expect(writers.Wait()).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(admin.DeleteAllOf(ctx, &v1alpha1.PatchRetry{})).To(Succeed()) })
		hold(ctx, binding("people-operator", "nodepatch-operator", operator))
		Eventually(func() error { return person(operator).List(ctx, &v1alpha1.PatchRetryList{}) }).Should(Succeed(), "the role is known")

		start := time.Now()
		printed := kubectl(ctx, "annotate", "patchretries", "--all", "nodepatch.io/clear-retries=all", "--as="+operator)
		AddReportEntry("kubectl annotate --all on 1,000 PatchRetries", time.Since(start).Round(time.Millisecond))
		Expect(strings.Count(printed, " annotated")).To(Equal(nodes))
		pressed := &v1alpha1.PatchRetryList{}
		Expect(admin.List(ctx, pressed)).To(Succeed())
		Expect(pressed.Items).To(HaveLen(nodes))
		Expect(pressed.Items).To(HaveEach(HaveField("Annotations", HaveKeyWithValue(v1alpha1.ClearRetriesAnnotation, "all"))))

		// One without counts is said to have none, and holds back nobody.
		Expect(quick.Status().Patch(ctx, &pressed.Items[nodes/2], mergePatch(`{"status":{"counted":0,"patches":null}}`))).To(Succeed())
		printed, err := server.Kubectl(ctx, "annotate", "patchretries", "--all", "--overwrite", "nodepatch.io/clear-retries=ham", "--as="+operator)
		Expect(err).To(MatchError(ContainSubstring("node " + pressed.Items[nodes/2].Name + " has no failed attempts: nothing to clear")))
		Expect(strings.Count(printed, " annotated")).To(Equal(nodes - 1))
	})
})
