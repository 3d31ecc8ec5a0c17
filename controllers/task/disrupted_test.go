package task

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// deleteNode has a Node be deleted, and its assignment be garbage collected.
func (in *Input) deleteNode(name string) {
	in.Nodes = slices.DeleteFunc(in.Nodes, func(node corev1.Node) bool { return node.Name == name })
	delete(in.Assignments, name)
}

// look decides and applies the plan, a minute after the last one.
func (in *Input) look() Plan {
	in.Now = in.Now.Add(time.Minute)
	plan := in.decide()
	in.apply(&plan)
	return plan
}

func newRollout(most int32, names ...string) Input {
	in := newInput(names...)
	in.run(v1alpha1.ActionDeploy)
	in.Task.Status.Template.Rollout.MaxFailures = ptr.To(most)
	return in
}

// leaving are the ways in which a node loses its assignment with the verdict.
var leaving = map[string]func(in *Input, name string){
	"deleted": (*Input).deleteNode,
	"relabelled": func(in *Input, name string) {
		in.label(name, "pool", "none")
		delete(in.Assignments, name)
	},
	"relabelled and back": func(in *Input, name string) { in.Assignments[name] = newAssignment(name) },
	"replaced under its name": func(in *Input, name string) {
		in.node(name).UID = types.UID("another-" + name)
		in.Assignments[name] = newAssignment(name)
	},
}

func TestFailuresOutliveTheirNodes(t *testing.T) {
	for name, leave := range leaving {
		t.Run(name, func(t *testing.T) {
			in := newRollout(1, "a", "b", "c")
			in.ready(3, "b", "c")
			in.judged("a", v1alpha1.StepFailed, v1alpha1.ReasonRebootTimeout, "The node was not back within 20m")
			in.look()
			before := in.Task.Status.DeepCopy()
			leave(&in, "a")
			plan := in.look()
			diff(t, "counts", v1alpha1.TaskNodeCounts{Total: 3, Failed: 1, Waiting: 1, Installing: 1}, plan.Counts())
			diff(t, "failures", before.Failures, in.Task.Status.Failures)
			diff(t, "log", before.Log, in.Task.Status.Log)
			in.judged("b", v1alpha1.StepFailed, v1alpha1.ReasonRebootTimeout, "The node was not back within 20m")
			in.look()
			leave(&in, "b")
			plan = in.look()
			if plan.Stop == nil || !strings.Contains(plan.Stop.Message, "allows (1): a (RebootTimeout), b (RebootTimeout);") {
				t.Errorf("it goes on: %+v, %s", plan.Stop, plan.Message())
			}
			if admitted := in.Assignments["c"].Spec.Operation.AdmittedAt; admitted != nil {
				t.Error("c is next")
			}
		})
		t.Run(name+", and all others are done", func(t *testing.T) {
			in := newRollout(1, "a", "b")
			in.judged("a", v1alpha1.StepFailed, v1alpha1.ReasonRebootTimeout, "The node was not back within 20m")
			in.ready(3, "b")
			in.look()
			leave(&in, "a")
			in.judged("b", v1alpha1.StepDone, v1alpha1.ReasonVerified, "")
			plan := in.look()
			if plan.Phase != v1alpha1.TaskFailed || plan.Reason != v1alpha1.ReasonNodesFailed {
				t.Errorf("%s %s: %s", plan.Phase, plan.Reason, plan.Message())
			}
		})
	}
}

