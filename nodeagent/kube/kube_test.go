package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

var (
	config *rest.Config
	admin  client.Client
)

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if apiserver.Missing() != nil {
		return m.Run() // each test says so
	}
	s, err := apiserver.Start()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = s.Stop() }()
	config = s.Config
	if admin, err = apiserver.Client(config); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// For a moment after a kind is made, the API server does not serve it.
	for deadline := time.Now().Add(30 * time.Second); admin.List(context.Background(), &v1alpha1.PatchAssignmentList{}) != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			fmt.Fprintln(os.Stderr, "PatchAssignments are not served")
			return 1
		}
	}
	return m.Run()
}

// wire counts requests, and answers instead of the API server where answer is set and says so.
type wire struct {
	http.RoundTripper
	mu       sync.Mutex
	requests []string
	answer   func(*http.Request) *http.Response
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	kind := "list"
	if r.URL.Query().Get("watch") != "" {
		kind = "watch"
	}
	w.mu.Lock()
	w.requests = append(w.requests, kind)
	answer := w.answer
	w.mu.Unlock()
	if answer != nil {
		if response := answer(r); response != nil {
			return response, nil
		}
	}
	return w.RoundTripper.RoundTrip(r)
}

func (w *wire) list() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.requests, " ")
}

// watching starts a client that watches, and returns what it saw: the policy of each assignment, "none" for none.
func watching(t *testing.T, node string, change func(*Client, *wire)) (next func() string, w *wire) {
	t.Helper()
	apiserver.Require(t)
	w = &wire{}
	c := rest.CopyConfig(config)
	c.Wrap(func(next http.RoundTripper) http.RoundTripper { w.RoundTripper = next; return w })
	k, err := New(c, node)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(k, w)
	}
	seen := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		k.Watch(ctx, slog.New(slog.NewTextHandler(t.Output(), nil)), func(a *v1alpha1.PatchAssignment) {
			if a == nil {
				seen <- "none"
				return
			}
			seen <- a.Spec.Policy
		})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return func() string {
		t.Helper()
		select {
		case s := <-seen:
			return s
		case <-time.After(20 * time.Second):
			t.Fatal("Nothing seen for 20 seconds")
			return ""
		}
	}, w
}

func assignment(name, policy string) *v1alpha1.PatchAssignment {
	return &v1alpha1.PatchAssignment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.PatchAssignmentSpec{Policy: policy}}
}

func change(t *testing.T, f func(context.Context) error) {
	t.Helper()
	if err := f(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("Saw %q, want %q", got, want)
	}
}

func TestWatch(t *testing.T) {
	next, w := watching(t, "watch-a", nil)
	expect(t, next(), "none")
	change(t, func(ctx context.Context) error { return admin.Create(ctx, assignment("watch-b", "foreign")) })
	a := assignment("watch-a", "one")
	change(t, func(ctx context.Context) error { return admin.Create(ctx, a) })
	expect(t, next(), "one")
	a.Spec.Policy = "two"
	change(t, func(ctx context.Context) error { return admin.Update(ctx, a) })
	expect(t, next(), "two")
	change(t, func(ctx context.Context) error { return admin.Delete(ctx, a) })
	expect(t, next(), "none")
	expect(t, w.list(), "list watch")
}

func TestWatchEndsAndGoesOn(t *testing.T) {
	change(t, func(ctx context.Context) error {
		apiserver.Require(t)
		return admin.Create(ctx, assignment("ends", "one"))
	})
	next, w := watching(t, "ends", func(c *Client, _ *wire) { c.watchSeconds = 1 })
	expect(t, next(), "one")
	for deadline := time.Now().Add(20 * time.Second); strings.Count(w.list(), "watch") < 3; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("The watch was not begun again: %s", w.list())
		}
	}
	a := assignment("ends", "two")
	change(t, func(ctx context.Context) error {
		return admin.Patch(ctx, a, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"policy":"two"}}`)))
	})
	expect(t, next(), "two")
	if got := w.list(); strings.Count(got, "list") != 1 {
		t.Errorf("More than a watch to go on: %s", got)
	}
}

func TestWatchExpired(t *testing.T) {
	apiserver.Require(t)
	change(t, func(ctx context.Context) error { return admin.Create(ctx, assignment("expired", "one")) })
	gone := true
	next, w := watching(t, "expired", func(_ *Client, w *wire) {
		w.answer = func(r *http.Request) *http.Response {
			if !gone || r.URL.Query().Get("watch") == "" {
				return nil
			}
			gone = false
			return answer(http.StatusGone, apierrors.NewResourceExpired("too old resource version").Status())
		}
	})
	expect(t, next(), "one")
	expect(t, next(), "one") // read again
	change(t, func(ctx context.Context) error {
		return admin.Patch(ctx, assignment("expired", ""), client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"policy":"two"}}`)))
	})
	expect(t, next(), "two")
	expect(t, w.list(), "list watch list watch")
}

