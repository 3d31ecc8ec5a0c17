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

	It("says that the log of record stays", func() {
		report := addReport("a")
		pressOn(report, v1alpha1.ClearLogAnnotation, "")
		act(newPresses(), report)
		Expect(said("Node", "a", v1alpha1.EventLogCleared)).To(ConsistOf(MatchRegexp(
			`^Entries of this node until 20\S+Z were deleted; its log of record on the host, /var/lib/nodepatch/log, is not touched$`)))
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
