package monitoring

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// caseFile is what is read here of the cases; promtool reads all of it.
type caseFile struct {
	Tests []struct {
		Cases []struct {
			Alert    string `json:"alertname"`
			Expected []any  `json:"exp_alerts"`
		} `json:"alert_rule_test"`
	} `json:"tests"`
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	promtool := program(t, "promtool")
	cases, err := os.ReadFile("alert_cases.yaml")
	if err != nil {
		t.Fatal(err)
	}
	group := alertGroup(t)
	dir := t.TempDir()
	if output, err := run(t, promtool, "", "check", "rules", "--lint-fatal", writeRules(t, dir, group)); err != nil {
		t.Fatalf("promtool check rules: %v\n%s", err, output)
	}
	// The cases have the words of an alert, but for the runbook, which is the same for all.
	for i := range group.Rules {
		delete(group.Rules[i].Annotations, "runbook")
	}
	writeRules(t, dir, group)
	output, err := run(t, promtool, "", "test", "rules", write(t, filepath.Join(dir, "cases.yaml"), string(cases)))
	if err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, output)
	}
}

func TestEveryAlertHasACaseThatFiresAndOneThatDoesNot(t *testing.T) {
	text, err := os.ReadFile("alert_cases.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file caseFile
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		// One that fires in the end has to be silent first, which does not tell what it
		// is silent about: that takes a test of its own.
		fired := map[string]bool{}
		for _, c := range test.Cases {
			fired[c.Alert] = fired[c.Alert] || len(c.Expected) > 0
		}
		for alert, did := range fired {
			fires[alert], silent[alert] = fires[alert] || did, silent[alert] || !did
		}
	}
	for _, rule := range alerts(t) {
		if !fires[rule.Alert] || !silent[rule.Alert] {
			t.Errorf("%s: it fires in a test: %t; a test has it silent throughout: %t", rule.Alert, fires[rule.Alert], silent[rule.Alert])
		}
		delete(fires, rule.Alert)
	}
	for unknown := range fires {
		t.Errorf("The cases have %s, which is no alert", unknown)
	}
}

func TestEveryAlertSaysWhatToDo(t *testing.T) {
	steps := regexp.MustCompile(`(?s)^Means: .+\nLook: .*kubectl .+\nDo: .+\.?`)
	for _, rule := range alerts(t) {
		t.Run(rule.Alert, func(t *testing.T) {
			if !strings.HasPrefix(rule.Alert, "Nodepatch") {
				t.Error("its name does not say whose it is")
			}
			if severity := rule.Labels["severity"]; severity != "critical" && severity != "warning" {
				t.Errorf("its severity is %q", severity)
			}
			if rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
				t.Error("it has no summary, or no description")
			}
			if !steps.MatchString(rule.Annotations["runbook"]) {
				t.Errorf("its runbook does not say what it means, where to look with kubectl, and what to do:\n%s", rule.Annotations["runbook"])
			}
		})
	}
}