func TestApplyWithoutObject(t *testing.T) {
	apiserver.Require(t)
	c, err := New(config, "nobody")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ApplyStatus(t.Context(), &v1alpha1.AgentStatus{OperationID: "1"}); !apierrors.IsNotFound(err) {
		t.Errorf("Error is %v, want not found", err)
	}
}

func TestTask(t *testing.T) {
	apiserver.Require(t)
	task := &v1alpha1.PatchTask{
		ObjectMeta: metav1.ObjectMeta{Name: "pins"}, Spec: v1alpha1.PatchTaskSpec{Policy: "workers", Task: "weekly"},
	}
	change(t, func(ctx context.Context) error { return admin.Create(ctx, task) })
	task.Status.Pinned = &v1alpha1.PinnedPatches{
		Time: metav1.Now().Rfc3339Copy(), Nodes: 2, Patches: []v1alpha1.InstalledPatch{{Name: "ham", Version: "1:2.0-1"}},
	}
	change(t, func(ctx context.Context) error { return admin.Status().Update(ctx, task) })
	c, err := New(config, "node")
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Task(t.Context(), "pins")
	if err != nil {
		t.Fatal(err)
	}
	if p := got.Status.Pinned; got.UID != task.UID || p == nil || p.Nodes != 2 || len(p.Patches) != 1 || p.Patches[0] != task.Status.Pinned.Patches[0] {
		t.Errorf("It is %+v", got)
	}
	if _, err := c.Task(t.Context(), "nobody"); !apierrors.IsNotFound(err) {
		t.Errorf("Error is %v, want not found", err)
	}
}

// A report of as many patches as one may list fits, and the answer to it is small.
func TestApplyLargeReport(t *testing.T) {
	apiserver.Require(t)
	change(t, func(ctx context.Context) error {
		return admin.Create(ctx, &v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: "large"}})
	})
	c, err := New(config, "large")
	if err != nil {
		t.Fatal(err)
	}
	now := metav1.Now()
	status := &v1alpha1.PatchReportStatus{Summary: "large"}
	for i := range v1alpha1.MaxReportedPatches {
		p := v1alpha1.Patch{
			Name: fmt.Sprintf("package-with-a-long-name-%d", i), Installed: "1:2.36-9+deb12u10", Available: "1:2.36-9+deb12u13",
			Classification: v1alpha1.ClassificationSecurity, Severity: v1alpha1.SeverityImportant, State: v1alpha1.PatchMissing,
			DownloadBytes: 1 << 20, FirstSeen: &now,
		}
		for j := range 16 {
			p.CVEs = append(p.CVEs, fmt.Sprintf("CVE-2026-%05d", 16*i+j))
		}
		status.Patches = append(status.Patches, p)
	}
	for range 2 {
		if err := c.ApplyReport(t.Context(), status); err != nil {
			t.Fatal(err)
		}
	}
	r := &v1alpha1.PatchReport{}
	change(t, func(ctx context.Context) error { return admin.Get(ctx, client.ObjectKey{Name: "large"}, r) })
	if len(r.Status.Patches) != v1alpha1.MaxReportedPatches {
		t.Errorf("%d patches arrived", len(r.Status.Patches))
	}
	// What is no longer said is no longer there.
	if err := c.ApplyReport(t.Context(), &v1alpha1.PatchReportStatus{Summary: "small"}); err != nil {
		t.Fatal(err)
	}
	change(t, func(ctx context.Context) error { return admin.Get(ctx, client.ObjectKey{Name: "large"}, r) })
	if r.Status.Summary != "small" {
		t.Errorf("Summary is %q", r.Status.Summary)
	}
}

func answer(code int, status metav1.Status) *http.Response {
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	body, err := json.Marshal(status)
	if err != nil {
		panic(err)
	}
	return &http.Response{
		StatusCode: code, Status: http.StatusText(code), ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": []string{"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)),
	}
}