func TestNodeThatLeavesInTheMidst(t *testing.T) {
	verdict := func(step v1alpha1.Step, reason string) func(*Input) {
		return func(in *Input) {
			in.judged("a", step, reason, "because")
			in.Nodes = in.Nodes[1:]
		}
	}
	tests := map[string]struct {
		begin, change func(*Input)
		want          string
		wantLog       []string
	}{
		"deleted": {
			change: func(in *Input) { in.deleteNode("a") }, want: v1alpha1.ReasonNodeDeleted, wantLog: []string{"NodeFailed a"},
		},
		"replaced": {change: func(in *Input) { leaving["replaced under its name"](in, "a") }, want: v1alpha1.ReasonNodeDeleted, wantLog: []string{"NodeFailed a"}},
		"its assignment has the verdict yet": {
			change: verdict(v1alpha1.StepFailed, v1alpha1.ReasonVerifyTimeout), want: v1alpha1.ReasonVerifyTimeout, wantLog: []string{"NodeFailed a"},
		},
		"which is a good one":             {change: verdict(v1alpha1.StepDone, v1alpha1.ReasonVerified)},
		"which says that it was skipped":  {change: verdict(v1alpha1.StepStopped, v1alpha1.ReasonHookFailed)},
		"it is there and was done":        {change: func(in *Input) { in.judged("a", v1alpha1.StepDone, v1alpha1.ReasonVerified, "") }},
		"it left the policy":              {change: func(in *Input) { leaving["relabelled"](in, "a") }},
		"a manager before did not say so": {change: func(in *Input) { in.Task.Status.Disrupted = nil; in.deleteNode("a") }},
		"it waited and was deleted": {
			begin:  func(in *Input) { in.Assignments["a"].Spec.Operation.AdmittedAt = nil; in.notReady("b") },
			change: func(in *Input) { in.deleteNode("a") },
		},
		"it was done and was deleted": {
			begin:  func(in *Input) { in.judged("a", v1alpha1.StepDone, v1alpha1.ReasonVerified, "") },
			change: func(in *Input) { in.deleteNode("a") },
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in := newRollout(1, "a", "b")
			in.admitted("a", epoch)
			in.ready(3, "b")
			if test.begin != nil {
				test.begin(&in)
			}
			in.look()
			test.change(&in)
			in.look()
			in.look()
			got := ""
			for _, failure := range in.Task.Status.Failures {
				got += failure.Reason
			}
			if failed := in.Task.Status.Nodes.Failed == 1; got != test.want || failed != (test.want != "") {
				t.Errorf("failed for %q, want %q: %s", got, test.want, in.Task.Status.Message)
			}
			diff(t, "log", append([]string{}, test.wantLog...), logged(in.Task))
		})
	}
}

// TestFailuresBeyondTheBound has node after node fail and be deleted.
func TestFailuresBeyondTheBound(t *testing.T) {
	const most = 60
	in := newRollout(most, "zzz")
	in.admitted("zzz", epoch)
	for i := range most + 1 {
		name := fmt.Sprintf("node-%02d", i)
		in.Nodes = append(in.Nodes, newNode(name))
		in.Assignments[name] = newAssignment(name)
		in.judged(name, v1alpha1.StepFailed, v1alpha1.ReasonRebootTimeout, strings.Repeat("ü", 1000))
		if plan := in.look(); plan.Stop != nil != (i == most) {
			t.Fatalf("after %d failures: %+v", i+1, plan.Stop)
		}
		in.deleteNode(name)
	}
	plan := in.look()
	if got := plan.Counts(); got.Failed != most+1 || got.Total != most+2 {
		t.Errorf("counts %+v", got)
	}
	if got := in.Task.Status.Stop.Message; !strings.Contains(got, "and 56 more") {
		t.Errorf("it halts as %s", got)
	}
	if status := in.Task.Status; len(status.Disrupted) != maxGone+1 || len(status.Failures) != maxFailures {
		t.Errorf("it remembers %d nodes, and names %d", len(status.Disrupted), len(status.Failures))
	}
	for i := range 100 {
		name := fmt.Sprintf("work-%02d", i)
		in.Nodes = append(in.Nodes, newNode(name))
		in.Assignments[name] = newAssignment(name)
		in.admitted(name, in.Now)
	}
	in.look()
	if got := len(in.Task.Status.Disrupted); got != maxDisrupted {
		t.Errorf("it remembers %d nodes", got)
	}
}

