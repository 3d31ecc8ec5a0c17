package assignment

import (
	"context"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/agents"
	"github.com/nodepatch/nodepatch/controllers/assignment/drain"
	"github.com/nodepatch/nodepatch/controllers/assignment/hooks"
	"github.com/nodepatch/nodepatch/controllers/blockers"
	"github.com/nodepatch/nodepatch/test/apiserver"
	"github.com/nodepatch/nodepatch/test/apiserver/specs"
)

var (
	ctx    = context.Background()
	server *apiserver.Server
	admin  client.Client
	cached client.Client // reads what the manager has seen
	writes apiserver.Requests
	events patchlog.Sink
	pods   kubernetes.Interface
)

func TestAssignment(t *testing.T) { specs.Run(t, "assignment") }

var _ = BeforeSuite(func() {
	server, admin = apiserver.Run(GinkgoTB())
	Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: apiserver.Namespace}})).To(Succeed())
	events = specs.ManagerLog(GinkgoTB(), server.Config)
	var err error
	pods, err = kubernetes.NewForConfig(server.Config)
	Expect(err).NotTo(HaveOccurred())
})

// runManager runs the controllers until the spec ends.
func runManager() {
	GinkgoHelper()
	apiserver.RunManager(GinkgoTB(), writes.Watch(server.Config), func(mgr ctrl.Manager) error {
		cached = mgr.GetClient()
		return SetupWithManager(mgr, Options{
			Namespace: apiserver.Namespace, Log: events, Drainer: drain.New(pods, apiserver.Namespace),
			Hooks:        hooks.New(mgr.GetClient(), mgr.GetAPIReader(), apiserver.Namespace),
			Coordinators: blockers.New(mgr.GetAPIReader(), mgr.GetClient(), blockers.Options{}),
		})
	})
}

// Nothing is garbage collected here, so that each spec removes what it made.
var _ = AfterEach(removeAll)

func removeAll() {
	GinkgoHelper()
	for _, kind := range []client.Object{&v1alpha1.PatchTask{}, &v1alpha1.PatchAssignment{}, &corev1.Node{}} {
		Expect(admin.DeleteAllOf(ctx, kind)).To(Succeed())
	}
	for _, namespace := range []string{apiserver.Namespace, metav1.NamespaceDefault} {
		for _, kind := range []client.Object{&policyv1.PodDisruptionBudget{}, &appsv1.DaemonSet{}, &corev1.Event{}} {
			Expect(admin.DeleteAllOf(ctx, kind, client.InNamespace(namespace))).To(Succeed())
		}
		Expect(admin.DeleteAllOf(ctx, &corev1.Pod{}, client.InNamespace(namespace), client.GracePeriodSeconds(0))).To(Succeed())
	}
}

// addNode makes a Node that is Ready, with an assignment and the agent's pod.
func addNode(name string) {
	GinkgoHelper()
	_, err := server.CreateNode(ctx, name, nil)
	Expect(err).NotTo(HaveOccurred())
	addPod("agent-"+name, name)
	Expect(admin.Create(ctx, &v1alpha1.PatchAssignment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.PatchAssignmentSpec{Policy: "workers"},
	})).To(Succeed())
	Eventually(presence(name)).Should(Equal(v1alpha1.ControllerStatus{Agent: v1alpha1.AgentReady}))
}

// addPod makes a pod of the agent that is ready.
func addPod(name, node string, owners ...metav1.OwnerReference) {
	GinkgoHelper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: apiserver.Namespace, Labels: agents.PodLabels, OwnerReferences: owners},
		Spec: corev1.PodSpec{
			NodeName:                      node,
			Containers:                    []corev1.Container{{Name: "agent", Image: "nodepatch:dev"}},
			AutomountServiceAccountToken:  ptr.To(false),
			TerminationGracePeriodSeconds: ptr.To[int64](30),
		},
	}
	Expect(admin.Create(ctx, pod)).To(Succeed())
	setReady(name, corev1.ConditionTrue)
}

func setReady(name string, status corev1.ConditionStatus) {
	GinkgoHelper()
	pod := &corev1.Pod{}
	Expect(admin.Get(ctx, client.ObjectKey{Namespace: apiserver.Namespace, Name: name}, pod)).To(Succeed())
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
	Expect(admin.Status().Update(ctx, pod)).To(Succeed())
}

// presence reads what the manager says about a node.
func presence(node string) func() v1alpha1.ControllerStatus {
	return func() v1alpha1.ControllerStatus {
		return ptr.Deref(assignmentNow(node).Status.Controller, v1alpha1.ControllerStatus{})
	}
}

func assignmentNow(name string) *v1alpha1.PatchAssignment {
	GinkgoHelper()
	assignment := &v1alpha1.PatchAssignment{}
	Expect(admin.Get(ctx, client.ObjectKey{Name: name}, assignment)).To(Succeed())
	return assignment
}

func operationOf(node string) func() *v1alpha1.Operation {
	return func() *v1alpha1.Operation { return assignmentNow(node).Spec.Operation }
}

// addTask makes a task that runs.
func addTask(name string) *v1alpha1.PatchTask {
	GinkgoHelper()
	task := &v1alpha1.PatchTask{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.PatchTaskSpec{Policy: "workers", Task: "scan"},
	}
	Expect(admin.Create(ctx, task)).To(Succeed())
	return task
}

// assign gives a node its part of a task.
func assign(node string, task *v1alpha1.PatchTask) {
	GinkgoHelper()
	assignment := assignmentNow(node)
	assignment.Spec.Operation = &v1alpha1.Operation{
		ID: string(task.UID), Task: task.Name, Step: v1alpha1.StepScanning,
		AssignedAt: metav1.Now(), Deadline: metav1.NewTime(time.Now().Add(time.Hour)),
	}
	Expect(admin.Update(ctx, assignment)).To(Succeed())
}

// say writes what the node's agent says about the operation it was given.
func say(node string, step v1alpha1.Step) {
	GinkgoHelper()
	assignment := assignmentNow(node)
	assignment.Status.Agent = &v1alpha1.AgentStatus{
		OperationID: assignment.Spec.Operation.ID, Task: assignment.Spec.Operation.Task, Step: step,
	}
	Expect(admin.Status().Update(ctx, assignment)).To(Succeed())
}

func setPhase(task *v1alpha1.PatchTask, phase v1alpha1.TaskPhase) {
	GinkgoHelper()
	task.Status.Phase = phase
	Expect(admin.Status().Update(ctx, task)).To(Succeed())
}
