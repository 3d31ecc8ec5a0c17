// Package e2e tests nodepatch as people use it: installed from config/default
// in a real cluster of machines, driven by kubectl apply, and judged by what
// stands in its objects, in the patch log and on the machines.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/hack/image/archive"
	"github.com/nodepatch/nodepatch/test/cluster"
	"github.com/nodepatch/nodepatch/test/roots"
)

const (
	namespace = "nodepatch-system"
	policy    = "everything"
	// toy has the sources of this suite's own repositories, real those of the host, spare none but those of rollouts.
	toy, real, spare = "machine-1", "machine-2", "machine-3"
)

// everyNode are the cluster's nodes.
var everyNode = []string{toy, real, spare}

var (
	checkout string
	machines *cluster.Cluster
	config   *rest.Config
	client   ctrlclient.Client
	mirror   *mirrors
)

func TestEndToEnd(t *testing.T) {
	roots.Require(t, cluster.Supported())
	RegisterFailHandler(Fail)
	RunSpecs(t, "End to end")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	SetDefaultEventuallyTimeout(90 * time.Second)
	EnforceDefaultTimeoutsWhenUsingContexts()
	SetDefaultEventuallyPollingInterval(250 * time.Millisecond)
	var err error
	checkout, err = roots.Checkout()
	Expect(err).NotTo(HaveOccurred())

	By("building the image")
	tar := filepath.Join(GinkgoT().TempDir(), "image.tar")
	buildImage(ctx, checkout, "nodepatch:dev", tar)

	By("booting three machines")
	machines, err = cluster.Start(ctx, cluster.Options{Dir: filepath.Join(checkout, "bin", "e2e"), Machines: len(everyNode), Log: GinkgoWriter})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func(ctx SpecContext) { Expect(machines.Stop(ctx)).To(Succeed()) }, NodeTimeout(2*time.Minute))
	Expect(machines.LoadImage(ctx, tar)).To(Succeed())

	scheme := runtime.NewScheme()
	Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	Expect(v1alpha1.AddToScheme(scheme)).To(Succeed())
	config, err = machines.RESTConfig()
	Expect(err).NotTo(HaveOccurred())
	client, err = ctrlclient.New(config, ctrlclient.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())

	By("pointing " + toy + " to toy repositories")
	mirror = startMirrors(ctx, machines.HostAddress())
	mirror.writeSources(ctx, machine(toy))
	mirror.onlyRollouts(ctx, machine(spare))

	installOperator(ctx)
}, NodeTimeout(15*time.Minute))

// installOperator installs it as people do, with a policy for all nodes, and waits until it works everywhere.
func installOperator(ctx context.Context) {
	GinkgoHelper()
	By("installing the operator from config/default")
	kubectl(ctx, "apply", "--server-side", "-k", filepath.Join(checkout, "config", "default"))
	kubectl(ctx, "-n", namespace, "rollout", "status", "deployment/nodepatch-manager", "--timeout=90s")
	governAll(ctx)
}

// governAll creates the suite's policy for all nodes, and waits until it works everywhere.
func governAll(ctx context.Context) {
	GinkgoHelper()
	err := client.Create(ctx, &v1alpha1.PatchPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: policy},
		Spec: v1alpha1.PatchPolicySpec{
			NodeSelector: &metav1.LabelSelector{},
			Tasks:        []v1alpha1.NamedTask{{Name: "scan", Template: v1alpha1.TaskTemplate{Action: v1alpha1.ActionScan}}},
		},
	})
	Expect(ctrlclient.IgnoreAlreadyExists(err)).NotTo(HaveOccurred())
	waitForAgents(ctx)
}

// buildImage writes the image of both programs as they are in a checkout.
func buildImage(ctx context.Context, checkout, reference, tar string) {
	GinkgoHelper()
	dir := GinkgoT().TempDir()
	files := map[string]string{}
	for name, source := range map[string]string{"manager": "./controllers/manager", "agent": "./nodeagent"} {
		program := filepath.Join(dir, name)
		build := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w -X main.version=e2e", "-o", program, source)
		build.Dir, build.Env = checkout, append(os.Environ(), "CGO_ENABLED=0")
		out, err := build.CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), string(out))
		files["/"+name] = program
	}
	Expect(archive.Write(tar, reference, archive.Image{
		Files: files, Entrypoint: []string{"/manager"}, User: "65532:65532",
	})).To(Succeed())
}

