package hooks

import (
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var _ = Describe("A hook", func() {
	var (
		runner *Runner
		pre    Hook
	)
	BeforeEach(func() {
		runner, _ = newRunner()
		pre = hook(PreDisrupt)
	})

	It("runs a pod of the template on the node, whatever keeps others away from it", func() {
		template("check", func(template *corev1.PodTemplateSpec) {
			template.Labels = map[string]string{"team": "db", "app.kubernetes.io/component": "agent"}
			template.Annotations = map[string]string{"example.com/why": "to be sure", operationAnnotation: "another"}
			template.Spec.RestartPolicy = corev1.RestartPolicyAlways
			template.Spec.InitContainers = []corev1.Container{{Name: "first", Image: "check:1"}}
			template.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "TARGET", Value: "$(NODEPATCH_NODE):80"}, {Name: "NODEPATCH_TASK", Value: "mine"}}
		})
		state := run(runner, pre)
		Expect(state).To(Equal(State{Phase: Running, Message: "waits for its pod " + podName(pre)}))

		pod := podOf(pre)
		Expect(pod.Labels).To(Equal(map[string]string{
			"team": "db", "app.kubernetes.io/name": "nodepatch", "app.kubernetes.io/component": "hook",
			"nodepatch.io/hook": "preDisrupt", "nodepatch.io/node": pre.Node, "nodepatch.io/task": "weekly",
		}))
		Expect(pod.Annotations).To(Equal(map[string]string{"example.com/why": "to be sure", "nodepatch.io/operation": pre.OperationID}))
		Expect(pod.Spec.NodeName).To(Equal(pre.Node))
		Expect(pod.Spec.RestartPolicy).To(Equal(corev1.RestartPolicyNever))
		Expect(pod.Spec.ActiveDeadlineSeconds).To(HaveValue(BeEquivalentTo(90)))
		Expect(pod.Spec.Tolerations).To(ContainElement(corev1.Toleration{Operator: corev1.TolerationOpExists}))
		ours := []corev1.EnvVar{
			{Name: "NODEPATCH_NODE", Value: pre.Node}, {Name: "NODEPATCH_TASK", Value: "weekly"}, {Name: "NODEPATCH_POINT", Value: "preDisrupt"},
		}
		Expect(pod.Spec.InitContainers[0].Env).To(Equal(ours))
		Expect(pod.Spec.Containers[0].Env).To(Equal(append(ours, corev1.EnvVar{Name: "TARGET", Value: "$(NODEPATCH_NODE):80"})))
		Expect(pod.Spec.Containers[0].TerminationMessagePolicy).To(Equal(corev1.TerminationMessageFallbackToLogsOnError))

		writes := len(requests.To("/pods"))
		Expect(run(runner, pre)).To(Equal(state))
		Expect(requests.To("/pods")).To(HaveLen(writes), "the second look writes nothing")
		Expect(podOf(pre).UID).To(Equal(pod.UID))
	})

	It("gets five minutes where nobody says how long", func() {
		template("check")
		pre.Hook.Timeout.Duration = 0
		run(runner, pre)
		Expect(podOf(pre).Spec.ActiveDeadlineSeconds).To(HaveValue(BeEquivalentTo(300)))
	})

	It("succeeds with its pod, and remains so when the pod is cleared away", func() {
		template("check")
		run(runner, pre)
		say(pre, corev1.PodSucceeded, terminated(pre, 42*time.Second, 0, ""))
		want := State{Phase: Succeeded, Took: 42 * time.Second}
		Expect(run(runner, pre)).To(Equal(want))
		other, _ := newRunner()
		Expect(run(other, pre)).To(Equal(want), "a manager that was just started")

		Expect(admin.Delete(ctx, podOf(pre), client.GracePeriodSeconds(0))).To(Succeed())
		Expect(run(runner, pre)).To(Equal(want))
	})

	It("fails with the last words of its container", func() {
		template("check")
		run(runner, pre)
		say(pre, corev1.PodFailed, terminated(pre, 3*time.Second, 2, strings.Repeat("trying\n", 100)+"2 replicas lag behind\n"))
		state := run(runner, pre)
		Expect(state.Phase).To(Equal(Failed))
		Expect(state.Took).To(Equal(3 * time.Second))
		Expect(state.Message).To(SatisfyAll(
			HavePrefix("its pod "+podName(pre)+" failed: container check ended with status 2: …"),
			HaveSuffix("trying 2 replicas lag behind"),
		))
	})

	It("fails where the kubelet will not have the pod", func() {
		template("check")
		run(runner, pre)
		pod := podOf(pre)
		pod.Status.Phase, pod.Status.Reason, pod.Status.Message = corev1.PodFailed, "OutOfcpu", "Node didn't have enough resource: cpu"
		Expect(admin.Status().Update(ctx, pod)).To(Succeed())
		Expect(run(runner, pre).Message).To(Equal("its pod " + pod.Name + " failed (OutOfcpu): Node didn't have enough resource: cpu"))
	})

	DescribeTable("fails at its timeout, and says what it waited for",
		func(prepare func(), want string) {
			runner, clock := newRunner()
			template("check")
			run(runner, pre)
			prepare()
			clock.SetTime(podOf(pre).CreationTimestamp.Add(90*time.Second + patience))
			Expect(run(runner, pre).Phase).To(Equal(Running), "its kubelet may still end it")
			clock.SetTime(clock.Now().Add(time.Second))
			Expect(run(runner, pre)).To(Equal(State{
				Phase: Failed, Message: "its pod " + podName(pre) + " did not end within 1m30s" + want, Took: 90*time.Second + patience + time.Second,
			}))
		},
		Entry("of an image that cannot be pulled", func() { say(pre, corev1.PodPending, waiting("ImagePullBackOff")) },
			": the image check:1 cannot be pulled"),
		Entry("of a ConfigMap that is not there", func() { say(pre, corev1.PodPending, waiting("CreateContainerConfigError")) },
			": CreateContainerConfigError"),
		Entry("of a node that is lost", func() {
			node := &corev1.Node{}
			Expect(admin.Get(ctx, client.ObjectKey{Name: pre.Node}, node)).To(Succeed())
			node.Status.Conditions[0].Status = corev1.ConditionUnknown
			Expect(admin.Status().Update(ctx, node)).To(Succeed())
		}, ": its node is not Ready"),
		Entry("of a check that hangs", func() { say(pre, corev1.PodRunning, corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}) }, ""),
	)

	It("says what its pod waits for, in the same words at every attempt", func() {
		template("check")
		run(runner, pre)
		say(pre, corev1.PodPending, waiting("ContainerCreating"))
		Expect(run(runner, pre).Message).To(Equal("waits for its pod " + podName(pre)))
		say(pre, corev1.PodPending, waiting("ErrImagePull"))
		first := run(runner, pre).Message
		Expect(first).To(HaveSuffix(": the image check:1 cannot be pulled"))
		say(pre, corev1.PodPending, waiting("ImagePullBackOff"))
		Expect(run(runner, pre).Message).To(Equal(first))
	})

	It("fails when its kubelet has ended it at its deadline", func() {
		template("check")
		run(runner, pre)
		say(pre, corev1.PodFailed, waiting("ErrImagePull"))
		pod := podOf(pre)
		pod.Status.Reason, pod.Status.Message = "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
		Expect(admin.Status().Update(ctx, pod)).To(Succeed())
		Expect(run(runner, pre).Message).To(Equal("its pod " + pod.Name + " did not end within 1m30s: the image check:1 cannot be pulled"))
	})

	It("fails without its template", func() {
		Expect(run(runner, pre)).To(Equal(State{Phase: Failed, Message: "there is no PodTemplate check in namespace nodepatch-system"}))
	})

	It("fails where admission refuses its pod", func() {
		template("check", func(template *corev1.PodTemplateSpec) { template.Spec.PriorityClassName = "missing" })
		Expect(run(runner, pre)).To(SatisfyAll(
			HaveField("Phase", Failed),
			HaveField("Message", SatisfyAll(HavePrefix("its pod was refused: "), ContainSubstring("no PriorityClass with name missing was found"))),
		))
	})

	It("fails when a person deletes its pod in mid-run, and does not begin anew", func() {
		template("check")
		run(runner, pre)
		pod := podOf(pre)
		say(pre, corev1.PodRunning, corev1.ContainerState{Running: &corev1.ContainerStateRunning{}})
		Expect(admin.Delete(ctx, pod)).To(Succeed())
		want := "its pod " + pod.Name + " was deleted before it ended"
		other, _ := newRunner()
		Expect(run(other, pre)).To(HaveField("Message", want), "a manager that was just started")

		Expect(admin.Delete(ctx, pod, client.GracePeriodSeconds(0))).To(Succeed())
		for range 2 {
			Expect(run(runner, pre)).To(Equal(State{Phase: Failed, Message: want}), "by force, between two looks")
		}
	})

	It("does not take the pod of another operation for its own", func() {
		template("check")
		run(runner, pre)
		pod := podOf(pre)
		pod.Annotations[operationAnnotation] = "an older one"
		Expect(admin.Update(ctx, pod)).To(Succeed())
		say(pre, corev1.PodSucceeded, terminated(pre, time.Second, 0, ""))
		Expect(run(runner, pre)).To(Equal(State{
			Phase: Failed, Message: "the pod " + pod.Name + " is there already, and is not of this operation",
		}))
	})

	It("runs once where two managers run it", func() {
		template("check")
		other, _ := newRunner()
		var both sync.WaitGroup
		for _, each := range []*Runner{runner, other} {
			both.Go(func() {
				defer GinkgoRecover()
				Expect(run(each, pre).Phase).To(Equal(Running))
			})
		}
		both.Wait()
		say(pre, corev1.PodSucceeded, terminated(pre, time.Second, 0, ""))
		Expect(run(runner, pre)).To(Equal(run(other, pre)))
	})

	It("is tried again where the API server is away, until its timeout", func() {
		template("check")
		config := rest.AnonymousClientConfig(server.Config)
		config.Host = "https://127.0.0.1:1"
		away, err := client.New(config, client.Options{Scheme: manager.Scheme(), Mapper: manager.RESTMapper()})
		Expect(err).NotTo(HaveOccurred())
		runner, clock := newRunner()
		runner.client = away
		_, err = runner.Run(ctx, pre)
		Expect(err).To(MatchError(ContainSubstring("making the pod of hook preDisrupt")))
		clock.SetTime(clock.Now().Add(91 * time.Second))
		Expect(run(runner, pre)).To(SatisfyAll(
			HaveField("Phase", Failed), HaveField("Message", HavePrefix("its pod could not be made within 1m30s: ")),
		))
	})

	It("leaves nothing behind", func() {
		template("check")
		post := pre
		post.Point = PostInstall
		next := pre
		next.OperationID = "the next one"
		elsewhere := hook(PreDisrupt)
		for _, each := range []Hook{pre, post, next, elsewhere} {
			run(runner, each)
		}
		Expect(runner.Clean(ctx, pre.Node, pre.OperationID)).To(Succeed())
		Expect(podOf(pre).DeletionTimestamp).NotTo(BeNil())
		Expect(podOf(post).DeletionTimestamp).NotTo(BeNil())
		Expect(podOf(next).DeletionTimestamp).To(BeNil())
		Expect(podOf(elsewhere).DeletionTimestamp).To(BeNil())
		Expect(runner.seen).To(HaveLen(2))

		writes := len(requests.To("/pods"))
		Expect(runner.Clean(ctx, pre.Node, pre.OperationID)).To(Succeed())
		Expect(requests.To("/pods")).To(HaveLen(writes), "what is being deleted is not deleted again")
	})
})

