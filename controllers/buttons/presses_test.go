package buttons

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// newPresses acts with a client that reads from the API server itself.
func newPresses() Presses {
	return Presses{Client: admin, Entries: admin, Log: events, Clock: testingclock.NewFakePassiveClock(time.Now())}
}

// lookAt reconciles an object of any kind once.
func lookAt(p Presses, object client.Object) (ctrl.Result, error) {
	request := ctrl.Request{NamespacedName: client.ObjectKeyFromObject(object)}
	switch object.(type) {
	case *v1alpha1.PatchPolicy:
		return reconcile.AsReconciler(p.Client, &Policies{p}).Reconcile(ctx, request)
	case *v1alpha1.PatchReport:
		return reconcile.AsReconciler(p.Client, &Reports{p}).Reconcile(ctx, request)
	default:
		return reconcile.AsReconciler(p.Client, &Tasks{p}).Reconcile(ctx, request)
	}
}

// pressOn sets an annotation of any object.
func pressOn(object client.Object, annotation, value string) {
	GinkgoHelper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, annotation, strconv.Quote(value))
	Expect(admin.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}

func setFinalizers(object client.Object, value string) {
	GinkgoHelper()
	patch := `{"metadata":{"finalizers":` + value + `}}`
	Expect(admin.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}

// act looks until nothing is left to do, also for the nodes.
func act(p Presses, object client.Object) {
	GinkgoHelper()
	for range 50 {
		result, err := lookAt(p, object)
		Expect(err).NotTo(HaveOccurred())
		lookAtRetries()
		if result.IsZero() {
			return
		}
	}
	Fail("there is no end to it")
}

// lookAtRetries reconciles the PatchRetries of all nodes once.
func lookAtRetries() {
	GinkgoHelper()
	var list v1alpha1.PatchRetryList
	Expect(admin.List(ctx, &list)).To(Succeed())
	for i := range list.Items {
		Expect(look(newReconciler(), list.Items[i].Name)).To(Equal(ctrl.Result{}))
	}
}

// read reads an object again.
func read[T client.Object](object T) T {
	GinkgoHelper()
	Expect(admin.Get(ctx, client.ObjectKeyFromObject(object), object)).To(Succeed())
	return object
}

func addPolicy(name string) *v1alpha1.PatchPolicy {
	GinkgoHelper()
	policy := &v1alpha1.PatchPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.PatchPolicySpec{NodeSelector: &metav1.LabelSelector{}}}
	Expect(admin.Create(ctx, policy)).To(Succeed())
	return policy
}

// addReport makes the report of a node that the policy workers governs.
func addReport(node string) *v1alpha1.PatchReport {
	GinkgoHelper()
	report := &v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: node}}
	Expect(admin.Create(ctx, report)).To(Succeed())
	report.Status.Policy, report.Status.Summary = "workers", "All is well"
	Expect(admin.Status().Update(ctx, report)).To(Succeed())
	return report
}

// addTask makes a task of the policy workers with an entry in its status.
func addTask(name string) *v1alpha1.PatchTask {
	GinkgoHelper()
	task := &v1alpha1.PatchTask{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.PatchTaskSpec{Policy: "workers", Template: &v1alpha1.TaskTemplate{Action: v1alpha1.ActionScan}},
	}
	Expect(admin.Create(ctx, task)).To(Succeed())
	task.Status.Phase = v1alpha1.TaskComplete
	task.Status.Log = []v1alpha1.LogEntry{{Time: metav1.NowMicro(), Reason: v1alpha1.EventTaskStarted, Message: "Scan begins"}}
	Expect(admin.Status().Update(ctx, task)).To(Succeed())
	return task
}

// said lists what the patch log says with a reason about an object of a kind.
func said(kind, name, reason string) []string {
	GinkgoHelper()
	var list corev1.EventList
	Expect(admin.List(ctx, &list, client.InNamespace(patchlog.Namespace))).To(Succeed())
	var lines []string
	for _, event := range list.Items {
		if event.InvolvedObject.Kind == kind && event.InvolvedObject.Name == name && event.Reason == reason {
			lines = append(lines, event.Message)
		}
	}
	slices.Sort(lines)
	return lines
}

