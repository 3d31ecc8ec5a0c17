package assignment

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/agents"
	"github.com/nodepatch/nodepatch/controllers/assignment/drain"
	"github.com/nodepatch/nodepatch/controllers/assignment/hooks"
	"github.com/nodepatch/nodepatch/controllers/blockers"
	"github.com/nodepatch/nodepatch/test/apiserver"
	"github.com/nodepatch/nodepatch/test/apiserver/specs"
)

// machine plays what a node itself does, its kubelet and its agent, against the
// real API server, and has a manager take the node through its disruption.
type machine struct {
	name  string
	task  *v1alpha1.PatchTask
	clock *clocktesting.FakeClock
	// process is the manager's life.
	process *specs.Process
	r       *Reconciler
	// reboots says that what is installed wants a reboot.
	reboots bool
	// hangs are what does not happen: pods that end, an install, a reboot, an
	// agent that says anything, the kubelet telling of its pods after a reboot.
	hangs sets.Set[string]
	// hooksFail are the hooks that fail.
	hooksFail sets.Set[string]
	// outcome is what the agent ends with if not Done.
	outcome v1alpha1.AgentStatus
	// raises are the steps that the agent saw itself let go to.
	raises []v1alpha1.Step
	// coordinators are the other programs that the manager asks.
	coordinators blockers.Options
	// frozen keeps the time from going on.
	frozen bool
	// boots counts the boots of the host.
	boots int
	// fresh is the Node before a manager could see that it was admitted.
	fresh *corev1.Node
}

var machines int

// newMachine makes a node with two pods of a workload, one of a DaemonSet, and an
// agent that waits to install; its task has admitted it.
func newMachine(template v1alpha1.TaskTemplate, changes ...func(*corev1.Node)) *machine {
	GinkgoHelper()
	machines++
	m := &machine{
		name: fmt.Sprint("machine-", machines), reboots: true, boots: 1,
		clock:   clocktesting.NewFakeClock(time.Now().Truncate(time.Second)),
		process: &specs.Process{At: -1, Log: events},
		hangs:   sets.New[string](), hooksFail: sets.New[string](),
	}
	node, err := server.CreateNode(ctx, m.name, nil)
	Expect(err).NotTo(HaveOccurred())
	for _, change := range changes {
		change(node)
	}
	Expect(admin.Update(ctx, node)).To(Succeed())
	m.changeNode(func(node *corev1.Node) { node.Status.NodeInfo.BootID = "boot-1" })
	m.fresh = m.node()
	m.addAgent()
	m.pod("web-1", metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "web", Controller: ptr.To(true)})
	m.pod("web-2", metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "web", Controller: ptr.To(true)})
	m.daemonSet("proxy")

	template.Action = v1alpha1.ActionDeploy
	m.task = addTask("task-" + m.name)
	m.task.Status.Template = &template
	m.task.Status.Phase = v1alpha1.TaskRunning
	Expect(admin.Status().Update(ctx, m.task)).To(Succeed())
	now := metav1.NewTime(m.clock.Now())
	Expect(admin.Create(ctx, &v1alpha1.PatchAssignment{
		ObjectMeta: metav1.ObjectMeta{Name: m.name},
		Spec: v1alpha1.PatchAssignmentSpec{Policy: "workers", Operation: &v1alpha1.Operation{
			ID: string(m.task.UID), Task: m.task.Name, Step: v1alpha1.StepDownloading, Action: v1alpha1.ActionDeploy,
			Reboot: v1alpha1.RebootIfRequired, AdmittedAt: &now, AssignedAt: now, Deadline: now,
		}},
	})).To(Succeed())
	m.say(v1alpha1.StepWaiting, v1alpha1.ReasonReadyToInstall)
	m.boot()
	return m
}

