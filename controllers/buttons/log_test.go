package buttons

import (
	"fmt"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// enter writes entries about a node to the patch log, each of a run of its own, as
// the node's agent does.
func enter(node, task, policy string, from, to int) {
	GinkgoHelper()
	connection, err := patchlog.NewRESTClient(server.Config)
	Expect(err).NotTo(HaveOccurred())
	agent := patchlog.NewEvents(connection, patchlog.AgentComponent, node, nil)
	group := sync.WaitGroup{}
	failures := make(chan error, to-from)
	for number := range 8 {
		group.Go(func() {
			for i := from + number; i < to; i += 8 {
				run := patchlog.Run{Task: task, UID: types.UID(fmt.Sprintf("%s-%d", task, i)), Policy: policy}
				failures <- agent.Write(ctx, patchlog.ScanStopped(time.Now(), run, node, fmt.Sprintf("Entry %d", i)))
			}
		})
	}
	group.Wait()
	close(failures)
	for err := range failures {
		Expect(err).NotTo(HaveOccurred())
	}
}

// entries counts the entries of the patch log with a label.
func entries(label, value string) int {
	GinkgoHelper()
	var list corev1.EventList
	Expect(admin.List(ctx, &list, client.InNamespace(patchlog.Namespace), client.MatchingLabels{label: value})).To(Succeed())
	return len(list.Items)
}

// hostClears are the clears that a node's agent is told of: number, task and policy.
func hostClears(node string) []string {
	GinkgoHelper()
	var clears []string
	for _, c := range assignmentNow(node).Spec.LogClears {
		clears = append(clears, fmt.Sprintf("%d %s/%s", c.Number, c.Task, c.Policy))
	}
	return clears
}

var _ = Describe("nodepatch.io/clear-log", func() {
	BeforeEach(func() {
		addNode("a")
		enter("a", "scan-now", "workers", 0, 3)
		enter("a", "deploy", "workers", 0, 4)
		enter("b", "scan-now", "workers", 0, 5)
		enter("c", "elsewhere", "others", 0, 6)
	})

	DescribeTable("deletes the entries of what it is on, and no others",
		func(make func() client.Object, label, value string, wantLeft int) {
			object := make()
			all := entries(label, value)
			Expect(all).NotTo(BeZero())
			pressOn(object, v1alpha1.ClearLogAnnotation, "")
			act(newPresses(), object)
			Expect(entries(label, value)).To(Equal(1), "the answer")
			var list corev1.EventList
			Expect(admin.List(ctx, &list, client.InNamespace(patchlog.Namespace))).To(Succeed())
			Expect(list.Items).To(HaveLen(wantLeft + 1))
		},
		Entry("a task", func() client.Object { return addTask("scan-now") }, v1alpha1.TaskLabel, "scan-now", 10),
		Entry("a node", func() client.Object { return addReport("a") }, v1alpha1.NodeLabel, "a", 11),
		Entry("a policy", func() client.Object { return addPolicy("workers") }, v1alpha1.PolicyLabel, "workers", 6),
	)

	It("has the agents delete the same from the logs on their hosts, until the moment of the press", func() {
		addNode("b")
		moved := assignmentNow("b")
		moved.Spec.Policy = "others"
		task, deploy := addTask("scan-now"), addTask("deploy")
		moved.Spec.Verdicts = []v1alpha1.EndedOperation{{OperationID: string(task.UID), Step: v1alpha1.StepDone}}
		moved.Spec.Outcomes = []v1alpha1.EndedOperation{{OperationID: string(deploy.UID), Step: v1alpha1.StepDone}}
		Expect(admin.Update(ctx, moved)).To(Succeed())
		report, policy := addReport("a"), addPolicy("workers")

		var told []string
		for _, object := range []client.Object{task, deploy, policy, report, policy} {
			pressOn(object, v1alpha1.ClearLogAnnotation, "")
			act(newPresses(), object)
			told = append(told, fmt.Sprint(hostClears("a"), hostClears("b")))
		}
		Expect(told).To(Equal([]string{
			"[1 scan-now/] [1 scan-now/]", // b ran both, and has moved to another policy since
			"[1 scan-now/ 2 deploy/] [1 scan-now/ 2 deploy/]",
			"[1 scan-now/ 2 deploy/ 3 /workers] [1 scan-now/ 2 deploy/]",
			"[4 /] [1 scan-now/ 2 deploy/]", // the whole node
			"[4 / 5 /workers] [1 scan-now/ 2 deploy/]",
		}))
		Expect(assignmentNow("a").Spec.LogClears[0].Until.Time).To(BeTemporally("~", time.Now(), 10*time.Second))
		pressOn(report, v1alpha1.ClearLogAnnotation, "")
		act(newPresses(), report)
		Expect(said("Node", "a", v1alpha1.EventLogCleared)).To(ConsistOf(MatchRegexp(
			`^Entries of this node until 20\S+Z were deleted; its agent deletes them from the log on the host, and says so$`)))
		Expect(said("PatchPolicy", "workers", v1alpha1.EventLogCleared)).To(ConsistOf(HaveSuffix(
			"the agents of 1 node delete them from the logs on the hosts, and say so")))
	})

	It("says which logs on hosts nobody can delete from", func() {
		report := addReport("nobodys")
		policy := &v1alpha1.PatchPolicy{ObjectMeta: metav1.ObjectMeta{Name: "empty"}, Spec: v1alpha1.PatchPolicySpec{NodeSelector: &metav1.LabelSelector{}}}
		Expect(admin.Create(ctx, policy)).To(Succeed())
		for _, object := range []client.Object{report, policy} {
			pressOn(object, v1alpha1.ClearLogAnnotation, "")
			act(newPresses(), object)
		}
		Expect(said("Node", "nobodys", v1alpha1.EventLogCleared)).To(ConsistOf(HaveSuffix("no policy governs the node, so that the log on its host stays as it is")))
		Expect(said("PatchPolicy", "empty", v1alpha1.EventLogCleared)).To(ConsistOf(HaveSuffix("its policy governs no node, so that the logs on hosts stay as they are")))
	})

	It("takes a node's entries out of the status of all tasks, and leaves those of others", func() {
		task := addTask("scan-now")
		now := metav1.NowMicro()
		task.Status.Log = append(task.Status.Log,
			v1alpha1.LogEntry{Time: now, Reason: v1alpha1.EventScanFailed, Node: "a", Message: "goes"},
			v1alpha1.LogEntry{Time: now, Reason: v1alpha1.EventScanFailed, Node: "b", Message: "stays"},
			v1alpha1.LogEntry{Time: metav1.NewMicroTime(now.Add(time.Hour)), Reason: v1alpha1.EventNodeFailed, Node: "a", Message: "later"})
		Expect(admin.Status().Update(ctx, task)).To(Succeed())
		report := addReport("a")
		pressOn(report, v1alpha1.ClearLogAnnotation, "")
		act(newPresses(), report)
		var left []string
		for _, entry := range read(task).Status.Log {
			left = append(left, entry.Message)
		}
		Expect(left).To(Equal([]string{"Scan begins", "stays", "later"}))
	})

	It("finds the entries of a node with a long name", func() {
		name := strings.Repeat("long-", 30) + "node"
		report := addReport(name)
		enter(name, "scan-now", "workers", 0, 2)
		pressOn(report, v1alpha1.ClearLogAnnotation, "")
		act(newPresses(), report)
		Expect(entries(v1alpha1.NodeLabel, patchlog.LabelValue(name))).To(Equal(1))
	})

	It("leaves events of others alone that bear its labels", func() {
		event := &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Name: "others", Namespace: patchlog.Namespace, Labels: map[string]string{v1alpha1.NodeLabel: "a"}},
			InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: "a"},
		}
		Expect(admin.Create(ctx, event)).To(Succeed())
		report := addReport("a")
		pressOn(report, v1alpha1.ClearLogAnnotation, "")
		act(newPresses(), report)
		Expect(entries(v1alpha1.NodeLabel, "a")).To(Equal(2))
		Expect(read(event).Name).To(Equal("others"))
	})

	It("empties the log in the status of the task, and of a policy's tasks", func() {
		task, deploy := addTask("scan-now"), addTask("deploy")
		pressOn(task, v1alpha1.ClearLogAnnotation, "")
		act(newPresses(), task)
		Expect(read(task).Status.Log).To(BeEmpty())
		Expect(task.Status.Handled.LogClearedAt).NotTo(BeNil())
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskComplete), "the rest stays")
		Expect(read(deploy).Status.Log).To(HaveLen(1))

		policy := addPolicy("workers")
		pressOn(policy, v1alpha1.ClearLogAnnotation, "")
		act(newPresses(), policy)
		Expect(read(deploy).Status.Log).To(BeEmpty())
		Expect(deploy.Status.Handled.LogClearedAt).NotTo(BeNil())
	})

	It("deletes page after page, and keeps what is written meanwhile", func() {
		enter("a", "scan-now", "workers", 100, 1300)
		report := addReport("a")
		pressOn(report, v1alpha1.ClearLogAnnotation, "")
		looks, left := 0, []int{}
		for {
			result, err := lookAt(newPresses(), report)
			Expect(err).NotTo(HaveOccurred())
			if looks++; result.IsZero() {
				break
			}
			Expect(result.RequeueAfter).To(Equal(afterPart))
			left = append(left, entries(v1alpha1.NodeLabel, "a"))
			enter("a", "later", "workers", looks*10, looks*10+5)
		}
		Expect(looks).To(BeNumerically(">", 1))
		Expect(left[0]).To(Equal(707), "of 1207")
		later := 5 * (looks - 1)
		Expect(entries(v1alpha1.TaskLabel, "later")).To(Equal(later))
		Expect(entries(v1alpha1.NodeLabel, "a")).To(Equal(later+1), "and the answer")
	})
})
