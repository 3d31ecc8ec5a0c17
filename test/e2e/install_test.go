package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// before is the image of the last commit.
const before = "nodepatch:before"

var _ = Describe("The package", Ordered, func() {
	BeforeAll(func(ctx SpecContext) {
		loadWorkload(ctx)
		prepareFleet(ctx)
	}, NodeTimeout(4*time.Minute))
	AfterEach(func(ctx SpecContext) {
		_, found := helm(ctx, "status", "nodepatch")
		_, missing := tryKubectl(ctx, "-n", namespace, "get", "deployment", "nodepatch-manager")
		if CurrentSpecReport().Failed() && found == nil {
			_, err := helm(ctx, "uninstall", "nodepatch", "--no-hooks", "--wait")
			Expect(err).NotTo(HaveOccurred())
			missing = fmt.Errorf("it was uninstalled")
		}
		if missing != nil {
			installOperator(ctx)
		}
		tidyFleet(ctx)
	}, NodeTimeout(5*time.Minute))

	It("is upgraded from the last commit while it installs packages", func(ctx SpecContext) {
		undeploy(ctx)
		installBefore(ctx)
		createRolloutPolicy(ctx, rolloutPolicy, everything)
		w := beginWalk(ctx, toy)
		w.walk(ctx, func(step v1alpha1.Step) {
			if step != v1alpha1.StepInstalling {
				return
			}
			kubectl(ctx, "apply", "--server-side", "-k", filepath.Join(checkout, "config", "default"))
			kubectl(ctx, "-n", namespace, "rollout", "status", "deployment/nodepatch-manager", "--timeout=90s")
			Eventually(ctx, func(g Gomega) {
				for _, node := range everyNode {
					pod, found := agentPod(ctx, node)
					g.Expect(found).To(BeTrue(), node)
					g.Expect(pod.Spec.Containers[0].Image).To(Equal("nodepatch:dev"), node)
				}
			}).Should(Succeed(), "the agents are the present ones, also on the node that is installing")
		})
		w.arrived(ctx)
	}, SpecTimeout(8*time.Minute))

	It("is installed with Helm, and scans", func(ctx SpecContext) {
		undeploy(ctx)
		out, err := helm(ctx, "install", "nodepatch", filepath.Join(checkout, "config", "chart"), "--wait", "--timeout", "2m")
		Expect(err).NotTo(HaveOccurred())
		Expect(out).To(ContainSubstring("kubectl get patchtasks,patchreports"), "it says how to go on")
		governAll(ctx)
		task := &v1alpha1.PatchTask{
			ObjectMeta: metav1.ObjectMeta{Name: "helm-scan"},
			Spec:       v1alpha1.PatchTaskSpec{Policy: policy, Task: "scan"},
		}
		Expect(client.Create(ctx, task)).To(Succeed())
		Expect(finish(ctx, task).Status.Phase).To(Equal(v1alpha1.TaskComplete), task.Status.Message)
		Expect(task.Status.Nodes.Done).To(BeEquivalentTo(len(everyNode)))
		_, err = helm(ctx, "upgrade", "nodepatch", filepath.Join(checkout, "config", "chart"), "--wait", "--timeout", "2m", "--set", "manager.clusterMaxUnavailable=0%")
		Expect(err).To(MatchError(ContainSubstring("/manager/clusterMaxUnavailable")), "a wrong value is named")
	}, SpecTimeout(5*time.Minute))

	It("is uninstalled with Helm in mid-rollout, and leaves nothing", func(ctx SpecContext) {
		w := beginWalk(ctx, toy)
		w.reach(ctx, v1alpha1.StepInstalling)
		w.leave(ctx, v1alpha1.StepInstalling)
		w.reach(ctx, v1alpha1.StepDraining) // which it cannot end
		Expect(leftovers(ctx)).NotTo(BeEmpty(), "what is looked for is there")
		_, err := helm(ctx, "uninstall", "nodepatch", "--wait", "--timeout", "5m")
		Expect(err).NotTo(HaveOccurred())
		expectAsBefore(ctx, w.from)
		Eventually(ctx, leftovers).Should(BeEmpty())
		w.anchor.allow(ctx)
	}, SpecTimeout(7*time.Minute))
})

