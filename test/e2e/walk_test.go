package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// disruptions are the steps at which a walk stops.
var disruptions = []v1alpha1.Step{v1alpha1.StepInstalling, v1alpha1.StepDraining, v1alpha1.StepRebooting, v1alpha1.StepVerifying}

// walker takes one node through its disruption and holds it at every step: its package does not install,
// a pod on it may not be evicted, and its machine hangs in its reboot, each until the walker goes on.
type walker struct {
	node   string
	task   *v1alpha1.PatchTask
	anchor workload
	from   map[string]nodeState
	boots  int
}

// beginWalk starts a rollout of a new firmware on the node.
func beginWalk(ctx context.Context, node string) *walker {
	GinkgoHelper()
	w := &walker{node: node, anchor: workload{name: "anchor", node: node, replicas: 1, minAvailable: 1, grace: 1}}
	w.anchor.run(ctx)
	w.from, w.boots = nodeStates(ctx), bootsOf(ctx, node)
	publishFirmware()
	holdInstall(ctx, node)
	Expect(machine(node).Hang(ctx)).To(Succeed())
	w.task = rolloutOf(ctx, []string{node}, func(t *v1alpha1.TaskTemplate) {
		t.Drain.Timeout.Duration, t.Reboot.Timeout.Duration, t.Verify.Timeout.Duration = 3*time.Minute, 3*time.Minute, 3*time.Minute
		t.Rollout.Soak = &metav1.Duration{Duration: 10 * time.Second}
	})
	return w
}

// reach waits until the node is held at a step.
func (w *walker) reach(ctx context.Context, step v1alpha1.Step) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		assignment := assignmentOf(ctx, w.node)
		g.Expect(stageOf(assignment, w.task.UID)).To(Equal(step), "%+v", assignment.Status)
		switch step {
		case v1alpha1.StepInstalling:
			_, err := machine(w.node).Exec(ctx, "pgrep", "-f", firmware+".postinst")
			g.Expect(err).NotTo(HaveOccurred(), "the firmware is being installed")
		case v1alpha1.StepRebooting:
			status, err := machine(w.node).Status(ctx)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(status.Leader).To(BeZero(), "%s has gone down", w.node)
		}
	}).WithTimeout(2*time.Minute).Should(Succeed(), "%s at %s", w.node, step)
}

// leave lets the node go on from a step.
func (w *walker) leave(ctx context.Context, step v1alpha1.Step) {
	GinkgoHelper()
	switch step {
	case v1alpha1.StepInstalling:
		letInstall(ctx, w.node)
	case v1alpha1.StepDraining:
		w.anchor.allow(ctx)
	case v1alpha1.StepRebooting:
		if status, err := machine(w.node).Status(ctx); err != nil || status.Leader == 0 {
			Expect(machine(w.node).Start(ctx)).To(Succeed())
		}
	}
}

// walk goes the whole way, and does something at each step before it goes on.
func (w *walker) walk(ctx context.Context, at func(step v1alpha1.Step)) {
	GinkgoHelper()
	for _, step := range disruptions {
		w.reach(ctx, step)
		By("doing it at " + string(step))
		at(step)
		w.leave(ctx, step)
	}
}

// arrived checks that the node has gone its whole way, once, and is as it was.
func (w *walker) arrived(ctx context.Context) {
	GinkgoHelper()
	finish(ctx, w.task)
	Expect(w.task.Status.Phase).To(Equal(v1alpha1.TaskComplete), w.task.Status.Message)
	Expect(firmwareOf(ctx, w.node)).To(Equal(fmt.Sprintf("installed %d.0", edition)))
	Expect(bootsOf(ctx, w.node)).To(Equal(w.boots+1), "reboots of %s", w.node)
	expectAsBefore(ctx, w.from)
	Eventually(ctx, func(g Gomega) {
		log := nodeLog(ctx, w.task, w.node)
		for _, reason := range []string{v1alpha1.EventNodeAdmitted, v1alpha1.EventPatchesInstalled, v1alpha1.EventNodeCordoned, v1alpha1.EventNodeDrained,
			v1alpha1.EventNodeRebooting, v1alpha1.EventNodeRebooted, v1alpha1.EventDeployFinished, v1alpha1.EventNodeUncordoned, v1alpha1.EventNodeDone} {
			g.Expect(slices.Index(log, reason)).To(BeNumerically(">=", 0), "%s is in the log of %s: %v", reason, w.node, log)
			once := slices.DeleteFunc(slices.Clone(log), func(r string) bool { return r != reason })
			g.Expect(once).To(HaveLen(1), "%v", log)
		}
	}).Should(Succeed())
}

// killer kills managers that lead.
type killer struct{ killed string }

// kill kills the process of the manager that leads, which is not the one that it killed last, so that it has
// no chance to give its Lease back.
func (k *killer) kill(ctx context.Context) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		holder, err := tryKubectl(ctx, "-n", namespace, "get", "lease", "nodepatch-manager", "-o", "jsonpath={.spec.holderIdentity}")
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(holder).NotTo(Or(BeEmpty(), Equal(k.killed)), "another manager leads")
		leader := &corev1.Pod{}
		name, _, _ := strings.Cut(holder, "_")
		g.Expect(client.Get(ctx, ctrlclient.ObjectKey{Namespace: namespace, Name: name}, leader)).To(Succeed())
		_, err = machine(leader.Spec.NodeName).Exec(ctx, "sh", "-c",
			`for p in $(pgrep -x manager); do grep -q "pod`+string(leader.UID)+`" /proc/$p/cgroup && kill -KILL $p && exit 0; done; exit 1`)
		g.Expect(err).NotTo(HaveOccurred(), "the manager runs on %s", leader.Spec.NodeName)
		k.killed = holder
	}).Should(Succeed())
}
