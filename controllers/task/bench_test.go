package task

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/policy"
)

// BenchmarkDecide measures a whole decision in the middle of a run, from the
// membership to the status: a third of the nodes each are done, failed and left.
func BenchmarkDecide(b *testing.B) {
	for _, nodes := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			in := newInput()
			for i := range nodes {
				name := fmt.Sprintf("node-%04d", i)
				in.Nodes = append(in.Nodes, newNode(name))
				in.Assignments[name] = newAssignment(name)
			}
			for i := range 20 {
				in.Policies = append(in.Policies, newPolicy(fmt.Sprintf("policy-%d", i)))
			}
			for i := range in.Nodes {
				switch name := in.Nodes[i].Name; i % 3 {
				case 0:
					in.done(name, 40, 10)
				case 1:
					in.failed(name, v1alpha1.ReasonScanFailed, "E: broken")
				}
			}
			in.apply(ptrPlan(in.decide()))
			b.ReportAllocs()
			for b.Loop() {
				in.Membership = policy.Govern(in.Policies, in.Nodes)
				plan := Decide(in)
				_ = plan.Entries()
				_ = plan.Status(in.Task.Status)
			}
		})
	}
}

func ptrPlan(plan Plan) *Plan { return &plan }

// BenchmarkPlan measures a decision in the middle of a rollout, without the
// membership: a third of the nodes went through it, some are in the midst of it, and
// all others wait, for a wave, a zone or the budget, in an open window.
func BenchmarkPlan(b *testing.B) {
	for _, nodes := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			in := newInput()
			in.run(v1alpha1.ActionDeploy)
			in.Policies[0].Spec.MaintenanceWindows = []v1alpha1.MaintenanceWindow{
				windowAt("0 6 * * *", "Europe/Berlin", 5*time.Hour), windowAt("*/30 * * * *", "UTC", 10*time.Minute),
			}
			in.ClusterMaxUnavailable = ptr.To(intstr.FromString("10%"))
			rollout := &in.Task.Status.Template.Rollout
			rollout.MaxUnavailable, rollout.TopologyKey = ptr.To(intstr.FromString("5%")), "zone"
			canary := labelledWave("canary", "canary", "yes")
			canary.Soak = &metav1.Duration{Duration: time.Minute}
			rollout.Waves = []v1alpha1.Wave{canary, sizedWave("first", intstr.FromString("70%"))}
			names := make([]string, nodes)
			for i := range nodes {
				names[i] = fmt.Sprintf("node-%04d", i)
				node := newNode(names[i])
				node.Labels["zone"] = fmt.Sprint(i % 3)
				if i%100 == 0 {
					node.Labels["canary"] = "yes"
				}
				if i%(nodes/4) == 1 {
					node.Labels[controlPlaneLabels[0]] = ""
				}
				in.Nodes = append(in.Nodes, node)
				in.Assignments[names[i]] = newAssignment(names[i])
			}
			for i, name := range names {
				switch node := in.Nodes[i]; {
				case i < nodes/3 && !isControlPlane(&node), node.Labels["canary"] != "":
					in.Now = epoch.Add(-10 * time.Minute)
					in.judged(name, v1alpha1.StepDone, v1alpha1.ReasonVerified, "")
				default:
					in.ready(int32(i%60), name)
				}
			}
			in.Now = epoch.Add(time.Minute)
			in.apply(ptrPlan(in.decide()))
			if status := in.Task.Status; status.Nodes.Waiting == 0 || status.Nodes.Installing == 0 {
				b.Fatalf("nothing to measure: %s", status.Message)
			}
			b.ReportAllocs()
			for b.Loop() {
				plan := Decide(in)
				_ = plan.Entries()
				_ = plan.Status(in.Task.Status)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(nodes), "ns/node")
		})
	}
}
