package schedule

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	testingclock "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/task"
	"github.com/nodepatch/nodepatch/test/apiserver"
	"github.com/nodepatch/nodepatch/test/apiserver/specs"
)

var (
	ctx    = context.Background()
	server *apiserver.Server
	admin  client.Client
	// account is the manager's own, with no more rights than config/rbac and
	// config/admission give it.
	account *rest.Config
	manager client.WithWatch
	asked   apiserver.Requests
	events  patchlog.Sink
)

func TestSchedule(t *testing.T) { specs.Run(t, "schedule") }

var _ = BeforeSuite(func() {
	server, admin = apiserver.Run(GinkgoTB())
	Expect(server.Install(ctx)).To(Succeed())
	config, err := server.ManagerConfig(ctx)
	Expect(err).NotTo(HaveOccurred())
	account = asked.Watch(config)
	manager, err = client.NewWithWatch(account, client.Options{Scheme: admin.Scheme(), Mapper: admin.RESTMapper()})
	Expect(err).NotTo(HaveOccurred())
	events = specs.ManagerLog(GinkgoTB(), account)
})

var _ = AfterEach(removeAll)

var _ = AfterSuite(func() {
	Expect(asked.Forbidden()).To(BeEmpty(), "the manager may do all that it does")
})

func removeAll() {
	GinkgoHelper()
	for _, kind := range []client.Object{
		&v1alpha1.PatchPolicy{}, &v1alpha1.PatchTask{}, &v1alpha1.PatchReport{}, &v1alpha1.PatchAssignment{}, &corev1.Node{},
	} {
		Expect(admin.DeleteAllOf(ctx, kind)).To(Succeed())
	}
	Expect(admin.DeleteAllOf(ctx, &corev1.Event{}, client.InNamespace(patchlog.Namespace))).To(Succeed())
}

// told lists the entries of the patch log that regard a policy.
func told(policy *v1alpha1.PatchPolicy) []string {
	GinkgoHelper()
	var list corev1.EventList
	Expect(admin.List(ctx, &list, client.InNamespace(patchlog.Namespace))).To(Succeed())
	var lines []string
	for _, event := range list.Items {
		if event.InvolvedObject.UID == policy.UID && event.Reason == v1alpha1.EventRunMissed {
			lines = append(lines, event.Message)
		}
	}
	return lines
}

// newScheduler makes one that reads from the API server itself, with a clock that
// stands.
func newScheduler(now time.Time) *Scheduler {
	return &Scheduler{Client: manager, Log: events, Clock: testingclock.NewFakePassiveClock(now)}
}

// look reconciles a policy once, and is how long until the next look.
func look(r *Scheduler, policy string) time.Duration {
	GinkgoHelper()
	result, err := r.Reconcile(ctx, request(policy))
	Expect(err).NotTo(HaveOccurred())
	return result.RequeueAfter
}

// govern makes a policy, and a node that it governs.
func govern(policy *v1alpha1.PatchPolicy) *v1alpha1.PatchPolicy {
	GinkgoHelper()
	policy.UID = ""
	Expect(admin.Create(ctx, policy)).To(Succeed())
	_, err := server.CreateNode(ctx, "one", map[string]string{"pool": "workers"})
	Expect(err).NotTo(HaveOccurred())
	return policy
}

func policyNow(name string) *v1alpha1.PatchPolicy {
	GinkgoHelper()
	policy := &v1alpha1.PatchPolicy{}
	Expect(admin.Get(ctx, client.ObjectKey{Name: name}, policy)).To(Succeed())
	return policy
}

// tasks lists the names of all tasks.
func tasks() []string {
	GinkgoHelper()
	var list v1alpha1.PatchTaskList
	Expect(admin.List(ctx, &list)).To(Succeed())
	names := make([]string, 0, len(list.Items))
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	slices.Sort(names)
	return names
}

// finish ends a task as the task controller does.
func finish(name string, phase v1alpha1.TaskPhase) {
	GinkgoHelper()
	task := &v1alpha1.PatchTask{ObjectMeta: metav1.ObjectMeta{Name: name}}
	body := fmt.Sprintf(`{"status":{"phase":%q,"completionTime":"2026-11-23T06:10:00Z"}}`, phase)
	Expect(manager.Status().Patch(ctx, task, client.RawPatch(types.MergePatchType, []byte(body)))).To(Succeed())
}

// shifted is the time, and then some.
type shifted time.Duration

func (s shifted) Now() time.Time                  { return time.Now().Add(time.Duration(s)) }
func (s shifted) Since(t time.Time) time.Duration { return s.Now().Sub(t) }

// runManager runs the controllers with the manager's rights and a clock that is
// ahead, until the spec ends.
func runManager(ahead time.Duration, more ...func(ctrl.Manager) error) {
	GinkgoHelper()
	apiserver.RunManager(GinkgoTB(), account, func(mgr ctrl.Manager) error {
		for _, setup := range more {
			if err := setup(mgr); err != nil {
				return err
			}
		}
		return setup(mgr, events, shifted(ahead), time.Second)
	})
}

// withTasks adds the task controller.
func withTasks(mgr ctrl.Manager) error {
	return task.SetupWithManager(mgr, events, task.Options{})
}

// comeBack makes nodes that are Ready and whose agents are, and that were never
// scanned since their reports were made: now.
func comeBack(names ...string) {
	GinkgoHelper()
	for _, name := range names {
		_, err := server.CreateNode(ctx, name, nil)
		Expect(err).NotTo(HaveOccurred())
		Expect(admin.Create(ctx, &v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
		given := &v1alpha1.PatchAssignment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.PatchAssignmentSpec{Policy: "workers"}}
		Expect(admin.Create(ctx, given)).To(Succeed())
		Expect(admin.Status().Patch(ctx, given, client.RawPatch(types.MergePatchType, []byte(`{"status":{"controller":{"agent":"Ready"}}}`)))).To(Succeed())
	}
}

// setReady says for the kubelet whether a node is Ready.
func setReady(name string, ready bool) {
	GinkgoHelper()
	is := map[bool]corev1.ConditionStatus{true: corev1.ConditionTrue, false: corev1.ConditionUnknown}[ready]
	body := fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":%q}]}}`, is)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	Expect(admin.Status().Patch(ctx, node, client.RawPatch(types.StrategicMergePatchType, []byte(body)))).To(Succeed())
}
