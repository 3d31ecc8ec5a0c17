// Package apiserver starts a real etcd and kube-apiserver for tests, with nodepatch's kinds, its manifests
// and clients that hold the tokens its programs really hold.
//
// There is no controller manager: nothing is garbage collected, no namespace ever goes away, and a
// DaemonSet makes no pods.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// Server is a running API server with nodepatch's CRDs.
type Server struct {
	// Config is that of a cluster administrator.
	Config *rest.Config

	environment *envtest.Environment
	dir         string
	kubeconfig  string
}

// Start starts an API server with role-based access control and nodepatch's CRDs, in some five seconds.
// Stop it in any case.
func Start() (*Server, error) {
	if err := Missing(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "nodepatch-apiserver-")
	if err != nil {
		return nil, fmt.Errorf("making a directory for the API server: %w", err)
	}
	server := &Server{
		dir:        dir,
		kubeconfig: filepath.Join(dir, "kubeconfig"),
		environment: &envtest.Environment{
			BinaryAssetsDirectory: assets(),
			CRDDirectoryPaths:     []string{filepath.Join(Root(), "config", "crd", "bases")},
			ErrorIfCRDPathMissing: true,
		},
	}
	if server.Config, err = server.environment.Start(); err == nil {
		err = os.WriteFile(server.kubeconfig, server.environment.KubeConfig, 0o600)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting the API server: %w", err), server.Stop())
	}
	return server, nil
}

// Run starts an API server, and makes an administrator's client of it, until t ends: a test, or with
// GinkgoTB() in BeforeSuite a suite.
func Run(t testing.TB) (*Server, client.Client) {
	t.Helper()
	server, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	admin, err := Client(server.Config)
	if err != nil {
		t.Fatal(err)
	}
	return server, admin
}

// Stop ends the API server and etcd and removes what they stored.
func (s *Server) Stop() error {
	return errors.Join(s.environment.Stop(), os.RemoveAll(s.dir))
}

// Kubectl runs kubectl as the administrator, in the project's root directory, and returns what it
// printed on stdout. An error has what it printed on stderr.
func (s *Server) Kubectl(ctx context.Context, args ...string) (string, error) {
	command := s.Command(ctx, args...)
	var stderr strings.Builder
	command.Stderr = &stderr
	stdout, err := command.Output()
	if err != nil {
		return string(stdout), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(stdout), nil
}

// Command is kubectl as the administrator, in the project's root directory, for the caller to start.
func (s *Server) Command(ctx context.Context, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, filepath.Join(assets(), "kubectl"), args...)
	command.Dir = Root()
	command.Env = append(os.Environ(), "KUBECONFIG="+s.kubeconfig)
	return command
}

// Missing says what this machine lacks to start an API server, nil if nothing.
func Missing() error {
	for _, program := range []string{"etcd", "kube-apiserver", "kubectl"} {
		if _, err := os.Stat(filepath.Join(assets(), program)); err != nil {
			return fmt.Errorf("%s is not in %s: build it with \"make k8s\", or set KUBEBUILDER_ASSETS to a directory that has it", program, assets())
		}
	}
	return nil
}

// Require skips a test that cannot have an API server here, with a sentence saying why. Under CI=true
// the test fails instead.
func Require(t testing.TB) {
	t.Helper()
	err := Missing()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("This test needs an API server: %v", err)
	default:
		t.Skipf("This test needs an API server: %v", err)
	}
}

// Root is the project's root directory.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// assets is where the programs are.
func assets() string {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" {
		return dir
	}
	return filepath.Join(Root(), "bin", "k8s")
}
