package monitoring

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

// One test for what takes half a minute to set up: two managers, of which one
// leads, a fleet in the middle of a rollout, and Prometheus.
func TestPrometheusSeesTheFleet(t *testing.T) {
	apiserver.Require(t)
	program(t, "prometheus")
	ctrl.SetLogger(logr.Discard()) // the managers have logs of their own
	server, admin := apiserver.Run(t)
	must(t, server.Install(t.Context()))
	managers := startManagers(t, server)
	url := startPrometheus(t, server, admin, managers)
	makeFleet(t, server, admin)
	ask := questions(t, url)

	// A scan that fails on one node, then a deployment in which one node is at work
	// and another waits for it.
	for i, name := range names {
		report(t, admin, name, i+1)
	}
	patchStatus(t, admin, &v1alpha1.PatchRetry{ObjectMeta: metav1.ObjectMeta{Name: "one"}},
		`{"counted":2,"blocked":1,"summary":"1 blocked: ham","patches":[{"name":"ham","version":"2","installFailures":4,"blocked":"Install"},{"name":"egg","version":"1","installFailures":1}]}`)
	// A counter has to be seen before it counts.
	eventually(t, "Prometheus knows the policy", func() bool {
		return len(ask(`nodepatch_task_results_total{policy="workers",result="Failed"} == 0`)) == 1
	})
	start(t, admin, "scan", v1alpha1.TaskTemplate{Action: v1alpha1.ActionScan})
	answer(t, admin, "one", v1alpha1.StepFailed, v1alpha1.ReasonScanFailed)
	answer(t, admin, "two", v1alpha1.StepDone, v1alpha1.ReasonScanned)
	answer(t, admin, "three", v1alpha1.StepDone, v1alpha1.ReasonScanned)
	eventually(t, "the scan ends", func() bool { return phase(t.Context(), admin, "scan") == v1alpha1.TaskFailed })
	start(t, admin, "deploy", v1alpha1.TaskTemplate{Action: v1alpha1.ActionDeploy})
	for _, name := range names {
		answer(t, admin, name, v1alpha1.StepWaiting, v1alpha1.ReasonReadyToInstall)
	}
	eventually(t, "one node is at work and two wait", func() bool {
		return len(ask(`sum(nodepatch_nodes_waiting{step="Waiting",reason="Budget"}) == 2`)) == 1 &&
			len(ask(`nodepatch_node_disruption_start_timestamp_seconds`)) == 1
	})

	t.Run("one manager publishes, and both are scraped", func(t *testing.T) {
		for _, query := range []string{`count(up == 1) == 2`, `count(nodepatch_build_info) == 2`, `count(nodepatch_manager_leader) == 1`,
			`count(count by (instance) ({__name__=~"nodepatch_.+",__name__!="nodepatch_build_info"})) == 1`} {
			eventually(t, query, func() bool { return len(ask(query)) == 1 })
		}
	})
	t.Run("promtool finds nothing to say of the metrics", func(t *testing.T) { checkMetrics(t, managers, token(t, admin)) })
	t.Run("every panel shows something", func(t *testing.T) {
		for _, panel := range readDashboard(t).Panels {
			for _, target := range panel.Targets {
				query := variables.Replace(target.Expr)
				eventually(t, panel.Title+": "+query, func() bool { return len(ask(query)) > 0 })
			}
		}
	})
	t.Run("every alert can be evaluated, and those that should are on", func(t *testing.T) { checkAlerts(t, url) })
	t.Run("the series of a node that is gone go too", func(t *testing.T) {
		query := `count({__name__=~"nodepatch_.+",node="three"})`
		if result := ask(query); len(result) != 1 {
			t.Fatalf("There is nothing of the node to begin with: %v", result)
		} else {
			t.Logf("%v series of a node", result[0].Value)
		}
		must(t, admin.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "three"}}))
		eventually(t, "nothing is left of it", func() bool { return len(ask(query)) == 0 })
	})
}

// variables are the dashboard's, as Grafana would fill them in.
var variables = strings.NewReplacer("$policy", ".*", "$node", ".*", "$__rate_interval", "1m")

// questions makes a function that asks Prometheus; it fails the test at an error
// or a warning.
func questions(t *testing.T, url string) func(query string) model.Vector {
	t.Helper()
	client, err := api.NewClient(api.Config{Address: url})
	must(t, err)
	prometheus := promv1.NewAPI(client)
	eventually(t, "Prometheus is ready", func() bool {
		_, err := prometheus.Runtimeinfo(t.Context())
		return err == nil
	})
	return func(query string) model.Vector {
		value, warnings, err := prometheus.Query(t.Context(), query, time.Now())
		if err != nil || len(warnings) > 0 {
			t.Fatalf("Prometheus does not answer %s: %v %v", query, err, warnings)
		}
		vector, ok := value.(model.Vector)
		if !ok {
			t.Fatalf("%s is not a vector but %s", query, value.Type())
		}
		return vector
	}
}

// checkAlerts waits until Prometheus has evaluated all rules, and those that the
// fleet gives cause for are pending or firing.
func checkAlerts(t *testing.T, url string) {
	client, err := api.NewClient(api.Config{Address: url})
	must(t, err)
	want := map[string]bool{"NodepatchSecurityPatchesMissing": true, "NodepatchPatchBlocked": true, "NodepatchRebootPending": true, "NodepatchTaskFailed": true}
	eventually(t, "all rules are evaluated", func() bool {
		rules, err := promv1.NewAPI(client).Rules(t.Context(), nil)
		must(t, err)
		done := true
		for _, rule := range rules.Groups[0].Rules {
			alert, ok := rule.(promv1.AlertingRule)
			if !ok || alert.Health == promv1.RuleHealthBad {
				t.Fatalf("The rule %+v is not in order", rule)
			}
			on := len(alert.Alerts) > 0
			done = done && alert.Health == promv1.RuleHealthGood && on == want[alert.Name]
			for _, active := range alert.Alerts {
				if text := active.Annotations["description"]; strings.Contains(string(text), "<") {
					t.Errorf("%s: its words have a gap: %s", alert.Name, text)
				}
			}
		}
		return done && len(rules.Groups[0].Rules) == len(alerts(t))
	})
}

// checkMetrics has promtool look at what the manager that leads serves.
func checkMetrics(t *testing.T, managers []string, token string) {
	promtool := program(t, "promtool")
	// The certificates are the managers' own.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	led := 0
	for _, address := range managers {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/metrics", nil)
		must(t, err)
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := (&http.Client{Transport: transport}).Do(request)
		must(t, err)
		page, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		must(t, err)
		if response.StatusCode != http.StatusOK || !strings.Contains(string(page), "nodepatch_build_info") {
			t.Fatalf("The metrics are not served: %s\n%s", response.Status, page)
		}
		if strings.Contains(string(page), "nodepatch_manager_leader 1") {
			led++
		}
		// It ends with an error for what others' metrics are called.
		output, _ := run(t, promtool, string(page), "check", "metrics")
		for line := range strings.Lines(output) {
			if strings.HasPrefix(line, "nodepatch_") || strings.Contains(line, "error") {
				t.Errorf("promtool check metrics: %s", line)
			}
		}
	}
	if led != 1 {
		t.Errorf("%d managers say that they lead", led)
	}
}
