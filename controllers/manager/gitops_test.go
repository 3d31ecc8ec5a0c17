package main

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

var _ = Describe("A cluster that Git governs", Ordered, func() {
	const (
		current    = "Current"
		inProgress = "InProgress"
		failed     = "Failed"

		// One node at a time, so that a run can be met halfway.
		fleet = "{nodeSelector: {matchLabels: {pool: git}}, %s tasks: [{name: scan, template: {action: %s, rollout: {maxParallelScans: 1}}}]}"
		scan  = "{policy: git, task: scan}"
	)
	var (
		nodes  = []string{"git-a", "git-b"}
		asItIs = fmt.Sprintf(fleet, "", v1alpha1.ActionScan)
	)

	BeforeAll(func() {
		install()
		for _, node := range nodes {
			_, err := server.CreateNode(ctx, node, map[string]string{"pool": "git"})
			Expect(err).NotTo(HaveOccurred())
		}
	})
	AfterAll(func() {
		cleanUp(nodes)
		Expect(asked.Forbidden()).To(BeEmpty())
	})

	It("is in progress until a manager has looked at it", func() {
		Expect(git("PatchPolicy", "git", asItIs)).To(Succeed())
		Expect(git("PatchTask", "first", scan)).To(Succeed())
		Expect(health("PatchPolicy", "git")()).To(HavePrefix(inProgress))
		Expect(health("PatchTask", "first")()).To(HavePrefix(inProgress))
		start("manager-git")
		Eventually(health("PatchPolicy", "git")).Should(HavePrefix(current))
		Eventually(health("PatchTask", "first")).Should(HavePrefix(inProgress + ": 0 of 2 nodes scanned; 2 waiting (git-a AgentAbsent, git-b AgentAbsent)"))
	})

	It("waits for a run, and applies what it knows all the while without a conflict", func() {
		for _, node := range nodes {
			runAgentPod(node)
		}
		for _, node := range nodes {
			Eventually(orderedBy(node)).Should(Equal("first"))
			for _, step := range []v1alpha1.Step{v1alpha1.StepPending, v1alpha1.StepScanning} {
				say(node, step, "")
				Expect(git("PatchPolicy", "git", asItIs)).To(Succeed())
				Expect(git("PatchTask", "first", scan)).To(Succeed())
			}
			Eventually(health("PatchTask", "first")).Should(And(HavePrefix(inProgress), ContainSubstring("1 scanning")))
			for _, kind := range []string{"PatchAssignment", "PatchReport", "PatchRetry"} {
				Expect(health(kind, node)()).To(HavePrefix(current), "nobody waits for what the programs keep for themselves")
			}
			say(node, v1alpha1.StepDone, v1alpha1.ReasonScanned)
			Expect(git("PatchTask", "first", scan, client.ForceOwnership)).To(Succeed())
		}
		Eventually(health("PatchTask", "first")).Should(HavePrefix(current))
		Expect(health("PatchPolicy", "git")()).To(HavePrefix(current))
	})

	It("comes to rest: applying all again changes nothing, and nobody takes fields from the other", func() {
		before := quiet()
		versions := func() []string {
			GinkgoHelper()
			return []string{versionOf("PatchPolicy", "git"), versionOf("PatchTask", "first")}
		}
		rest := versions()
		for range 5 {
			for _, force := range [][]client.ApplyOption{nil, {client.ForceOwnership}} {
				Expect(git("PatchPolicy", "git", asItIs, force...)).To(Succeed())
				Expect(git("PatchTask", "first", scan, force...)).To(Succeed())
			}
		}
		Expect(quiet()).To(Equal(before))
		Expect(versions()).To(Equal(rest))
		for _, kind := range []string{"PatchPolicy/git", "PatchTask/first"} {
			Expect(ownersOf(kind)).To(ConsistOf("flux", v1alpha1.ManagerFieldOwner+" status"))
		}
	})

	It("says so when a run failed, and when one was refused", func() {
		Expect(git("PatchTask", "broken", scan)).To(Succeed())
		Eventually(orderedBy(nodes[0])).Should(Equal("broken"))
		say(nodes[0], v1alpha1.StepFailed, v1alpha1.ReasonScanFailed)
		Eventually(orderedBy(nodes[1])).Should(Equal("broken"))
		say(nodes[1], v1alpha1.StepDone, v1alpha1.ReasonScanned)
		Eventually(health("PatchTask", "broken")).Should(HavePrefix(failed + ": 1 of 2 nodes scanned"))

		Expect(git("PatchTask", "nobody", "{policy: git, task: scan, nodeSelector: {matchLabels: {pool: none}}}")).To(Succeed())
		Eventually(health("PatchTask", "nobody")).Should(HavePrefix(failed + ": The task's nodeSelector selects none"))
	})

	It("lets Git stop a run, which stays stopped when Git takes that back", func() {
		Expect(git("PatchTask", "wrong", scan)).To(Succeed())
		Eventually(orderedBy(nodes[0])).Should(Equal("wrong"))
		Expect(gitPresses("PatchTask", "wrong", v1alpha1.StopAnnotation, "wrong day", scan)).To(Succeed())
		Eventually(health("PatchTask", "wrong")).Should(HavePrefix(inProgress + ": Stopping (wrong day)"))
		Expect(git("PatchTask", "wrong", scan)).To(Succeed())
		Expect(object(&v1alpha1.PatchTask{}, "wrong")()).To(HaveField("Annotations", BeEmpty()))
		say(nodes[0], v1alpha1.StepStopped, v1alpha1.ReasonStopped)
		Eventually(health("PatchTask", "wrong")).Should(HavePrefix(failed + ": Stopped (wrong day)"))
		rest := versionOf("PatchTask", "wrong")
		Expect(git("PatchTask", "wrong", scan)).To(Succeed())
		quiet()
		Expect(versionOf("PatchTask", "wrong")).To(Equal(rest))
	})

	It("says so when a policy cannot do its work, until Git mends it", func() {
		never := strings.Replace(asItIs, "name: scan,", `name: scan, schedule: "0 0 30 2 *",`, 1)
		Expect(git("PatchPolicy", "git", never)).To(Succeed())
		Eventually(health("PatchPolicy", "git")).Should(And(HavePrefix(failed), ContainSubstring("scan")))
		Expect(git("PatchPolicy", "git", asItIs)).To(Succeed())
		Eventually(health("PatchPolicy", "git")).Should(HavePrefix(current))
	})

	It("holds a run while Git suspends its policy, and goes on as the run began", func() {
		Expect(git("PatchTask", "held", scan)).To(Succeed())
		Eventually(orderedBy(nodes[0])).Should(Equal("held"))
		Expect(git("PatchPolicy", "git", fmt.Sprintf(fleet, "suspend: true,", v1alpha1.ActionScan))).To(Succeed())
		Eventually(health("PatchPolicy", "git")).Should(HavePrefix(current), "a policy that rests is as Git wants it")
		say(nodes[0], v1alpha1.StepDone, v1alpha1.ReasonScanned)
		Eventually(health("PatchTask", "held")).Should(And(HavePrefix(inProgress), ContainSubstring("1 waiting (git-b PolicySuspended)")))
		Expect(orderedBy(nodes[1])()).To(BeEmpty())

		Expect(git("PatchPolicy", "git", fmt.Sprintf(fleet, "", v1alpha1.ActionDownload))).To(Succeed())
		Eventually(orderedBy(nodes[1])).Should(Equal("held"))
		Expect(object(&v1alpha1.PatchAssignment{}, nodes[1])()).To(HaveField("Spec.Operation.Action", v1alpha1.ActionScan))
		say(nodes[1], v1alpha1.StepDone, v1alpha1.ReasonScanned)
		Eventually(health("PatchTask", "held")).Should(HavePrefix(current))
		Expect(git("PatchPolicy", "git", asItIs)).To(Succeed())
	})

	It("takes orders back when Git prunes a run, and runs again what Git puts back", func() {
		Expect(git("PatchTask", "gone", scan)).To(Succeed())
		Eventually(orderedBy(nodes[0])).Should(Equal("gone"))
		prune("PatchTask", "gone")
		Eventually(orderedBy(nodes[0])).Should(BeEmpty())
		Expect(git("PatchTask", "gone", scan)).To(Succeed())
		for _, node := range nodes {
			Eventually(orderedBy(node)).Should(Equal("gone"))
			say(node, v1alpha1.StepDone, v1alpha1.ReasonScanned)
		}
		Eventually(health("PatchTask", "gone")).Should(HavePrefix(current))
	})

	It("keeps the runs that a policy begins by itself out of what Git prunes", func() {
		tracked := map[string]string{"kustomize.toolkit.fluxcd.io/name": "fleet", "app.kubernetes.io/instance": "fleet"}
		policy := manifest("PatchPolicy", "git", fmt.Sprintf(fleet, "maxScanAge: 1h,", v1alpha1.ActionScan))
		policy.SetLabels(tracked)
		policy.SetAnnotations(map[string]string{"argocd.argoproj.io/tracking-id": "fleet:nodepatch.io/PatchPolicy:/git"})
		longAgo := fmt.Sprintf(`{"status":{"scan":{"time":%q}}}`, time.Now().Add(-2*time.Hour).UTC().Format(time.RFC3339))
		report := &v1alpha1.PatchReport{}
		report.Name = nodes[0]
		Expect(admin.Status().Patch(ctx, report, client.RawPatch(types.MergePatchType, []byte(longAgo)))).To(Succeed())
		Expect(applied(policy)).To(Succeed())
		Eventually(orderedBy(nodes[0])).ShouldNot(BeEmpty(), "its last scan is overdue")
		task, err := orderedBy(nodes[0])()
		Expect(err).NotTo(HaveOccurred())
		say(nodes[0], v1alpha1.StepDone, v1alpha1.ReasonScanned)
		Eventually(health("PatchTask", task)).Should(HavePrefix(current))
		Expect(object(&v1alpha1.PatchTask{}, task)()).To(And(
			HaveField("Annotations", BeEmpty()), HaveField("Labels", Equal(map[string]string{v1alpha1.PolicyLabel: "git"})),
			HaveField("OwnerReferences", ConsistOf(HaveField("Name", "git")))))
		Expect(git("PatchPolicy", "git", asItIs)).To(Succeed())
	})

	// Each press of Git's has the button's value with a token, and is applied with all that Git says of the object.
	DescribeTable("acts once on a button that Git puts back", func(kind, name, spec string) {
		failedOnce := `{"status":{"counted":1,"patches":[{"name":"ham","version":"2.0","downloadFailures":3}]}}`
		count := func() {
			GinkgoHelper()
			retry := &v1alpha1.PatchRetry{}
			retry.Name = nodes[0]
			Expect(admin.Status().Patch(ctx, retry, client.RawPatch(types.MergePatchType, []byte(failedOnce)))).To(Succeed())
		}
		press := func(token string) error {
			return gitPresses(kind, name, v1alpha1.ClearRetriesAnnotation, "all@"+token, spec)
		}
		counts := object(&v1alpha1.PatchRetry{}, nodes[0])
		pressed := func() (map[string]string, error) {
			object, err := stored(kind, name)
			return object.GetAnnotations(), err
		}
		count()
		Expect(press("2026-11-22")).To(Succeed())
		Eventually(pressed).Should(BeEmpty(), "it was acted on")
		Expect(counts()).To(HaveField("Status.Patches", BeEmpty()))

		count()
		before := quiet()
		Expect(press("2026-11-22")).To(Succeed())
		rest := versionOf(kind, name)
		for range 5 {
			Expect(press("2026-11-22")).To(Succeed())
		}
		quiet()
		Expect(written(before, "")).To(BeEmpty())
		Expect(versionOf(kind, name)).To(Equal(rest))
		Expect(pressed()).To(HaveLen(1), "it is Git's and does no harm")
		Expect(counts()).To(HaveField("Status.Patches", HaveLen(1)))

		Expect(press("2026-11-23")).To(Succeed())
		Eventually(counts).Should(HaveField("Status.Patches", BeEmpty()))
		Eventually(pressed).Should(BeEmpty())
	},
		Entry("on a node's PatchRetry", "PatchRetry", "git-a", ""),
		Entry("on a policy", "PatchPolicy", "git", fmt.Sprintf(fleet, "", v1alpha1.ActionScan)),
	)

	It("ends a rollout whose policy Git prunes, lets its node in service again, and starts nothing when Git puts the policy back", func() {
		const rollout = "{policy: git, template: {action: Deploy, drain: {when: BeforeInstall}}}"
		at := func() (*corev1.Node, error) { return object(&corev1.Node{}, nodes[0])() }
		Expect(git("PatchTask", "rollout", rollout)).To(Succeed())
		Eventually(orderedBy(nodes[0])).Should(Equal("rollout"))
		say(nodes[0], v1alpha1.StepWaiting, v1alpha1.ReasonReadyToInstall)
		Eventually(object(&v1alpha1.PatchAssignment{}, nodes[0])).Should(HaveField("Spec.Operation.Step", v1alpha1.StepInstalling))
		say(nodes[0], v1alpha1.StepInstalling, "")
		Eventually(health("PatchTask", "rollout")).Should(And(HavePrefix(inProgress), ContainSubstring("1 installing")))
		Expect(at()).To(And(HaveField("Spec.Unschedulable", true), HaveField("Annotations", HaveKey(v1alpha1.MaintenanceAnnotation))))

		prune("PatchPolicy", "git")
		Eventually(health("PatchTask", "rollout")).Should(HavePrefix(inProgress + ": Stopping (The policy git was deleted during the run)"))
		Consistently(at, "500ms").Should(HaveField("Spec.Unschedulable", true), "its transaction is not over")
		for _, node := range nodes {
			say(node, v1alpha1.StepStopped, v1alpha1.ReasonStopped)
		}
		Eventually(health("PatchTask", "rollout")).Should(HavePrefix(failed + ": The policy git was deleted during the run"))
		Eventually(at).Should(And(HaveField("Spec.Unschedulable", false), HaveField("Annotations", Not(HaveKey(v1alpha1.MaintenanceAnnotation)))))
		for _, node := range nodes {
			Eventually(health("PatchAssignment", node)).Should(BeEmpty())
		}

		Expect(git("PatchPolicy", "git", asItIs)).To(Succeed())
		Eventually(health("PatchPolicy", "git")).Should(HavePrefix(current))
		for _, node := range nodes {
			Eventually(health("PatchAssignment", node)).Should(HavePrefix(current))
		}
		before := quiet()
		Expect(git("PatchTask", "rollout", rollout)).To(Succeed())
		quiet()
		Expect(written(before, "/patchtasks/")).To(BeEmpty())
		Expect(orderedBy(nodes[0])()).To(BeEmpty())
		Expect(health("PatchTask", "rollout")()).To(HavePrefix(failed))
	})

	It("takes the sample repository as it stands, all of it current, and again without a change", func() {
		policies := []string{"everything-else", "workers", "databases", "control-plane"}
		for range 2 {
			kubectl("apply", "--server-side", "--field-manager=flux", "-k", "config/samples/gitops/policies")
			for _, name := range policies {
				Eventually(health("PatchPolicy", name)).Should(HavePrefix(current))
				Expect(object(&v1alpha1.PatchPolicy{}, name)()).To(HaveField("Generation", BeEquivalentTo(1)))
			}
		}
		kubectl("delete", "-k", "config/samples/gitops/policies")
		Expect(kubectl("get", "patchpolicies", "-o", "name")).To(Equal("patchpolicy.nodepatch.io/git\n"))
	})

	It("has no sample that the API server refuses", func() {
		var found []string
		Expect(filepath.WalkDir(filepath.Join(apiserver.Root(), "config", "samples"), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Name() == "Kustomization" {
				found = append(found, filepath.Dir(path))
			}
			return err
		})).To(Succeed())
		Expect(len(found)).To(BeNumerically(">=", 4))
		for _, directory := range found {
			kubectl("apply", "--server-side", "--field-manager=flux", "--force-conflicts", "--dry-run=server", "-k", directory)
		}
	})

	It("runs the sample's agents from the manager's image, and never prunes the kinds", func() {
		operator := kubectl("kustomize", "config/samples/gitops/operator")
		Expect(strings.Count(operator, ": registry.example.com/nodepatch:v1.0.0\n")).To(Equal(2), "the manager's image, and AGENT_IMAGE")
		Expect(operator).NotTo(ContainSubstring("nodepatch:dev"))
		kinds := strings.Count(operator, "kind: CustomResourceDefinition\n")
		Expect(kinds).To(Equal(len(resources)))
		Expect(strings.Count(operator, "kustomize.toolkit.fluxcd.io/prune: disabled\n")).To(Equal(kinds))
		Expect(strings.Count(operator, "argocd.argoproj.io/sync-options: Prune=false,Delete=false\n")).To(Equal(kinds))
	})
})
