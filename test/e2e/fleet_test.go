package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

const (
	// firmware is the package that rollouts bring up to date, and whose installation asks for a reboot.
	firmware = "firmware"
	// rolloutPolicy governs all machines while a fleet is prepared.
	rolloutPolicy = "rollouts"
)

// everything selects every node.
var everything = metav1.LabelSelector{}

// edition is the version of the firmware that was published last.
var edition = 1

// prepareFleet points all machines to the repository of rollouts and gives them a policy of their own,
// until the container that calls it from BeforeAll has ended.
func prepareFleet(ctx SpecContext) {
	onAll(func(node string) { mirror.onlyRollouts(ctx, machine(node)) })
	DeferCleanup(func(ctx SpecContext) {
		deleteRollouts(ctx)
		onAll(func(node string) {
			if node != spare {
				mirror.allSources(ctx, machine(node))
			}
		})
		waitForAgents(ctx)
	}, NodeTimeout(3*time.Minute))
	createRolloutPolicy(ctx, rolloutPolicy, everything)
}

// onAll does the same on every machine at the same time.
func onAll(do func(node string)) {
	GinkgoHelper()
	var group sync.WaitGroup
	for _, node := range everyNode {
		group.Go(func() {
			defer GinkgoRecover()
			do(node)
		})
	}
	group.Wait()
}

// createRolloutPolicy creates a policy that governs the nodes in place of the suite's own, and waits until it does.
func createRolloutPolicy(ctx context.Context, name string, nodes metav1.LabelSelector) {
	GinkgoHelper()
	Expect(client.Create(ctx, &v1alpha1.PatchPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.PatchPolicySpec{NodeSelector: &nodes, Priority: 10},
	})).To(Succeed())
	selector, err := metav1.LabelSelectorAsSelector(&nodes)
	Expect(err).NotTo(HaveOccurred())
	var selected corev1.NodeList
	Expect(client.List(ctx, &selected, ctrlclient.MatchingLabelsSelector{Selector: selector})).To(Succeed())
	Eventually(ctx, func(g Gomega) {
		for _, node := range selected.Items {
			g.Expect(assignmentOf(ctx, node.Name).Spec.Policy).To(Equal(name), node.Name)
		}
	}).Should(Succeed())
}

// deleteRollouts deletes the tasks and the policies of rollouts, and waits until no node is at work for one.
func deleteRollouts(ctx context.Context) {
	GinkgoHelper()
	var policies v1alpha1.PatchPolicyList
	Expect(client.List(ctx, &policies)).To(Succeed())
	for i := range policies.Items {
		if name := policies.Items[i].Name; name != policy {
			Expect(client.DeleteAllOf(ctx, &v1alpha1.PatchTask{}, ctrlclient.MatchingFields{"spec.policy": name})).To(Succeed())
			Expect(ctrlclient.IgnoreNotFound(client.Delete(ctx, &policies.Items[i]))).To(Succeed())
		}
	}
	Eventually(ctx, func(g Gomega) {
		for _, node := range everyNode {
			assignment := assignmentOf(ctx, node)
			operation := assignment.Spec.Operation
			over := operation == nil || operation.AdmittedAt == nil && stageOf(assignment, types.UID(operation.ID)).Ended()
			g.Expect(over).To(BeTrue(), "the operation of %s: %+v", node, operation)
		}
	}).Should(Succeed())
}

// tidyFleet switches all machines on and mends them, joins their network, lets everything install, forgets that a reboot is
// due, and begins with a fresh policy, so that no spec suffers from what another one did.
func tidyFleet(ctx SpecContext) {
	statuses, err := machines.Machines(ctx)
	Expect(err).NotTo(HaveOccurred())
	for _, status := range statuses {
		m := machine(status.Name)
		if status.Cut {
			Expect(m.Join(ctx)).To(Succeed())
		}
		if m.Mend(ctx) != nil { // it is off
			_ = m.Start(ctx) // fails if it is on its way up by itself
		}
		Eventually(ctx, func() error {
			_, err := m.Exec(ctx, "sh", "-c", "rm -f /run/hold-* /run/reboot-required*")
			return err
		}).Should(Succeed(), "%s is on", status.Name)
	}
	deleteRollouts(ctx)
	nodeStates(ctx)
	waitForAgents(ctx)
	createRolloutPolicy(ctx, rolloutPolicy, everything)
}

