package leave

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/agents"
	"github.com/nodepatch/nodepatch/test/apiserver"
	"github.com/nodepatch/nodepatch/test/apiserver/specs"
)

var (
	ctx    = context.Background()
	server *apiserver.Server
	admin  client.Client
	// account has the rights of config/leave and no others.
	account client.Client
	asked   apiserver.Requests
)

func TestLeave(t *testing.T) { specs.Run(t, "leave") }

var _ = BeforeSuite(func() {
	server, admin = apiserver.Run(GinkgoTB())
	Expect(server.Install(ctx)).To(Succeed())
	_, err := server.Kubectl(ctx, "apply", "-f", filepath.Join("config", "leave", "rbac.yaml"))
	Expect(err).NotTo(HaveOccurred())
	// What makes and removes each node's objects, and the agents.
	apiserver.RunManager(GinkgoTB(), server.Config, func(mgr ctrl.Manager) error {
		return agents.SetupWithManager(mgr, specs.ManagerLog(GinkgoTB(), server.Config), agents.Options{Namespace: apiserver.Namespace, Image: "nodepatch:dev"})
	})
	config, err := server.AccountConfig(ctx, "nodepatch-leave", nil)
	Expect(err).NotTo(HaveOccurred())
	account, err = client.New(asked.Watch(config), client.Options{Scheme: admin.Scheme()})
	Expect(err).NotTo(HaveOccurred())
})

var _ = AfterSuite(func() {
	Expect(asked.Forbidden()).To(BeEmpty(), "its rights are enough")
})

func TestRuns(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		phase   corev1.PodPhase
		deleted time.Duration // before now
		want    bool
	}{
		"one that runs":                      {phase: corev1.PodRunning, want: true},
		"one that starts":                    {phase: corev1.PodPending, want: true},
		"one that has ended":                 {phase: corev1.PodSucceeded},
		"one that was evicted":               {phase: corev1.PodFailed},
		"one that is ending":                 {phase: corev1.PodRunning, deleted: overtime / 2, want: true},
		"one on a node that does not answer": {phase: corev1.PodRunning, deleted: overtime + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{Status: corev1.PodStatus{Phase: test.phase}}
			if test.deleted > 0 {
				pod.DeletionTimestamp = &metav1.Time{Time: now.Add(-test.deleted)}
			}
			if got := runs(pod, now); got != test.want {
				t.Errorf("runs = %t", got)
			}
		})
	}
}

// inMidRollout makes a node that is being worked on for a task of a policy.
func inMidRollout(ctx context.Context) *corev1.Node {
	GinkgoHelper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{GenerateName: "node-", Annotations: map[string]string{v1alpha1.MaintenanceAnnotation: "{}"}}}
	Expect(admin.Create(ctx, node)).To(Succeed())
	Expect(admin.Create(ctx, &v1alpha1.PatchPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "everything"},
		Spec: v1alpha1.PatchPolicySpec{
			NodeSelector: &metav1.LabelSelector{},
			Tasks:        []v1alpha1.NamedTask{{Name: "scan", Template: v1alpha1.TaskTemplate{Action: v1alpha1.ActionScan}}},
		},
	})).To(Succeed())
	Expect(admin.Create(ctx, &v1alpha1.PatchTask{
		ObjectMeta: metav1.ObjectMeta{Name: "run"}, Spec: v1alpha1.PatchTaskSpec{Policy: "everything", Task: "scan"},
	})).To(Succeed())
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: apiserver.Namespace, Name: manager}}
	Expect(client.IgnoreAlreadyExists(admin.Create(ctx, lease))).To(Succeed())
	Eventually(func() error {
		return admin.Get(ctx, client.ObjectKey{Name: node.Name}, &v1alpha1.PatchAssignment{})
	}).Should(Succeed())
	Expect(replicas(ctx)).To(BeEquivalentTo(2))
	DeferCleanup(func(ctx SpecContext) {
		for _, kind := range []client.Object{&v1alpha1.PatchTask{}, &v1alpha1.PatchPolicy{}, &corev1.Node{}} {
			Expect(admin.DeleteAllOf(ctx, kind)).To(Succeed())
		}
		_, err := (&leaving{Client: admin, Options: Options{Namespace: apiserver.Namespace}}).scale(ctx, 2)
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() error { return admin.Get(ctx, agentsKey, &appsv1.DaemonSet{}) }).Should(WithTransform(apierrors.IsNotFound, BeTrue()))
		for _, kind := range []client.Object{&v1alpha1.PatchAssignment{}, &v1alpha1.PatchReport{}, &v1alpha1.PatchRetry{}} {
			Expect(admin.DeleteAllOf(ctx, kind)).To(Succeed()) // nothing is garbage collected here
		}
	}, NodeTimeout(time.Minute))
	return node
}

var agentsKey = client.ObjectKey{Namespace: apiserver.Namespace, Name: agents.Name}

func replicas(ctx context.Context) int32 {
	GinkgoHelper()
	deployment := &appsv1.Deployment{}
	Expect(admin.Get(ctx, client.ObjectKey{Namespace: apiserver.Namespace, Name: manager}, deployment)).To(Succeed())
	return *deployment.Spec.Replicas
}

