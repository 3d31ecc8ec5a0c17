package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"time"
)

//go:embed files/audit-policy.yaml
var auditPolicy []byte

// controlPlane is etcd and Kubernetes' servers, in the order in which they start.
type controlPlane []*process

func (s *supervisor) server() string {
	return fmt.Sprintf("https://%s", netip.AddrPortFrom(s.Number.host(), apiPort))
}

const apiPort = 6443

// writePKI makes the authority and the certificates and kubeconfigs of everything but the machines.
func (s *supervisor) writePKI() (err error) {
	s.authority, err = newAuthority()
	if err != nil {
		return err
	}
	serving, err := s.authority.serving("kube-apiserver",
		[]netip.Addr{s.Number.host(), apiService, netip.MustParseAddr("127.0.0.1")},
		"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
	if err != nil {
		return err
	}
	kubelet, err := s.authority.client("kube-apiserver-kubelet-client", "system:masters")
	if err != nil {
		return err
	}
	// Only the key of this pair is used: tokens are signed with it.
	tokens, err := s.authority.client("service-accounts")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(s.dir.pki("ca.crt"), s.authority.pem, 0o644),
		os.WriteFile(s.dir.pki("audit-policy.yaml"), auditPolicy, 0o644),
		serving.writeTo(s.dir.pki(""), "kube-apiserver"),
		kubelet.writeTo(s.dir.pki(""), "kubelet-client"),
		tokens.writeTo(s.dir.pki(""), "service-accounts"),
		s.authority.kubeconfig(s.dir.pki("kube-controller-manager.conf"), s.server(), "system:kube-controller-manager"),
		s.authority.kubeconfig(s.dir.pki("kube-scheduler.conf"), s.server(), "system:kube-scheduler"),
		s.authority.kubeconfig(s.dir.kubeconfig(), s.server(), "nodepatch-admin", "system:masters"),
	)
}

// newControlPlane says how the servers are run.
func (s *supervisor) newControlPlane() controlPlane {
	loopback, pki := s.Number.loopback().String(), s.dir.pki
	client, peer := "http://"+loopback+":2379", "http://"+loopback+":2380"
	commands := [][]string{
		{
			"etcd", "--name=etcd", "--data-dir=" + s.dir.path("etcd"),
			// The data does not outlive the cluster, so a power cut of the host may lose it.
			"--unsafe-no-fsync",
			"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
			"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=etcd=" + peer,
			"--log-level=warn",
		},
		{
			"kube-apiserver", "--etcd-servers=" + client,
			"--bind-address=" + s.Number.host().String(), "--advertise-address=" + s.Number.host().String(),
			fmt.Sprintf("--secure-port=%d", apiPort),
			"--tls-cert-file=" + pki("kube-apiserver.crt"), "--tls-private-key-file=" + pki("kube-apiserver.key"),
			"--client-ca-file=" + pki("ca.crt"),
			"--kubelet-client-certificate=" + pki("kubelet-client.crt"), "--kubelet-client-key=" + pki("kubelet-client.key"),
			"--kubelet-preferred-address-types=InternalIP",
			"--service-account-key-file=" + pki("service-accounts.key"),
			"--service-account-signing-key-file=" + pki("service-accounts.key"),
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-cluster-ip-range=" + serviceNetwork.String(),
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
			"--audit-policy-file=" + pki("audit-policy.yaml"), "--audit-log-path=" + s.dir.audit(),
			"--anonymous-auth=false",
		},
		{
			"kube-controller-manager", "--kubeconfig=" + pki("kube-controller-manager.conf"),
			"--bind-address=" + loopback, "--leader-elect=false", "--use-service-account-credentials",
			"--service-account-private-key-file=" + pki("service-accounts.key"), "--root-ca-file=" + pki("ca.crt"),
			// A machine that is gone is seen soon: kubelet reports every 4 s here.
			"--node-monitor-period=2s", "--node-monitor-grace-period=16s",
		},
		{
			"kube-scheduler", "--kubeconfig=" + pki("kube-scheduler.conf"),
			"--bind-address=" + loopback, "--leader-elect=false",
		},
	}
	var plane controlPlane
	for _, command := range commands {
		name := command[0]
		command[0] = s.binaries + "/" + name
		wrapped := s.cgroup().controlPlane().command(command...)
		plane = append(plane, &process{name: name, command: wrapped, logFile: s.dir.log(name)})
	}
	return plane
}

// named returns one of the servers, or nil.
func (c controlPlane) named(name string) *process {
	for _, p := range c {
		if p.name == name {
			return p
		}
	}
	return nil
}

// waitForAPI returns when the API server says that it is ready.
func (s *supervisor) waitForAPI(ctx context.Context) error {
	client, err := s.apiClient()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	var last error
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.server()+"/readyz", nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(response.Status)
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the API server did not become ready, see %s: %w", s.dir.log("kube-apiserver"), last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// apiClient speaks to the API server as an administrator.
func (s *supervisor) apiClient() (*http.Client, error) {
	admin, err := s.authority.client("nodepatch-admin", "system:masters")
	if err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair(admin.certificate, admin.key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.authority.certificate)
	return &http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13},
			DisableKeepAlives: true,
		},
	}, nil
}
