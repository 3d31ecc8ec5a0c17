package blockers

import (
	"context"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/test/apiserver"
)

const leaseNamespace = "medik8s-leases" // as in config/rbac/maintenance-lease.yaml

var (
	ctx      = context.Background()
	server   *apiserver.Server
	admin    client.Client
	manager  client.Client // with the manager's rights and no others
	requests apiserver.Requests
	kured    = types.NamespacedName{Namespace: metav1.NamespaceSystem, Name: "kured"}
)

func TestBlockers(t *testing.T) {
	apiserver.Require(t)
	RegisterFailHandler(Fail)
	RunSpecs(t, "blockers")
}

var _ = BeforeSuite(func() {
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	server, admin = apiserver.Run(GinkgoTB())
	Expect(server.Install(ctx)).To(Succeed())
	Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: leaseNamespace}})).To(Succeed())
	_, err := server.Kubectl(ctx, "apply", "-f", "config/rbac/maintenance-lease.yaml")
	Expect(err).NotTo(HaveOccurred())
	config, err := server.ManagerConfig(ctx)
	Expect(err).NotTo(HaveOccurred())
	manager, err = apiserver.Client(requests.Watch(config))
	Expect(err).NotTo(HaveOccurred())
	unwatched, err := apiserver.Client(config)
	Expect(err).NotTo(HaveOccurred())
	Eventually(func() error {
		return unwatched.Get(ctx, client.ObjectKey{Namespace: leaseNamespace, Name: "none"}, &coordinationv1.Lease{})
	}).Should(MatchError(ContainSubstring("not found")), "the Role is in force")
})

// newChecker makes one whose clock is set by hand.
func newChecker(holder string) (*Checker, *clocktesting.FakePassiveClock) {
	checker := New(manager, manager, Options{Kured: kured, LeaseNamespace: leaseNamespace, Holder: holder})
	clock := clocktesting.NewFakePassiveClock(time.Now())
	checker.clock, checker.prometheus.clock = clock, clock
	return checker, clock
}

var nodes int

func newNode() *corev1.Node {
	GinkgoHelper()
	nodes++
	node, err := server.CreateNode(ctx, fmt.Sprintf("node-%d", nodes), nil)
	Expect(err).NotTo(HaveOccurred())
	return node
}

// addPod makes a pod on a node.
func addPod(node, namespace, name string, phase corev1.PodPhase) {
	GinkgoHelper()
	Expect(client.IgnoreAlreadyExists(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}))).To(Succeed())
	Expect(client.IgnoreAlreadyExists(admin.Create(ctx, &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: namespace},
	}))).To(Succeed())
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": "backup"}},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "backup", Image: "backup:1"}}},
	}
	Expect(admin.Create(ctx, pod)).To(Succeed())
	pod.Status.Phase = phase
	Expect(admin.Status().Update(ctx, pod)).To(Succeed())
}

// lockKured writes the annotation of kured's DaemonSet.
func lockKured(value string) {
	GinkgoHelper()
	labels := map[string]string{"name": "kured"}
	daemonSet := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: kured.Namespace, Name: kured.Name, Annotations: map[string]string{kuredLock: value}},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "kured", Image: "kured:1"}}},
			},
		},
	}
	Expect(admin.Create(ctx, daemonSet)).To(Succeed())
	DeferCleanup(func() { Expect(admin.Delete(ctx, daemonSet)).To(Succeed()) })
}

// leaseOf reads a node's Lease.
func leaseOf(node string) *coordinationv1.Lease {
	GinkgoHelper()
	lease := &coordinationv1.Lease{}
	Expect(admin.Get(ctx, client.ObjectKey{Namespace: leaseNamespace, Name: "node-" + node}, lease)).To(Succeed())
	return lease
}

// lend makes a node's Lease of another.
func lend(node, holder string, renewed time.Time, duration time.Duration) {
	GinkgoHelper()
	at := metav1.NewMicroTime(renewed)
	Expect(admin.Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: leaseNamespace, Name: "node-" + node},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: &holder, AcquireTime: &at, RenewTime: &at, LeaseDurationSeconds: ptr.To(int32(duration.Seconds())),
		},
	})).To(Succeed())
}
