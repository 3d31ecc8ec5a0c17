package blockers

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/clock"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// rules are alerts that fire from the first evaluation on, and one that is pending.
const rules = `
groups:
- name: test
  rules:
  - {alert: Down, expr: vector(1), labels: {severity: critical}}
  - {alert: Watchdog, expr: vector(1), labels: {severity: none}}
  - {alert: Full, expr: vector(1), labels: {severity: warning, path: 'C:\a "b"'}}
  - {alert: Soon, expr: vector(1), for: 1h, labels: {severity: critical}}
`

// What the tests above take for the words of Prometheus, Prometheus itself says.
func TestRealPrometheus(t *testing.T) {
	url := runPrometheus(t)
	check := func(alerts string) *Block {
		t.Helper()
		p := newPrometheus(nil, clock.RealClock{})
		return p.check(t.Context(), &v1alpha1.PrometheusBlocker{URL: url, Alerts: alerts})
	}
	say := "Alerts fire, says Prometheus at " + url + ": "
	all := say + "Down (critical), Full (warning), Watchdog (none)"
	deadline := time.Now().Add(20 * time.Second)
	for block := check(""); block == nil || block.Message != all; block = check("") {
		if time.Now().After(deadline) {
			t.Fatalf("Prometheus evaluated its rules in vain: the block is %+v", block)
		}
		time.Sleep(100 * time.Millisecond) // between two questions to another program
	}
	for name, test := range map[string]struct {
		alerts, want string
	}{
		"by severity":              {`{severity="critical"}`, say + "Down (critical)"},
		"without quotes":           {`severity=critical`, say + "Down (critical)"},
		"all but one":              {`alertname!="Watchdog"`, say + "Down (critical), Full (warning)"},
		"by expressions":           {`{severity=~"crit.*|none",alertname!~"D.*"}`, say + "Watchdog (none)"},
		"with quotes in a value":   {`path="C:\\a \"b\""`, say + "Full (warning)"},
		"of no alert":              {`severity="page"`, ""},
		"of pending ones only":     {`alertname="Soon"`, ""},
		"a value that would leave": {`severity="\"} or vector(1) #"`, ""},
		"an empty expression":      {`severity=~""`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if block := check(test.alerts); block != nil {
				got = block.Message
			}
			if got != test.want {
				t.Errorf("The message is %q, want %q", got, test.want)
			}
		})
	}
}

// runPrometheus runs Prometheus until the test ends, and returns its URL.
func runPrometheus(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		const missing = "This test needs the Debian package prometheus: make packages"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"prometheus.yml": "global: {evaluation_interval: 1s}\nrule_files: [rules.yml]\n",
		"rules.yml":      rules,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	var output bytes.Buffer
	command := exec.Command(program, "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	command.Stdout, command.Stderr = &output, &output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait() // it was killed
		if t.Failed() {
			t.Log(output.String())
		}
	})
	url := "http://" + address
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		response, err := http.Get(url + "/-/ready")
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return url
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("Prometheus is not ready: %s", strings.TrimSpace(fmt.Sprint(err)))
		}
	}
}
