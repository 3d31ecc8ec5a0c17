package scale

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/test/apiserver"
)

// manager is the program in a process of its own.
type manager struct {
	process *os.Process
	url     string
	// token of somebody who may read the metrics.
	token string
}

// runManager builds and runs the manager until t ends.
func runManager(t *testing.T, server *apiserver.Server, admin client.Client) *manager {
	t.Helper()
	program := filepath.Join(t.TempDir(), "manager")
	build := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w", "-o", program, "./controllers/manager")
	build.Dir, build.Env = apiserver.Root(), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("Building the manager: %v: %s", err, out)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "manager.log"))
	if err != nil {
		t.Fatal(err)
	}
	address := free(t)
	command := exec.Command(program, "--leader-elect", "--agent-image="+image, "--namespace="+apiserver.Namespace,
		"--metrics-bind-address="+address, "--health-probe-bind-address="+free(t), "--kubeconfig="+kubeconfig(t, server))
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Signal(os.Interrupt)
		if err := command.Wait(); err != nil || t.Failed() {
			out, _ := os.ReadFile(log.Name())
			t.Errorf("The manager ended with %v; the end of its log:\n%s", err, out[max(0, len(out)-8000):])
		}
	})
	return &manager{process: command.Process, url: "https://" + address + "/metrics", token: reader(t, server, admin)}
}

// kubeconfig writes that of the manager's ServiceAccount.
func kubeconfig(t *testing.T, server *apiserver.Server) string {
	t.Helper()
	account, err := server.ManagerConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["fleet"] = &clientcmdapi.Cluster{Server: account.Host, CertificateAuthorityData: account.CAData}
	config.AuthInfos["manager"] = &clientcmdapi.AuthInfo{Token: account.BearerToken}
	config.Contexts["fleet"] = &clientcmdapi.Context{Cluster: "fleet", AuthInfo: "manager"}
	config.CurrentContext = "fleet"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// reader makes a ServiceAccount that may read the metrics, and returns its token.
func reader(t *testing.T, server *apiserver.Server, admin client.Client) string {
	t.Helper()
	name := metav1.ObjectMeta{Name: "prometheus", Namespace: apiserver.Namespace}
	for _, object := range []client.Object{
		&corev1.ServiceAccount{ObjectMeta: name},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name.Name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "nodepatch-metrics-reader"},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: name.Name, Namespace: name.Namespace}},
		},
	} {
		if err := admin.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	account, err := server.AccountConfig(t.Context(), name.Name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return account.BearerToken
}

// metrics are the manager's, by name.
func (m *manager) metrics(ctx context.Context) (map[string]*dto.MetricFamily, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+m.token)
	// The certificate is the manager's own.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("reading the metrics: %s", response.Status)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	return parser.TextToMetricFamilies(response.Body)
}

// writes is how many requests that change something the manager has sent, all but those of leader election, of which there
// is one in two seconds and which its metrics do not tell apart.
func writes(families map[string]*dto.MetricFamily) (total float64) {
	for _, metric := range families["rest_client_requests_total"].GetMetric() {
		for _, label := range metric.GetLabel() {
			if label.GetName() == "method" && label.GetValue() != http.MethodGet {
				total += metric.GetCounter().GetValue()
			}
		}
	}
	return total
}

// reconciles is how often each controller has reconciled, and the seconds that took.
func reconciles(families map[string]*dto.MetricFamily) map[string][2]float64 {
	found := map[string][2]float64{}
	for _, metric := range families["controller_runtime_reconcile_time_seconds"].GetMetric() {
		for _, label := range metric.GetLabel() {
			if label.GetName() == "controller" {
				histogram := metric.GetHistogram()
				found[label.GetValue()] = [2]float64{float64(histogram.GetSampleCount()), histogram.GetSampleSum()}
			}
		}
	}
	return found
}

// peak is the most memory that the manager was resident with so far, in MiB.
func (m *manager) peak() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, fmt.Errorf("no VmHWM in the status of process %d", m.process.Pid)
	}
	kib, err := strconv.ParseFloat(fields[0], 64)
	return kib / 1024, err
}

func free(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}
