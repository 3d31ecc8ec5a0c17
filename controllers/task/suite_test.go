package task

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

var (
	ctx    = context.Background()
	server *apiserver.Server
	admin  client.Client
	events patchlog.Sink
)

func TestTask(t *testing.T) {
	apiserver.Require(t)
	RegisterFailHandler(Fail)
	RunSpecs(t, "task")
}

var _ = BeforeSuite(func() {
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	ctrl.SetLogger(GinkgoLogr)
	server, admin = apiserver.Run(GinkgoTB())
	rest, err := patchlog.NewRESTClient(server.Config)
	Expect(err).NotTo(HaveOccurred())
	events = patchlog.NewEvents(rest, patchlog.ManagerComponent, "nodepatch-manager-0", nil)
})

var _ = AfterEach(removeAll)

// removeAll removes what a spec made: nothing is garbage collected here.
func removeAll() {
	GinkgoHelper()
	for _, kind := range []client.Object{
		&v1alpha1.PatchTask{}, &v1alpha1.PatchPolicy{}, &v1alpha1.PatchAssignment{}, &v1alpha1.PatchReport{}, &corev1.Node{},
	} {
		Expect(admin.DeleteAllOf(ctx, kind)).To(Succeed())
	}
	Expect(admin.DeleteAllOf(ctx, &corev1.Event{}, client.InNamespace(patchlog.Namespace))).To(Succeed())
}

// newReconciler makes one that reads from the API server itself, at a time that
// the test sets. Its tasks are created by the API server's clock.
func newReconciler() (*Reconciler, *testingclock.FakePassiveClock) {
	clock := testingclock.NewFakePassiveClock(time.Now())
	return &Reconciler{Client: admin, Reports: admin, Log: events, Clock: clock}, clock
}

// step lets time pass, then reconciles until the task is not due at once.
func step(r *Reconciler, clock *testingclock.FakePassiveClock, pass time.Duration, tasks ...string) {
	GinkgoHelper()
	clock.SetTime(clock.Now().Add(pass))
	for _, name := range tasks {
		for range 5 {
			result, err := r.Reconcile(ctx, requestFor(name))
			Expect(err).NotTo(HaveOccurred())
			if result.RequeueAfter == 0 || result.RequeueAfter >= interval/2 {
				break
			}
			clock.SetTime(clock.Now().Add(result.RequeueAfter))
		}
	}
}

func requestFor(name string) ctrl.Request {
	return ctrl.Request{NamespacedName: client.ObjectKey{Name: name}}
}

// addPolicy makes a policy that governs the nodes of its name's pool.
func addPolicy(name string, change ...func(*v1alpha1.PatchPolicy)) *v1alpha1.PatchPolicy {
	GinkgoHelper()
	policy := &v1alpha1.PatchPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.PatchPolicySpec{
			NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"pool": name}},
			Tasks: []v1alpha1.NamedTask{
				{Name: "scan", Template: v1alpha1.TaskTemplate{Action: v1alpha1.ActionScan}},
				{Name: "deploy", Template: v1alpha1.TaskTemplate{Action: v1alpha1.ActionDeploy}},
			},
		},
	}
	for _, c := range change {
		c(policy)
	}
	Expect(admin.Create(ctx, policy)).To(Succeed())
	return policy
}

// addNodes makes nodes of the pool workers that are Ready, with their
// assignments and agents that are there.
func addNodes(names ...string) {
	GinkgoHelper()
	for _, name := range names {
		_, err := server.CreateNode(ctx, name, map[string]string{"pool": "workers"})
		Expect(err).NotTo(HaveOccurred())
		assignment := &v1alpha1.PatchAssignment{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       v1alpha1.PatchAssignmentSpec{Policy: "workers"},
		}
		Expect(admin.Create(ctx, assignment)).To(Succeed())
		assignment.Status.Controller = &v1alpha1.ControllerStatus{Agent: v1alpha1.AgentReady}
		Expect(admin.Status().Update(ctx, assignment)).To(Succeed())
	}
}

// addTask makes a task that runs the policy's scan.
func addTask(name string, change ...func(*v1alpha1.PatchTask)) *v1alpha1.PatchTask {
	GinkgoHelper()
	task := &v1alpha1.PatchTask{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.PatchTaskSpec{Policy: "workers", Task: "scan"},
	}
	for _, c := range change {
		c(task)
	}
	Expect(admin.Create(ctx, task)).To(Succeed())
	return task
}

