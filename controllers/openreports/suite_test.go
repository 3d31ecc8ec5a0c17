package openreports

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	reportsv1alpha1 "github.com/openreports/reports-api/apis/openreports.io/v1alpha1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
	"github.com/nodepatch/nodepatch/test/apiserver/specs"
)

var (
	ctx    = context.Background()
	server *apiserver.Server
	admin  client.Client
	// account is that of the manager, whose requests are remembered.
	account *rest.Config
	asked   apiserver.Requests
	logged  lines
	running *manager
	// crd is the file of the definition that OpenReports publishes.
	crd string
)

func TestOpenReports(t *testing.T) { specs.Run(t, "openreports") }

var _ = BeforeSuite(func() {
	klog.SetLogger(logged.logger())
	DeferCleanup(klog.ClearLogger)
	server, _ = apiserver.Run(GinkgoTB())
	Expect(server.Install(ctx)).To(Succeed())
	config, err := server.ManagerConfig(ctx)
	Expect(err).NotTo(HaveOccurred())
	account = asked.Watch(config)
	admin, err = client.New(server.Config, client.Options{Scheme: kinds()})
	Expect(err).NotTo(HaveOccurred())
	crd, err = apiserver.OpenReports(ctx)
	Expect(err).NotTo(HaveOccurred())
})

func kinds() *runtime.Scheme {
	GinkgoHelper()
	known := runtime.NewScheme()
	Expect(errors.Join(scheme.AddToScheme(known), v1alpha1.AddToScheme(known), AddToScheme(known))).To(Succeed())
	return known
}

// manager has the rights of config/rbac and no other, and a cache that drops
// patches.
type manager struct {
	cancel context.CancelFunc
	ended  chan error
}

func start() *manager {
	GinkgoHelper()
	kind, one := Kind()
	mgr, err := ctrl.NewManager(account, ctrl.Options{
		Scheme: kinds(), Logger: logged.logger(), Controller: apiserver.Controllers(),
		Metrics: metricsserver.Options{BindAddress: "0"},
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			kind: one,
			&v1alpha1.PatchReport{}: {Transform: func(object any) (any, error) {
				if report, ok := object.(*v1alpha1.PatchReport); ok {
					Remember(report)
					report.Status.Patches = nil
				}
				return object, nil
			}},
		}},
	})
	Expect(err).NotTo(HaveOccurred())
	Expect(SetupWithManager(mgr)).To(Succeed())
	running, cancel := context.WithCancel(ctx)
	m := &manager{cancel: cancel, ended: make(chan error, 1)}
	go func() { m.ended <- mgr.Start(running) }()
	return m
}

func (m *manager) stop() {
	GinkgoHelper()
	if m != nil {
		m.cancel()
		Eventually(m.ended).Should(Receive(BeNil()))
	}
}

// lines are what was logged.
type lines struct {
	mutex sync.Mutex
	all   []string
}

func (l *lines) logger() logr.Logger {
	return funcr.New(func(prefix, args string) {
		l.mutex.Lock()
		defer l.mutex.Unlock()
		l.all = append(l.all, prefix+" "+args)
		fmt.Fprintln(GinkgoWriter, prefix, args)
	}, funcr.Options{})
}

// of lists the lines with a text in them.
func (l *lines) of(text string) []string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return slices.DeleteFunc(slices.Clone(l.all), func(line string) bool { return !strings.Contains(line, text) })
}

// install and uninstall OpenReports, as people do.
func install() {
	GinkgoHelper()
	_, err := server.Kubectl(ctx, "apply", "--server-side", "-f", crd)
	Expect(err).NotTo(HaveOccurred())
}

func uninstall() {
	GinkgoHelper()
	_, err := server.Kubectl(ctx, "delete", "--ignore-not-found", "-f", crd)
	Expect(err).NotTo(HaveOccurred())
}

// writes lists the writes to ClusterReports.
func writes() []string { return asked.To("/clusterreports") }

// report makes a node and its PatchReport.
func report(name string, status v1alpha1.PatchReportStatus) *corev1.Node {
	GinkgoHelper()
	node, err := server.CreateNode(ctx, name, nil)
	Expect(err).NotTo(HaveOccurred())
	made := &v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "Node", Name: name, UID: node.UID},
	}}}
	Expect(admin.Create(ctx, made)).To(Succeed())
	assignment := &v1alpha1.PatchAssignment{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.PatchAssignmentSpec{Policy: "workers"},
	}
	Expect(admin.Create(ctx, assignment)).To(Succeed())
	say(name, status)
	return node
}

// say writes what the node's agent found.
func say(name string, status v1alpha1.PatchReportStatus) {
	GinkgoHelper()
	existing := &v1alpha1.PatchReport{}
	Expect(admin.Get(ctx, client.ObjectKey{Name: name}, existing)).To(Succeed())
	existing.Status = status
	Expect(admin.Status().Update(ctx, existing)).To(Succeed())
}

// clusterReport of a node as it is now; Eventually takes the function.
func shown(node string) func() (*reportsv1alpha1.ClusterReport, error) {
	return func() (*reportsv1alpha1.ClusterReport, error) {
		found := &reportsv1alpha1.ClusterReport{}
		return found, admin.Get(ctx, client.ObjectKey{Name: "nodepatch-" + node}, found)
	}
}

// summary matches a ClusterReport by its five counts.
func summary(pass, fail, warn, failed, skip int) OmegaMatcher {
	return HaveField("Summary", Equal(reportsv1alpha1.ReportSummary{Pass: pass, Fail: fail, Warn: warn, Error: failed, Skip: skip}))
}

// scanned is the status after a scan at a time that found patches.
func scanned(at time.Time, patches ...v1alpha1.Patch) v1alpha1.PatchReportStatus {
	counts := &v1alpha1.ReportCounts{}
	for _, p := range patches {
		counts.Missing++
		if p.Classification == v1alpha1.ClassificationSecurity {
			counts.Security++
		}
	}
	return v1alpha1.PatchReportStatus{
		Conditions: []metav1.Condition{{
			Type: v1alpha1.ConditionScanned, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonScanned,
			LastTransitionTime: metav1.NewTime(begun),
		}},
		Scan: &v1alpha1.ScanRun{Time: &metav1.Time{Time: at}}, Counts: counts, Patches: patches,
	}
}

// begun is when scans began to succeed, and seen when patches were first offered.
var (
	begun = time.Date(2026, 11, 1, 6, 0, 0, 0, time.UTC)
	seen  = metav1.NewTime(time.Date(2026, 11, 20, 6, 0, 0, 0, time.UTC))
)

// patch is a security patch.
func patch(name string, state v1alpha1.PatchState, severity v1alpha1.Severity) v1alpha1.Patch {
	return v1alpha1.Patch{
		Name: name, Installed: "1.0", Available: "1.1", Classification: v1alpha1.ClassificationSecurity,
		Severity: severity, State: state, FirstSeen: &seen,
	}
}
