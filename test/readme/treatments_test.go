package readme

import (
	"context"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/nodepatch/nodepatch/test/cluster"
)

// scene is a cluster on which some of README's sections are followed.
type scene struct {
	title    string
	sections []string
}

// scenes have every section of README with a command in it.
var scenes = []scene{
	{"on the demo's cluster", []string{"", "Two commands", "A patch that fails, from beginning to end", "A rolling update with reboots", "The buttons"}},
	{"on a cluster of their own", []string{
		"Install", "First steps", "The objects", "How a rollout goes", "What it may do, and what not", "Limits", "When something is wrong",
		"Monitoring", "The patch log", "In Git", "Working on nodepatch",
	}},
}

// commands returns the scene's in the order in which they are run: those that take things away come last.
func (s scene) commands(all []Command) []Command {
	var now, last []Command
	for _, section := range s.sections {
		for _, command := range all {
			switch {
			case command.Section != section:
			case treatments[command.Text].last:
				last = append(last, command)
			default:
				now = append(now, command)
			}
		}
	}
	return append(now, last...)
}

// treatment is what a command needs from the test that a person knows anyway.
type treatment struct {
	// before sets the scene.
	before func(ctx context.Context)
	// fill has what a reader would put for a word in capitals, where it is not the usual.
	fill map[string]string
	// patience is how long it may take.
	patience time.Duration
	// once is a command that is run the first time only, however often README shows it.
	once bool
	// last is a command that is run after all others of the scene.
	last bool
	// notRun is why it cannot be run here, and what covers it instead.
	notRun string
}

// treatments are by the command's text in README.
var treatments = map[string]treatment{
	"make demo":         {patience: 15 * time.Minute, once: true},
	"make test":         {notRun: "this very test is part of it; CI runs it"},
	"make verify":       {notRun: "it takes minutes and looks at the source alone; CI runs it before the tests"},
	"make test-scale":   {notRun: "it takes minutes; make test runs its short form"},
	"make cluster-down": {once: true, last: true},

	"kubectl get patchretry machine-1":                                {patience: 5 * time.Minute},
	`kubectl annotate patchtask NAME nodepatch.io/stop="why"`:         {before: begin("held-back", `{action: Deploy, reboot: {when: Always}, blockers: {nodeConditions: [{type: Ready}]}}`), fill: map[string]string{"NAME": "held-back"}},
	"kubectl annotate patchretry NODE nodepatch.io/clear-retries=all": {before: failOnce, patience: 3 * time.Minute},

	"make cluster MACHINES=3": {patience: 10 * time.Minute},
	"make tools":              {patience: 15 * time.Minute},
	"make push":               {before: trustRegistry, patience: 10 * time.Minute},
	"docker build -t $IMG . && docker push $IMG":       {notRun: "it takes Docker; make push uploads the same programs, and the machines run those"},
	"kubectl apply -k config/prometheus":               {before: definePrometheusKinds},
	"kubectl get clusterreports":                       {before: defineOpenReports},
	"helm uninstall nodepatch --wait":                  {last: true},
	"make deploy":                                      {last: true},
	"make undeploy":                                    {last: true, patience: 5 * time.Minute},
	"make dist":                                        {last: true},
	"kubectl apply --server-side -f dist/install.yaml": {last: true},
}

// begin starts a task with options of its own.
func begin(name, template string) func(context.Context) {
	return func(ctx context.Context) {
		sh(ctx, `kubectl create -f - <<< '{apiVersion: nodepatch.io/v1alpha1, kind: PatchTask, metadata: {name: `+name+`}, spec: {policy: everything, template: `+template+`}}'`)
	}
}

// failOnce makes the demo's package, which was installed, fail again.
func failOnce(ctx context.Context) {
	sh(ctx, "kubectl -n nodepatch-demo set env deployment/mirror BEHAVIOR=fails-to-install && kubectl -n nodepatch-demo rollout status deployment/mirror")
	sh(ctx, "hack/machine exec machine-1 -- apt-get -q -y install --allow-downgrades nodepatch-demo=1.0")
	sh(ctx, "kubectl create -f hack/demo/deploy.yaml && kubectl wait patchretry/machine-1 --for=jsonpath='{.status.counted}'=1 --timeout=2m")
}

// definePrometheusKinds has the API server know the kinds of the Prometheus operator. What stands in objects
// of these kinds is looked at by test/monitoring.
func definePrometheusKinds(ctx context.Context) {
	for plural, kind := range map[string]string{"servicemonitors": "ServiceMonitor", "prometheusrules": "PrometheusRule"} {
		sh(ctx, `kubectl apply -f - <<EOF
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: `+plural+`.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {plural: `+plural+`, kind: `+kind+`}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
EOF
kubectl wait --for=condition=Established crd/`+plural+".monitoring.coreos.com --timeout=30s")
	}
}

// defineOpenReports installs what OpenReports publishes, and waits for what the manager makes of it.
func defineOpenReports(ctx context.Context) {
	sh(ctx, `kubectl apply --server-side -f "$(go list -m -f '{{.Dir}}' github.com/openreports/reports-api)"/config/crd/openreports.io_clusterreports.yaml`)
	Eventually(ctx, func() string { return sh(ctx, "kubectl get clusterreports -o name") }, patience, time.Second).Should(ContainSubstring("clusterreport.openreports.io/"))
}

// trustRegistry has the machines know the registry to which the image is about to be pushed, for the one
// architecture that they have.
func trustRegistry(ctx context.Context) {
	sh(ctx, `export PLATFORMS="$(go env GOARCH)"`)
	machines, err := cluster.Attach(filepath.Join(clone, "bin", "cluster"))
	Expect(err).NotTo(HaveOccurred())
	Expect(trust(ctx, machines, images)).To(Succeed())
}

// usual is what the reader of this test would put for README's words in capitals.
var usual = []struct {
	word *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\b(pp|patchpolicy|patchpolicies)([ /])NAME\b`), "${1}${2}everything"},
	{regexp.MustCompile(`\b(pt|patchtask|patchtasks)([ /])NAME\b`), "${1}${2}scan-now"},
	{regexp.MustCompile(`\bnodepatch\.io/task=NAME\b`), "nodepatch.io/task=scan-now"},
	{regexp.MustCompile(`\bNODE\b`), "machine-1"},
	{regexp.MustCompile(`\bUSER\b`), "alice"},
}

// fill puts a reader's own names into a command.
func fill(command string, own map[string]string) string {
	command = strings.ReplaceAll(command, "registry.example.com", images)
	for word, with := range own {
		command = regexp.MustCompile(`\b`+word+`\b`).ReplaceAllString(command, with)
	}
	for _, u := range usual {
		command = u.word.ReplaceAllString(command, u.with)
	}
	return command
}

// TestTreatments finds what is left of commands and sections that README no longer has, and sections that
// nobody follows.
func TestTreatments(t *testing.T) {
	var texts, followed []string
	for _, command := range commands {
		texts = append(texts, command.Text)
	}
	for text := range treatments {
		if !slices.Contains(texts, text) {
			t.Errorf("README has no command %q any more", text)
		}
	}
	for _, scene := range scenes {
		followed = append(followed, scene.sections...)
	}
	for _, command := range commands {
		if !slices.Contains(followed, command.Section) {
			t.Errorf("%s\nNo scene has the section %q", command, command.Section)
		}
	}
}
