package agents

import (
	"context"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
	"github.com/nodepatch/nodepatch/test/apiserver/specs"
)

const image = "registry.example/nodepatch:1.2.3"

var (
	ctx    = context.Background()
	server *apiserver.Server
	admin  client.Client
	cached client.Client // reads what the manager has seen
	writes apiserver.Requests
	// log writes with the manager's own rights.
	log patchlog.Sink
)

func TestAgents(t *testing.T) { specs.Run(t, "agents") }

var _ = BeforeSuite(func() {
	server, admin = apiserver.Run(GinkgoTB())
	Expect(server.Install(ctx)).To(Succeed())
	account, err := server.ManagerConfig(ctx)
	Expect(err).NotTo(HaveOccurred())
	log = specs.ManagerLog(GinkgoTB(), account)
	apiserver.RunManager(GinkgoTB(), writes.Watch(server.Config), func(mgr ctrl.Manager) error {
		cached = mgr.GetClient()
		return SetupWithManager(mgr, log, Options{
			Namespace: apiserver.Namespace, Image: image, PriorityClass: DefaultPriorityClass, Resources: DefaultResources(),
		})
	})
})

// Nothing is garbage collected here, so that each spec removes what it made.
var _ = AfterEach(func() {
	for _, kind := range []client.Object{&v1alpha1.PatchPolicy{}, &corev1.Node{}} {
		Expect(admin.DeleteAllOf(ctx, kind)).To(Succeed())
	}
	Eventually(func() error { return admin.Get(ctx, daemonSetKey, &appsv1.DaemonSet{}) }).
		Should(MatchError(ContainSubstring("not found")), "without a policy there are no agents")
	for _, kind := range []client.Object{&v1alpha1.PatchAssignment{}, &v1alpha1.PatchReport{}, &v1alpha1.PatchRetry{}} {
		Expect(admin.DeleteAllOf(ctx, kind)).To(Succeed())
	}
	Expect(admin.DeleteAllOf(ctx, &corev1.Event{}, client.InNamespace(patchlog.Namespace))).To(Succeed())
})

var daemonSetKey = client.ObjectKey{Namespace: apiserver.Namespace, Name: Name}

func createPolicy(name string, priority int32, matchLabels map[string]string) *v1alpha1.PatchPolicy {
	GinkgoHelper()
	policy := policyOf(name, &metav1.LabelSelector{MatchLabels: matchLabels})
	policy.Spec.Priority = priority
	Expect(admin.Create(ctx, &policy)).To(Succeed())
	return &policy
}

func createNode(name string, labels map[string]string) *corev1.Node {
	GinkgoHelper()
	node, err := server.CreateNode(ctx, name, labels)
	Expect(err).NotTo(HaveOccurred())
	return node
}

// get reads an object by name; Eventually takes it.
func get[T client.Object](object T, name string) func() (T, error) {
	return func() (T, error) {
		fresh := object.DeepCopyObject().(T)
		return fresh, admin.Get(ctx, client.ObjectKey{Name: name}, fresh)
	}
}

// gone is nil once an object does not exist.
func gone(object client.Object, name string) func() error {
	return func() error {
		return admin.Get(ctx, client.ObjectKey{Name: name}, object.DeepCopyObject().(client.Object))
	}
}

// daemonSetNow reads the agents' DaemonSet.
func daemonSetNow() (*appsv1.DaemonSet, error) {
	existing := &appsv1.DaemonSet{}
	return existing, admin.Get(ctx, daemonSetKey, existing)
}

// toldOf lists the entries of the patch log that regard a node, each with its policy.
func toldOf(node string) []string {
	GinkgoHelper()
	var list corev1.EventList
	Expect(admin.List(ctx, &list, client.InNamespace(patchlog.Namespace), client.MatchingLabels{v1alpha1.NodeLabel: node})).To(Succeed())
	var lines []string
	for _, event := range list.Items {
		Expect(event.Reason).To(Equal(v1alpha1.EventNodeTakenOver))
		lines = append(lines, event.Labels[v1alpha1.PolicyLabel]+": "+event.Message)
	}
	return lines
}
