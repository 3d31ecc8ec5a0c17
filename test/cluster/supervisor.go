package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nodepatch/nodepatch/test/roots"
)

// supervisor runs one cluster: the parent of its control plane and of its machines, in a mount
// namespace of its own.
type supervisor struct {
	record
	dir         directory
	binaries    string // bin/k8s
	authority   *authority
	hostSources *roots.Sources
	plane       controlPlane
	machines    []*container
	stopping    atomic.Bool
	stop        context.CancelFunc
}

// lockDescriptor is the file descriptor under which a supervisor inherits its cluster's lock.
const lockDescriptor = 3

// Supervise runs the cluster with the number until it is told to stop: by its control socket, by
// SIGTERM, or, unless it is detached, by the end of its owner, which shows as the end of stdin. It
// writes its progress to stdout, which it closes when every machine is on. Start calls it by way of
// "cluster supervise".
func Supervise(ctx context.Context, number int, binaries string) (err error) {
	// The lock came with the process and must not go on to children, which would hold it after us.
	syscall.CloseOnExec(lockDescriptor)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	s := &supervisor{binaries: binaries, stop: stop}
	if err := readJSON(network(number).registered("cluster.json"), &s.record); err != nil {
		return err
	}
	s.dir = directory(s.Dir)
	if !s.Detached {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			stop()
		}()
	}
	defer func() {
		s.stopping.Store(true)
		err = errors.Join(err, s.teardown())
	}()

	if err := s.up(ctx); err != nil {
		return err
	}
	server := http.Server{Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second}
	listener, err := net.Listen("unix", s.Number.socket())
	if err != nil {
		return err
	}
	go func() { _ = server.Serve(listener) }()
	if err := writeJSON(s.dir.marker(), s.record); err != nil {
		return err
	}
	if err := os.Stdout.Close(); err != nil {
		return err
	}
	<-ctx.Done()
	// The answer to the request that stops the cluster is still to be sent.
	closing, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return server.Shutdown(closing)
}

// up starts the control plane and the machines.
func (s *supervisor) up(ctx context.Context) error {
	start := time.Now()
	root, err := roots.Debian(ctx, os.Stdout)
	if err != nil {
		return err
	}
	if s.Sources == "" {
		if s.hostSources, err = roots.HostSources(ctx); err != nil {
			return err
		}
	}
	if err := s.writePKI(); err != nil {
		return err
	}
	if err := s.cgroup().controlPlane().create(); err != nil {
		return err
	}
	s.plane = s.newControlPlane()
	for _, process := range s.plane {
		if err := process.start(); err != nil {
			return err
		}
	}
	var group errgroup.Group
	group.Go(func() error {
		if err := s.waitForAPI(ctx); err != nil {
			return err
		}
		fmt.Printf("Control plane ready after %.1fs\n", time.Since(start).Seconds())
		return nil
	})
	for i := 1; i <= s.Machines; i++ {
		machine := &container{supervisor: s, index: i}
		s.machines = append(s.machines, machine)
		group.Go(func() error {
			if err := machine.install(ctx, root); err != nil {
				return fmt.Errorf("%s: %w", nodeName(i), err)
			}
			fmt.Printf("%s booted after %.1fs\n", nodeName(i), time.Since(start).Seconds())
			return nil
		})
	}
	return group.Wait()
}

// install makes the machine's disk and switches the machine on.
func (c *container) install(ctx context.Context, root *roots.Root) error {
	layer, err := root.Layer(c.supervisor.dir.machine(c.index))
	if err != nil {
		return err
	}
	c.layer = layer
	if err := c.supervisor.provision(layer, c.index); err != nil {
		return err
	}
	if err := os.MkdirAll(c.supervisor.dir.containerd(c.index), 0o711); err != nil {
		return err
	}
	return c.start(ctx)
}

// teardown ends all processes and takes everything off the host.
func (s *supervisor) teardown() error {
	for _, process := range s.plane {
		if err := process.stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	if err := s.cgroup().kill(); err != nil {
		return err
	}
	var errs []error
	for _, machine := range s.machines {
		if machine.layer != nil {
			errs = append(errs, machine.layer.Close())
		}
	}
	return errors.Join(append(errs, s.retire(context.Background()))...)
}

// handler serves the control socket.
func (s *supervisor) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /machines", func(w http.ResponseWriter, _ *http.Request) {
		var list []MachineStatus
		for _, machine := range s.machines {
			list = append(list, machine.status())
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(list)
	})
	machine := func(do func(ctx context.Context, machine *container) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for _, machine := range s.machines {
				if nodeName(machine.index) == r.PathValue("name") {
					answer(w, do(r.Context(), machine))
					return
				}
			}
			http.Error(w, "no machine is named "+strconv.Quote(r.PathValue("name")), http.StatusNotFound)
		}
	}
	mux.HandleFunc("POST /machines/{name}/start", machine(func(ctx context.Context, m *container) error { return m.start(ctx) }))
	mux.HandleFunc("POST /machines/{name}/kill", machine(func(_ context.Context, m *container) error { return m.kill() }))
	mux.HandleFunc("POST /machines/{name}/hang", machine(func(_ context.Context, m *container) error { return m.setHung(true) }))
	mux.HandleFunc("POST /machines/{name}/mend", machine(func(_ context.Context, m *container) error { return m.setHung(false) }))
	mux.HandleFunc("POST /machines/{name}/cut", machine(func(ctx context.Context, m *container) error { return m.setCut(ctx, true) }))
	mux.HandleFunc("POST /machines/{name}/join", machine(func(ctx context.Context, m *container) error { return m.setCut(ctx, false) }))

	server := func(do func(*process) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			process := s.plane.named(r.PathValue("name"))
			if process == nil {
				http.Error(w, "no server is named "+strconv.Quote(r.PathValue("name")), http.StatusNotFound)
				return
			}
			answer(w, do(process))
		}
	}
	mux.HandleFunc("POST /servers/{name}/start", server((*process).start))
	mux.HandleFunc("POST /servers/{name}/stop", server((*process).stop))
	mux.HandleFunc("POST /stop", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, nil)
		s.stop()
	})
	// A client of an earlier cluster with this number finds nothing here.
	return http.StripPrefix("/"+s.ID, mux)
}

func answer(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
