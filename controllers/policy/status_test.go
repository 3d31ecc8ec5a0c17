package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func observe(name string, policies []v1alpha1.PatchPolicy, nodes []corev1.Node, reports ...*v1alpha1.PatchReport) observation {
	seen := observation{
		membership: Govern(policies, nodes), now: now,
		nodes: map[string]*corev1.Node{}, reports: map[string]*v1alpha1.PatchReport{}, assignments: map[string]*v1alpha1.PatchAssignment{},
	}
	for i := range nodes {
		seen.nodes[nodes[i].Name] = &nodes[i]
	}
	for i := range policies {
		if policies[i].Name == name {
			seen.policy = &policies[i]
		}
	}
	for _, report := range reports {
		seen.reports[report.Name] = report
	}
	return seen
}

func scanned(node string, age time.Duration, missing, security int32, reboot v1alpha1.RebootState) *v1alpha1.PatchReport {
	return &v1alpha1.PatchReport{
		ObjectMeta: metav1.ObjectMeta{Name: node},
		Status: v1alpha1.PatchReportStatus{
			Scan: &v1alpha1.ScanRun{Time: new(metav1.NewTime(now.Add(-age)))},
			Counts: &v1alpha1.ReportCounts{PatchCounts: v1alpha1.PatchCounts{
				Missing: missing, Security: security, Bugfix: 1, Enhancement: 2, Other: 3, Held: 4, KeptBack: 5,
				Phased: 6, Excluded: 7, Installed: 8, Failed: 9, Blocked: 10, Downloaded: 11,
			}},
			Reboot: &v1alpha1.Reboot{State: reboot},
		},
	}
}

