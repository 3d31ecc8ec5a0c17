package task

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

// pinnedRollout is a deployment whose first two nodes decide what the third installs. The
// mirror moves while the third prepares itself, which must change nothing.
var pinnedRollout = story{
	nodes: []string{"a-canary", "b-canary", "c-later"},
	begin: func() {
		addTask("scan-now", deploy(3), func(task *v1alpha1.PatchTask) {
			task.Spec.Template.Rollout.Pin = v1alpha1.PinFirstWave
			two := intstr.FromInt(2)
			task.Spec.Template.Rollout.Waves = []v1alpha1.Wave{{Name: "canaries", Size: &two}}
		})
	},
	happen: func() {
		pinned := taskNow("scan-now").Status.Pinned
		for _, node := range []string{"a-canary", "b-canary", "c-later"} {
			given := assignmentNow(node)
			operation := given.Spec.Operation
			if operation == nil {
				continue
			}
			Expect(operation.Pin).To(Equal(map[string]v1alpha1.OperationPin{"c-later": v1alpha1.OperationPinTask}[node]), node)
			Expect(pinned != nil).To(Or(BeTrue(), Equal(node == "c-later")), node+" began before it was recorded what it installs")
			switch {
			case operation.AdmittedAt != nil:
				installs(node, operation.ID, "ham 2.0", "egg 3.0")
				judge(node, v1alpha1.StepDone, v1alpha1.ReasonVerified)
			case given.Status.Agent == nil:
				wait(node, 3)
			}
		}
		if pinned != nil {
			installs("a-canary", "another-operation", "ham 9.9")
		}
	},
}

// installs has a node's report say what an operation has installed there.
func installs(node, operation string, patches ...string) {
	GinkgoHelper()
	said := &v1alpha1.InstalledPatches{OperationID: operation}
	for _, p := range patches {
		said.Patches = append(said.Patches, v1alpha1.InstalledPatch{Name: p[:3], Version: p[4:]})
	}
	report := &v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: node}}
	Expect(client.IgnoreAlreadyExists(admin.Create(ctx, report))).To(Succeed())
	Expect(admin.Get(ctx, client.ObjectKey{Name: node}, report)).To(Succeed())
	report.Status.Installed = said
	Expect(admin.Status().Update(ctx, report)).To(Succeed())
}

var _ = Describe("A rollout that pins what its first wave installs", func() {
	It("records it before any other node begins, whatever happens to its manager", func() {
		want, writes := undisturbed(pinnedRollout)
		Expect(want.Phase).To(Equal(v1alpha1.TaskComplete), want.Message)
		Expect(want.Pinned).To(Equal("2 patches pinned, as installed on a-canary, b-canary[{egg 3.0} {ham 2.0}]"))
		Expect(want.Given).To(Equal(map[string]int{"a-canary": 1, "b-canary": 1, "c-later": 1}))
		Expect(want.Let).To(Equal(map[string]int{"a-canary": 1, "b-canary": 1, "c-later": 1}))
		Expect(want.Events).To(Equal([]string{"PatchesPinned", "TaskFinished", "TaskStarted"}))
		disturb(pinnedRollout, append(telling, conflict), writes, want)
	})

	It("does not go on as long as it cannot read what was installed", func() {
		addPolicy("workers")
		addNodes("a", "b")
		addTask("scan-now", deploy(2), func(task *v1alpha1.PatchTask) {
			task.Spec.Template.Rollout.Pin = v1alpha1.PinFirstWave
			task.Spec.Template.Rollout.Waves = []v1alpha1.Wave{sizedWave("canary", intstr.FromInt(1))}
		})
		r, clock := newReconciler()
		step(r, clock, 0, "scan-now")
		answer("a", v1alpha1.StepDone, 0)
		dead := &process{killed: true}
		r.Reports = dead.client()
		clock.SetTime(clock.Now().Add(2 * interval))
		_, err := r.Reconcile(ctx, requestFor("scan-now"))
		Expect(err).To(MatchError(ContainSubstring("reading what the node a has installed")))
		Expect(taskNow("scan-now").Status.Pinned).To(BeNil())
		Expect(taskNow("scan-now").Status.Message).To(HaveSuffix("1 waiting (b NotPinned)"))
		Expect(assignmentNow("b").Spec.Operation).To(BeNil())

		r.Reports = admin
		step(r, clock, 2*interval, "scan-now")
		Expect(taskNow("scan-now").Status.Phase).To(Equal(v1alpha1.TaskFailed), "the node has no report")
		Expect(taskNow("scan-now").Status.Conditions).To(ContainElement(HaveField("Reason", v1alpha1.ReasonNothingPinned)))
		Expect(taskNow("scan-now").Status.Message).To(HavePrefix("Nothing is pinned: the reports of a do not say what this task has installed there"))
		Expect(assignmentNow("b").Spec.Operation).To(BeNil())
		Expect(written()).To(Equal([]string{"TaskFailed", "TaskStarted"}))
	})
})

var _ = Describe("A rollout that pins, in a running manager", func() {
	It("goes on by itself once the first wave is done", func() {
		apiserver.RunManager(GinkgoTB(), server.Config, func(mgr ctrl.Manager) error {
			return SetupWithManager(mgr, events, Options{})
		})
		addPolicy("workers")
		addNodes("a", "b")
		addTask("scan-now", deploy(2), func(task *v1alpha1.PatchTask) {
			task.Spec.Template.Rollout.Pin = v1alpha1.PinFirstWave
			task.Spec.Template.Rollout.Waves = []v1alpha1.Wave{sizedWave("canary", intstr.FromInt(1))}
		})
		operationOf := func(node string) func() *v1alpha1.Operation {
			return func() *v1alpha1.Operation { return assignmentNow(node).Spec.Operation }
		}
		Eventually(operationOf("a")).Should(HaveValue(HaveField("Pin", BeEmpty())))
		Eventually(func() string { return taskNow("scan-now").Status.Message }).Should(HaveSuffix("1 waiting (b NotPinned)"))
		installs("a", operationOf("a")().ID, "ham 2.0")
		answer("a", v1alpha1.StepDone, 0)
		Eventually(operationOf("b")).Should(HaveValue(HaveField("Pin", v1alpha1.OperationPinTask)))
		pinned := taskNow("scan-now").Status.Pinned
		Expect(pinned.Patches).To(Equal([]v1alpha1.InstalledPatch{{Name: "ham", Version: "2.0"}}))
		Expect(logged(taskNow("scan-now"))).To(Equal([]string{"TaskStarted", "PatchesPinned"}))
		answer("b", v1alpha1.StepDone, 0)
		Eventually(func() v1alpha1.TaskPhase { return taskNow("scan-now").Status.Phase }).Should(Equal(v1alpha1.TaskComplete))
		Expect(taskNow("scan-now").Status.Pinned).To(Equal(pinned), "it never changes")
	})
})