// pressable are the objects and buttons of Presses, each with what a press that was
// acted on says, and about what.
type pressable struct {
	make                 func() client.Object
	annotation           string
	kind, name           string
	reason               string
	token, another, text string
}

var pressables = map[string]pressable{
	"clear-retries on a policy": {
		func() client.Object { return addPolicy("workers") }, v1alpha1.ClearRetriesAnnotation, "PatchPolicy", "workers",
		v1alpha1.EventRetriesCleared, "all@t1", "all@t2", "Counts of all patches are cleared on the policy's 1 node; each says itself what that was",
	},
	"clear-log on a policy": {
		func() client.Object { return addPolicy("workers") }, v1alpha1.ClearLogAnnotation, "PatchPolicy", "workers",
		v1alpha1.EventLogCleared, "t1", "t2", "Entries of this policy until ",
	},
	"update-patch-data on a policy": {
		func() client.Object { return addPolicy("workers") }, v1alpha1.UpdatePatchDataAnnotation, "PatchPolicy", "workers",
		v1alpha1.EventPatchDataRequested, "t1", "t2", "Fresh patch data and a scan are asked for on 1 node; each says itself what came of it",
	},
	"clear-log on a report": {
		func() client.Object { return addReport("a") }, v1alpha1.ClearLogAnnotation, "Node", "a",
		v1alpha1.EventLogCleared, "t1", "t2", "Entries of this node until ",
	},
	"update-patch-data on a report": {
		func() client.Object { return addReport("a") }, v1alpha1.UpdatePatchDataAnnotation, "Node", "a",
		v1alpha1.EventPatchDataRequested, "t1", "t2", "Fresh patch data and a scan are asked for",
	},
	"clear-log on a task": {
		func() client.Object { return addTask("scan-now") }, v1alpha1.ClearLogAnnotation, "PatchTask", "scan-now",
		v1alpha1.EventLogCleared, "t1", "t2", "Entries of this task until ",
	},
}

// eachButton makes an entry of a table of each of them.
func eachButton() []TableEntry {
	var entries []TableEntry
	for name, button := range pressables {
		entries = append(entries, Entry(name, button))
	}
	return entries
}