var _ = AfterSuite(func() {
	Expect(requests.Forbidden()).To(HaveEach(HavePrefix("POST /api/v1/namespaces/nodepatch-system/pods: ")), "only admission refused something")
})

func TestPodName(t *testing.T) {
	hooks := map[string]Hook{
		"plain":              {Point: PreDisrupt, Node: "a", OperationID: "1"},
		"another point":      {Point: PostReboot, Node: "a", OperationID: "1"},
		"another operation":  {Point: PreDisrupt, Node: "a", OperationID: "2"},
		"a domain name":      {Point: PostInstall, Node: "ip-10-0-0-1.eu-central-1.compute.internal", OperationID: "1"},
		"a long name":        {Point: PostInstall, Node: strings.Repeat("a", 253), OperationID: "1"},
		"another long name":  {Point: PostInstall, Node: strings.Repeat("a", 252), OperationID: "1"},
		"a cut behind a dot": {Point: PostInstall, Node: strings.Repeat("a", 31) + ".example", OperationID: "1"},
	}
	seen := map[string]string{}
	for name, hook := range hooks {
		got := podName(hook)
		if wrong := validation.IsDNS1123Label(got); len(wrong) > 0 {
			t.Errorf("%s: %q is no label: %s", name, got, wrong)
		}
		if got != podName(hook) {
			t.Errorf("%s: the name changes", name)
		}
		if other, found := seen[got]; found {
			t.Errorf("%s and %s are both %q", name, other, got)
		}
		seen[got] = name
	}
}
