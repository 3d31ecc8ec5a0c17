package patchlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

// installed is the one API server of these tests, with nodepatch's manifests.
var installed = sync.OnceValues(func() (*apiserver.Server, error) {
	server, err := apiserver.Start()
	if err != nil {
		return nil, err
	}
	running = server
	return server, server.Install(context.Background())
})

var running *apiserver.Server

func TestMain(m *testing.M) {
	code := m.Run()
	if running != nil {
		if err := running.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// cluster is what a test needs of the API server: an administrator and the agent of a node, with the
// token that it really has.
type cluster struct {
	server *apiserver.Server
	admin  client.Client
	agent  *rest.Config
	node   string
}

func newCluster(t *testing.T, node string) cluster {
	t.Helper()
	apiserver.Require(t)
	server, err := installed()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := apiserver.Client(server.Config)
	if err != nil {
		t.Fatal(err)
	}
	agent, err := server.AgentConfig(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	return cluster{server: server, admin: admin, agent: agent, node: node}
}

func (c cluster) events(t *testing.T, config *rest.Config, component Component, echo io.Writer) *Events {
	t.Helper()
	rest, err := NewRESTClient(config)
	if err != nil {
		t.Fatal(err)
	}
	return NewEvents(rest, component, c.node, echo)
}

// stored lists the Events that are labelled with the node, by time.
func (c cluster) stored(t *testing.T) []corev1.Event {
	t.Helper()
	list := &corev1.EventList{}
	err := c.admin.List(t.Context(), list, client.InNamespace(Namespace), client.MatchingLabels{v1alpha1.NodeLabel: LabelValue(c.node)})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(list.Items, func(a, b corev1.Event) int { return a.EventTime.Compare(b.EventTime.Time) })
	return list.Items
}

func (c cluster) numbered(i int) Entry {
	entry := numbered(i)
	entry.Node = c.node
	return entry
}

func TestWriteTwiceIsOneEvent(t *testing.T) {
	c := newCluster(t, "twice")
	var echo bytes.Buffer
	events := c.events(t, c.agent, AgentComponent, &echo)
	entry := ScanFailed(testTime, testRun, c.node, v1alpha1.ReasonLocked, "apt-get has the lock")
	for range 3 {
		if err := events.Write(t.Context(), entry); err != nil {
			t.Fatal(err)
		}
		entry.Message = "in other words"
	}
	stored := c.stored(t)
	if len(stored) != 1 {
		t.Fatalf("%d events are stored", len(stored))
	}
	got := stored[0]
	task := &corev1.ObjectReference{APIVersion: "nodepatch.io/v1alpha1", Kind: "PatchTask", Name: "weekly", UID: "6f1d"}
	if node := (corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: "twice", UID: "twice"}); got.InvolvedObject != node || got.Related == nil || *got.Related != *task {
		t.Errorf("it regards %+v, related %+v", got.InvolvedObject, got.Related)
	}
	if got.Type != corev1.EventTypeWarning || got.Reason != "ScanFailed" || got.Message != "Locked: apt-get has the lock" || got.Count != 1 {
		t.Errorf("it says %s %s %q %d", got.Type, got.Reason, got.Message, got.Count)
	}
	if got.ReportingController != "nodepatch.io/agent" || got.ReportingInstance != "twice" || got.Source.Component != "nodepatch.io/agent" {
		t.Errorf("it is from %s %s %s", got.ReportingController, got.ReportingInstance, got.Source.Component)
	}
	whole := testTime.Truncate(time.Second)
	if !got.EventTime.Time.Equal(testTime) || !got.FirstTimestamp.Time.Equal(whole) || !got.LastTimestamp.Time.Equal(whole) {
		t.Errorf("its times are %s, %s, %s", got.EventTime, got.FirstTimestamp, got.LastTimestamp)
	}
	want := map[string]string{v1alpha1.NodeLabel: "twice", v1alpha1.TaskLabel: "weekly", v1alpha1.PolicyLabel: "workers"}
	if fmt.Sprint(got.Labels) != fmt.Sprint(want) {
		t.Errorf("its labels are %v", got.Labels)
	}
	if n := strings.Count(echo.String(), "\n"); n != 1 || strings.Contains(echo.String(), "sequence") {
		t.Errorf("the echo is %q", &echo)
	}
}

// kubectl describe shows entries in the order in which things happened, whenever they were written.
func TestDescribeNode(t *testing.T) {
	c := newCluster(t, "described")
	events := c.events(t, c.agent, AgentComponent, nil)
	entries := []Entry{
		ScanStarted(testTime, testRun, c.node, "apt"),
		PatchDataRefreshed(testTime.Add(2*time.Second), testRun, c.node, "apt", time.Second),
		ScanFinished(testTime.Add(4*time.Second), testRun, c.node, v1alpha1.ReportCounts{}, v1alpha1.RebootNotRequired, time.Second),
	}
	for _, i := range []int{2, 0, 1} {
		if err := events.Write(t.Context(), entries[i]); err != nil {
			t.Fatal(err)
		}
	}
	out, err := c.server.Kubectl(t.Context(), "describe", "node", c.node)
	if err != nil {
		t.Fatal(err)
	}
	last := 0
	for _, entry := range entries {
		at := strings.Index(out, entry.Reason)
		if at < last || !strings.Contains(out, entry.Message) {
			t.Errorf("%s with its message is not where it belongs in:\n%s", entry.Reason, out)
		}
		last = at
	}
}

func TestDescribeTask(t *testing.T) {
	c := newCluster(t, "unused")
	config, err := c.server.ManagerConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	task := &v1alpha1.PatchTask{
		ObjectMeta: metav1.ObjectMeta{Name: "described"},
		Spec:       v1alpha1.PatchTaskSpec{Policy: "workers", Task: "scan"},
	}
	if err := c.admin.Create(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	entry := TaskStarted(testTime, RunOf(task), v1alpha1.ActionScan, v1alpha1.TriggerScheduled, 2)
	manager := NewEvents(c.events(t, config, ManagerComponent, nil).client, ManagerComponent, "nodepatch-manager-0", nil)
	if err := manager.Write(t.Context(), entry); err != nil {
		t.Fatal(err)
	}
	out, err := c.server.Kubectl(t.Context(), "describe", "patchtask", "described")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, entry.Message) {
		t.Errorf("kubectl describe does not show %q:\n%s", entry.Message, out)
	}
}

// The longest names and messages that the API allows, or that the host comes up with.
func TestExtremes(t *testing.T) {
	for _, length := range []int{63, 64, 128, 129, 200, 201, 253} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			// A dot at the 200th character must not end the cut name of an Event.
			name := strings.Repeat(strings.Repeat("n", 9)+".", 26)
			c := newCluster(t, name[:length-2]+"xx")
			entry := ScanFailed(testTime, testRun, c.node, v1alpha1.ReasonScanFailed, strings.Repeat("ü\x00\n\xff", 3000))
			if err := c.events(t, c.agent, AgentComponent, nil).Write(t.Context(), entry); err != nil {
				t.Fatal(err)
			}
			if stored := c.stored(t); len(stored) != 1 || len(stored[0].Message) > MaxNote {
				t.Errorf("stored is %+v", stored)
			}
		})
	}
}

