package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// readiness is what kubelet's probe asks for. The agent is ready when it holds its node's lock and has seen what it is
// asked to do; an API server that goes away later is not its failure.
type readiness struct {
	reason atomic.Pointer[string] // why it is not ready; nil if it is
}

func (r *readiness) wait(reason string) { r.reason.Store(&reason) }
func (r *readiness) done()              { r.reason.Store(nil) }

func (r *readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if reason := r.reason.Load(); reason != nil {
		http.Error(w, "Not ready: "+*reason, http.StatusServiceUnavailable)
		return
	}
	_, _ = fmt.Fprintln(w, "ok")
}

// shutdownTimeout is what the server gets to answer its last probes.
const shutdownTimeout = 2 * time.Second

// serve answers probes until the returned function is called, which says whether it could.
func (r *readiness) serve(address string) (stop func() error, err error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for probes: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /readyz", r)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			_ = server.Close() // a probe that hangs is cut off
		}
		if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve probes: %w", err)
		}
		return nil
	}, nil
}
