package main

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/rest"
)

// gate is a handler that can be made to wait, or to hang up.
type gate struct {
	next   http.Handler
	closed atomic.Pointer[chan struct{}]
	down   atomic.Bool
}

func (g *gate) close() (open func()) {
	c := make(chan struct{})
	g.closed.Store(&c)
	return func() { g.closed.Store(nil); close(c) }
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.down.Load() {
		panic(http.ErrAbortHandler)
	}
	if c := g.closed.Load(); c != nil {
		select {
		case <-*c:
		case <-r.Context().Done():
			return
		}
	}
	g.next.ServeHTTP(w, r)
}

// gateway passes the agent's requests on to the API server with the agent's own token, counts them, and can be gone.
type gateway struct {
	*httptest.Server
	gate

	mu       sync.Mutex
	requests []string
}

func newGateway(t *testing.T, config *rest.Config) *gateway {
	t.Helper()
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport, proxy.FlushInterval = transport, -1
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	g.next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		verb := r.Method
		if r.URL.Query().Get("watch") != "" {
			verb = "WATCH"
		}
		g.mu.Lock()
		g.requests = append(g.requests, verb+" "+r.URL.Path)
		g.mu.Unlock()
		proxy.ServeHTTP(w, r)
	})
	g.Server = httptest.NewUnstartedServer(&g.gate)
	g.EnableHTTP2 = true
	g.StartTLS()
	t.Cleanup(g.Close)
	return g
}

// away makes the API server be gone, for connections that are open too.
func (g *gateway) away() (back func()) {
	g.down.Store(true)
	g.CloseClientConnections()
	return func() { g.down.Store(false) }
}

// count returns how many requests there were, all or those that wrote.
func (g *gateway) count() (all, writes int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.requests {
		if !strings.HasPrefix(r, "GET") && !strings.HasPrefix(r, "WATCH") {
			writes++
		}
	}
	return len(g.requests), writes
}

func (g *gateway) list() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.requests, "\n")
}
