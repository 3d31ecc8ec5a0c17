// Package monitoring tests what is shipped for Prometheus and Grafana: the alerts
// by their cases, and every query of the dashboard and the alerts against a real
// Prometheus that scrapes two real managers.
package monitoring

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"sigs.k8s.io/yaml"

	"github.com/nodepatch/nodepatch/test/apiserver"
)

// program finds a program of Debian's package prometheus.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	const missing = "This test needs the Debian package prometheus: make packages"
	if os.Getenv("CI") == "true" {
		t.Fatal(missing)
	}
	t.Skip(missing)
	return ""
}

// shipped is the path of a file of config.
func shipped(path ...string) string {
	return filepath.Join(append([]string{apiserver.Root(), "config"}, path...)...)
}

// decode reads a manifest into its operator's own type; a field that the type does
// not have is an error.
func decode(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// alerts are the rules that are shipped.
func alerts(t *testing.T) []monitoringv1.Rule {
	t.Helper()
	return alertGroup(t).Rules
}

func alertGroup(t *testing.T) monitoringv1.RuleGroup {
	t.Helper()
	var rule monitoringv1.PrometheusRule
	decode(t, shipped("prometheus", "alerts.yaml"), &rule)
	if len(rule.Spec.Groups) != 1 || len(rule.Spec.Groups[0].Rules) == 0 {
		t.Fatalf("There are %d groups of alerts, want one that has rules", len(rule.Spec.Groups))
	}
	return rule.Spec.Groups[0]
}

// writeRules writes a group of rules as Prometheus reads them, and returns the path.
func writeRules(t *testing.T, dir string, group monitoringv1.RuleGroup) string {
	t.Helper()
	text, err := yaml.Marshal(monitoringv1.PrometheusRuleSpec{Groups: []monitoringv1.RuleGroup{group}})
	if err != nil {
		t.Fatal(err)
	}
	return write(t, filepath.Join(dir, "rules.yaml"), string(text))
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs a program to its end, and returns all it printed.
func run(t *testing.T, name string, input string, args ...string) (string, error) {
	t.Helper()
	command := exec.CommandContext(t.Context(), name, args...)
	command.Stdin = strings.NewReader(input)
	output, err := command.CombinedOutput()
	return string(output), err
}
