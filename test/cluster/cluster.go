// Package cluster boots a real Kubernetes cluster on this one host: a control plane of upstream's own
// servers, and machines with systemd, containerd and kubelet that can be rebooted, cut off from the
// network and robbed of their power. It needs root, Debian or Ubuntu, and the packages of
// hack/packages.txt.
//
// A cluster is run by a supervisor, a process of its own (see [Supervise]). Whatever kills the process
// that started it, the cluster either ends with it or, if it was started as detached, stays as it is and
// can be attached to. What a killed supervisor leaves is cleaned up by the next one, or by [Sweep].
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nodepatch/nodepatch/test/roots"
)

// Options say what a cluster is like. The zero value but for Dir is one machine with the host's sources.
type Options struct {
	// Dir is where the cluster keeps its files. It must be new, empty or an earlier cluster's. Its logs
	// directory outlives the cluster.
	Dir string
	// Machines is how many nodes there are: 1 to 15, by default 1. Their names are machine-1 and so on.
	Machines int
	// Sources returns the text of the machines' /etc/apt/sources.list, and is told the address under
	// which machines reach the host. By default machines have the host's own sources, with security
	// updates that are really missing.
	Sources func(host netip.Addr) string
	// Detached lets the cluster run on when this process ends.
	Detached bool
	// Log is told what takes time. By default nobody is.
	Log io.Writer
}

// Cluster is a running cluster.
type Cluster struct {
	// Dir is the absolute path of Options.Dir.
	Dir string
	// Kubeconfig is the path of a kubeconfig for a cluster administrator.
	Kubeconfig string
	// AuditLog is the path of the API server's log of every request for objects of nodepatch.io and for
	// Events, and of every request by a pod. It holds one audit.k8s.io/v1 Event as JSON per line.
	AuditLog string

	record     record
	supervisor *exec.Cmd // nil if attached
	owner      io.Closer // ends the supervisor when it is closed; nil if detached or attached
}

// Start boots a cluster and returns when all its nodes are Ready, which takes some 15 seconds once the
// machines' root and Kubernetes' programs are built; it builds them if it has to. The caller must Stop
// it, unless it is detached.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	if options.Log == nil {
		options.Log = io.Discard
	}
	if options.Machines == 0 {
		options.Machines = 1
	}
	if options.Machines < 1 || options.Machines > maxMachines {
		return nil, fmt.Errorf("a cluster has 1 to %d machines, not %d", maxMachines, options.Machines)
	}
	if err := Supported(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(options.Dir)
	if err != nil {
		return nil, err
	}
	parts, err := build(ctx, options.Log)
	if err != nil {
		return nil, err
	}

	wanted := record{Dir: dir, Machines: options.Machines, Detached: options.Detached}
	reserved, lock, err := reserve(ctx, wanted, options.Sources)
	if err != nil {
		return nil, err
	}
	c := open(reserved)
	err = errors.Join(c.addImage(parts.pauseImage), c.launch(ctx, parts, lock, options.Log), lock.Close())
	if err == nil {
		err = c.waitForNodes(ctx, options.Log)
	}
	if err != nil {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		return nil, errors.Join(err, c.Stop(stopping))
	}
	return c, nil
}

// Attach returns the detached cluster that runs in the directory.
func Attach(dir string) (*Cluster, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	var r record
	if err := readJSON(directory(dir).marker(), &r); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no cluster runs in %s: start one with \"make cluster\"", dir)
	} else if err != nil {
		return nil, err
	}
	c := open(r)
	if _, err := c.Machines(context.Background()); err != nil {
		return nil, fmt.Errorf("the cluster of %s does not answer, start it afresh with \"make cluster\": %w", dir, err)
	}
	return c, nil
}

func open(r record) *Cluster {
	d := directory(r.Dir)
	return &Cluster{Dir: r.Dir, Kubeconfig: d.kubeconfig(), AuditLog: d.audit(), record: r}
}

// Supported returns nil where a cluster can run. Otherwise the error is one sentence for a person.
func Supported() error {
	if err := roots.Supported(); err != nil {
		return err
	}
	for _, name := range []string{"systemd-nspawn", "ip", "iptables", "nsenter"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%s is not installed: install the packages of hack/packages.txt", name)
		}
	}
	return nil
}

// launch starts the supervisor and returns when it says that every machine is on.
func (c *Cluster) launch(ctx context.Context, parts parts, lock *os.File, log io.Writer) error {
	logFile, err := os.Create(directory(c.Dir).log("supervisor"))
	if err != nil {
		return err
	}
	defer logFile.Close()
	cmd := exec.Command(parts.supervisor, "supervise", strconv.Itoa(int(c.record.Number)), parts.binaries)
	cmd.Stderr = logFile
	cmd.ExtraFiles = []*os.File{lock} // lockDescriptor
	// A session of its own keeps an interrupt from the terminal away; mounts go with its namespace.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Unshareflags: syscall.CLONE_NEWNS}
	if !c.record.Detached {
		if c.owner, err = cmd.StdinPipe(); err != nil {
			return err
		}
	}
	progress, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the supervisor: %w", err)
	}
	c.supervisor = cmd
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })()
	if _, err := io.Copy(log, progress); err != nil {
		return err
	}
	if _, err := os.Stat(directory(c.Dir).marker()); err != nil {
		said, _ := os.ReadFile(logFile.Name())
		return fmt.Errorf("the cluster did not start: %s", strings.TrimSpace(string(said)))
	}
	return nil
}

// Stop ends the cluster and returns when nothing of it is left on the host but its logs.
func (c *Cluster) Stop(ctx context.Context) error {
	asked := c.call(ctx, "POST", "/stop", nil)
	if c.owner != nil {
		// Also ends a supervisor that has not come as far as to listen.
		asked = c.owner.Close()
	}
	if c.supervisor != nil {
		if asked != nil {
			_ = c.supervisor.Process.Signal(syscall.SIGTERM)
		}
		_ = c.supervisor.Wait()
	}
	for {
		alive, err := c.record.alive()
		if err != nil {
			return err
		}
		if !alive {
			// Nothing is left unless the supervisor was killed; then this cleans up.
			return Sweep(ctx)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the cluster to stop, see %s: %w", directory(c.Dir).log("supervisor"), ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// HostAddress is where machines and pods reach the host. What a test serves there must be stopped by it.
func (c *Cluster) HostAddress() netip.Addr { return c.record.Number.host() }

// RESTConfig returns the configuration of a client that is cluster administrator.
func (c *Cluster) RESTConfig() (*rest.Config, error) {
	return clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
}

// StopServer kills one of etcd, kube-apiserver, kube-controller-manager and kube-scheduler. It stays
// away until StartServer.
func (c *Cluster) StopServer(ctx context.Context, name string) error {
	return c.call(ctx, "POST", "/servers/"+name+"/stop", nil)
}

// StartServer starts a server that StopServer stopped.
func (c *Cluster) StartServer(ctx context.Context, name string) error {
	return c.call(ctx, "POST", "/servers/"+name+"/start", nil)
}