// parallel gives a task options of its own, with this many scans at once.
func parallel(scans int32) func(*v1alpha1.PatchTask) {
	return func(task *v1alpha1.PatchTask) {
		task.Spec.Task = ""
		task.Spec.Template = &v1alpha1.TaskTemplate{
			Action:  v1alpha1.ActionScan,
			Rollout: v1alpha1.RolloutOptions{MaxParallelScans: scans},
		}
	}
}

// deploy makes a task deploy, preparing and disrupting this many nodes at once.
func deploy(nodes int) func(*v1alpha1.PatchTask) {
	return func(task *v1alpha1.PatchTask) {
		task.Spec.Task = ""
		task.Spec.Template = &v1alpha1.TaskTemplate{
			Action:  v1alpha1.ActionDeploy,
			Rollout: v1alpha1.RolloutOptions{MaxUnavailable: ptr.To(intstr.FromInt(nodes)), MaxParallelScans: int32(nodes)},
		}
	}
}

// stop presses the button on a task, or takes it back where there are no words.
func stop(name, why string) {
	GinkgoHelper()
	value := "null"
	if why != "" {
		value = strconv.Quote(why)
	}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, v1alpha1.StopAnnotation, value)
	Expect(admin.Patch(ctx, taskNow(name), client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}

func taskNow(name string) *v1alpha1.PatchTask {
	GinkgoHelper()
	task := &v1alpha1.PatchTask{}
	Expect(admin.Get(ctx, client.ObjectKey{Name: name}, task)).To(Succeed())
	return task
}

func assignmentNow(name string) *v1alpha1.PatchAssignment {
	GinkgoHelper()
	assignment := &v1alpha1.PatchAssignment{}
	Expect(admin.Get(ctx, client.ObjectKey{Name: name}, assignment)).To(Succeed())
	return assignment
}

// answer writes what the node's agent would say about the operation it was given.
func answer(node string, outcome v1alpha1.Step, missing int32) {
	GinkgoHelper()
	assignment := assignmentNow(node)
	operation := assignment.Spec.Operation
	Expect(operation).NotTo(BeNil(), "node %s was given no operation", node)
	now := metav1.Now()
	said := &v1alpha1.AgentStatus{OperationID: operation.ID, Task: operation.Task, Step: outcome, Time: &now}
	switch outcome {
	case v1alpha1.StepDone:
		said.Reason, said.Counts = v1alpha1.ReasonScanned, &v1alpha1.PatchCounts{Missing: missing, Other: missing}
	case v1alpha1.StepFailed:
		said.Reason, said.Message = v1alpha1.ReasonScanFailed, "E: The list of sources could not be read."
	case v1alpha1.StepStopped:
		said.Reason, said.Message = v1alpha1.ReasonStopped, operation.Stop+"; 2 patches installed"
		said.Counts = &v1alpha1.PatchCounts{Installed: 2, Missing: missing}
	}
	if before := assignment.Status.Agent; before != nil && before.Step.Ended() {
		said.Earlier = append([]v1alpha1.EndedOperation{{
			OperationID: before.OperationID, Step: before.Step, Time: before.Time,
			Reason: before.Reason, Message: before.Message, Counts: before.Counts,
		}}, before.Earlier...)
		said.Earlier = said.Earlier[:min(len(said.Earlier), 8)] // An agent forgets the others.
	}
	assignment.Status.Agent = said
	Expect(admin.Status().Update(ctx, assignment)).To(Succeed())
}

// notReady takes the Node's kubelet away.
func notReady(name string) {
	GinkgoHelper()
	node := &corev1.Node{}
	Expect(admin.Get(ctx, client.ObjectKey{Name: name}, node)).To(Succeed())
	node.Status.Conditions[0].Status = corev1.ConditionUnknown
	node.Status.Conditions[0].Reason = "NodeStatusUnknown"
	Expect(admin.Status().Update(ctx, node)).To(Succeed())
}

// written lists the patch log at the API server: reason and node, sorted.
func written() []string {
	GinkgoHelper()
	var list corev1.EventList
	Expect(admin.List(ctx, &list, client.InNamespace(patchlog.Namespace))).To(Succeed())
	lines := []string{}
	for _, event := range list.Items {
		if event.ReportingController != string(patchlog.ManagerComponent) {
			continue
		}
		node := ""
		if event.InvolvedObject.Kind == "Node" {
			node = event.InvolvedObject.Name
		}
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s", event.Reason, node)))
	}
	slices.Sort(lines)
	return lines
}

// logged lists the log of a task's status: reason and node, in order.
func logged(task *v1alpha1.PatchTask) []string {
	lines := []string{}
	for _, entry := range task.Status.Log {
		lines = append(lines, strings.TrimSpace(entry.Reason+" "+entry.Node))
	}
	return lines
}
