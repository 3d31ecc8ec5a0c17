// Command workload is what a cluster is for: a web server that answers with the name of its pod. It
// behaves as real ones do that make maintenance hard: it takes time to become ready, it serves on while
// load balancers learn that it goes, and if it is told to, it does not go when it is asked.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	address := flag.String("address", ":8080", "`address` to serve on: the pod's name at /, and readiness at /ready")
	readyAfter := flag.Duration("ready-after", 0, "how long after its start it is ready")
	linger := flag.Duration("linger", 0, "how long it serves on after SIGTERM")
	stubborn := flag.Bool("ignore-sigterm", false, "serve until SIGKILL")
	flag.Parse()
	if err := serve(*address, *readyAfter, *linger, *stubborn); err != nil {
		fmt.Fprintf(os.Stderr, "Error: %v\n", err)
		os.Exit(1)
	}
}

func serve(address string, readyAfter, linger time.Duration, stubborn bool) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	begin := time.Now()
	var leaving atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if leaving.Load() || time.Since(begin) < readyAfter {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, name) })
	server := http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: 5 * time.Second}

	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	if !stubborn {
		go func() {
			<-asked
			leaving.Store(true)
			time.Sleep(linger)
			closing, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = server.Shutdown(closing)
		}()
	}
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
