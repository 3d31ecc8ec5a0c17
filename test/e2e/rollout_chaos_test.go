package e2e

import (
	"context"
	"os"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// The long form of a rollout's bad days is there where the environment asks for it (make test-chaos).
var chaos = os.Getenv("NODEPATCH_CHAOS") != ""

// strike is what befalls a node at a step of its way.
type strike func(ctx context.Context, w *walker, step v1alpha1.Step)

var _ = chaos && Describe("In chaos, a rollout", Label("chaos"), Ordered, ContinueOnFailure, func() {
	BeforeAll(func(ctx SpecContext) {
		loadWorkload(ctx)
		prepareFleet(ctx)
	}, NodeTimeout(4*time.Minute))
	AfterEach(tidyFleet, NodeTimeout(4*time.Minute))

	DescribeTable("goes its way, once, although at every step", func(ctx SpecContext, do strike) {
		w := beginWalk(ctx, toy)
		w.walk(ctx, func(step v1alpha1.Step) { do(ctx, w, step) })
		w.arrived(ctx)
	},
		Entry("its agent is killed", SpecTimeout(6*time.Minute), strike(func(ctx context.Context, w *walker, step v1alpha1.Step) {
			if step != v1alpha1.StepRebooting { // the machine is off, and its agent has been killed
				_, err := machine(w.node).Exec(ctx, "kill", "-KILL", agentProcess(ctx, w.node))
				Expect(err).NotTo(HaveOccurred())
			}
		})),
		Entry("its agent's pod is deleted", SpecTimeout(6*time.Minute), strike(func(ctx context.Context, w *walker, _ v1alpha1.Step) {
			pod, there := agentPod(ctx, w.node)
			Expect(there).To(BeTrue())
			Expect(client.Delete(ctx, pod)).To(Succeed())
		})),
		Entry("the agents are updated", SpecTimeout(6*time.Minute), strike(func(ctx context.Context, _ *walker, _ v1alpha1.Step) {
			kubectl(ctx, "-n", namespace, "rollout", "restart", "daemonset/nodepatch-agent")
		})),
		Entry("its network is cut", SpecTimeout(8*time.Minute), strike(func(ctx context.Context, w *walker, step v1alpha1.Step) {
			m := machine(w.node)
			Expect(m.Cut(ctx)).To(Succeed())
			if step == v1alpha1.StepRebooting {
				Expect(m.Start(ctx)).To(Succeed())
			}
			Eventually(ctx, func() corev1.ConditionStatus { return stateOfNode(ctx, w.node).Conditions[corev1.NodeReady] }).Should(Equal(corev1.ConditionUnknown))
			Expect(m.Join(ctx)).To(Succeed())
		})),
		Entry("the API server is away", SpecTimeout(6*time.Minute), strike(func(ctx context.Context, _ *walker, _ v1alpha1.Step) {
			Expect(machines.StopServer(ctx, "kube-apiserver")).To(Succeed())
			away := time.Now()
			Eventually(ctx, func() time.Duration { return time.Since(away) }).Should(BeNumerically(">=", 10*time.Second))
			startAPIServer(ctx)
			Eventually(ctx, func() error {
				_, err := tryKubectl(ctx, "get", "--raw", "/readyz")
				return err
			}).Should(Succeed())
		})),
	)

	It("tells a stranger at every step what goes on", func(ctx SpecContext) {
		w := beginWalk(ctx, toy)
		w.walk(ctx, func(step v1alpha1.Step) {
			if step != v1alpha1.StepVerifying { // while it soaks the node is in service
				Expect(kubectl(ctx, "describe", "node", w.node)).To(ContainSubstring("MaintenanceInProgress"), "at %s", step)
			}
			Expect(kubectl(ctx, "get", "patchassignment", w.node)).To(ContainSubstring(string(step)))
			Eventually(ctx, func() string { return kubectl(ctx, "get", "patchtask", w.task.Name) }).Should(
				ContainSubstring("1 "+strings.ToLower(string(step))), "at %s", step)
		})
		w.arrived(ctx)
	}, SpecTimeout(5*time.Minute))

	It("lets a node that has begun finish where the window closes, and no other begin until the next one opens", func(ctx SpecContext) {
		w := beginWalk(ctx, toy)
		var next *v1alpha1.PatchTask
		w.walk(ctx, func(step v1alpha1.Step) {
			if next != nil {
				return
			}
			setWindow(ctx, rolloutPolicy, false)
			next = rolloutOf(ctx, []string{spare}, nil)
		})
		w.arrived(ctx)
		waitForStage(ctx, next, spare, v1alpha1.StepWaiting)
		Eventually(ctx, func() string { return kubectl(ctx, "get", "patchtask", next.Name) }).Should(ContainSubstring(spare + " " + v1alpha1.ReasonWindowClosed))
		Consistently(ctx, func() *metav1.Time { return assignmentOf(ctx, spare).Spec.Operation.AdmittedAt }).WithTimeout(10 * time.Second).Should(BeNil())
		setWindow(ctx, rolloutPolicy, true)
		Expect(finish(ctx, next).Status.Phase).To(Equal(v1alpha1.TaskComplete), next.Status.Message)
	}, SpecTimeout(8*time.Minute))

	for _, step := range disruptions {
		for _, ending := range []struct {
			what  string
			phase v1alpha1.TaskPhase // of the task, if it is there still
			do    func(ctx context.Context, w *walker)
		}{
			{"the task is deleted", "", func(ctx context.Context, w *walker) { Expect(client.Delete(ctx, w.task)).To(Succeed()) }},
			{"the policy is deleted", v1alpha1.TaskFailed, func(ctx context.Context, _ *walker) {
				kubectl(ctx, "delete", "patchpolicy", rolloutPolicy, "--wait=false")
			}},
			{"the task is stopped", v1alpha1.TaskStopped, func(ctx context.Context, w *walker) {
				kubectl(ctx, "annotate", "patchtask", w.task.Name, v1alpha1.StopAnnotation+"=enough")
			}},
		} {
			It("puts the node back where "+ending.what+" at "+string(step), func(ctx SpecContext) {
				w := beginWalk(ctx, toy)
				for _, before := range disruptions {
					w.reach(ctx, before)
					if before == step {
						break
					}
					w.leave(ctx, before)
				}
				ending.do(ctx, w)
				if step != v1alpha1.StepDraining { // no drain ends by being waited for
					w.leave(ctx, step)
				}
				expectAsBefore(ctx, w.from)
				Eventually(ctx, func() *v1alpha1.Operation { return assignmentOf(ctx, w.node).Spec.Operation }).Should(BeNil())
				reboots := 0
				if step == v1alpha1.StepRebooting || step == v1alpha1.StepVerifying {
					reboots = 1
				}
				Expect(bootsOf(ctx, w.node)).To(Equal(w.boots + reboots))
				if err := client.Get(ctx, ctrlclient.ObjectKeyFromObject(w.task), w.task); err == nil {
					finish(ctx, w.task)
					Expect(w.task.Status.Phase).To(Equal(ending.phase), w.task.Status.Message)
				}
			}, SpecTimeout(5*time.Minute))
		}
	}
})

// setWindow opens or closes a policy's maintenance window.
func setWindow(ctx context.Context, policy string, open bool) {
	GinkgoHelper()
	now := time.Now().UTC()
	closed := now.AddDate(0, 6, 0)
	window := v1alpha1.MaintenanceWindow{
		Schedule: v1alpha1.Schedule(closed.Format("4 15 2 1 *")), Duration: metav1.Duration{Duration: 10 * time.Minute}, TimeZone: "UTC",
	}
	if open {
		window.Schedule, window.Duration = "0 0 * * *", metav1.Duration{Duration: 48 * time.Hour}
	}
	changed := &v1alpha1.PatchPolicy{}
	Expect(client.Get(ctx, ctrlclient.ObjectKey{Name: policy}, changed)).To(Succeed())
	base := changed.DeepCopy()
	changed.Spec.MaintenanceWindows = []v1alpha1.MaintenanceWindow{window}
	Expect(client.Patch(ctx, changed, ctrlclient.MergeFrom(base))).To(Succeed())
}
