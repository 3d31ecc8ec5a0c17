package buttons

import (
	"context"
	"fmt"
	"strconv"
	"testing"
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
	"github.com/nodepatch/nodepatch/test/apiserver"
	"github.com/nodepatch/nodepatch/test/apiserver/specs"
)

var (
	ctx    = context.Background()
	server *apiserver.Server
	admin  client.Client
	events patchlog.Sink
)

func TestButtons(t *testing.T) { specs.Run(t, "buttons") }

var _ = BeforeSuite(func() {
	server, admin = apiserver.Run(GinkgoTB())
	events = specs.ManagerLog(GinkgoTB(), server.Config)
})

var _ = AfterEach(removeAll)

func removeAll() {
	GinkgoHelper()
	for _, kind := range []client.Object{
		&v1alpha1.PatchRetry{}, &v1alpha1.PatchAssignment{}, &v1alpha1.PatchReport{}, &v1alpha1.PatchTask{}, &v1alpha1.PatchPolicy{},
	} {
		Expect(admin.DeleteAllOf(ctx, kind)).To(Succeed())
	}
	Expect(admin.DeleteAllOf(ctx, &corev1.Event{}, client.InNamespace(patchlog.Namespace))).To(Succeed())
}

// newReconciler makes one that reads from the API server itself.
func newReconciler() *Retries {
	return &Retries{Client: admin, Log: events, Clock: testingclock.NewFakePassiveClock(time.Now())}
}

// look reconciles the PatchRetry of a node once.
func look(r *Retries, node string) (ctrl.Result, error) {
	return reconcile.AsReconciler(r.Client, r).Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKey{Name: node}})
}

// addNode makes the objects of a node on which two patches are blocked and one
// has failed.
func addNode(name string) {
	GinkgoHelper()
	Expect(admin.Create(ctx, &v1alpha1.PatchAssignment{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.PatchAssignmentSpec{Policy: "workers"},
	})).To(Succeed())
	retry := &v1alpha1.PatchRetry{ObjectMeta: metav1.ObjectMeta{Name: name}}
	Expect(admin.Create(ctx, retry)).To(Succeed())
	retry.Status.Sequence = 17
	retry.Status.Patches = []v1alpha1.PatchAttempts{
		{Name: "egg", Version: "1.1", InstallFailures: 4, Blocked: v1alpha1.BlockedAtInstall},
		{Name: "ham", Version: "2.0", DownloadFailures: 11, Blocked: v1alpha1.BlockedAtDownload},
		{Name: "spam", Version: "3.0", DownloadFailures: 2},
	}
	retry.Status.Summarize()
	Expect(admin.Status().Update(ctx, retry)).To(Succeed())
}

// press sets the annotation, as kubectl annotate does.
func press(node, value string) {
	GinkgoHelper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, v1alpha1.ClearRetriesAnnotation, strconv.Quote(value))
	Expect(admin.Patch(ctx, retryNow(node), client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}

// count has the agent count one more failed download of a patch, as it does.
func count(node, name string) {
	GinkgoHelper()
	for {
		retry := retryNow(node)
		status := &retry.Status
		status.Sequence++
		i := 0
		for i < len(status.Patches) && status.Patches[i].Name != name {
			i++
		}
		if i == len(status.Patches) {
			status.Patches = append(status.Patches, v1alpha1.PatchAttempts{Name: name, Version: "9.0"})
		}
		status.Patches[i].DownloadFailures++
		status.Summarize()
		if admin.Status().Update(ctx, retry) == nil {
			return
		}
	}
}

func retryNow(node string) *v1alpha1.PatchRetry {
	GinkgoHelper()
	retry := &v1alpha1.PatchRetry{}
	Expect(admin.Get(ctx, client.ObjectKey{Name: node}, retry)).To(Succeed())
	return retry
}

func assignmentNow(node string) *v1alpha1.PatchAssignment {
	GinkgoHelper()
	assignment := &v1alpha1.PatchAssignment{}
	Expect(admin.Get(ctx, client.ObjectKey{Name: node}, assignment)).To(Succeed())
	return assignment
}

// answers lists the entries that regard a node.
func answers(node string) []string {
	GinkgoHelper()
	var list corev1.EventList
	Expect(admin.List(ctx, &list, client.InNamespace(patchlog.Namespace))).To(Succeed())
	var lines []string
	for _, event := range list.Items {
		if event.InvolvedObject.Kind == "Node" && event.InvolvedObject.Name == node && event.Reason == v1alpha1.EventRetriesCleared {
			lines = append(lines, event.Message)
		}
	}
	return lines
}
