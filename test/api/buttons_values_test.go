package api

import (
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
)

const (
	stopMessage    = "nodepatch.io/stop takes the reason in your own words, in at most 1024 characters"
	clearMessage   = "nodepatch.io/clear-retries takes all, or names of patches separated by commas, such as ham,egg=1.1, in at most 4096 characters;"
	clearLogToken  = "nodepatch.io/clear-log takes no value, or for Git a token of at most 128 letters, digits and . _ : + -, such as 2026-11-22"
	patchDataToken = "nodepatch.io/update-patch-data takes no value, or for Git a token of at most 128 letters, digits and . _ : + -, such as 2026-11-22"
)

var _ = Describe("the value of a button", Ordered, func() {
	var free map[string]*unstructured.Unstructured
	BeforeAll(func(ctx SpecContext) {
		employ(ctx)
		free = subjects(ctx, "people")
	})
	DescribeTable("is one that the manager can read",
		func(ctx SpecContext, button, value, refused string) {
			for _, resource := range buttons[button].on {
				Expect(ways["kubectl annotate"](ctx, person(operator), free[resource], "nodepatch.io/"+button, &value)).To(answer(refused), resource)
				Expect(ways["kubectl annotate"](ctx, person(root), free[resource], "nodepatch.io/"+button, &value)).To(answer(refused), resource)
			}
		},
		Entry("no reason", "stop", "", accepted),
		Entry("a reason with everything", "stop", "Größe: 10 % & \"mehr\"\n@all,", accepted),
		Entry("a reason of 1024 characters", "stop", strings.Repeat("ö", 1024), accepted),
		Entry("a reason of 1025 characters", "stop", strings.Repeat("x", 1025), stopMessage),
		Entry("all counts", "clear-retries", "all", accepted),
		Entry("all counts once", "clear-retries", "all@2026-11-22T10:00:00Z", accepted),
		Entry("a name", "clear-retries", "linux-image-6.1.0-37-amd64", accepted),
		Entry("names with spaces between", "clear-retries", "libstdc++6, libc6:i386 ,ham,", accepted),
		Entry("names with versions", "clear-retries", "ham=1:2.0~rc1-1+deb12u1,python3.11=3.11^git1-2.el9@t_1", accepted),
		Entry("4096 characters of names", "clear-retries", strings.Repeat("x,", 2048), accepted),
		Entry("more than 4096 characters", "clear-retries", strings.Repeat("x", 4097), clearMessage),
		Entry("no name", "clear-retries", "", clearMessage),
		Entry("blanks", "clear-retries", " ", clearMessage),
		Entry("commas", "clear-retries", ",,", clearMessage),
		Entry("a token alone", "clear-retries", "@t1", clearMessage),
		Entry("an empty token", "clear-retries", "all@", clearMessage),
		Entry("two tokens", "clear-retries", "all@t1@t2", clearMessage),
		Entry("names without commas", "clear-retries", "ham egg", clearMessage),
		Entry("lines of names", "clear-retries", "ham\negg", clearMessage),
		Entry("a shell", "clear-retries", "$(reboot)", clearMessage),
		Entry("a pattern", "clear-retries", "linux-*", clearMessage),
		Entry("no token", "clear-log", "", accepted),
		Entry("a token", "clear-log", "2026-11-22T10:00:00+01:00", accepted),
		Entry("a token of 128 characters", "clear-log", strings.Repeat("x", 128), accepted),
		Entry("a token of 129 characters", "clear-log", strings.Repeat("x", 129), clearLogToken),
		Entry("a blank token", "clear-log", " ", clearLogToken),
		Entry("a token with an @", "clear-log", "@t1", clearLogToken),
		Entry("words", "clear-log", "please do", clearLogToken),
		Entry("no token", "update-patch-data", "", accepted),
		Entry("a token", "update-patch-data", "week-47", accepted),
		Entry("a token of 129 characters", "update-patch-data", strings.Repeat("x", 129), patchDataToken),
		Entry("words", "update-patch-data", "please do", patchDataToken),
	)

	It("may be rubbish on its way out", func(ctx SpecContext) {
		policy := object("apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\nmetadata: {name: nodepatch-buttons}")
		Expect(admin.Delete(ctx, policy)).To(Succeed())
		Eventually(func() error {
			return ways["kubectl annotate"](ctx, person(operator), free["patchretries"], "nodepatch.io/clear-retries", ptr.To(",,"))
		}).Should(Succeed(), "nobody asks")
		Expect(apply(ctx, admin, free["patchretries"], "nodepatch.io/clear-retries", ptr.To(",,"))).To(Succeed())
		_, err := server.Kubectl(ctx, "apply", "--server-side", "-f", "config/admission/buttons.yaml")
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() error {
			return ways["kubectl annotate"](ctx, person(operator), free["patchretries"], "nodepatch.io/clear-retries", ptr.To(";"))
		}).Should(answer(clearMessage), "the rule is in force again")
		for _, set := range ways {
			Expect(set(ctx, person(root), free["patchretries"], "nodepatch.io/clear-retries", nil)).To(Succeed())
		}
		Expect(ways["kubectl annotate"](ctx, person(patcher), free["patchretries"], "nodepatch.io/clear-retries", nil)).To(answer("may not press"))
		Expect(ways["kubectl annotate"](ctx, person(operator), free["patchretries"], "nodepatch.io/clear-retries", nil)).To(Succeed())
		Expect(apply(ctx, admin, free["patchretries"], "nodepatch.io/clear-retries", nil)).To(Succeed())
	})
})