// undeploy takes the operator away as "make undeploy" does.
func undeploy(ctx context.Context) {
	GinkgoHelper()
	undeploy := exec.CommandContext(ctx, filepath.Join(checkout, "hack", "undeploy"))
	undeploy.Env = append(os.Environ(), "CGO_ENABLED=0", "KUBECTL="+filepath.Join(checkout, "bin", "k8s", "kubectl"), "KUBECONFIG="+machines.Kubeconfig,
		"PATIENCE=3m") // shorter than the spec's, so that it says for what it waits
	// What it has started ends with it, and does not hold its output.
	undeploy.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	undeploy.Cancel = func() error { return syscall.Kill(-undeploy.Process.Pid, syscall.SIGKILL) }
	undeploy.WaitDelay = 10 * time.Second
	out, err := undeploy.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
}

// helm runs the Helm of "make tools".
func helm(ctx context.Context, args ...string) (string, error) {
	GinkgoHelper()
	program := filepath.Join(checkout, "bin", "tools", "helm")
	Expect(program).To(BeAnExistingFile(), `"make tools" builds it`)
	cmd := exec.CommandContext(ctx, program, args...)
	home := GinkgoT().TempDir()
	cmd.Env = append(os.Environ(), "KUBECONFIG="+machines.Kubeconfig, "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("helm %v: %w: %s", args, err, out)
	}
	return string(out), nil
}

// installBefore installs the operator of the last commit.
func installBefore(ctx context.Context) {
	GinkgoHelper()
	worktree := filepath.Join(GinkgoT().TempDir(), "before")
	commit := "HEAD~1"
	if _, err := git(ctx, "rev-parse", "--verify", "--quiet", commit); err != nil {
		commit = "HEAD"
		AddReportEntry("The clone has no history: it is upgraded from its only commit")
	}
	_, err := git(ctx, "worktree", "add", "--force", "--detach", worktree, commit)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func(ctx SpecContext) {
		_, err := git(ctx, "worktree", "remove", "--force", worktree)
		Expect(err).NotTo(HaveOccurred())
	}, NodeTimeout(time.Minute))
	By("building and installing " + commit)
	tar := filepath.Join(GinkgoT().TempDir(), "before.tar")
	buildImage(ctx, worktree, before, tar)
	Expect(machines.LoadImage(ctx, tar)).To(Succeed())
	manifests := kubectl(ctx, "kustomize", filepath.Join(worktree, "config", "default"))
	kubectl(ctx, "apply", "--server-side", "-f", manifest(strings.ReplaceAll(manifests, "nodepatch:dev", before)))
	kubectl(ctx, "-n", namespace, "rollout", "status", "deployment/nodepatch-manager", "--timeout=90s")
	governAll(ctx)
	pod, found := agentPod(ctx, toy)
	Expect(found).To(BeTrue())
	Expect(pod.Spec.Containers[0].Image).To(Equal(before))
}

func git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = checkout
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("git %v: %w: %s", args, err, out)
	}
	return string(out), nil
}

// leftovers are all objects in the cluster that have to do with nodepatch by name, label or kind, but for the Events:
// these are the patch log, which the API server forgets by itself.
func leftovers(ctx context.Context) []string {
	GinkgoHelper()
	var left []string
	for kind := range strings.FieldsSeq(kubectl(ctx, "api-resources", "--verbs=list", "-o", "name")) {
		if kind == "events" || strings.HasPrefix(kind, "events.") {
			continue
		}
		out, err := tryKubectl(ctx, "get", kind, "-A", "--ignore-not-found", "-o",
			`jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name}:{.metadata.labels.app\.kubernetes\.io/name}{"\n"}{end}`)
		if err != nil && strings.Contains(err.Error(), "the server doesn't have a resource type") {
			continue // it has just gone
		}
		Expect(err).NotTo(HaveOccurred())
		for name := range strings.FieldsSeq(out) {
			if strings.Contains(name, "nodepatch") || strings.HasSuffix(kind, ".nodepatch.io") {
				left = append(left, kind+" "+name)
			}
		}
	}
	return left
}