var _ = Describe("A button of a policy, a report or a task", func() {
	BeforeEach(func() { addNode("a") })

	DescribeTable("acts, answers and is gone, each time", func(b pressable) {
		object := b.make()
		if b.annotation == v1alpha1.ClearRetriesAnnotation {
			b.token = "all"
		} else {
			b.token = ""
		}
		for number := range 2 {
			pressOn(object, b.annotation, b.token)
			act(newPresses(), object)
			Expect(read(object).GetAnnotations()).To(BeEmpty())
			Expect(pressOf(object)).To(BeNil())
			handled := *handledOf(object)
			Expect(handled.Presses).To(BeEquivalentTo(number + 1))
			Expect(*memory(handled, b.annotation)).To(BeEmpty(), "it can be pressed again")
			// Clearing the log clears former answers, too.
			answers := said(b.kind, b.name, b.reason)
			Expect(answers).To(HaveLen(map[bool]int{true: 1, false: number + 1}[b.annotation == v1alpha1.ClearLogAnnotation]))
			Expect(answers).To(HaveEach(HavePrefix(b.text)))
		}
	}, eachButton())

	DescribeTable("acts once for a token that Git puts back", func(b pressable) {
		object := b.make()
		pressOn(object, b.annotation, b.token)
		act(newPresses(), object)
		Expect(read(object).GetAnnotations()).To(BeEmpty())
		Expect(*memory(*handledOf(object), b.annotation)).To(Equal(b.token))

		pressOn(object, b.annotation, b.token)
		version := read(object).GetResourceVersion()
		act(newPresses(), object)
		Expect(read(object).GetResourceVersion()).To(Equal(version), "nothing was written")
		Expect(said(b.kind, b.name, b.reason)).To(HaveLen(1))

		pressOn(object, b.annotation, b.another)
		act(newPresses(), object)
		Expect(read(object).GetAnnotations()).To(BeEmpty())
		Expect((*handledOf(object)).Presses).To(BeEquivalentTo(2))
		Expect(*memory(*handledOf(object), b.annotation)).To(Equal(b.another))
	}, eachButton())

	DescribeTable("says what to write instead of rubbish, and takes it away", func(b pressable) {
		rubbish := "all@t1 or so"
		if b.annotation == v1alpha1.ClearRetriesAnnotation {
			rubbish = " , ,"
		}
		object := b.make()
		pressOn(object, b.annotation, rubbish)
		act(newPresses(), object)
		Expect(read(object).GetAnnotations()).To(BeEmpty())
		Expect(said(b.kind, b.name, b.reason)).To(BeEmpty())
		Expect(said(b.kind, b.name, v1alpha1.EventButtonRefused)).To(ConsistOf(ContainSubstring(b.annotation + " takes ")))
		Expect(retryNow("a").Status.Patches).To(HaveLen(3))
		Expect(assignmentNow("a").Spec).To(Equal(v1alpha1.PatchAssignmentSpec{Policy: "workers"}))
		if task, ok := object.(*v1alpha1.PatchTask); ok {
			Expect(task.Status.Log).To(HaveLen(1))
		}
	}, eachButton())

	DescribeTable("is left alone on what is being deleted, and on what is gone", func(b pressable) {
		object := b.make()
		setFinalizers(object, `["nodepatch.io/test"]`)
		pressOn(object, b.annotation, b.token)
		Expect(admin.Delete(ctx, object)).To(Succeed())
		version := read(object).GetResourceVersion()
		act(newPresses(), object)
		Expect(read(object).GetResourceVersion()).To(Equal(version))
		Expect(said(b.kind, b.name, b.reason)).To(BeEmpty())
		setFinalizers(object, "null")
		act(newPresses(), object)
	}, eachButton())

	DescribeTable("acts once where two managers see it", func(b pressable) {
		object := b.make()
		pressOn(object, b.annotation, b.token)
		second, first := newPresses(), newPresses()
		var failure error
		first.Client = before(func(string) { // each write of the first comes after a whole look of the second
			if _, err := lookAt(second, object); err != nil {
				failure = err
			}
		})
		act(first, object)
		Expect(failure).NotTo(HaveOccurred())
		Expect(read(object).GetAnnotations()).To(BeEmpty())
		Expect((*handledOf(object)).Presses).To(BeEquivalentTo(1))
		Expect(said(b.kind, b.name, b.reason)).To(HaveLen(1))
		Expect(assignmentNow("a").Spec.PatchDataRefreshes).To(BeNumerically("<=", 1))
		Expect(retryNow("a").Status.Clears).To(BeNumerically("<=", 1))
	}, eachButton())

	It("acts on one after the other where all are pressed together", func() {
		policy := addPolicy("workers")
		for _, annotation := range policyButtons {
			value := map[bool]string{true: "ham", false: ""}[annotation == v1alpha1.ClearRetriesAnnotation]
			pressOn(policy, annotation, value)
		}
		for range policyButtons {
			Expect(read(policy).Annotations).NotTo(BeEmpty())
			act(newPresses(), policy)
		}
		Expect(read(policy).Annotations).To(BeEmpty())
		Expect(policy.Status.Handled.Presses).To(BeEquivalentTo(3))
		Expect(said("PatchPolicy", "workers", v1alpha1.EventPatchDataRequested)).To(HaveLen(1))
		Expect(retryNow("a").Status.Summary).To(Equal("1 blocked: egg 1.1 (4 installs); 1 failed: spam 3.0 (2 downloads)"))
	})

	It("acts on another value that comes while it acts on the one before", func() {
		report := addReport("a")
		pressOn(report, v1alpha1.UpdatePatchDataAnnotation, "t1")
		p := newPresses()
		p.Client = before(func(what string) {
			if what == "assignment" {
				pressOn(report.DeepCopy(), v1alpha1.UpdatePatchDataAnnotation, "t2")
			}
		})
		act(p, report)
		Expect(read(report).Annotations).To(HaveKeyWithValue(v1alpha1.UpdatePatchDataAnnotation, "t2"))
		act(newPresses(), report)
		Expect(read(report).Annotations).To(BeEmpty())
		Expect(assignmentNow("a").Spec.PatchDataRefreshes).To(BeEquivalentTo(2))
		Expect(report.Status.Summary).To(Equal("All is well"), "what the agent wrote stays")
	})
})