// machine returns one of the suite's machines.
func machine(name string) *cluster.Machine {
	GinkgoHelper()
	m, err := machines.Machine(name)
	Expect(err).NotTo(HaveOccurred())
	return m
}

// kubectl runs the cluster's own kubectl and returns what it prints.
func kubectl(ctx context.Context, args ...string) string {
	GinkgoHelper()
	out, err := tryKubectl(ctx, args...)
	Expect(err).NotTo(HaveOccurred())
	return out
}

func tryKubectl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(checkout, "bin", "k8s", "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+machines.Kubeconfig)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("kubectl %v: %w: %s", args, err, out)
	}
	return string(out), nil
}

// agentPod returns the agent's pod on a node, and false if there is none.
func agentPod(ctx context.Context, node string) (*corev1.Pod, bool) {
	GinkgoHelper()
	var pods corev1.PodList
	Expect(client.List(ctx, &pods, ctrlclient.InNamespace(namespace),
		ctrlclient.MatchingLabels{"app.kubernetes.io/component": "agent"})).To(Succeed())
	for i := range pods.Items {
		if pods.Items[i].Spec.NodeName == node && pods.Items[i].DeletionTimestamp == nil {
			return &pods.Items[i], true
		}
	}
	return nil, false
}

// waitForAgents waits until the manager sees a ready agent on each machine.
func waitForAgents(ctx context.Context) {
	GinkgoHelper()
	for _, node := range everyNode {
		Eventually(ctx, func(g Gomega) {
			var assignment v1alpha1.PatchAssignment
			g.Expect(client.Get(ctx, ctrlclient.ObjectKey{Name: node}, &assignment)).To(Succeed())
			g.Expect(assignment.Status.Controller).NotTo(BeNil(), "the manager has not looked at the agent of %s", node)
			g.Expect(assignment.Status.Controller.Agent).To(Equal(v1alpha1.AgentReady), assignment.Status.Controller.Message)
		}).Should(Succeed())
	}
}

// lead makes the manager on a node the one that leads.
func lead(ctx context.Context, node string) {
	GinkgoHelper()
	deleted := map[string]bool{}
	Eventually(ctx, func(g Gomega) {
		holder, err := tryKubectl(ctx, "-n", namespace, "get", "lease", "nodepatch-manager", "-o", "jsonpath={.spec.holderIdentity}")
		g.Expect(err).NotTo(HaveOccurred())
		leader, _, _ := strings.Cut(holder, "_")
		on, err := tryKubectl(ctx, "-n", namespace, "get", "pod", leader, "-o", "jsonpath={.spec.nodeName}")
		g.Expect(err).NotTo(HaveOccurred(), "the leader has just gone")
		if on != node && !deleted[leader] {
			deleted[leader] = true
			kubectl(ctx, "-n", namespace, "delete", "pod", leader, "--wait=false")
		}
		g.Expect(on).To(Equal(node), "the node of the manager that leads")
	}).Should(Succeed())
}

var _ = JustAfterEach(describeFailure, NodeTimeout(time.Minute))

// describeFailure shows the whole story of a failed spec, as a person would ask for it.
func describeFailure(ctx SpecContext) {
	if !CurrentSpecReport().Failed() {
		return
	}
	for _, args := range [][]string{
		{"get", "nodes,nodepatch", "-o", "wide"},
		{"get", "pods", "-A", "-o", "wide"},
		{"-n", namespace, "logs", "-l", "app.kubernetes.io/component=manager", "--tail=60", "--prefix"},
		{"-n", namespace, "logs", "daemonset/nodepatch-agent", "--tail=60", "--prefix", "--all-pods"},
		{"get", "events", "--sort-by=.eventTime"},
		{"describe", "patchtasks"},
	} {
		out, err := tryKubectl(ctx, args...)
		GinkgoWriter.Printf("\n$ kubectl %v\n%s%v\n", args, out, err)
	}
}

// No reconcile may panic, however well it recovers.
var _ = AfterSuite(func(ctx SpecContext) {
	if client == nil {
		return // the cluster never came up, which BeforeSuite has reported
	}
	Expect(kubectl(ctx, "-n", namespace, "logs", "-l", "app.kubernetes.io/component=manager", "--tail=-1")).NotTo(ContainSubstring("Observed a panic"))
}, NodeTimeout(time.Minute))