// publishFirmware offers all machines a new firmware, and returns its version. Its installation takes three
// seconds, a fraction of a real kernel's, and asks for a reboot as Debian's packages do; where holdInstall was
// called it takes until letInstall is.
func publishFirmware() string {
	GinkgoHelper()
	edition++
	version := fmt.Sprintf("%d.0", edition)
	next := aptrepo.Good(firmware, version)
	next.Postinst = `sleep 3
for i in $(seq 1200); do [ -e /run/hold-` + firmware + ` ] || break; sleep 0.1; done
touch /run/reboot-required
grep -qsx ` + firmware + ` /run/reboot-required.pkgs || echo ` + firmware + ` >>/run/reboot-required.pkgs`
	mirror.rollouts.Add(next)
	mirror.publish()
	return version
}

func holdInstall(ctx context.Context, node string) {
	GinkgoHelper()
	_, err := machine(node).Exec(ctx, "touch", "/run/hold-"+firmware)
	Expect(err).NotTo(HaveOccurred())
}

func letInstall(ctx context.Context, node string) {
	GinkgoHelper()
	_, err := machine(node).Exec(ctx, "rm", "-f", "/run/hold-"+firmware)
	Expect(err).NotTo(HaveOccurred())
}

// firmwareOf is what dpkg has of the firmware on a machine, such as "installed 2.0".
func firmwareOf(ctx context.Context, node string) string {
	GinkgoHelper()
	out, err := machine(node).Exec(ctx, "dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", firmware)
	Expect(err).NotTo(HaveOccurred())
	return out
}

// rolloutOf creates a deployment with reboots of the newest firmware, on the nodes or on all, with the
// shortest of timeouts. Change may alter it.
func rolloutOf(ctx context.Context, nodes []string, change func(*v1alpha1.TaskTemplate)) *v1alpha1.PatchTask {
	GinkgoHelper()
	return rolloutUnder(ctx, rolloutPolicy, nodes, change)
}

func rolloutUnder(ctx context.Context, policy string, nodes []string, change func(*v1alpha1.TaskTemplate)) *v1alpha1.PatchTask {
	GinkgoHelper()
	lasts := func(d time.Duration) metav1.Duration { return metav1.Duration{Duration: d} }
	template := &v1alpha1.TaskTemplate{
		Action:   v1alpha1.ActionDeploy,
		Scan:     v1alpha1.ScanOptions{Timeout: lasts(2 * time.Minute)},
		Download: v1alpha1.DownloadOptions{Timeout: lasts(2 * time.Minute)},
		Install:  v1alpha1.InstallOptions{Timeout: lasts(2 * time.Minute)},
		Patches:  &v1alpha1.PatchSelection{Classifications: []v1alpha1.Classification{v1alpha1.ClassificationSecurity}},
		Rollout:  v1alpha1.RolloutOptions{MaxUnavailable: ptr.To(intstr.FromInt32(1)), MaxFailures: ptr.To[int32](1)},
		Drain:    v1alpha1.DrainOptions{When: v1alpha1.DrainBeforeReboot, Timeout: lasts(30 * time.Second)},
		Reboot:   v1alpha1.RebootOptions{When: v1alpha1.RebootIfRequired, Timeout: lasts(time.Minute)},
		Verify:   v1alpha1.VerifyOptions{Timeout: lasts(time.Minute)},
	}
	if change != nil {
		change(template)
	}
	task := &v1alpha1.PatchTask{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "rollout-"},
		Spec:       v1alpha1.PatchTaskSpec{Policy: policy, Template: template},
	}
	if len(nodes) > 0 {
		task.Spec.NodeSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: corev1.LabelHostname, Operator: metav1.LabelSelectorOpIn, Values: nodes},
		}}
	}
	Expect(client.Create(ctx, task)).To(Succeed())
	return task
}

