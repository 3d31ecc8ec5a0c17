package e2e

import (
	"bufio"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

var _ = Describe("On a bad day, a deployment", func() {
	AfterEach(func(ctx SpecContext) { waitForAgents(ctx) })

	installed := func(ctx SpecContext, task *v1alpha1.PatchTask, name string) {
		GinkgoHelper()
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskComplete), task.Status.Message)
		Expect(stateOf(ctx, name)).To(Equal("installed 2.0"))
		Expect(attemptsOf(ctx, name)).To(BeNil(), "nothing of this is a failure of the patch")
	}

	It("does not notice that its agent was killed in the middle of the transaction", func(ctx SpecContext) {
		offer(ctx, slow("stew", "2.0"))
		task := deploy(ctx, "stew")
		waitForInstall(ctx, "stew")
		_, err := machine(toy).Exec(ctx, "kill", "-KILL", agentProcess(ctx, toy))
		Expect(err).NotTo(HaveOccurred())
		open(ctx, "stew")
		installed(ctx, finish(ctx, task), "stew")
		Expect(strings.Count(messages(ctx, task, v1alpha1.EventPatchesInstalled), "stew 1.0 -> 2.0")).To(Equal(1))
	}, SpecTimeout(3*time.Minute))

	It("does not notice that its agent's pod was deleted and the DaemonSet rolled", func(ctx SpecContext) {
		offer(ctx, slow("stew", "2.0"))
		task := deploy(ctx, "stew")
		waitForInstall(ctx, "stew")
		pod, there := agentPod(ctx, toy)
		Expect(there).To(BeTrue())
		Expect(client.Delete(ctx, pod)).To(Succeed())
		kubectl(ctx, "-n", namespace, "rollout", "restart", "daemonset/nodepatch-agent")
		Eventually(ctx, func(g Gomega) {
			next, there := agentPod(ctx, toy)
			g.Expect(there).To(BeTrue())
			g.Expect(next.UID).NotTo(Equal(pod.UID))
		}).Should(Succeed())
		open(ctx, "stew")
		installed(ctx, finish(ctx, task), "stew")
	}, SpecTimeout(3*time.Minute))

	It("tells an API server that was away all of it later, in order", func(ctx SpecContext) {
		offer(ctx, slow("stew", "2.0"), aptrepo.FailingPostinst("gnocchi", "2.0"))
		task := deploy(ctx, "stew", "gnocchi")
		waitForInstall(ctx, "stew")
		Expect(machines.StopServer(ctx, "kube-apiserver")).To(Succeed())
		open(ctx, "stew")
		Eventually(ctx, func() string {
			out, _ := machine(toy).Exec(ctx, "sh", "-c", "cat /var/lib/nodepatch/log/* | grep "+task.Name)
			return out
		}).Should(ContainSubstring("DeployFailed"), "the node finishes alone")
		startAPIServer(ctx)
		finish(ctx, task)
		Expect(attemptsOf(ctx, "gnocchi").InstallFailures).To(BeEquivalentTo(1))
		Expect(stateOf(ctx, "stew")).To(Equal("installed 2.0"))
		Eventually(ctx, func() []string { return nodeLogOf(ctx, task.Name) }).Should(Equal([]string{"ScanStarted", "PatchDataRefreshed",
			"ScanFinished", "PatchesDownloaded", "NodeAdmitted", "PatchesInstalled", "PatchInstallFailed", "DeployFailed", "NodeFailed"}))
	}, SpecTimeout(4*time.Minute))

	It("holds an orderly reboot until its transaction is done", func(ctx SpecContext) {
		offer(ctx, slow("stew", "2.0"))
		task := deploy(ctx, "stew")
		waitForInstall(ctx, "stew")
		boot, err := machine(toy).BootID(ctx)
		Expect(err).NotTo(HaveOccurred())
		_, err = machine(toy).Exec(ctx, "systemctl", "--no-block", "reboot")
		Expect(err).NotTo(HaveOccurred())
		Eventually(ctx, func() string {
			out, _ := machine(toy).Exec(ctx, "sh", "-c", "systemctl is-system-running || true")
			return strings.TrimSpace(out)
		}).Should(Equal("stopping"))
		open(ctx, "stew")
		Eventually(ctx, func(g Gomega) {
			now, err := machine(toy).BootID(ctx)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(now).NotTo(Equal(boot))
		}).Should(Succeed(), "the machine has rebooted")
		installed(ctx, finish(ctx, task), "stew")
		Expect(messages(ctx, task, v1alpha1.EventTransactionInterrupted)).To(BeEmpty())
	}, SpecTimeout(5*time.Minute))

	It("repairs a machine that lost power in the middle of the transaction, and says so", func(ctx SpecContext) {
		offer(ctx, slow("stew", "2.0"), aptrepo.Good("soup", "2.0"))
		task := deploy(ctx, "stew", "soup")
		waitForInstall(ctx, "stew")
		Expect(machine(toy).Kill(ctx)).To(Succeed())
		Expect(machine(toy).Start(ctx)).To(Succeed())
		Eventually(ctx, func() error {
			_, err := machine(toy).Exec(ctx, "touch", "/run/gate-stew")
			return err
		}).Should(Succeed(), "the machine is back")
		installed(ctx, finish(ctx, task), "stew")
		Expect(stateOf(ctx, "soup")).To(Equal("installed 2.0"))
		// The network comes back after the machine, and entries are sent again after a while.
		Eventually(ctx, func() string { return messages(ctx, task, v1alpha1.EventTransactionInterrupted) }).Should(ContainSubstring("cut off"))
		Eventually(ctx, func() string { return messages(ctx, task, v1alpha1.EventPackagesRepaired) }).Should(ContainSubstring("stew"))
	}, SpecTimeout(5*time.Minute))

	It("puts a half-configured package database in order that it finds on arrival", func(ctx SpecContext) {
		offer(ctx, aptrepo.Good("soup", "2.0"), aptrepo.Good("salad", "2.0"))
		onToy(ctx, "cd /tmp && apt-get -q update && apt-get -q download salad && dpkg --unpack salad_2.0_all.deb && rm salad_2.0_all.deb")
		Expect(stateOf(ctx, "salad")).To(Equal("unpacked 2.0"))
		task := finish(ctx, deploy(ctx, "soup"))
		installed(ctx, task, "soup")
		Expect(stateOf(ctx, "salad")).To(Equal("installed 2.0"))
		Expect(messages(ctx, task, v1alpha1.EventPackagesRepaired)).To(ContainSubstring("salad"))
	}, SpecTimeout(3*time.Minute))

	It("waits for each lock that another program holds, and names the holder", func(ctx SpecContext) {
		offer(ctx, aptrepo.Good("soup", "2.0"))
		for _, lock := range []string{"/var/lib/dpkg/lock-frontend", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock"} {
			By(lock)
			onToy(ctx, "apt-get -q -y --allow-downgrades install soup=1.0")
			// As apt does: a POSIX lock, which flock(1) does not take.
			holder, err := machine(toy).Command(ctx, "perl", "-e",
				`use Fcntl; open(F, ">>", $ARGV[0]) or die; my $whole = pack("ssx4qql", F_WRLCK, 0, 0, 0, 0); fcntl(F, F_SETLK, $whole) or die $!; $| = 1; print "held\n"; select undef, undef, undef, 0.1 until -e "/run/gate-lock"`, lock)
			Expect(err).NotTo(HaveOccurred())
			said, err := holder.StdoutPipe()
			Expect(err).NotTo(HaveOccurred())
			Expect(holder.Start()).To(Succeed())
			Expect(bufio.NewReader(said).ReadString('\n')).To(Equal("held\n"))
			task := deploy(ctx, "soup")
			Eventually(ctx, func(g Gomega) {
				said := assignmentOf(ctx, toy).Status.Agent
				g.Expect(said.OperationID).To(BeEquivalentTo(task.UID))
				g.Expect(said.Reason).To(Equal(v1alpha1.ReasonLocked))
				g.Expect(said.Message).To(And(ContainSubstring(lock), ContainSubstring("perl")))
			}).Should(Succeed())
			open(ctx, "lock")
			Expect(holder.Wait()).To(Succeed())
			installed(ctx, finish(ctx, task), "soup")
			onToy(ctx, "rm /run/gate-lock")
		}
	}, SpecTimeout(5*time.Minute))

	It("counts nobody for a disk that is full", func(ctx SpecContext) {
		big := aptrepo.Good("stew", "2.0")
		big.Files = map[string]string{"/usr/share/stew": strings.Repeat("potatoes\n", 1<<18)}
		offer(ctx, big)
		onToy(ctx, "mount -t tmpfs -o size=512k none /var/cache/apt/archives && mkdir /var/cache/apt/archives/partial")
		task := finish(ctx, deploy(ctx, "stew"))
		onToy(ctx, "umount /var/cache/apt/archives")
		Expect(task.Status.Phase).To(Equal(v1alpha1.TaskFailed))
		Expect(task.Status.Failures[0].Reason).To(Equal(v1alpha1.ReasonDiskFull), task.Status.Message)
		Expect(attemptsOf(ctx, "stew")).To(BeNil())
		installed(ctx, finish(ctx, deploy(ctx, "stew")), "stew")
	}, SpecTimeout(3*time.Minute))

	It("waits for a node that works on another task, and says for which", func(ctx SpecContext) {
		offer(ctx, slow("stew", "2.0"), aptrepo.Good("soup", "2.0"))
		first := deploy(ctx, "stew")
		waitForInstall(ctx, "stew")
		second := run(ctx, v1alpha1.ActionDownload, "soup")
		Eventually(ctx, func() string { return kubectl(ctx, "get", "patchtask", second.Name) }).Should(ContainSubstring(toy + " Busy"))
		open(ctx, "stew")
		installed(ctx, finish(ctx, first), "stew")
		Expect(finish(ctx, second).Status.Phase).To(Equal(v1alpha1.TaskComplete))
	}, SpecTimeout(3*time.Minute))

	It("finishes its transaction where the task is deleted, and frees the node", func(ctx SpecContext) {
		offer(ctx, slow("stew", "2.0"), aptrepo.Good("soup", "2.0"))
		task := deploy(ctx, "stew")
		waitForInstall(ctx, "stew")
		Expect(client.Delete(ctx, task)).To(Succeed())
		next := deploy(ctx, "soup")
		open(ctx, "stew")
		installed(ctx, finish(ctx, next), "soup")
		Expect(stateOf(ctx, "stew")).To(Equal("installed 2.0"))
		Eventually(ctx, func() string { return kubectl(ctx, "describe", "node", toy) }).Should(ContainSubstring("DeployStopped"))
	}, SpecTimeout(3*time.Minute))

	It("brings a node's counts back that was deleted and joined again", func(ctx SpecContext) {
		offer(ctx, aptrepo.Missing("gouda", "2.0"))
		finish(ctx, deploy(ctx, "gouda"))
		Expect(attemptsOf(ctx, "gouda").DownloadFailures).To(BeEquivalentTo(1))
		Expect(client.Delete(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: toy}})).To(Succeed())
		Eventually(ctx, func() error {
			err := client.Get(ctx, ctrlclient.ObjectKey{Name: toy}, &v1alpha1.PatchRetry{})
			return ctrlclient.IgnoreNotFound(err)
		}).Should(Succeed())
		onToy(ctx, "systemctl restart kubelet")
		waitForAgents(ctx)
		Eventually(ctx, func(g Gomega) {
			retry := &v1alpha1.PatchRetry{}
			g.Expect(client.Get(ctx, ctrlclient.ObjectKey{Name: toy}, retry)).To(Succeed())
			g.Expect(retry.Status.Summary).To(ContainSubstring("gouda 2.0 (1 download)"))
		}).Should(Succeed())
	}, SpecTimeout(4*time.Minute))
})