// boot starts a manager that knows nothing.
func (m *machine) boot() {
	GinkgoHelper()
	base, err := client.NewWithWatch(server.Config, client.Options{Scheme: admin.Scheme(), Mapper: admin.RESTMapper()})
	Expect(err).NotTo(HaveOccurred())
	c := m.process.Client(base, nil)
	m.r = &Reconciler{
		Client: c, Live: c, Namespace: apiserver.Namespace, Log: m.process, Clock: m.clock,
		Drainer: drain.New(pods, apiserver.Namespace), Hooks: hooks.New(c, c, apiserver.Namespace),
		Coordinators: blockers.New(c, c, m.coordinators),
	}
}

// addAgent makes the pod of the agent, as its DaemonSet does.
func (m *machine) addAgent() {
	GinkgoHelper()
	set := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: apiserver.Namespace, Name: agents.Name},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: agents.PodLabels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: agents.PodLabels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "agent", Image: "nodepatch:dev"}}},
			},
		},
	}
	if err := admin.Create(ctx, set); err != nil {
		Expect(client.IgnoreAlreadyExists(err)).To(Succeed())
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(set), set)).To(Succeed())
	}
	addPod("agent-"+m.name, m.name, *metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("DaemonSet")))
}

// pod makes a running pod on the node that somebody owns.
func (m *machine) pod(name string, owner metav1.OwnerReference) {
	GinkgoHelper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceDefault, Name: m.name + "-" + name,
			Labels: map[string]string{"app": m.name + "-" + owner.Name}, OwnerReferences: []metav1.OwnerReference{owner},
		},
		Spec: corev1.PodSpec{
			NodeName: m.name, Containers: []corev1.Container{{Name: "c", Image: "c"}}, AutomountServiceAccountToken: ptr.To(false),
		},
	}
	Expect(admin.Create(ctx, pod)).To(Succeed())
	m.setPod(pod, corev1.PodRunning, corev1.ConditionTrue)
}

func (m *machine) setPod(pod *corev1.Pod, phase corev1.PodPhase, ready corev1.ConditionStatus) {
	GinkgoHelper()
	pod.Status.Phase = phase
	if phase == corev1.PodRunning {
		m.run(pod)
	}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
	Expect(admin.Status().Update(ctx, pod)).To(Succeed())
}

// run says that a pod's containers run, which each boot of the host makes anew.
func (m *machine) run(pod *corev1.Pod) {
	id := fmt.Sprintf("containerd://%x", sha256.Sum256(fmt.Append(nil, pod.UID, m.boots)))
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "c", ContainerID: id, Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
	}}
}

// daemonSet makes a DaemonSet with its pod on the node.
func (m *machine) daemonSet(name string) {
	GinkgoHelper()
	labels := map[string]string{"app": m.name + "-" + name}
	set := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: m.name + "-" + name},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "c"}}},
			},
		},
	}
	Expect(admin.Create(ctx, set)).To(Succeed())
	m.pod(name, *metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("DaemonSet")))
}

// round lets the manager look once, then the node do what follows. Without
// anything to do time goes on to when the manager wants to look again.
func (m *machine) round() (ctrl.Result, error) {
	GinkgoHelper()
	result, err := m.look()
	if moved := m.kubelet() || m.agent(); !moved && err == nil && result.RequeueAfter > 0 && !m.frozen {
		m.clock.Step(result.RequeueAfter)
	}
	return result, err
}

func (m *machine) look() (ctrl.Result, error) {
	assignment := &v1alpha1.PatchAssignment{}
	var result ctrl.Result
	err := admin.Get(ctx, client.ObjectKey{Name: m.name}, assignment)
	if err == nil {
		result, err = m.r.Reconcile(ctx, assignment)
	}
	if client.IgnoreNotFound(err) != nil {
		return result, err
	}
	left, err := Leaver{m.r}.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKey{Name: m.name}})
	if result.RequeueAfter == 0 || left.RequeueAfter > 0 && left.RequeueAfter < result.RequeueAfter {
		result = left
	}
	return result, err
}