// TestNodeThatIsGoneStaysInItsWave has a canary fail and be deleted.
func TestNodeThatIsGoneStaysInItsWave(t *testing.T) {
	in := newRollout(5, "a", "b", "c")
	canary := sizedWave("canary", intstr.FromInt(1))
	canary.MaxFailures, canary.Soak = ptr.To[int32](1), &metav1.Duration{Duration: time.Hour}
	in.Task.Status.Template.Rollout.Waves = []v1alpha1.Wave{canary}
	in.admitted("a", epoch)
	in.ready(3, "b", "c")
	in.look()
	in.judged("a", v1alpha1.StepFailed, v1alpha1.ReasonRebootTimeout, "")
	in.look()
	in.deleteNode("a")
	plan := in.look()
	for _, node := range plan.Nodes {
		if node.Name != "a" && (node.Admit || node.Reason != v1alpha1.ReasonWave) {
			t.Errorf("%s does not wait until its wave has soaked: %+v", node.Name, node)
		}
	}
	in.Task.Status.Template.Rollout.Waves[0].MaxFailures = ptr.To[int32](0)
	plan = in.look()
	if plan.Stop == nil || !strings.Contains(plan.Stop.Message, "maxFailures of its wave allows (0): a (RebootTimeout)") {
		t.Errorf("it goes on: %+v", plan.Stop)
	}
}

var _ = Describe("A failed node that is deleted", func() {
	It("is failed for the run all the same, also where another has its name, and halts it with the next", func() {
		addPolicy("workers")
		addNodes("a", "b", "c")
		addTask("deploy-now", deploy(3), func(task *v1alpha1.PatchTask) {
			task.Spec.Template.Rollout.MaxUnavailable = ptr.To(intstr.FromInt(1))
		})
		r, clock := newReconciler()
		step(r, clock, 0, "deploy-now")
		for _, name := range []string{"a", "b", "c"} {
			wait(name, 3)
		}
		remove := func(name string) {
			for _, object := range []client.Object{
				&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, &v1alpha1.PatchAssignment{ObjectMeta: metav1.ObjectMeta{Name: name}},
			} {
				Expect(admin.Delete(ctx, object)).To(Succeed())
			}
		}
		step(r, clock, 2*time.Second, "deploy-now")
		judge("a", v1alpha1.StepFailed, v1alpha1.ReasonRebootTimeout)
		step(r, clock, 2*time.Second, "deploy-now")
		Expect(assignmentNow("b").Spec.Operation.AdmittedAt).NotTo(BeNil())
		remove("a")
		addNodes("a")
		step(r, clock, 2*time.Second, "deploy-now")
		Expect(assignmentNow("a").Spec.Operation).To(BeNil(), "it is not tried again")
		Expect(taskNow("deploy-now").Status.Failures).To(HaveExactElements(And(HaveField("Node", "a"), HaveField("Message", "because"))))

		remove("b") // Whoever repairs the cluster does not wait for the verdict.
		step(r, clock, 2*time.Second, "deploy-now")
		Expect(assignmentNow("c").Spec.Operation.AdmittedAt).To(BeNil())
		Expect(assignmentNow("c").Spec.Operation.Stop).To(ContainSubstring("a (RebootTimeout), b (NodeDeleted)"))
		answer("c", v1alpha1.StepStopped, 3)
		step(r, clock, 2*time.Second, "deploy-now")
		ended := taskNow("deploy-now")
		Expect(ended.Status.Phase).To(Equal(v1alpha1.TaskFailed))
		Expect(*ended.Status.Nodes).To(Equal(v1alpha1.TaskNodeCounts{Total: 3, Failed: 2, Stopped: 1}))
		Expect(logged(ended)).To(ContainElements("NodeFailed a", "NodeFailed b"))
		Expect(written()).To(ContainElement("NodeFailed b"))
	})
})
