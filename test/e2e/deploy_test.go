package e2e

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

var _ = Describe("A deployment", func() {
	It("installs what is missing and tells it in the node's own events", func(ctx SpecContext) {
		offer(ctx, aptrepo.Good("soup", "2.0"), aptrepo.Good("salad", "2.0"))
		task := finish(ctx, deploy(ctx, "soup", "salad"))
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskComplete), task.Status.Message)
		Expect(task.Status.Patches.Installed).To(BeEquivalentTo(2))
		Expect(stateOf(ctx, "soup")).To(Equal("installed 2.0"))
		Expect(stateOf(ctx, "salad")).To(Equal("installed 2.0"))
		Expect(patchOf(ctx, "soup")).To(BeNil(), "the report no longer lists it")
		Expect(patchOf(ctx, "ham").State).To(Equal(v1alpha1.PatchExcluded), "the task did not choose it")
		Eventually(ctx, func() []string { return logOf(ctx, task.Name) }).Should(ContainElement(task.Name + " TaskFinished"))
		Expect(nodeLogOf(ctx, task.Name)).To(Equal([]string{"ScanStarted", "PatchDataRefreshed", "ScanFinished",
			"PatchesDownloaded", "NodeAdmitted", "PatchesInstalled", "DeployFinished", "NodeDone"}))
		Expect(kubectl(ctx, "describe", "node", toy)).To(ContainSubstring("2 patches installed: salad 1.0 -> 2.0, soup 1.0 -> 2.0"))
		Expect(kubectl(ctx, "get", "patchtask", task.Name, "-o", "wide")).To(MatchRegexp(`everything +Deploy +Complete +Manual +1 +0 +1 +0 +0 +\d+ +\d+ +2 +0`))
	}, SpecTimeout(3*time.Minute))

	It("installs a real update of a real distribution", func(ctx SpecContext) {
		task := &v1alpha1.PatchTask{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "tzdata-"},
			Spec: v1alpha1.PatchTaskSpec{
				Policy: policy,
				Template: &v1alpha1.TaskTemplate{Action: v1alpha1.ActionDeploy, Patches: &v1alpha1.PatchSelection{
					Classifications: []v1alpha1.Classification{v1alpha1.ClassificationSecurity}, Include: []v1alpha1.PackagePattern{"tzdata"},
				}},
				NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelHostname: real}},
			},
		}
		finish(ctx, start(ctx, 5*time.Minute, real))
		var wanted string
		for _, patch := range reportOf(ctx, real).Status.Patches {
			if patch.Name == "tzdata" {
				wanted = patch.Available
			}
		}
		if wanted == "" {
			Skip("The distribution has no newer tzdata than the machine was made with")
		}
		Expect(client.Create(ctx, task)).To(Succeed())
		finish(ctx, task)
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskComplete), task.Status.Message)
		Expect(machine(real).Exec(ctx, "dpkg-query", "-W", "-f", "${Version}", "tzdata")).To(Equal(wanted))
	}, SpecTimeout(5*time.Minute))

	It("goes on with the good packages where others fail, each in its own way", func(ctx SpecContext) {
		dependent := aptrepo.Good("sauce", "2.0")
		dependent.Depends = "pasta (>= 2.0)"
		offer(ctx, aptrepo.Good("soup", "2.0"), aptrepo.WithConffile("salad", "2.0"), aptrepo.FailingPreinst("stew", "2.0"),
			aptrepo.FailingPostinst("pasta", "2.0"), dependent, aptrepo.Missing("cheese", "2.0"), aptrepo.Corrupt("wine", "2.0"))
		onToy(ctx, "echo mine >/etc/salad.conf")
		task := finish(ctx, deploy(ctx, "soup", "salad", "stew", "pasta", "sauce", "cheese", "wine"))
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskFailed))
		Expect(task.Status.Failures).To(HaveLen(1))
		Expect(task.Status.Failures[0].Reason).To(Equal(v1alpha1.ReasonPatchesFailed))

		By("the good ones")
		Expect(stateOf(ctx, "soup")).To(Equal("installed 2.0"))
		Expect(stateOf(ctx, "salad")).To(Equal("installed 2.0"))
		Expect(onToy(ctx, "cat /etc/salad.conf")).To(Equal("mine\n"), "an administrator's file is theirs")
		Expect(task.Status.Patches.Installed).To(BeEquivalentTo(2))

		By("the culprits, each counted once")
		for name, count := range map[string][2]int32{"stew": {0, 1}, "pasta": {0, 1}, "cheese": {1, 0}, "wine": {1, 0}} {
			attempts := attemptsOf(ctx, name)
			Expect(attempts).NotTo(BeNil(), name)
			Expect([2]int32{attempts.DownloadFailures, attempts.InstallFailures}).To(Equal(count), name)
			Expect(patchOf(ctx, name).State).To(Equal(v1alpha1.PatchFailed), name)
		}
		Expect(messages(ctx, task, v1alpha1.EventInstallFailed)).To(And(
			ContainSubstring("stew 1.0 -> 2.0 (1 of 4): preinst of stew fails on purpose"), ContainSubstring("postinst of pasta fails on purpose")))
		Expect(messages(ctx, task, v1alpha1.EventDownloadFailed)).To(And(
			ContainSubstring("cheese 1.0 -> 2.0 (1 of 11): 404"), ContainSubstring("wine 1.0 -> 2.0 (1 of 11): ")))

		By("the victim, which is not counted")
		Expect(attemptsOf(ctx, "sauce")).To(BeNil())
		Expect(kubectl(ctx, "get", "patchretry", toy)).To(ContainSubstring("cheese 2.0 (1 download)"))
	}, SpecTimeout(3*time.Minute))

	It("blocks a patch whose installation failed four times, until a person clears its counts", func(ctx SpecContext) {
		p := aptrepo.Good("curry", "2.0")
		p.Preinst = "[ -e /run/gate-curry ] && exit 0; echo tried >>/run/gate-tries; echo Not on this machine >&2; exit 1"
		offer(ctx, p)
		for n := range 4 {
			task := finish(ctx, deploy(ctx, "curry"))
			Expect(task.Status.Phase).To(Equal(v1alpha1.TaskFailed))
			Expect(attemptsOf(ctx, "curry").InstallFailures).To(BeEquivalentTo(n + 1))
			Expect(messages(ctx, task, v1alpha1.EventInstallFailed)).To(ContainSubstring(string(rune('1'+n)) + " of 4): Not on this machine"))
		}
		tries := onToy(ctx, "cat /run/gate-tries")

		By("not trying it again")
		task := finish(ctx, deploy(ctx, "curry"))
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskComplete), "nothing failed, as nothing was tried: %s", task.Status.Message)
		Expect(task.Status.Patches.Blocked).To(BeEquivalentTo(1))
		Expect(onToy(ctx, "cat /run/gate-tries")).To(Equal(tries))
		Expect(patchOf(ctx, "curry").State).To(Equal(v1alpha1.PatchBlocked))
		Expect(patchOf(ctx, "curry").Reason).To(ContainSubstring("Not on this machine"))
		Expect(kubectl(ctx, "get", "patchretry", toy)).To(ContainSubstring("1 blocked: curry 2.0 (4 installs)"))
		Expect(kubectl(ctx, "get", "patchreport", toy)).To(ContainSubstring("1 blocked"))

		By("clearing its counts, and those of one that there is not")
		onToy(ctx, "touch /run/gate-curry")
		kubectl(ctx, "annotate", "patchretry", toy, v1alpha1.ClearRetriesAnnotation+"=curry,cury")
		Eventually(ctx, func() *v1alpha1.PatchAttempts { return attemptsOf(ctx, "curry") }).Should(BeNil())
		Eventually(ctx, func() string { return kubectl(ctx, "describe", "node", toy) }).Should(And(
			ContainSubstring("RetriesCleared"), ContainSubstring("curry 2.0 (4 installs)"), ContainSubstring("cury")))
		Eventually(ctx, func() v1alpha1.PatchState { return patchOf(ctx, "curry").State }).Should(Equal(v1alpha1.PatchMissing), "without a scan")
		Expect(kubectl(ctx, "get", "patchretry", toy, "-o", "jsonpath={.metadata.annotations}")).To(BeEmpty(), "the button can be pressed again")

		By("installing it")
		task = finish(ctx, deploy(ctx, "curry"))
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskComplete), task.Status.Message)
		Expect(stateOf(ctx, "curry")).To(Equal("installed 2.0"))
		Expect(attemptsOf(ctx, "curry")).To(BeNil())
	}, SpecTimeout(5*time.Minute))

	It("blocks a patch whose download failed eleven times, until a person clears its counts", func(ctx SpecContext) {
		offer(ctx, aptrepo.Missing("brie", "2.0"))
		for n := range 11 {
			Expect(finish(ctx, deploy(ctx, "brie")).Status.Phase).To(Equal(v1alpha1.TaskFailed))
			Expect(attemptsOf(ctx, "brie").DownloadFailures).To(BeEquivalentTo(n + 1))
		}
		Expect(attemptsOf(ctx, "brie").Blocked).To(Equal(v1alpha1.BlockedAtDownload))
		asked := mirror.main.Requests("brie")
		Expect(finish(ctx, deploy(ctx, "brie")).Status.Phase).To(Equal(v1alpha1.TaskComplete))
		Expect(mirror.main.Requests("brie")).To(Equal(asked), "it is not asked for again")

		publish(aptrepo.Good("brie", "2.0"))
		kubectl(ctx, "annotate", "patchretry", toy, v1alpha1.ClearRetriesAnnotation+"=all")
		Eventually(ctx, func() *v1alpha1.PatchAttempts { return attemptsOf(ctx, "brie") }).Should(BeNil())
		Expect(finish(ctx, deploy(ctx, "brie")).Status.Phase).To(Equal(v1alpha1.TaskComplete))
		Expect(stateOf(ctx, "brie")).To(Equal("installed 2.0"))
	}, SpecTimeout(5*time.Minute))

	It("stages packages on the disk, from where a later one installs them without the mirror", func(ctx SpecContext) {
		offer(ctx, aptrepo.Good("soup", "2.0"))
		task := finish(ctx, run(ctx, v1alpha1.ActionDownload, "soup"))
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskComplete), task.Status.Message)
		Expect(task.Status.Patches.Downloaded).To(BeEquivalentTo(1))
		Expect(patchOf(ctx, "soup").State).To(Equal(v1alpha1.PatchDownloaded))
		Expect(stateOf(ctx, "soup")).To(Equal("installed 1.0"))
		mirror.setDown(true)
		task = finish(ctx, deploy(ctx, "soup"))
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskComplete), task.Status.Message)
		Expect(stateOf(ctx, "soup")).To(Equal("installed 2.0"))
	}, SpecTimeout(3*time.Minute))

	It("is stopped after the transaction that runs, and every node says what it had done", func(ctx SpecContext) {
		offer(ctx, slow("stew", "2.0"))
		task := deploy(ctx, "stew")
		waitForInstall(ctx, "stew")
		kubectl(ctx, "annotate", "patchtask", task.Name, v1alpha1.StopAnnotation+"=lunch")
		Eventually(ctx, func() string { return kubectl(ctx, "get", "patchtask", task.Name) }).Should(And(
			ContainSubstring("Running"), ContainSubstring("lunch")), "the table says what it waits for")
		open(ctx, "stew")
		finish(ctx, task)
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskStopped))
		Expect(stateOf(ctx, "stew")).To(Equal("installed 2.0"), "no transaction is cut in two")
		Expect(task.Status.Patches.Installed).To(BeEquivalentTo(1))
		Expect(messages(ctx, task, v1alpha1.EventDeployStopped)).To(And(ContainSubstring("lunch"), ContainSubstring("1 of 1 patch installed")))
		Expect(messages(ctx, task, v1alpha1.EventTaskStopped)).To(ContainSubstring("lunch"))
	}, SpecTimeout(3*time.Minute))

	It("is stopped in the middle of a download at once", func(ctx SpecContext) {
		offer(ctx, aptrepo.Slow("wine", "2.0"))
		DeferCleanup(mirror.main.ReleaseSlow)
		task := deploy(ctx, "wine")
		Eventually(ctx, func() int { return mirror.main.Requests("wine") }).Should(BeNumerically(">", 1))
		kubectl(ctx, "annotate", "patchtask", task.Name, v1alpha1.StopAnnotation+"=no wine")
		finish(ctx, task)
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskStopped), task.Status.Message)
		Expect(stateOf(ctx, "wine")).To(Equal("installed 1.0"))
		Expect(attemptsOf(ctx, "wine")).To(BeNil(), "a stop is no failure of a patch")
		Expect(strings.Join(logOf(ctx, task.Name), "\n")).To(ContainSubstring(toy + " DeployStopped"))
	}, SpecTimeout(3*time.Minute))
})