func TestConditions(t *testing.T) {
	workers := map[string]string{"pool": "workers"}
	twoWorkers := []corev1.Node{newNode("w1", workers), newNode("w2", workers), newNode("other", nil)}
	never := v1alpha1.Schedule("0 0 30 2 *")
	tests := map[string]struct {
		policies        []v1alpha1.PatchPolicy // the first is the one that is looked at
		nodes           []corev1.Node
		change          func(*observation)
		wantReady       metav1.ConditionStatus
		wantReason      string
		wantMessage     string
		wantConflicting string // message
	}{
		"governs": {
			policies: []v1alpha1.PatchPolicy{newPolicy("p", workers)}, nodes: twoWorkers,
			wantReady: metav1.ConditionTrue, wantReason: v1alpha1.ReasonGoverning, wantMessage: "Governs 2 nodes",
		},
		"governs one": {
			policies: []v1alpha1.PatchPolicy{newPolicy("p", workers)}, nodes: twoWorkers[1:],
			wantReady: metav1.ConditionTrue, wantReason: v1alpha1.ReasonGoverning, wantMessage: "Governs 1 node",
		},
		"governs some": {
			policies: []v1alpha1.PatchPolicy{newPolicy("p", nil), newPolicy("w", workers, priority(1))}, nodes: twoWorkers,
			wantReady: metav1.ConditionTrue, wantReason: v1alpha1.ReasonGoverning,
			wantMessage: "Governs 1 of the 3 nodes it selects; the others belong to w",
		},
		"suspended": {
			policies: []v1alpha1.PatchPolicy{newPolicy("p", workers)}, nodes: twoWorkers,
			change:    func(o *observation) { o.policy.Spec.Suspend = true },
			wantReady: metav1.ConditionTrue, wantReason: v1alpha1.ReasonGoverning,
			wantMessage: "Governs 2 nodes; suspended, so that it starts nothing",
		},
		"selects no node": {
			policies: []v1alpha1.PatchPolicy{newPolicy("p", map[string]string{"pool": "wrokers"})}, nodes: twoWorkers,
			wantReady: metav1.ConditionTrue, wantReason: v1alpha1.ReasonNoNodes,
			wantMessage: "No Linux node has the labels of spec.nodeSelector: pool=wrokers",
		},
		"selects every node of none": {
			policies:  []v1alpha1.PatchPolicy{newPolicy("p", nil)},
			wantReady: metav1.ConditionTrue, wantReason: v1alpha1.ReasonNoNodes, wantMessage: "The cluster has no Linux node",
		},
		"overruled": {
			policies:  []v1alpha1.PatchPolicy{newPolicy("p", workers), newPolicy("all", nil, priority(1))},
			nodes:     twoWorkers,
			wantReady: metav1.ConditionTrue, wantReason: v1alpha1.ReasonOverruled,
			wantMessage: "Governs none of the 2 nodes it selects, as policies that come before it do: all",
		},
		"invalid selector": {
			policies: []v1alpha1.PatchPolicy{newPolicy("p", workers)}, nodes: twoWorkers,
			change: func(o *observation) {
				o.policy.Spec.NodeSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "x", Operator: "Near"}}
				o.membership = Govern([]v1alpha1.PatchPolicy{*o.policy}, twoWorkers)
			},
			wantReady: metav1.ConditionFalse, wantReason: v1alpha1.ReasonInvalidSelector, wantMessage: `"Near"`,
		},
		"a schedule that never comes true goes before having no nodes": {
			policies: []v1alpha1.PatchPolicy{newPolicy("p", workers)},
			change: func(o *observation) {
				o.policy.Spec.Tasks = []v1alpha1.NamedTask{{Name: "weekly", Schedule: &never, TimeZone: "UTC"}}
			},
			wantReady: metav1.ConditionFalse, wantReason: v1alpha1.ReasonInvalidSchedule,
			wantMessage: `Task weekly: schedule "0 0 30 2 *" never comes true`,
		},
		"no admission policy": {
			policies: []v1alpha1.PatchPolicy{newPolicy("p", workers)}, nodes: twoWorkers,
			change:    func(o *observation) { o.guardGaps = []string{"ValidatingAdmissionPolicy x does not exist"} },
			wantReady: metav1.ConditionFalse, wantReason: v1alpha1.ReasonAdmissionMissing,
			wantMessage: "ValidatingAdmissionPolicy x does not exist; without it an agent could write other nodes' objects, so that no agents run: apply config/admission (kubectl apply -k config/admission)",
		},
		"conflicts": {
			policies:  []v1alpha1.PatchPolicy{newPolicy("p", workers, priority(7)), newPolicy("q", nil, priority(7))},
			nodes:     twoWorkers,
			wantReady: metav1.ConditionTrue, wantReason: v1alpha1.ReasonGoverning, wantMessage: "Governs 2 nodes",
			wantConflicting: "Policy q also has priority 7 and selects w1, w2. The oldest of them comes first; give each a priority of its own",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			seen := observe(test.policies[0].Name, test.policies, test.nodes)
			seen.policy.Generation = 3
			if test.change != nil {
				test.change(&seen)
			}
			status := seen.status()
			if status.ObservedGeneration != 3 {
				t.Errorf("observed generation %d, want 3", status.ObservedGeneration)
			}
			ready := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady)
			if ready == nil || ready.Status != test.wantReady || ready.Reason != test.wantReason ||
				!strings.Contains(ready.Message, test.wantMessage) {
				t.Errorf("got Ready %+v, want %s, %s, %q", ready, test.wantReady, test.wantReason, test.wantMessage)
			}
			if stalled := meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionStalled); stalled == (test.wantReady == metav1.ConditionTrue) {
				t.Errorf("got Stalled %t beside Ready %s", stalled, test.wantReady)
			}
			if !meta.IsStatusConditionFalse(status.Conditions, v1alpha1.ConditionReconciling) {
				t.Error("the status is written and Reconciling is not False")
			}
			conflicting := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionConflicting)
			if test.wantConflicting == "" {
				if conflicting == nil || conflicting.Status != metav1.ConditionFalse {
					t.Errorf("got Conflicting %+v, want it False", conflicting)
				}
			} else if conflicting == nil || conflicting.Status != metav1.ConditionTrue || conflicting.Message != test.wantConflicting {
				t.Errorf("got Conflicting %+v, want %q", conflicting, test.wantConflicting)
			}
			again := seen
			again.policy = seen.policy.DeepCopy()
			again.policy.Status = status
			again.now = now.Add(time.Minute)
			if got := again.status(); !equality.Semantic.DeepEqual(status, got) {
				t.Errorf("a second look changes the status (-first +second):\n%s", cmp.Diff(status, got))
			}
		})
	}
}

func TestMessagesAreBounded(t *testing.T) {
	var nodes []corev1.Node
	policies := []v1alpha1.PatchPolicy{newPolicy("p", nil)}
	for i := range 30 {
		nodes = append(nodes, newNode(strings.Repeat("n", 200)+string(rune('a'+i%26))+string(rune('a'+i/26)), nil))
		policies = append(policies, newPolicy("q"+string(rune('a'+i%26))+string(rune('a'+i/26)), nil))
	}
	seen := observe("p", policies, nodes)
	for _, condition := range seen.status().Conditions {
		if len(condition.Message) > messageLimit {
			t.Errorf("the message of %s has %d bytes", condition.Type, len(condition.Message))
		}
	}
	conflict := seen.conflictMessage([]Conflict{
		{Policy: "a", Count: 6, Nodes: []string{"1", "2", "3", "4", "5"}}, {Policy: "b", Count: 1, Nodes: []string{"1"}},
		{Policy: "c"}, {Policy: "d"}, {Policy: "e"}, {Policy: "f"}, {Policy: "g"},
	})
	for _, want := range []string{"selects 1, 2, 3, 4, 5 and 1 more", "; so do 2 more policies"} {
		if !strings.Contains(conflict, want) {
			t.Errorf("got %q, want it to say %q", conflict, want)
		}
	}
	if got := shorten(strings.Repeat("ü", messageLimit)); len(got) > messageLimit || strings.ContainsRune(got, '�') {
		t.Errorf("a long message is cut to %d bytes, or within a rune", len(got))
	}
}