// The agent dies after the API server took an entry and before it could note that down.
func TestCrashBeforeAcknowledgement(t *testing.T) {
	c := newCluster(t, "crash")
	events := c.events(t, c.agent, AgentComponent, nil)
	dir := t.TempDir()
	ctx, die := context.WithCancel(t.Context())
	log := openTest(t, dir, sinkFunc(func(ctx context.Context, entry Entry) error {
		if err := events.Write(ctx, entry); err != nil {
			return err
		}
		die()
		return ctx.Err()
	}), roomy)
	if err := log.Append(c.numbered(1)); err != nil {
		t.Fatal(err)
	}
	log.Run(ctx)
	if len(c.stored(t)) != 1 || log.acknowledged() != 0 {
		t.Fatalf("%d events are stored, %d acknowledged; want 1 and 0", len(c.stored(t)), log.acknowledged())
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}

	log = openTest(t, dir, events, roomy)
	run(t, log, "the entry is acknowledged", func() bool { return log.acknowledged() == 1 })
	if n := len(c.stored(t)); n != 1 {
		t.Errorf("%d events are stored", n)
	}
}

type sinkFunc func(context.Context, Entry) error

func (f sinkFunc) Write(ctx context.Context, entry Entry) error { return f(ctx, entry) }

// The API server cannot be reached, over a restart of the agent and a rotation of its log; then it can,
// and gets everything, each once, with the times at which it happened.
func TestAPIServerAway(t *testing.T) {
	c := newCluster(t, "away")
	server, err := url.Parse(c.agent.Host)
	if err != nil {
		t.Fatal(err)
	}
	// A port on which nobody listens yet.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	config := rest.CopyConfig(c.agent)
	config.Host = "https://" + address
	config.ServerName = server.Hostname()
	events := c.events(t, config, AgentComponent, nil)

	dir := t.TempDir()
	small := limits{fileSize: 900, kept: 1, unsentMax: 50}
	var attempts sync.Map
	log := openTest(t, dir, sinkFunc(func(ctx context.Context, entry Entry) error {
		err := events.Write(ctx, entry)
		attempts.Store("failed", err)
		return err
	}), small)
	run(t, log, "an attempt failed", func() bool {
		if err := log.Append(c.numbered(1)); err != nil {
			t.Error(err)
		}
		_, failed := attempts.Load("failed")
		return failed
	})
	if err, _ := attempts.Load("failed"); err == nil || isRefusal(err.(error)) {
		t.Fatalf("without an API server: %v", err)
	}
	for i := range 20 {
		if err := log.Append(c.numbered(i + 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(c.stored(t)); n != 0 {
		t.Fatalf("%d events are stored", n)
	}

	log = openTest(t, dir, events, small)
	run(t, log, "20 entries are acknowledged", func() bool {
		forward(t, address, server.Host)
		eventually(t, "20 entries are acknowledged", func() bool { return log.acknowledged() == 20 })
		return true
	})
	stored := c.stored(t)
	if len(stored) != 20 {
		t.Fatalf("%d events are stored", len(stored))
	}
	for i, event := range stored {
		if want := c.numbered(i + 1); !event.EventTime.Time.Equal(want.Time) {
			t.Errorf("event %d has the time %s, want %s", i, event.EventTime, want.Time)
		}
	}
}

// forward makes connections to address reach target, until the end of the test.
func forward(t *testing.T, address, target string) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = in.Close() }()
				out, err := net.Dial("tcp", target)
				if err != nil {
					return
				}
				defer func() { _ = out.Close() }()
				go func() { _, _ = io.Copy(out, in) }()
				_, _ = io.Copy(in, out)
			}()
		}
	}()
}

