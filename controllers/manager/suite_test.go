package main

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/test/apiserver"
)

const image = "registry.example/nodepatch:1.2.3"

var (
	ctx    = context.Background()
	server *apiserver.Server
	admin  client.Client
	asked  apiserver.Requests
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

	server, admin = apiserver.Run(GinkgoTB())
	DeferCleanup(func() {
		for _, p := range started {
			p.stop()
		}
	})
	Expect(server.Install(ctx)).To(Succeed())
})

// written lists the writes from a number on to paths that contain a string, all
// but those of leader election, its Events, and the questions who may read the
// metrics.
func written(from int, part string) []string {
	writes := slices.DeleteFunc(asked.To(""), func(write string) bool {
		return strings.Contains(write, "/leases") || strings.HasSuffix(write, "reviews") ||
			strings.HasSuffix(write, "/"+apiserver.Namespace+"/events")
	})
	return slices.DeleteFunc(writes[from:], func(write string) bool { return !strings.Contains(write, part) })
}

// quiet waits until no manager writes any more, and is the number of writes so far.
func quiet() int {
	GinkgoHelper()
	count := -1
	Eventually(func() bool {
		before := count
		count = len(written(0, ""))
		return count == before
	}).WithPolling(50*time.Millisecond).MustPassRepeatedly(30).Should(BeTrue(), "the manager writes on and on")
	return count
}

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
	o, err := parse([]string{
		"--leader-elect", "--agent-image=" + image,
		"--metrics-bind-address=" + address(), "--health-probe-bind-address=" + address(),
	}, environment{"POD_NAMESPACE": apiserver.Namespace, "POD_NAME": name}.get)
	Expect(err).NotTo(HaveOccurred())
	o.controllers = apiserver.Controllers()
	return begin(asked.Watch(account), o)
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
