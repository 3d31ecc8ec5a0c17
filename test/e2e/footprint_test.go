package e2e

import (
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// The figures that the project promises; see also the benchmarks.
const (
	maxResidentKiB   = 16 << 10
	maxWritesPerNode = 6
)

func byAgent(e auditv1.Event) bool {
	return e.User.Username == "system:serviceaccount:"+namespace+":nodepatch-agent"
}

func byUs(e auditv1.Event) bool {
	return byAgent(e) || e.User.Username == "system:serviceaccount:"+namespace+":nodepatch-manager"
}

var _ = Describe("The footprint", func() {
	It("is at most six API writes per node for a scan", func(ctx SpecContext) {
		_, before := requests(0)
		task := finish(ctx, start(ctx, 5*time.Minute, toy))
		Eventually(ctx, func() []string { return logOf(ctx, task.Name) }).Should(ContainElement(task.Name + " TaskFinished"))
		events, _ := requests(before)
		var writes []string
		for _, e := range events {
			ref := e.ObjectRef
			if e.Stage != auditv1.StageResponseComplete || !byUs(e) || ref == nil || ref.Resource == "leases" {
				continue
			}
			switch e.Verb {
			case "create", "update", "patch", "delete":
				if !strings.HasPrefix(ref.Name, toy) {
					continue // of the run or of another node
				}
				writes = append(writes, strings.Join([]string{e.Verb, ref.Resource, ref.Subresource, ref.Name}, " "))
			}
		}
		AddReportEntry("API writes", strings.Join(writes, ", "))
		Expect(writes).NotTo(BeEmpty())
		Expect(len(writes)).To(BeNumerically("<=", maxWritesPerNode), "%v", writes)
	}, SpecTimeout(3*time.Minute))

	It("of an idle agent is at most 16 MiB resident and no request but its watch", func(ctx SpecContext) {
		finish(ctx, start(ctx, 5*time.Minute))
		Eventually(ctx, func(g Gomega) {
			for _, node := range everyNode {
				status, err := machine(node).Exec(ctx, "sh", "-c", "grep VmRSS /proc/"+agentProcess(ctx, node)+"/status")
				g.Expect(err).NotTo(HaveOccurred())
				kib, err := strconv.Atoi(strings.Fields(status)[1])
				g.Expect(err).NotTo(HaveOccurred())
				AddReportEntry("resident KiB of the agent on "+node, kib)
				g.Expect(kib).To(BeNumerically("<=", maxResidentKiB), "resident KiB of the agent on %s", node)
			}
		}).WithTimeout(30 * time.Second).Should(Succeed())

		_, before := requests(0)
		Consistently(ctx, func(g Gomega) {
			events, _ := requests(before)
			for _, e := range events {
				if byAgent(e) {
					g.Expect(e.Verb).To(Equal("watch"), "%s %s", e.Verb, e.RequestURI)
					g.Expect(e.ObjectRef.Resource).To(Equal("patchassignments"))
				}
			}
		}).WithTimeout(15 * time.Second).WithPolling(3 * time.Second).Should(Succeed())
	}, SpecTimeout(3*time.Minute))
})
