package api

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var _ = Describe("with kubectl", Ordered, func() {
	var targets map[string]*unstructured.Unstructured
	as := func(ctx SpecContext, user string, args ...string) (string, error) {
		return server.Kubectl(ctx, append(args, "--as="+user)...)
	}
	annotationsOf := func(ctx SpecContext, resource string) map[string]string {
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(targets[resource]), targets[resource])).To(Succeed())
		return targets[resource].GetAnnotations()
	}
	BeforeAll(employ)
	BeforeEach(func(ctx SpecContext) { targets = subjects(ctx, "people") })

	DescribeTable("an operator presses a button and takes it back",
		func(ctx SpecContext, resource, button, value string) {
			_, err := as(ctx, operator, "annotate", resource, "people", button+"="+value)
			Expect(err).NotTo(HaveOccurred())
			Expect(annotationsOf(ctx, resource)).To(HaveKeyWithValue(button, value))
			_, err = as(ctx, operator, "annotate", resource, "people", button+"-")
			Expect(err).NotTo(HaveOccurred())
			Expect(annotationsOf(ctx, resource)).NotTo(HaveKey(button))
			_, err = as(ctx, patcher, "annotate", resource, "people", button+"="+value)
			Expect(err).To(answer("patcher may not press " + button + " of " + resource + "/people: that takes the verb "))
		},
		Entry("a stop", "patchtasks", "nodepatch.io/stop", "wrong week"),
		Entry("counts of a node", "patchretries", "nodepatch.io/clear-retries", "all"),
		Entry("counts of all nodes", "patchpolicies", "nodepatch.io/clear-retries", "ham,egg=1.1"),
		Entry("a task's log", "patchtasks", "nodepatch.io/clear-log", ""),
		Entry("a node's log", "patchreports", "nodepatch.io/clear-log", ""),
		Entry("a policy's log", "patchpolicies", "nodepatch.io/clear-log", ""),
		Entry("a node's patch data", "patchreports", "nodepatch.io/update-patch-data", ""),
		Entry("all nodes' patch data", "patchpolicies", "nodepatch.io/update-patch-data", ""),
	)

	It("an operator starts a task, and cannot make it another", func(ctx SpecContext) {
		file := filepath.Join(GinkgoT().TempDir(), "task.yaml")
		write := func(metadata string) {
			Expect(os.WriteFile(file, []byte("apiVersion: nodepatch.io/v1alpha1\nkind: PatchTask\nmetadata: {name: mine"+metadata+"}\nspec: "+namedTask+"\n"), 0o600)).To(Succeed())
		}
		write("")
		_, err := as(ctx, operator, "apply", "-f", file)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func(ctx SpecContext) { kubectl(ctx, "delete", "-f", file) })
		_, err = as(ctx, operator, "apply", "-f", file)
		Expect(err).NotTo(HaveOccurred(), "nothing changes")
		write(", labels: {a: b}")
		_, err = as(ctx, operator, "apply", "-f", file)
		Expect(err).To(answer("operator may press the buttons of patchtasks/mine and change nothing else"))
		_, err = as(ctx, operator, "delete", "-f", file)
		Expect(err).To(answer("cannot delete resource"))
	})

	It("an editor of the object is asked for the verb all the same", func(ctx SpecContext) {
		edit := func(user, expression string) error {
			GinkgoT().Setenv("KUBE_EDITOR", "sed -i -e '"+expression+"'")
			_, err := as(ctx, user, "edit", "patchpolicies", "people")
			return err
		}
		const press = `s|^metadata:|metadata:\n  annotations:\n    nodepatch.io/clear-log: ""|`
		Expect(edit(editor, press)).To(answer("editor may not press nodepatch.io/clear-log"))
		Expect(edit(operator, `s|suspend: false|suspend: true|`)).To(answer("change nothing else"))
		Expect(edit(operator, press)).To(Succeed())
		Expect(annotationsOf(ctx, "patchpolicies")).To(HaveKey("nodepatch.io/clear-log"))
	})

	It("people ask what they may do", func(ctx SpecContext) {
		for _, question := range [][]string{
			{"stop", "patchtasks/people"}, {"clear-log", "patchreports"}, {"start", "patchpolicies/people"}, {"clear-retries", "patchretries/people"},
		} {
			Expect(as(ctx, operator, append([]string{"auth", "can-i"}, question...)...)).To(Equal("yes\n"))
			_, err := as(ctx, viewer, append([]string{"auth", "can-i"}, question...)...)
			Expect(err).To(HaveOccurred(), "it says no with its exit status")
		}
	})

	It("who repeats a token is warned", func(ctx SpecContext) {
		for button, field := range map[string]string{"clear-retries": "clearRetries", "clear-log": "clearLog", "update-patch-data": "updatePatchData"} {
			key, value := "nodepatch.io/"+button, "all@t1"
			if button != "clear-retries" {
				value = "t1"
			}
			for _, resource := range buttons[button].on {
				Expect(admin.Status().Patch(ctx, targets[resource].DeepCopy(), mergePatch(`{"status":{"handled":{"`+field+`":"`+value+`"}}}`))).To(Succeed())
				heard := &warnings{}
				user := heard.by(operator)
				annotate := ways["kubectl annotate"]
				fresh := value + "2"
				Expect(annotate(ctx, user, targets[resource], key, &fresh)).To(Succeed())
				Expect(heard.texts).To(BeEmpty(), "%s of %s", button, resource)
				Eventually(func() []string {
					Expect(annotate(ctx, user, targets[resource], key, &value)).To(Succeed())
					return heard.texts
				}).Should(HaveExactElements(ContainSubstring(key+"="+value+" was acted on before, and is ignored: a token acts once; give another, or none")), "%s of %s", button, resource)
			}
		}
	})
})

// warnings are what the API server says beside its answers.
type warnings struct{ texts []string }

func (w *warnings) HandleWarningHeaderWithContext(_ context.Context, _ int, _, text string) {
	if !slices.Contains(w.texts, text) {
		w.texts = append(w.texts, text)
	}
}

// by is a client of one of the people who hears them.
func (w *warnings) by(name string) client.Client {
	GinkgoHelper()
	config := rest.CopyConfig(server.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: name}
	config.WarningHandlerWithContext = w
	return clientOf(config)
}