func TestTotals(t *testing.T) {
	workers := map[string]string{"pool": "workers"}
	policies := []v1alpha1.PatchPolicy{newPolicy("p", nil), newPolicy("strong", workers, priority(1))}
	policies[0].Spec.MaxScanAge = &metav1.Duration{Duration: 24 * time.Hour}
	nodes := []corev1.Node{
		newNode("missing", nil), newNode("patched", nil), newNode("old", nil), newNode("exactly", nil),
		newNode("silent", nil), newNode("failed", nil), newNode("never", nil), newNode("foreign", workers),
	}
	neverScanned := func(name string, age time.Duration) *v1alpha1.PatchReport {
		return &v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(now.Add(-age))}}
	}
	since := func(report *v1alpha1.PatchReport, age time.Duration) *v1alpha1.PatchReport {
		report.Status.Counts.OldestSecurity = &metav1.Time{Time: now.Add(-age)}
		return report
	}
	seen := observe("p", policies, nodes,
		since(scanned("missing", time.Hour, 10, 4, v1alpha1.RebootRequired), 10*24*time.Hour),
		scanned("patched", 2*time.Hour, 0, 0, v1alpha1.RebootNotRequired),
		scanned("old", 25*time.Hour, 0, 0, v1alpha1.RebootUnknown),
		since(scanned("exactly", 24*time.Hour, 5, 1, v1alpha1.RebootRequired), 40*24*time.Hour),
		since(scanned("foreign", time.Hour, 100, 100, v1alpha1.RebootRequired), 90*24*time.Hour),
		neverScanned("failed", time.Hour),
		neverScanned("never", 25*time.Hour),
	)
	for name, node := range seen.nodes {
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		seen.assignments[name] = &v1alpha1.PatchAssignment{
			Status: v1alpha1.PatchAssignmentStatus{Controller: &v1alpha1.ControllerStatus{Agent: v1alpha1.AgentReady}},
		}
	}
	seen.nodes["old"].Status.Conditions[0].Status = corev1.ConditionUnknown
	seen.nodes["exactly"].Status.Conditions = nil
	seen.assignments["missing"].Status.Controller.Agent = v1alpha1.AgentNotReady
	seen.assignments["patched"].Status.Controller = nil
	delete(seen.assignments, "silent")
	seen.nodes["foreign"].Status.Conditions = nil

	gotNodes, gotPatches, gotOldest := seen.totals()
	wantNodes := &v1alpha1.PolicyNodeCounts{
		Selected: 8, Governed: 7, Scanned: 2, Patched: 1, RebootRequired: 2, Overdue: 3, Unreachable: 5,
	}
	wantPatches := &v1alpha1.PatchCounts{
		Missing: 15, Security: 5, Bugfix: 4, Enhancement: 8, Other: 12, Held: 16, KeptBack: 20,
		Phased: 24, Excluded: 28, Installed: 32, Failed: 36, Blocked: 40, Downloaded: 44,
	}
	if diff := cmp.Diff(wantNodes, gotNodes); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantPatches, gotPatches); diff != "" {
		t.Errorf("patches (-want +got):\n%s", diff)
	}
	if want := now.Add(-40 * 24 * time.Hour); gotOldest == nil || !gotOldest.Time.Equal(want) {
		t.Errorf("the oldest security patch is of %v, want %v", gotOldest, want)
	}
	if got := seen.nextOverdue(); got != 22*time.Hour {
		t.Errorf("looks again in %v, want 22h: then the scan of \"patched\" is too old", got)
	}

	policies[0].Spec.MaxScanAge = nil
	wantNodes.Overdue, wantNodes.Scanned, wantNodes.Patched = 0, 4, 2
	gotNodes, _, _ = seen.totals()
	if diff := cmp.Diff(wantNodes, gotNodes); diff != "" {
		t.Errorf("nodes of a policy without maxScanAge (-want +got):\n%s", diff)
	}
	if got := seen.nextOverdue(); got != 0 {
		t.Errorf("looks again in %v, though no scan ever grows too old", got)
	}
}

func TestSooner(t *testing.T) {
	for _, test := range []struct{ a, b, want time.Duration }{{0, 0, 0}, {1, 0, 1}, {0, 1, 1}, {1, 2, 1}, {2, 1, 1}} {
		if got := sooner(test.a, test.b); got != test.want {
			t.Errorf("sooner(%d, %d) = %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

func TestStatusKeepsWhatOthersWrite(t *testing.T) {
	policies := []v1alpha1.PatchPolicy{newPolicy("p", nil)}
	policies[0].Status.Handled = &v1alpha1.HandledButtons{ClearLog: "token"}
	policies[0].Status.Tasks = []v1alpha1.ScheduledTask{{Name: "daily"}}
	policies[0].Status.NextRun = &epoch
	status := observe("p", policies, nil).status()
	if status.Handled == nil || status.Handled.ClearLog != "token" || len(status.Tasks) != 1 || status.NextRun == nil {
		t.Errorf("got %+v, which lost what others wrote", status)
	}
}
