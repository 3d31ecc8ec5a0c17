package readme

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/nodepatch/nodepatch/test/cluster"
)

// startRegistry serves an image registry on this host and returns how README's commands reach it:
// by a loopback address, with which everybody is content with http.
func startRegistry(ctx context.Context) (address string, err error) {
	listener, err := net.Listen("tcp", ":0") // the machines reach it by the host's address
	if err != nil {
		return "", err
	}
	server := &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	go func() { _ = server.Serve(listener) }()
	context.AfterFunc(ctx, func() { server.Close() })
	return fmt.Sprintf("127.0.0.1:%d", listener.Addr().(*net.TCPAddr).Port), nil
}

// trust has all machines of a cluster pull what has the registry's name from this host, as they would
// from a registry that the whole cluster knows.
func trust(ctx context.Context, machines *cluster.Cluster, address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	all, err := machines.Machines(ctx)
	if err != nil {
		return err
	}
	directory := "/etc/containerd/certs.d/" + address
	server := "http://" + net.JoinHostPort(machines.HostAddress().String(), port)
	// Without the second line Debian's containerd does not read the first one.
	hosts := fmt.Sprintf("server = %q\n[host.%q]\n", server, server)
	for _, status := range all {
		machine, err := machines.Machine(status.Name)
		if err != nil {
			return err
		}
		cmd, err := machine.Command(ctx, "sh", "-c", `mkdir -p "$0" && printf %s "$1" >"$0/hosts.toml"`, directory, hosts)
		if err != nil {
			return err
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", status.Name, err, out)
		}
	}
	return nil
}