// until lets rounds go by until a state is reached.
func (m *machine) until(what string, reached func() bool) {
	GinkgoHelper()
	for range 300 {
		if reached() {
			return
		}
		_, err := m.round()
		Expect(err).NotTo(HaveOccurred())
	}
	Fail(fmt.Sprintf("%s: not reached %s; the manager says %+v, the agent %+v, the verdicts are %+v", m.name, what,
		m.assignment().Status.Controller, m.assignment().Status.Agent, m.assignment().Spec.Verdicts))
}

// over says whether the verdict was given and the Node let go.
func (m *machine) over() bool {
	return m.assignment().Spec.Operation == nil && !carriesRecord(m.node())
}

// said says whether the manager says that it is at a step.
func (m *machine) said(step v1alpha1.Step) func() bool {
	return func() bool {
		controller := m.assignment().Status.Controller
		return controller != nil && controller.Step == step
	}
}

func (m *machine) assignment() *v1alpha1.PatchAssignment {
	GinkgoHelper()
	return assignmentNow(m.name)
}

func (m *machine) node() *corev1.Node {
	GinkgoHelper()
	node := &corev1.Node{}
	Expect(admin.Get(ctx, client.ObjectKey{Name: m.name}, node)).To(Succeed())
	return node
}

// changeNode changes the Node's status, as the kubelet does.
func (m *machine) changeNode(change func(*corev1.Node)) {
	GinkgoHelper()
	node := m.node()
	patch := client.StrategicMergeFrom(node.DeepCopy())
	change(node)
	Expect(admin.Status().Patch(ctx, node, patch)).To(Succeed())
}

// kubectl changes the Node as a person does.
func (m *machine) kubectl(change func(*corev1.Node)) {
	GinkgoHelper()
	node := m.node()
	patch := client.StrategicMergeFrom(node.DeepCopy())
	change(node)
	Expect(admin.Patch(ctx, node, patch, client.FieldOwner("kubectl"))).To(Succeed())
}

func (m *machine) pods() []corev1.Pod {
	GinkgoHelper()
	var list corev1.PodList
	Expect(admin.List(ctx, &list, client.MatchingFields{podNodeField: m.name})).To(Succeed())
	return list.Items
}

// workload are the pods that a drain is about.
func (m *machine) workload() []string {
	GinkgoHelper()
	var names []string
	for _, pod := range m.pods() {
		if strings.HasPrefix(pod.Name, m.name+"-web") {
			names = append(names, pod.Name)
		}
	}
	return names
}

// verdict is the only one; more are a mistake.
func (m *machine) verdict() v1alpha1.EndedOperation {
	GinkgoHelper()
	verdicts := m.assignment().Spec.Verdicts
	Expect(verdicts).To(HaveLen(1), "a node gets one verdict")
	return verdicts[0]
}

// logged are the reasons of the patch log's entries about the node.
func (m *machine) logged() []string {
	GinkgoHelper()
	var list corev1.EventList
	Expect(admin.List(ctx, &list, client.InNamespace(metav1.NamespaceDefault), client.MatchingLabels{v1alpha1.NodeLabel: m.name})).To(Succeed())
	var reasons []string
	for i := range list.Items {
		reasons = append(reasons, list.Items[i].Reason)
	}
	slices.Sort(reasons)
	return reasons
}

// untouched checks that nothing of the disruption is left on the Node.
func (m *machine) untouched(before *corev1.Node) {
	GinkgoHelper()
	node := m.node()
	Expect(node.Annotations).To(Equal(before.Annotations))
	Expect(node.Labels).To(Equal(before.Labels))
	Expect(node.Spec.Unschedulable).To(Equal(before.Spec.Unschedulable))
	Expect(node.Status.Conditions).To(HaveLen(len(before.Status.Conditions)), "no condition of ours is left")
	for _, pod := range m.pods() {
		Expect(pod.Labels).NotTo(HaveKeyWithValue("app.kubernetes.io/component", "hook"), "no pod of a hook is left")
	}
}
