package monitoring

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/agents"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

// names of the fleet's nodes.
var names = []string{"one", "two", "three"}

// makeFleet makes a policy with three nodes and their agents' pods, and waits until
// the manager has met them. The test plays the agents.
func makeFleet(t *testing.T, server *apiserver.Server, admin client.Client) {
	t.Helper()
	ctx := t.Context()
	for _, name := range names {
		if _, err := server.CreateNode(ctx, name, map[string]string{corev1.LabelOSStable: "linux"}); err != nil {
			t.Fatal(err)
		}
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "agent-" + name, Namespace: apiserver.Namespace, Labels: agents.PodLabels},
			Spec: corev1.PodSpec{
				NodeName: name, ServiceAccountName: apiserver.AgentAccount,
				Containers: []corev1.Container{{Name: "agent", Image: "nodepatch:dev"}},
			},
		}
		must(t, admin.Create(ctx, pod))
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		must(t, admin.Status().Update(ctx, pod))
	}
	must(t, admin.Create(ctx, &v1alpha1.PatchPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "workers"},
		Spec: v1alpha1.PatchPolicySpec{
			NodeSelector: &metav1.LabelSelector{}, MaxScanAge: &metav1.Duration{Duration: time.Hour},
		},
	}))
	for _, name := range names {
		eventually(t, "node "+name+" has an agent", func() bool {
			given := &v1alpha1.PatchAssignment{}
			return admin.Get(ctx, client.ObjectKey{Name: name}, given) == nil &&
				given.Status.Controller != nil && given.Status.Controller.Agent == v1alpha1.AgentReady
		})
	}
}

// report has an agent report what its node misses: security patches since long ago.
func report(t *testing.T, admin client.Client, name string, security int) {
	t.Helper()
	old, now := time.Now().Add(-20*24*time.Hour).UTC().Format(time.RFC3339), time.Now().UTC().Format(time.RFC3339)
	patchStatus(t, admin, &v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: name}}, fmt.Sprintf(`{
		"agentVersion":"v1","os":{"name":"Debian GNU/Linux 12 (bookworm)"},"kernel":{"running":"6.1.0"},"packageManager":{"name":"apt"},
		"scan":{"time":%q},"patchData":{"time":%q},"reboot":{"state":"Required"},
		"counts":{"missing":%d,"security":%d,"bugfix":2,"enhancement":0,"other":0,"held":0,"keptBack":0,"phased":0,"excluded":0,"downloaded":0,
			"installed":0,"failed":0,"blocked":0,"critical":0,"important":1,"moderate":0,"low":0,"newPackages":0,"downloadBytes":0,"oldestSecurity":%q},
		"conditions":[{"type":"Scanned","status":"True","reason":"Scanned","message":"","lastTransitionTime":%q}]}`,
		now, now, security+2, security, old, now))
}

// start starts a task, and waits until its nodes were asked.
func start(t *testing.T, admin client.Client, name string, template v1alpha1.TaskTemplate) {
	t.Helper()
	must(t, admin.Create(t.Context(), &v1alpha1.PatchTask{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.PatchTaskSpec{Policy: "workers", Template: &template},
	}))
	for _, node := range names {
		eventually(t, "node "+node+" is asked by "+name, func() bool {
			given := assignment(t, admin, node)
			return given.Spec.Operation != nil && given.Spec.Operation.Task == name
		})
	}
}

// answer has an agent say where it stands with what it was asked.
func answer(t *testing.T, admin client.Client, node string, step v1alpha1.Step, reason string) {
	t.Helper()
	given := assignment(t, admin, node)
	patchStatus(t, admin, given, fmt.Sprintf(`{"agent":{"operationID":%q,"task":%q,"step":%q,"reason":%q,"time":%q,"version":"v1",
		"counts":{"missing":3,"security":1,"bugfix":2,"enhancement":0,"other":0,"held":0,"keptBack":0,"phased":0,"excluded":0,"downloaded":1,"installed":2,"failed":0,"blocked":0}}}`,
		given.Spec.Operation.ID, given.Spec.Operation.Task, step, reason, time.Now().UTC().Format(time.RFC3339)))
}

func assignment(t *testing.T, admin client.Client, node string) *v1alpha1.PatchAssignment {
	t.Helper()
	given := &v1alpha1.PatchAssignment{}
	must(t, admin.Get(t.Context(), client.ObjectKey{Name: node}, given))
	return given
}

func phase(ctx context.Context, admin client.Client, task string) v1alpha1.TaskPhase {
	existing := &v1alpha1.PatchTask{}
	if err := admin.Get(ctx, client.ObjectKey{Name: task}, existing); err != nil {
		return ""
	}
	return existing.Status.Phase
}

func patchStatus(t *testing.T, admin client.Client, object client.Object, status string) {
	t.Helper()
	patch := client.RawPatch(types.MergePatchType, []byte(`{"status":`+strings.TrimSpace(status)+`}`))
	must(t, admin.Status().Patch(t.Context(), object, patch))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until something is so, which the programs bring about by themselves.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("Waited in vain: %s", what)
		}
	}
}
