package policy

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

var (
	ctx    context.Context
	server *apiserver.Server
	admin  client.Client
	writes statusWrites
)

func TestPolicy(t *testing.T) {
	apiserver.Require(t)
	RegisterFailHandler(Fail)
	RunSpecs(t, "policy")
}

var _ = BeforeSuite(func() {
	SetDefaultEventuallyTimeout(10 * time.Second)
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	ctrl.SetLogger(GinkgoLogr)

	var cancel context.CancelFunc
	ctx, cancel = context.WithCancel(context.Background())
	var err error
	server, err = apiserver.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(server.Stop()).To(Succeed()) })
	Expect(server.Install(ctx)).To(Succeed())
	admin, err = apiserver.Client(server.Config)
	Expect(err).NotTo(HaveOccurred())

	counted := rest.CopyConfig(server.Config)
	counted.Wrap(writes.count)
	mgr, err := ctrl.NewManager(counted, ctrl.Options{
		Scheme:  admin.Scheme(),
		Metrics: metricsserver.Options{BindAddress: "0"},
		// A panic ends the suite.
		Controller: config.Controller{RecoverPanic: new(false), SkipNameValidation: new(true)},
	})
	Expect(err).NotTo(HaveOccurred())
	Expect(SetupWithManager(mgr)).To(Succeed())
	stopped := make(chan error)
	go func() { stopped <- mgr.Start(ctx) }()
	DeferCleanup(func() {
		cancel()
		Expect(<-stopped).To(Succeed())
	})
})

var _ = AfterEach(func() {
	for _, kind := range []client.Object{&v1alpha1.PatchPolicy{}, &v1alpha1.PatchReport{}, &corev1.Node{}} {
		Expect(admin.DeleteAllOf(ctx, kind)).To(Succeed())
	}
})

// statusWrites counts the writes to the status of each policy.
type statusWrites struct {
	mutex sync.Mutex
	of    map[string]int
}

func (w *statusWrites) count(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		if path, ok := strings.CutSuffix(request.URL.Path, "/status"); ok && request.Method == http.MethodPatch {
			w.mutex.Lock()
			if w.of == nil {
				w.of = map[string]int{}
			}
			w.of[path[strings.LastIndex(path, "/")+1:]]++
			w.mutex.Unlock()
		}
		return next.RoundTrip(request)
	})
}

func (w *statusWrites) to(policy string) int {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.of[policy]
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }
