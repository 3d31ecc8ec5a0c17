package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
	"github.com/nodepatch/nodepatch/test/aptrepo"
	"github.com/nodepatch/nodepatch/test/roots"
)

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard()) // of the tests' own client
	code := m.Run()
	if err := errors.Join(stopServer(), os.RemoveAll(program.dir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

var program struct {
	sync.Mutex
	dir string
}

// build builds the agent once, as the image has it.
func build(t *testing.T) string {
	t.Helper()
	program.Lock()
	defer program.Unlock()
	if program.dir == "" {
		dir, err := os.MkdirTemp("", "nodepatch-agent-")
		if err != nil {
			t.Fatal(err)
		}
		program.dir = dir
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "agent"), ".")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v: %s", err, out)
		}
	}
	return filepath.Join(program.dir, "agent")
}

var server struct {
	sync.Mutex
	*apiserver.Server
}

// startServer starts one API server with the project's roles and admission policies for all tests.
func startServer(t *testing.T) *apiserver.Server {
	t.Helper()
	apiserver.Require(t)
	server.Lock()
	defer server.Unlock()
	if server.Server != nil {
		return server.Server
	}
	s, err := apiserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	server.Server = s
	if err := s.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func stopServer() error {
	if server.Server == nil {
		return nil
	}
	return server.Stop()
}

// node is a machine's root with a real apt in it, toy packages of which newer versions are offered, and the objects that
// the manager would have made.
type node struct {
	*roots.Layer
	t      *testing.T // the one that is told what is wrong, also a subtest
	owner  *testing.T // what is started ends with it
	name   string
	client client.Client
	api    *gateway
	mirror *gate
	probe  string // address of the agent's probes

	main, security *aptrepo.Repository
}

func newNode(t *testing.T) *node {
	t.Helper()
	return newNodeFrom(t, roots.Debian, (*node).sources)
}

// newNodeFrom makes a node of a root, to which prepare gives packages.
func newNodeFrom(t *testing.T, make func(context.Context, io.Writer) (*roots.Root, error), prepare func(*node)) *node {
	t.Helper()
	n := &node{
		t: t, owner: t, name: strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())), mirror: &gate{},
		Layer: roots.Open(t, make),
	}
	s := startServer(t)
	n.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
	prepare(n)

	config, err := s.AgentConfig(t.Context(), n.name)
	if err != nil {
		t.Fatal(err)
	}
	n.api = newGateway(t, config)
	if n.client, err = apiserver.Client(s.Config); err != nil {
		t.Fatal(err)
	}
	n.create(&v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: n.name}})
	n.create(&v1alpha1.PatchRetry{ObjectMeta: metav1.ObjectMeta{Name: n.name}})
	n.create(&v1alpha1.PatchAssignment{ObjectMeta: metav1.ObjectMeta{Name: n.name}, Spec: v1alpha1.PatchAssignmentSpec{Policy: "everything"}})
	return n
}

// sources gives the machine two toy repositories: ham has a security patch, egg another one, and salt is on hold.
func (n *node) sources() {
	n.t.Helper()
	main := aptrepo.New(aptrepo.Release{Origin: "Debian", Label: "Debian", Suite: "stable"})
	security := aptrepo.New(aptrepo.Release{Origin: "Debian", Label: "Debian-Security", Suite: "stable-security"})
	mux := http.NewServeMux()
	mux.Handle("/main/", http.StripPrefix("/main", main))
	mux.Handle("/security/", http.StripPrefix("/security", security))
	n.mirror.next, n.main, n.security = mux, main, security
	server := httptest.NewServer(n.mirror)
	n.t.Cleanup(server.Close)
	if err := os.RemoveAll(filepath.Join(n.Path, "etc/apt/sources.list.d")); err != nil {
		n.t.Fatal(err)
	}
	n.write("/etc/apt/sources.list", main.SourcesList(server.URL+"/main")+security.SourcesList(server.URL+"/security"))
	main.Add(aptrepo.Good("ham", "1.0"), aptrepo.Good("egg", "1.0"), aptrepo.Good("salt", "1.0"))
	n.publish(main, security)
	n.run("apt-get", "-q", "update")
	n.run("apt-get", "-q", "-y", "install", "ham", "egg", "salt")
	n.run("apt-mark", "hold", "salt")
	main.Add(aptrepo.Good("egg", "2.0"), aptrepo.Good("salt", "2.0"))
	security.Add(aptrepo.Good("ham", "1.1"))
	n.publish(main, security)
}

func (n *node) publish(repositories ...*aptrepo.Repository) {
	n.t.Helper()
	for _, r := range repositories {
		if err := r.Publish(); err != nil {
			n.t.Fatal(err)
		}
	}
}

