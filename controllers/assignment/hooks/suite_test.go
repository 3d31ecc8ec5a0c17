package hooks

import (
	"context"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

var (
	ctx      = context.Background()
	server   *apiserver.Server
	admin    client.Client
	manager  client.Client // with the manager's rights and no others
	requests apiserver.Requests
)

func TestHooks(t *testing.T) {
	apiserver.Require(t)
	RegisterFailHandler(Fail)
	RunSpecs(t, "hooks")
}

var _ = BeforeSuite(func() {
	server, admin = apiserver.Run(GinkgoTB())
	Expect(server.Install(ctx)).To(Succeed())
	config, err := server.ManagerConfig(ctx)
	Expect(err).NotTo(HaveOccurred())
	manager, err = apiserver.Client(requests.Watch(config))
	Expect(err).NotTo(HaveOccurred())
	Expect(admin.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: apiserver.Namespace}})).To(Succeed())
})

var _ = AfterEach(func() {
	Expect(admin.DeleteAllOf(ctx, &corev1.Pod{}, client.InNamespace(apiserver.Namespace), client.GracePeriodSeconds(0))).To(Succeed())
	Expect(admin.DeleteAllOf(ctx, &corev1.PodTemplate{}, client.InNamespace(apiserver.Namespace))).To(Succeed())
})

// newRunner makes one whose clock is set by hand.
func newRunner() (*Runner, *clocktesting.FakePassiveClock) {
	runner := New(manager, manager, apiserver.Namespace)
	clock := clocktesting.NewFakePassiveClock(time.Now())
	runner.clock = clock
	return runner, clock
}

// template makes a PodTemplate.
func template(name string, changes ...func(*corev1.PodTemplateSpec)) {
	GinkgoHelper()
	template := &corev1.PodTemplate{
		ObjectMeta: metav1.ObjectMeta{Namespace: apiserver.Namespace, Name: name},
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "check", Image: "check:1"}},
		}},
	}
	for _, change := range changes {
		change(&template.Template)
	}
	Expect(admin.Create(ctx, template)).To(Succeed())
}

var operations int

// hook is one of an operation of its own, on a node of its own.
func hook(point Point) Hook {
	GinkgoHelper()
	operations++
	node := fmt.Sprintf("node-%d.example.com", operations)
	_, err := server.CreateNode(ctx, node, nil)
	Expect(err).NotTo(HaveOccurred())
	return Hook{
		Point: point, Node: node, OperationID: fmt.Sprintf("operation-%d", operations), Task: "weekly",
		Hook: &v1alpha1.Hook{PodTemplate: "check", Timeout: metav1.Duration{Duration: 90 * time.Second}},
	}
}

// run is one that must not fail.
func run(runner *Runner, hook Hook) State {
	GinkgoHelper()
	state, err := runner.Run(ctx, hook)
	Expect(err).NotTo(HaveOccurred())
	return state
}

// podOf reads the pod of a hook.
func podOf(hook Hook) *corev1.Pod {
	GinkgoHelper()
	pod := &corev1.Pod{}
	Expect(admin.Get(ctx, client.ObjectKey{Namespace: apiserver.Namespace, Name: podName(hook)}, pod)).To(Succeed())
	return pod
}

// say writes what the kubelet says about the pod of a hook.
func say(hook Hook, phase corev1.PodPhase, container corev1.ContainerState) {
	GinkgoHelper()
	pod := podOf(hook)
	pod.Status.Phase = phase
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "check", Image: "check:1", State: container}}
	Expect(admin.Status().Update(ctx, pod)).To(Succeed())
}

// terminated is a container that ended some time after its pod was made.
func terminated(hook Hook, after time.Duration, code int32, message string) corev1.ContainerState {
	GinkgoHelper()
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: code, Reason: "Error", Message: message,
		FinishedAt: metav1.NewTime(podOf(hook).CreationTimestamp.Add(after)),
	}}
}

func waiting(reason string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "attempt 3"}}
}