// stageOf is where a node stands in an operation: what the manager does with it, else what the agent says.
func stageOf(assignment *v1alpha1.PatchAssignment, operation types.UID) v1alpha1.Step {
	if now := assignment.Status.Controller; now != nil && now.OperationID == string(operation) && now.Step != "" {
		return now.Step
	}
	if now := assignment.Status.Agent; now != nil && now.OperationID == string(operation) {
		return now.Step
	}
	return v1alpha1.StepPending
}

// waitForStage waits until a node is at a stage of a task.
func waitForStage(ctx context.Context, task *v1alpha1.PatchTask, node string, stage v1alpha1.Step) {
	GinkgoHelper()
	Eventually(ctx, func() v1alpha1.Step { return stageOf(assignmentOf(ctx, node), task.UID) }).Should(Equal(stage), node)
}

// waitForAdmission waits until a task disrupts a node, and returns the node.
func waitForAdmission(ctx context.Context, task *v1alpha1.PatchTask) (node string) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		node = ""
		for _, name := range everyNode {
			operation := assignmentOf(ctx, name).Spec.Operation
			if operation != nil && operation.ID == string(task.UID) && operation.AdmittedAt != nil {
				node = name
			}
		}
		g.Expect(node).NotTo(BeEmpty(), "a node that may be disrupted")
	}).Should(Succeed())
	return node
}

// nodeState is all of a Node that a rollout changes.
type nodeState struct {
	Unschedulable       bool
	Taints              []corev1.Taint
	Labels, Annotations map[string]string
	Conditions          map[corev1.NodeConditionType]corev1.ConditionStatus
}

func stateOfNode(ctx context.Context, name string) nodeState {
	GinkgoHelper()
	node := &corev1.Node{}
	Expect(client.Get(ctx, ctrlclient.ObjectKey{Name: name}, node)).To(Succeed())
	conditions := map[corev1.NodeConditionType]corev1.ConditionStatus{}
	for _, c := range node.Status.Conditions {
		conditions[c.Type] = c.Status
	}
	return nodeState{
		Unschedulable: node.Spec.Unschedulable, Taints: node.Spec.Taints,
		Labels: maps.Clone(node.Labels), Annotations: maps.Clone(node.Annotations), Conditions: conditions,
	}
}

// nodeStates waits until all nodes are Ready and returns what they are like.
func nodeStates(ctx context.Context) map[string]nodeState {
	GinkgoHelper()
	states := map[string]nodeState{}
	Eventually(ctx, func(g Gomega) {
		for _, node := range everyNode {
			states[node] = stateOfNode(ctx, node)
			g.Expect(states[node].Conditions).To(HaveKeyWithValue(corev1.NodeReady, corev1.ConditionTrue), node)
			g.Expect(states[node].Taints).To(BeEmpty(), node)
		}
	}).Should(Succeed())
	return states
}

// expectAsBefore waits until nothing of a rollout is left on any Node.
func expectAsBefore(ctx context.Context, before map[string]nodeState) {
	GinkgoHelper()
	for _, node := range slices.Sorted(maps.Keys(before)) {
		Eventually(ctx, func() nodeState { return stateOfNode(ctx, node) }).Should(Equal(before[node]), node)
	}
}

// bootIDs are the boot IDs of all machines.
func bootIDs(ctx context.Context) map[string]string {
	GinkgoHelper()
	ids := map[string]string{}
	for _, node := range everyNode {
		id, err := machine(node).BootID(ctx)
		Expect(err).NotTo(HaveOccurred())
		ids[node] = id
	}
	return ids
}

// bootsOf is how often a machine was switched on or rebooted.
func bootsOf(ctx context.Context, node string) int {
	GinkgoHelper()
	status, err := machine(node).Status(ctx)
	Expect(err).NotTo(HaveOccurred())
	return status.Boots
}
