package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"

	"github.com/nodepatch/nodepatch/test/apiserver"
)

const image = "registry.example/nodepatch:1.2.3"

var (
	ctx    context.Context
	server *apiserver.Server
	admin  client.Client
	asked  traffic
	// started are all managers; a spec that fails must not leave one behind.
	started []*process
)

func TestManager(t *testing.T) {
	apiserver.Require(t)
	RegisterFailHandler(Fail)
	RunSpecs(t, "manager")
}

var _ = BeforeSuite(func() {
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	ctrl.SetLogger(GinkgoLogr)

	var cancel context.CancelFunc
	ctx, cancel = context.WithCancel(context.Background())
	DeferCleanup(func() { cancel() })
	var err error
	server, err = apiserver.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(server.Stop()).To(Succeed()) })
	DeferCleanup(func() {
		for _, p := range started {
			p.stop()
		}
	})
	Expect(server.Install(ctx)).To(Succeed())
	admin, err = apiserver.Client(server.Config)
	Expect(err).NotTo(HaveOccurred())
})

// traffic is what managers asked the API server for, and what it refused.
type traffic struct {
	mutex   sync.Mutex
	writes  []string
	refused []string
}

func (t *traffic) watch(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(request)
		what := request.Method + " " + request.URL.Path
		t.mutex.Lock()
		defer t.mutex.Unlock()
		if request.Method != http.MethodGet && !ofLeading(request.URL.Path) {
			t.writes = append(t.writes, what)
		}
		if err == nil && (response.StatusCode == http.StatusForbidden || response.StatusCode == http.StatusUnauthorized) {
			t.refused = append(t.refused, fmt.Sprintf("%s: %s", what, response.Status))
		}
		return response, err
	})
}

// ofLeading says whether a path is that of leader election, its Events, or the
// questions who may read the metrics.
func ofLeading(path string) bool {
	return strings.Contains(path, "/leases") || strings.HasSuffix(path, "reviews") ||
		strings.HasSuffix(path, "/"+apiserver.Namespace+"/events")
}

// since lists the writes from a number on to paths that contain a string.
func (t *traffic) since(from int, part string) []string {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	var found []string
	for _, write := range t.writes[from:] {
		if strings.Contains(write, part) {
			found = append(found, write)
		}
	}
	return found
}

// quiet waits until no manager writes any more, and is the number of writes so far.
func (t *traffic) quiet() int {
	GinkgoHelper()
	count := -1
	Eventually(func() bool {
		before := count
		count = len(t.since(0, ""))
		return count == before
	}).WithPolling(50*time.Millisecond).MustPassRepeatedly(10).Should(BeTrue(), "the manager writes on and on")
	return count
}

func (t *traffic) forbidden() []string {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return append([]string(nil), t.refused...)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

// process is a manager that runs as in a pod: with the token of its
// ServiceAccount, and so with the rights of config/rbac and no other.
type process struct {
	options options
	cancel  context.CancelFunc
	ended   chan struct{}
	err     error // once ended is closed
}

func start(name string) *process {
	GinkgoHelper()
	account, err := server.ManagerConfig(ctx)
	Expect(err).NotTo(HaveOccurred())
	account.Wrap(asked.watch)
	o, err := parse([]string{
		"--leader-elect", "--agent-image=" + image,
		"--metrics-bind-address=" + address(), "--health-probe-bind-address=" + address(),
	}, environment{"POD_NAMESPACE": apiserver.Namespace, "POD_NAME": name}.get)
	Expect(err).NotTo(HaveOccurred())
	// A panic ends the suite; and managers come and go in this process.
	o.controllers = config.Controller{RecoverPanic: new(false), SkipNameValidation: new(true)}
	return begin(account, o)
}

func begin(config *rest.Config, o options) *process {
	running, cancel := context.WithCancel(ctx)
	p := &process{options: o, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer GinkgoRecover()
		defer close(p.ended)
		p.err = run(running, config, o)
	}()
	started = append(started, p)
	return p
}

// stop ends a manager, once.
func (p *process) stop() {
	GinkgoHelper()
	p.cancel()
	Eventually(p.ended).Should(BeClosed())
	Expect(p.err).NotTo(HaveOccurred(), "a manager that is told to end does so without an error")
}

// address is a port that is free now.
func address() string {
	GinkgoHelper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	defer func() { Expect(listener.Close()).To(Succeed()) }()
	return listener.Addr().String()
}