// An entry that the API server will never take does not hold up the ones after it; one that it may
// take later is tried again.
func TestRefusedEntries(t *testing.T) {
	c := newCluster(t, "refused")
	events := c.events(t, c.agent, AgentComponent, nil)
	attempts := map[string]int{}
	log := openTest(t, t.TempDir(), sinkFunc(func(ctx context.Context, entry Entry) error {
		attempts[entry.Key]++
		return events.Write(ctx, entry)
	}), roomy)
	invalid := c.numbered(1)
	invalid.Reason = strings.Repeat("x", 200)
	foreign := c.numbered(2)
	foreign.Node = "another"
	for _, entry := range []Entry{invalid, foreign, c.numbered(3)} {
		if err := log.Append(entry); err != nil {
			t.Fatal(err)
		}
	}
	if err := events.Write(t.Context(), invalid); !apierrors.IsInvalid(errors.Unwrap(err)) {
		t.Errorf("an invalid entry is answered with %v", err)
	}
	if err := events.Write(t.Context(), foreign); !apierrors.IsForbidden(err) {
		t.Errorf("an entry about another node is answered with %v", err)
	}
	run(t, log, "all are acknowledged", func() bool { return log.acknowledged() == 3 })
	if stored := c.stored(t); len(stored) != 1 || !stored[0].EventTime.Time.Equal(c.numbered(3).Time) {
		t.Errorf("stored is %+v", stored)
	}
	// The refusal of the first counts as one of those in a row.
	if attempts["entry-1"] != 1 || attempts["entry-2"] != refusedAttempts-1 || attempts["entry-3"] != 1 {
		t.Errorf("attempts: %v", attempts)
	}
}

// The manager's write fails where the agent's waits: its reconcile tries again.
func TestWriteReportsAnUnreachableServer(t *testing.T) {
	c := newCluster(t, "unreachable")
	config := rest.CopyConfig(c.agent)
	config.Host = "https://127.0.0.1:1"
	if err := c.events(t, config, AgentComponent, nil).Write(t.Context(), c.numbered(1)); err == nil {
		t.Error("a write that reached nobody succeeded")
	}
	if err := c.events(t, c.agent, AgentComponent, nil).Write(t.Context(), Entry{}); err == nil {
		t.Error("an empty entry was written")
	}
}
