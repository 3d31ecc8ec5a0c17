package drain

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

var (
	ctx      = context.Background()
	server   *apiserver.Server
	admin    client.Client
	config   *rest.Config // the manager's, with its rights and no others
	requests apiserver.Requests
	drainer  *Drainer
)

func TestDrain(t *testing.T) {
	apiserver.Require(t)
	RegisterFailHandler(Fail)
	RunSpecs(t, "drain")
}

var _ = BeforeSuite(func() {
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	server, admin = apiserver.Run(GinkgoTB())
	Expect(server.Install(ctx)).To(Succeed())
	var err error
	config, err = server.ManagerConfig(ctx)
	Expect(err).NotTo(HaveOccurred())
	drainer = newDrainer(requests.Watch(config))
})

var _ = AfterSuite(func() {
	Expect(requests.Forbidden()).To(BeEmpty(), "the manager may do all that a drain does")
})

func newDrainer(config *rest.Config) *Drainer {
	GinkgoHelper()
	clientset, err := kubernetes.NewForConfig(config)
	Expect(err).NotTo(HaveOccurred())
	return New(clientset, apiserver.Namespace)
}

// stage is a node of its own with a namespace of its own.
type stage struct {
	node, namespace string
}

var stages int

func newStage() stage {
	GinkgoHelper()
	stages++
	s := stage{node: fmt.Sprintf("node-%d", stages), namespace: fmt.Sprintf("shop-%d", stages)}
	_, err := server.CreateNode(ctx, s.node, nil)
	Expect(err).NotTo(HaveOccurred())
	Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}})).To(Succeed())
	Expect(admin.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: s.namespace}})).To(Succeed())
	return s
}

// pod makes a pod that runs on the node and is ready, as one of a ReplicaSet.
func (s stage) pod(name string, changes ...func(*corev1.Pod)) *corev1.Pod {
	GinkgoHelper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.namespace, Name: name, Labels: map[string]string{"app": "web"},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: appsv1.SchemeGroupVersion.String(), Kind: "ReplicaSet", Name: "web", UID: "web", Controller: ptr.To(true),
			}},
		},
		Spec: corev1.PodSpec{
			NodeName:   s.node,
			Containers: []corev1.Container{{Name: "web", Image: "web:1"}},
		},
	}
	for _, change := range changes {
		change(pod)
	}
	phase := pod.Status.Phase
	Expect(admin.Create(ctx, pod)).To(Succeed())
	pod.Status.Phase = corev1.PodRunning
	if phase != "" {
		pod.Status.Phase = phase
	}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	Expect(admin.Status().Update(ctx, pod)).To(Succeed())
	return pod
}

func (s stage) name(pod string) string { return s.namespace + "/" + pod }

// budget makes a PodDisruptionBudget with the status that its controller gives it.
func (s stage) budget(name string, selector map[string]string, allowed int32) {
	GinkgoHelper()
	pdb := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MaxUnavailable: ptr.To(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: selector},
		},
	}
	Expect(admin.Create(ctx, pdb)).To(Succeed())
	if allowed < 0 {
		return // its controller has not seen it yet
	}
	pdb.Status = policyv1.PodDisruptionBudgetStatus{
		ObservedGeneration: pdb.Generation, DisruptionsAllowed: allowed, CurrentHealthy: 1 + allowed, DesiredHealthy: 1, ExpectedPods: 2,
	}
	Expect(admin.Status().Update(ctx, pdb)).To(Succeed())
}

// daemonSet makes a DaemonSet, and returns what makes a pod one of its.
func (s stage) daemonSet(name string) func(*corev1.Pod) {
	GinkgoHelper()
	labels := map[string]string{"app": name}
	Expect(admin.Create(ctx, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "proxy", Image: "proxy:1"}}},
			},
		},
	})).To(Succeed())
	return ownedByDaemonSet(name)
}

func ownedByDaemonSet(name string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.OwnerReferences[0].Kind = "DaemonSet"
		pod.OwnerReferences[0].Name = name
	}
}

func unmanaged(pod *corev1.Pod) { pod.OwnerReferences = nil }

func withEmptyDir(pod *corev1.Pod) {
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{
		Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
	})
}

func labelled(key, value string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Labels[key] = value }
}

func inPhase(phase corev1.PodPhase) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Status.Phase = phase }
}

// pass is one that must not fail.
func (s stage) pass(options v1alpha1.DrainOptions) Result {
	GinkgoHelper()
	result, err := drainer.Pass(ctx, s.node, &options)
	Expect(err).NotTo(HaveOccurred())
	return result
}

// now reads a pod.
func (s stage) now(name string) *corev1.Pod {
	GinkgoHelper()
	pod := &corev1.Pod{}
	Expect(admin.Get(ctx, types.NamespacedName{Namespace: s.namespace, Name: name}, pod)).To(Succeed())
	return pod
}

// leave ends a pod as its kubelet would.
func (s stage) leave(name string) {
	GinkgoHelper()
	Expect(admin.Delete(ctx, s.now(name), client.GracePeriodSeconds(0))).To(Succeed())
}

// before runs something once, right before the first request that evicts.
func before(config *rest.Config, act func()) *rest.Config {
	changed := rest.CopyConfig(config)
	changed.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &interloper{next: next, act: act}
	})
	return changed
}

type interloper struct {
	next http.RoundTripper
	act  func()
}

func (i *interloper) RoundTrip(request *http.Request) (*http.Response, error) {
	if act := i.act; act != nil && request.Method == http.MethodPost {
		i.act = nil
		act()
	}
	return i.next.RoundTrip(request)
}