// names of all objects of a kind.
func names(ctx context.Context, list client.ObjectList) []string {
	GinkgoHelper()
	Expect(admin.List(ctx, list)).To(Succeed())
	found, err := namesOf(list)
	Expect(err).NotTo(HaveOccurred())
	return found
}

var _ = Describe("Leaving", func() {
	It("waits until the manager has put the nodes back, and then ends it", func(ctx SpecContext) {
		node := inMidRollout(ctx)
		counted := &v1alpha1.PatchRetry{ObjectMeta: metav1.ObjectMeta{Name: node.Name}}
		Expect(admin.Status().Patch(ctx, counted, client.RawPatch(types.MergePatchType,
			[]byte(`{"status":{"counted":1,"sequence":2,"clears":1,"patches":[{"name":"curl","version":"8","installFailures":2}]}}`)))).To(Succeed())
		done := make(chan error, 1)
		go func() { done <- Run(ctx, account, Options{Namespace: apiserver.Namespace, Patience: time.Minute}) }()
		Eventually(func(g Gomega) {
			g.Expect(names(ctx, &v1alpha1.PatchTaskList{})).To(BeEmpty())
			g.Expect(names(ctx, &v1alpha1.PatchPolicyList{})).To(BeEmpty())
			g.Expect(names(ctx, &v1alpha1.PatchAssignmentList{})).To(BeEmpty())
		}).Should(Succeed(), "nothing is asked of nodepatch any more")
		Consistently(done).WithTimeout(3*time.Second).ShouldNot(Receive(), "the node is not put back")
		Expect(replicas(ctx)).To(BeEquivalentTo(2), "the manager is needed")

		node.Annotations = nil
		Expect(admin.Update(ctx, node)).To(Succeed())
		Eventually(done).WithTimeout(20 * time.Second).Should(Receive(Not(HaveOccurred())))
		Expect(replicas(ctx)).To(BeZero())
		for _, list := range []client.ObjectList{&v1alpha1.PatchReportList{}, &v1alpha1.PatchRetryList{}} {
			Expect(names(ctx, list)).To(BeEmpty())
		}
		Expect(names(ctx, &appsv1.DaemonSetList{})).To(BeEmpty())
		Expect(names(ctx, &coordinationv1.LeaseList{})).NotTo(ContainElement(manager))
		Expect(Run(ctx, account, Options{Namespace: apiserver.Namespace, Patience: time.Minute})).To(Succeed(), "once more")
	}, SpecTimeout(2*time.Minute))

	It("says after its patience which nodes it waits for, and leaves the manager to them", func(ctx SpecContext) {
		node := inMidRollout(ctx)
		Expect(Run(ctx, account, Options{Namespace: apiserver.Namespace, Patience: 3 * time.Second})).To(MatchError(And(
			HavePrefix("after 3s nodepatch still works on the cluster: the nodes "+node.Name+" are put back"),
			ContainSubstring("kubectl uncordon NODE; kubectl annotate node NODE nodepatch.io/maintenance-"))))
		Expect(replicas(ctx)).To(BeEquivalentTo(2))
	}, SpecTimeout(time.Minute))

	It("keeps the policies and the reports where it is told to", func(ctx SpecContext) {
		node := inMidRollout(ctx)
		node.Annotations = nil
		Expect(admin.Update(ctx, node)).To(Succeed())
		Expect(Run(ctx, account, Options{Namespace: apiserver.Namespace, KeepPolicies: true, Patience: 20 * time.Second})).To(Succeed())
		Expect(names(ctx, &v1alpha1.PatchTaskList{})).To(BeEmpty())
		Expect(names(ctx, &v1alpha1.PatchPolicyList{})).To(ConsistOf("everything"))
		Expect(names(ctx, &v1alpha1.PatchReportList{})).To(ConsistOf(node.Name))
		Expect(replicas(ctx)).To(BeZero())
	}, SpecTimeout(time.Minute))

	It("takes nodepatch's ClusterReports with it, and leaves those of others", func(ctx SpecContext) {
		crd, err := apiserver.OpenReports(ctx)
		Expect(err).NotTo(HaveOccurred())
		_, err = server.Kubectl(ctx, "apply", "--server-side", "-f", crd)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(server.Kubectl, "delete", "-f", crd)
		_, err = server.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=20s", "-f", crd)
		Expect(err).NotTo(HaveOccurred())
		for name, by := range map[string]string{"nodepatch-left": "nodepatch", "other": "somebody"} {
			report := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "openreports.io/v1alpha1", "kind": "ClusterReport",
				"metadata": map[string]any{"name": name, "labels": map[string]any{"app.kubernetes.io/managed-by": by}},
			}}
			Eventually(func() error { return admin.Create(ctx, report) }).Should(Succeed())
		}
		Expect(Run(ctx, account, Options{Namespace: apiserver.Namespace, Patience: 20 * time.Second})).To(Succeed())
		Expect(server.Kubectl(ctx, "get", "clusterreports", "-o", "name")).To(Equal("clusterreport.openreports.io/other\n"))
	}, SpecTimeout(2*time.Minute))

	It("is done where nodepatch is gone already", Serial, func(ctx SpecContext) {
		elsewhere := Options{Namespace: "elsewhere", Patience: 20 * time.Second}
		Expect(Run(ctx, admin, elsewhere)).To(Succeed())
	}, SpecTimeout(time.Minute))
})
