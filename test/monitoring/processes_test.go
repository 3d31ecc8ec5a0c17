package monitoring

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/test/apiserver"
)

// startManagers builds the manager and runs it twice, with the rights of its
// ServiceAccount, until the test ends. It returns the addresses of their metrics.
func startManagers(t *testing.T, server *apiserver.Server) []string {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "manager")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./controllers/manager")
	build.Dir = apiserver.Root()
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the manager: %v\n%s", err, output)
	}
	config, err := server.ManagerConfig(t.Context())
	must(t, err)
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters["test"] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	kubeconfig.AuthInfos["test"] = &clientcmdapi.AuthInfo{Token: config.BearerToken}
	kubeconfig.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	kubeconfig.CurrentContext = "test"
	path := filepath.Join(dir, "kubeconfig")
	must(t, clientcmd.WriteToFile(*kubeconfig, path))

	var addresses []string
	for i := range 2 {
		address := free(t)
		addresses = append(addresses, address)
		command := exec.Command(program, "--leader-elect", "--agent-image=nodepatch:dev",
			"--metrics-bind-address="+address, "--health-probe-bind-address=0")
		command.Env = append(os.Environ(), "KUBECONFIG="+path, "POD_NAMESPACE="+apiserver.Namespace, fmt.Sprintf("POD_NAME=manager-%d", i))
		keep(t, command)
	}
	return addresses
}

// startPrometheus runs Prometheus on the managers with the rules that are shipped,
// until the test ends, and returns its URL. It scrapes with the token of a
// ServiceAccount in the namespace monitoring, which config/prometheus lets it.
func startPrometheus(t *testing.T, server *apiserver.Server, admin client.Client, managers []string) string {
	t.Helper()
	_, err := server.Kubectl(t.Context(), "apply", "-f", "config/prometheus/access.yaml")
	must(t, err)
	dir := t.TempDir()
	rules := writeRules(t, dir, alertGroup(t))
	config := fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
- job_name: nodepatch
  scheme: https
  authorization: {credentials: %q}
  tls_config: {insecure_skip_verify: true}
  static_configs: [{targets: [%s]}]
`, rules, token(t, admin), strings.Join(managers, ", "))
	address := free(t)
	keep(t, exec.Command(program(t, "prometheus"), "--config.file="+write(t, filepath.Join(dir, "prometheus.yml"), config),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address))
	return "http://" + address
}

// token is that of a ServiceAccount in the namespace monitoring.
func token(t *testing.T, admin client.Client) string {
	t.Helper()
	ctx := t.Context()
	must(t, client.IgnoreAlreadyExists(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "monitoring"}})))
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "prometheus", Namespace: "monitoring"}}
	must(t, client.IgnoreAlreadyExists(admin.Create(ctx, account)))
	request := &authenticationv1.TokenRequest{}
	must(t, admin.SubResource("token").Create(ctx, account, request))
	return request.Status.Token
}

// keep runs a program until the test ends, and shows its output if that failed.
func keep(t *testing.T, command *exec.Cmd) {
	t.Helper()
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	must(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait() // it was killed
		if t.Failed() {
			t.Logf("%s:\n%s", command.Path, output.String())
		}
	})
}

// free is an address of this machine at which nobody listens.
func free(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { must(t, listener.Close()) }()
	return listener.Addr().String()
}
