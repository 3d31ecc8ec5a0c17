package main

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// A script that starts a run waits for it in two steps: for its end, whatever that is, and then asks once whether it is the
// one that was wished for. A script that waits for Complete alone waits in vain for a run that failed.
var _ = Describe("kubectl wait", Ordered, func() {
	const (
		node  = "wait-a"
		ended = "--for=jsonpath={.status.completionTime}"
	)
	// waiting is a kubectl wait that runs; the channel has what it returned.
	waiting := func(args ...string) <-chan error {
		result := make(chan error, 1)
		go func() {
			defer GinkgoRecover()
			_, err := server.Kubectl(ctx, append([]string{"wait"}, args...)...)
			result <- err
		}()
		return result
	}
	// is asks once whether a task has a condition.
	is := func(task, condition string) error {
		return <-waiting("patchtask/"+task, "--for=condition="+condition, "--timeout=0")
	}

	BeforeAll(func() {
		install()
		_, err := server.CreateNode(ctx, node, map[string]string{"pool": "wait"})
		Expect(err).NotTo(HaveOccurred())
		start("manager-wait")
	})
	AfterAll(func() {
		cleanUp([]string{node})
		Expect(asked.Forbidden()).To(BeEmpty())
	})

	It("waits for a policy that is ready", func() {
		Expect(git("PatchPolicy", "wait", "{nodeSelector: {matchLabels: {pool: wait}}, tasks: [{name: scan, template: {action: Scan}}]}")).To(Succeed())
		Expect(<-waiting("--for=condition=Ready", "pp/wait", "--timeout=20s")).To(Succeed())
		runAgentPod(node)
	})

	DescribeTable("sees how a run ends, and never waits in vain",
		func(name, spec, condition string, phase v1alpha1.TaskPhase, end func(name string)) {
			Expect(git("PatchTask", name, spec)).To(Succeed())
			waits := waiting(ended, "patchtask/"+name, "--timeout=60s")
			forCondition := waiting("--for=condition="+condition, "patchtask/"+name, "--timeout=60s")
			end(name)
			Eventually(waits).Should(Receive(BeNil()), "it waits for the end")
			Eventually(forCondition).Should(Receive(BeNil()), "it waits for %s", condition)
			for _, other := range []string{v1alpha1.ConditionComplete, v1alpha1.ConditionFailed, v1alpha1.ConditionStopped} {
				if other == condition {
					Expect(is(name, other)).To(Succeed())
				} else {
					Expect(is(name, other)).To(MatchError(ContainSubstring("condition not met")), other)
				}
			}
			Expect(kubectl("get", "patchtask", name, "-o", "jsonpath={.status.phase}")).To(Equal(string(phase)))
		},
		Entry("with success", "fine", "{policy: wait, task: scan}", v1alpha1.ConditionComplete, v1alpha1.TaskComplete, func(name string) {
			Eventually(orderedBy(node)).Should(Equal(name))
			say(node, v1alpha1.StepDone, v1alpha1.ReasonScanned)
		}),
		Entry("with a node that failed", "broken", "{policy: wait, task: scan}", v1alpha1.ConditionFailed, v1alpha1.TaskFailed, func(name string) {
			Eventually(orderedBy(node)).Should(Equal(name))
			say(node, v1alpha1.StepFailed, v1alpha1.ReasonScanFailed)
		}),
		Entry("refused", "refused", "{policy: wait, task: scan, nodeSelector: {matchLabels: {pool: none}}}", v1alpha1.ConditionFailed, v1alpha1.TaskFailed, func(string) {}),
		Entry("stopped by a person", "wrong", "{policy: wait, task: scan}", v1alpha1.ConditionStopped, v1alpha1.TaskStopped, func(name string) {
			Eventually(orderedBy(node)).Should(Equal(name))
			kubectl("annotate", "patchtask", name, v1alpha1.StopAnnotation+"=wrong day")
			Eventually(object(&v1alpha1.PatchAssignment{}, node)).Should(HaveField("Spec.Operation.Stop", Not(BeEmpty())))
			say(node, v1alpha1.StepStopped, v1alpha1.ReasonStopped)
		}),
	)

	It("waits on while a run goes on, and ends with its patience", func() {
		Expect(git("PatchTask", "slow", "{policy: wait, task: scan}")).To(Succeed())
		Eventually(orderedBy(node)).Should(Equal("slow"))
		begin := time.Now()
		err := <-waiting(ended, "patchtask/slow", "--timeout=2s")
		Expect(err).To(MatchError(ContainSubstring("timed out waiting for the condition")))
		Expect(time.Since(begin)).To(BeNumerically(">=", 2*time.Second))
		say(node, v1alpha1.StepDone, v1alpha1.ReasonScanned)
	})
})
