package buttons

import (
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver/specs"
)

// aftermath is what there is to see after a press of another button than that of
// a PatchRetry.
type aftermath struct {
	Presses     int64
	Memory      string
	InProgress  bool
	Annotations map[string]string
	Answers     []string
	// Left are the entries of the patch log about node a, in all.
	Left int
	// Refreshes and retries of each node.
	Refreshes map[string]int64
	Retries   map[string]string
	Clears    map[string]int64
	Cleared   map[string][]string
	// HostClears are what each node's agent is to delete.
	HostClears map[string][]string
}

// onTwo is a button of a policy that governs two nodes.
func onTwo(name string) pressable {
	b := pressables[name]
	b.text = strings.Replace(b.text, "1 node", "2 nodes", 1)
	return b
}

// goThrough presses a button while a write of the first manager goes wrong. As soon
// as a node's counts are cleared its agent counts another failure, and as soon as
// the press has begun another entry is written.
func goThrough(b pressable, victim *specs.Process) aftermath {
	GinkgoHelper()
	base, err := client.NewWithWatch(server.Config, client.Options{Scheme: admin.Scheme(), Mapper: admin.RESTMapper()})
	Expect(err).NotTo(HaveOccurred())
	nodes := []string{"a", "b"}
	for _, node := range nodes {
		addNode(node)
	}
	bare := retryNow("b")
	bare.Status.Patches = nil
	bare.Status.Summarize()
	Expect(admin.Status().Update(ctx, bare)).To(Succeed())
	enter("a", "scan-now", "workers", 0, 3)
	object := b.make()
	pressOn(object, b.annotation, b.token)

	victim.Log = events
	current := victim
	counted, entered := map[string]bool{}, false
	for range 30 {
		p := newPresses()
		p.Client, p.Log = current.Client(base, nil), current
		p.Entries = p.Client
		result, err := lookAt(p, object)
		idle := err == nil && result.IsZero()
		if !entered && pressOf(read(object)) != nil {
			entered = true
			enter("a", "scan-now", "workers", 10, 11)
		}
		for _, node := range nodes {
			r := newReconciler()
			r.Client, r.Log = p.Client, current
			// Counted between the write that clears and those that tell of it.
			if h := retryNow(node).Status.Handled; !counted[node] && h != nil && h.PolicyPress != "" {
				counted[node] = true
				count(node, "spam")
			}
			result, err := look(r, node)
			idle = idle && err == nil && result.IsZero()
		}
		if idle {
			break
		}
		if current.Killed() {
			current = &specs.Process{At: -1, Log: events}
		}
	}
	if !entered {
		enter("a", "scan-now", "workers", 10, 11)
	}
	read(object)
	end := aftermath{
		Presses: (*handledOf(object)).Presses, Memory: *memory(*handledOf(object), b.annotation), InProgress: pressOf(object) != nil,
		Annotations: object.GetAnnotations(), Answers: said(b.kind, b.name, b.reason), Left: entries(v1alpha1.NodeLabel, "a"),
		Refreshes: map[string]int64{}, Retries: map[string]string{}, Clears: map[string]int64{}, Cleared: map[string][]string{},
		HostClears: map[string][]string{},
	}
	for i := range end.Answers {
		if b.annotation == v1alpha1.ClearLogAnnotation {
			end.Answers[i] = b.text // what follows is the time
		}
	}
	for _, node := range nodes {
		retry, assignment := retryNow(node), assignmentNow(node)
		end.Refreshes[node], end.Clears[node] = assignment.Spec.PatchDataRefreshes, assignment.Spec.RetryClears
		end.Retries[node], end.Cleared[node], end.HostClears[node] = retry.Status.Summary, answers(node), hostClears(node)
	}
	removeAll()
	return end
}

var _ = Describe("A manager that dies with a press half done, or whose API server does", func() {
	DescribeTable("acts once, and answers, whichever write it happens to", func(b pressable, check func(aftermath)) {
		undisturbed := &specs.Process{At: -1}
		want := goThrough(b, undisturbed)
		Expect(want.Presses).To(BeEquivalentTo(1))
		Expect(want.Memory).To(Equal(b.token))
		Expect(want.InProgress).To(BeFalse())
		Expect(want.Annotations).To(BeEmpty())
		Expect(want.Answers).To(ConsistOf(HavePrefix(b.text)))
		check(want)
		for number := range undisturbed.Writes() {
			for _, mishap := range specs.Mishaps {
				Expect(goThrough(b, &specs.Process{At: number, Mishap: mishap})).To(Equal(want), fmt.Sprintf("write %d: %s", number, mishap))
			}
		}
	},
		Entry("clear-retries on a policy", onTwo("clear-retries on a policy"), func(end aftermath) {
			counted := "1 failed: spam 9.0 (1 download)"
			Expect(end.Retries).To(Equal(map[string]string{"a": counted, "b": counted}))
			Expect(end.Clears).To(Equal(map[string]int64{"a": 1, "b": 0}))
			Expect(end.Cleared).To(Equal(map[string][]string{"a": {everything}, "b": nil}))
		}),
		Entry("update-patch-data on a policy", onTwo("update-patch-data on a policy"), func(end aftermath) {
			Expect(end.Refreshes).To(Equal(map[string]int64{"a": 1, "b": 1}))
		}),
		Entry("update-patch-data on a report", pressables["update-patch-data on a report"], func(end aftermath) {
			Expect(end.Refreshes).To(Equal(map[string]int64{"a": 1, "b": 0}))
		}),
		Entry("clear-log on a policy", pressables["clear-log on a policy"], func(end aftermath) {
			Expect(end.Left).To(Equal(1), "what came since")
			Expect(end.HostClears).To(Equal(map[string][]string{"a": {"1 /workers"}, "b": {"1 /workers"}}))
		}),
		Entry("clear-log on a report", pressables["clear-log on a report"], func(end aftermath) {
			Expect(end.Left).To(Equal(2), "what came since, and the answer")
			Expect(end.HostClears).To(Equal(map[string][]string{"a": {"1 /"}, "b": nil}))
		}),
	)
})