func (n *node) write(name, content string) {
	n.t.Helper()
	n.Write(n.t, name, content)
}

func (n *node) exists(name string) bool {
	_, err := os.Stat(filepath.Join(n.Path, name))
	return err == nil
}

func (n *node) run(argv ...string) string {
	n.t.Helper()
	return n.Run(n.t, argv...)
}

func (n *node) create(o client.Object) {
	n.t.Helper()
	if err := n.client.Create(n.t.Context(), o); err != nil {
		n.t.Fatal(err)
	}
}

// assign asks the node for an operation, or for none if the ID is empty.
func (n *node) assign(id string, step v1alpha1.Step, change ...func(*v1alpha1.Operation)) {
	n.t.Helper()
	a := n.assignment()
	patch := client.MergeFrom(a.DeepCopy())
	a.Spec.Operation = nil
	if id != "" {
		now := metav1.Now()
		a.Spec.Operation = &v1alpha1.Operation{
			ID: id, Task: "task-" + id, Step: step, AssignedAt: now, Deadline: metav1.NewTime(now.Add(10 * time.Minute)),
		}
		for _, f := range change {
			f(a.Spec.Operation)
		}
	}
	if err := n.client.Patch(n.t.Context(), a, patch); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) assignment() *v1alpha1.PatchAssignment {
	n.t.Helper()
	a := &v1alpha1.PatchAssignment{}
	if err := n.client.Get(n.t.Context(), client.ObjectKey{Name: n.name}, a); err != nil {
		n.t.Fatal(err)
	}
	return a
}

func (n *node) report() *v1alpha1.PatchReport {
	n.t.Helper()
	r := &v1alpha1.PatchReport{}
	if err := n.client.Get(n.t.Context(), client.ObjectKey{Name: n.name}, r); err != nil {
		n.t.Fatal(err)
	}
	return r
}

// ended waits for the outcome of an operation.
func (n *node) ended(id string) *v1alpha1.AgentStatus {
	n.t.Helper()
	var status *v1alpha1.AgentStatus
	n.eventually("operation "+id+" has ended", func() bool {
		status = n.assignment().Status.Agent
		return status != nil && status.OperationID == id && status.Step.Ended()
	})
	return status
}

// events waits for so many entries of the patch log about an operation, and returns their reasons in the order of time;
// those of one moment in the order of the alphabet.
func (n *node) events(id string, want int) (reasons []string) {
	n.t.Helper()
	n.eventually(fmt.Sprintf("%d entries in the patch log", want), func() bool {
		reasons = nil
		for _, e := range n.entries(id) {
			reasons = append(reasons, e.Reason)
		}
		return len(reasons) >= want
	})
	return reasons
}

func (n *node) eventually(what string, f func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if f() {
			return
		}
	}
	n.t.Fatalf("Not within 90 seconds: %s", what)
}

// agent is a running agent.
type agent struct {
	*exec.Cmd
	ended chan struct{}
	log   *lockedBuffer
}

func (n *node) start() *agent {
	n.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	n.probe = listener.Addr().String()
	_ = listener.Close()
	kubeconfig := filepath.Join(n.owner.TempDir(), "kubeconfig")
	content := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"a","contexts":[{"name":"a","context":{"cluster":"a"}}],`+
		`"clusters":[{"name":"a","cluster":{"server":%q,"certificate-authority-data":%q}}]}`, n.api.URL,
		base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: n.api.Certificate().Raw})))
	if err := os.WriteFile(kubeconfig, []byte(content), 0o600); err != nil {
		n.t.Fatal(err)
	}
	a := &agent{ended: make(chan struct{}), log: &lockedBuffer{}}
	a.Cmd = exec.Command(build(n.t), "--node="+n.name, "--host-root="+n.Path, "--kubeconfig="+kubeconfig, "--health-probe-bind-address="+n.probe)
	a.Stdout, a.Stderr = a.log, a.log
	if err := a.Start(); err != nil {
		n.t.Fatal(err)
	}
	go func() { _ = a.Wait(); close(a.ended) }()
	n.owner.Cleanup(func() {
		a.kill()
		if n.owner.Failed() {
			n.owner.Logf("The agent said:\n%s", a.log.String())
		}
	})
	return a
}

// kill ends the agent as an out-of-memory killer does.
func (a *agent) kill() {
	_ = a.Process.Kill()
	<-a.ended
}

// ready is the status code of the readiness probe, 0 if nothing answers.
func (n *node) ready() int {
	response, err := http.Get("http://" + n.probe + "/readyz")
	if err != nil {
		return 0
	}
	_ = response.Body.Close()
	return response.StatusCode
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}