var _ = Describe("a button with nothing to act on", Ordered, func() {
	BeforeAll(employ)

	It("is the stop of a task that has ended", func(ctx SpecContext) {
		stopBy := func(user string, task *unstructured.Unstructured, why *string) []error {
			var answers []error
			for _, way := range []string{"kubectl annotate", "kubectl apply --server-side"} {
				answers = append(answers, ways[way](ctx, person(user), task, "nodepatch.io/stop", why))
			}
			return answers
		}
		for _, phase := range []string{"", "Pending", "Running"} {
			task := store(ctx, named("PatchTask", "phase-"+strings.ToLower(phase)+"x", "spec: {policy: people, task: weekly}\nstatus: {phase: "+phase+"}"))
			Expect(stopBy(operator, task, ptr.To("enough"))).To(HaveEach(Succeed()), phase)
		}
		for _, phase := range []string{"Complete", "Failed", "Stopped"} {
			task := store(ctx, named("PatchTask", "phase-"+strings.ToLower(phase), "spec: {policy: people, task: weekly}"))
			Expect(apply(ctx, admin, task, "nodepatch.io/stop", ptr.To("enough"))).To(Succeed())
			Expect(admin.Status().Patch(ctx, task, mergePatch(`{"status":{"phase":"`+phase+`"}}`))).To(Succeed())
			for _, user := range []string{operator, root} {
				Expect(stopBy(user, task, ptr.To("enough"))).To(HaveEach(Succeed()), "it is there already")
				Expect(stopBy(user, task, ptr.To("more"))).To(HaveEach(answer("the task " + task.GetName() + " has ended (" + phase + "): nothing to stop")))
				Expect(stopBy(user, task, nil)).To(HaveEach(Succeed()), "it may go")
			}
			Expect(stopBy(patcher, task, ptr.To("more"))).To(HaveEach(answer("patcher may not press")), "who may not is not told how it went")
		}
	})

	It("is to clear the counts of a node without counts", func(ctx SpecContext) {
		retry := store(ctx, named("PatchRetry", "people", `status: {handled: {clearRetries: "all@t1"}}`))
		clearBy := func(user string, value *string) error {
			return ways["kubectl annotate"](ctx, person(user), retry, "nodepatch.io/clear-retries", value)
		}
		const nothing = "node people has no failed attempts: nothing to clear"
		Expect(clearBy(operator, ptr.To("all"))).To(answer(nothing))
		Expect(clearBy(root, ptr.To("ham"))).To(answer(nothing))
		Expect(clearBy(operator, ptr.To("all@t2"))).To(answer(nothing))
		Expect(clearBy(operator, ptr.To("all@t1"))).To(Succeed(), "Git may put back what was handled")
		Expect(clearBy(patcher, ptr.To("all"))).To(answer("patcher may not press"))
		Expect(apply(ctx, admin, retry, "nodepatch.io/clear-retries", ptr.To("all@t1"))).To(Succeed())
		Expect(clearBy(operator, nil)).To(Succeed(), "it may go")
		Expect(ways["kubectl annotate"](ctx, theManager(ctx), retry, "nodepatch.io/clear-retries", ptr.To("all@t3"))).To(Succeed(), "the manager may have older news than it passes on")
		Expect(admin.Status().Patch(ctx, retry, mergePatch(`{"status":{"patches":[{"name":"ham","version":"1","installFailures":1}]}}`))).To(Succeed())
		Expect(clearBy(operator, ptr.To("all"))).To(Succeed())
	})
})
