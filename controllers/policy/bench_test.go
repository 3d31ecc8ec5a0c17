package policy

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// fleet is 5,000 scanned nodes, and 20 policies of which four share each
// priority and all select the same nodes.
func fleet() ([]v1alpha1.PatchPolicy, []corev1.Node, map[string]*v1alpha1.PatchReport) {
	var policies []v1alpha1.PatchPolicy
	for i := range 20 {
		policies = append(policies, newPolicy(fmt.Sprintf("policy-%d", i),
			map[string]string{"pool": "workers"}, priority(int32(i/4))))
	}
	var nodes []corev1.Node
	reports := map[string]*v1alpha1.PatchReport{}
	for i := range 5000 {
		name := fmt.Sprintf("node-%04d", i)
		nodes = append(nodes, newNode(name, map[string]string{
			corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64", corev1.LabelHostname: name,
			corev1.LabelTopologyZone: "z1", "pool": "workers",
		}))
		reports[name] = scanned(name, time.Hour, 10, 2, v1alpha1.RebootNotRequired)
	}
	return policies, nodes, reports
}

func BenchmarkGovern(b *testing.B) {
	policies, nodes, _ := fleet()
	b.ReportAllocs()
	for b.Loop() {
		if len(Govern(policies, nodes).Governor) != len(nodes) {
			b.Fatal("a node is not governed")
		}
	}
}

// BenchmarkGovernOne is what each change of a node's labels costs.
func BenchmarkGovernOne(b *testing.B) {
	policies, nodes, _ := fleet()
	b.ReportAllocs()
	for b.Loop() {
		if len(Govern(policies, nodes[:1]).Governor) != 1 {
			b.Fatal("the node is not governed")
		}
	}
}

// BenchmarkStatus is what the status of all 20 policies costs, at most once a second.
func BenchmarkStatus(b *testing.B) {
	policies, nodes, reports := fleet()
	seen := observation{membership: Govern(policies, nodes), reports: reports, now: now}
	b.ReportAllocs()
	for b.Loop() {
		for i := range policies {
			seen.policy = &policies[i]
			if seen.status().Nodes.Selected != int32(len(nodes)) {
				b.Fatal("a node is not selected")
			}
		}
	}
}
