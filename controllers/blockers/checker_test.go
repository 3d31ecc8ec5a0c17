package blockers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

var backups = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "backup"}}

var _ = Describe("The blockers", func() {
	var (
		checker *Checker
		node    *corev1.Node
	)
	BeforeEach(func() {
		checker, _ = newChecker("nodepatch")
		node = newNode()
	})
	check := func(pods ...v1alpha1.PodBlocker) *Block {
		return checker.Check(ctx, node, &v1alpha1.Blockers{Pods: pods})
	}

	It("hold no node back where there are none", func() {
		Expect(checker.Check(ctx, node, nil)).To(BeNil())
		Expect(check(v1alpha1.PodBlocker{Selector: backups})).To(BeNil())
	})

	It("are pods on the node that have not ended", func() {
		for i := range 5 {
			addPod(node.Name, "vault", fmt.Sprintf("%s-%d", node.Name, i), corev1.PodRunning)
		}
		Expect(check(v1alpha1.PodBlocker{Selector: backups})).To(Equal(&Block{
			Reason: v1alpha1.ReasonBlockedByPod,
			Message: fmt.Sprintf("Pods on the node hold it back until they have ended: vault/%[1]s-0, vault/%[1]s-1, vault/%[1]s-2 and others",
				node.Name),
		}))
		Expect(check(v1alpha1.PodBlocker{Namespace: "vault", Selector: backups})).NotTo(BeNil())
		Expect(check(v1alpha1.PodBlocker{Namespace: "shop", Selector: backups})).To(BeNil(), "of another namespace")
		Expect(check(v1alpha1.PodBlocker{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}})).To(BeNil())
		node = newNode()
		Expect(check(v1alpha1.PodBlocker{Selector: backups})).To(BeNil(), "on another node")
	})

	It("are no pods that have ended, but such that have not begun", func() {
		addPod(node.Name, "vault", node.Name+"-done", corev1.PodSucceeded)
		addPod(node.Name, "vault", node.Name+"-failed", corev1.PodFailed)
		Expect(check(v1alpha1.PodBlocker{Selector: backups})).To(BeNil())
		addPod(node.Name, "vault", node.Name+"-new", corev1.PodPending)
		Expect(check(v1alpha1.PodBlocker{Selector: backups})).To(HaveField("Reason", v1alpha1.ReasonBlockedByPod))
	})

	It("hold a node back where they cannot be read", func() {
		block := check(v1alpha1.PodBlocker{Selector: &metav1.LabelSelector{
			MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Is"}},
		}})
		Expect(block).To(SatisfyAll(
			HaveField("Reason", v1alpha1.ReasonBlockerUnknown), HaveField("Message", HavePrefix("The selector of blockers.pods[0] cannot be read: ")),
		))
		over, cancel := context.WithCancel(ctx)
		cancel()
		Expect(checker.Check(over, node, &v1alpha1.Blockers{Pods: []v1alpha1.PodBlocker{{Selector: backups}}})).To(
			HaveField("Reason", v1alpha1.ReasonBlockerUnknown))
		Expect(checker.Coordinator(over, node.Name)).To(HaveField("Reason", v1alpha1.ReasonBlockerUnknown))
	})

	It("are asked in the order of the API", func() {
		addPod(node.Name, "vault", node.Name, corev1.PodRunning)
		node.Status.Conditions = append(node.Status.Conditions, corev1.NodeCondition{Type: "DiskPressure", Status: corev1.ConditionTrue})
		lend(node.Name, "other", time.Now(), time.Hour)
		all := &v1alpha1.Blockers{
			Pods:           []v1alpha1.PodBlocker{{Selector: backups}},
			NodeConditions: []v1alpha1.NodeConditionBlocker{{Type: "DiskPressure"}},
			Prometheus:     &v1alpha1.PrometheusBlocker{URL: "http://127.0.0.1:1"},
		}
		reason := func() string { return checker.Check(ctx, node, all).Reason }
		Expect(reason()).To(Equal(v1alpha1.ReasonBlockedByPod))
		all.Pods = nil
		Expect(reason()).To(Equal(v1alpha1.ReasonBlockedByCondition))
		all.NodeConditions = nil
		Expect(reason()).To(Equal(v1alpha1.ReasonBlockedByAlert))
		all.Prometheus = nil
		Expect(reason()).To(Equal(v1alpha1.ReasonBlockedByCoordinator))
	})

	It("are kured, where it holds this node", func() {
		lock := `{"nodeID":%q,"metadata":{"unschedulable":false},"created":%q,"TTL":%d}`
		now := time.Now().UTC().Format(time.RFC3339Nano)
		lockKured(fmt.Sprintf(lock, node.Name, now, 0))
		Expect(checker.Coordinator(ctx, node.Name)).To(Equal(&Block{
			Reason:  v1alpha1.ReasonBlockedByCoordinator,
			Message: "Kured holds the node, by the annotation weave.works/kured-node-lock on the DaemonSet kube-system/kured",
		}))
		Expect(checker.Coordinator(ctx, newNode().Name)).To(BeNil(), "kured is at work on another node")
		Expect(New(manager, manager, Options{}).Coordinator(ctx, node.Name)).To(BeNil(), "a manager that was told of no kured")
	})

	It("are not kured, where its lock on this node has expired", func() {
		checker, clock := newChecker("nodepatch")
		lock := fmt.Sprintf(`{"nodeID":%q,"created":%q,"TTL":%d}`, node.Name, clock.Now().UTC().Format(time.RFC3339Nano), time.Hour)
		lockKured(fmt.Sprintf(`{"maxOwners":2,"locks":[{"nodeID":"other","created":"2026-01-01T00:00:00Z","TTL":0},%s]}`, lock))
		Expect(checker.Coordinator(ctx, node.Name)).NotTo(BeNil())
		clock.SetTime(clock.Now().Add(time.Hour))
		Expect(checker.Coordinator(ctx, node.Name)).To(BeNil())
	})

	It("are kured, where its lock cannot be read", func() {
		lockKured("mine")
		Expect(checker.Coordinator(ctx, node.Name)).To(SatisfyAll(
			HaveField("Reason", v1alpha1.ReasonBlockerUnknown), HaveField("Message", ContainSubstring("the DaemonSet kube-system/kured, cannot be read")),
		))
	})
})

func TestConditions(t *testing.T) {
	node := &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
		{Type: "Ready", Status: corev1.ConditionTrue, Reason: "KubeletReady"},
		{Type: "DiskPressure", Status: corev1.ConditionFalse, Reason: "Enough"},
		{Type: "KernelDeadlock", Status: corev1.ConditionUnknown, Reason: "NoAnswer"},
	}}}
	for name, test := range map[string]struct {
		blocker v1alpha1.NodeConditionBlocker
		want    string
	}{
		"of the default status":   {v1alpha1.NodeConditionBlocker{Type: "Ready"}, v1alpha1.ReasonBlockedByCondition},
		"of another status":       {v1alpha1.NodeConditionBlocker{Type: "DiskPressure"}, ""},
		"of the status asked for": {v1alpha1.NodeConditionBlocker{Type: "DiskPressure", Status: corev1.ConditionFalse}, v1alpha1.ReasonBlockedByCondition},
		"of which nobody knows":   {v1alpha1.NodeConditionBlocker{Type: "KernelDeadlock", Status: corev1.ConditionTrue}, v1alpha1.ReasonBlockerUnknown},
		"asked to be unknown":     {v1alpha1.NodeConditionBlocker{Type: "KernelDeadlock", Status: corev1.ConditionUnknown}, v1alpha1.ReasonBlockedByCondition},
		"that is not there":       {v1alpha1.NodeConditionBlocker{Type: "Frozen"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if block := conditions(node, []v1alpha1.NodeConditionBlocker{test.blocker}); block != nil {
				got = block.Reason
			}
			if got != test.want {
				t.Errorf("The reason is %q, want %q", got, test.want)
			}
		})
	}
}

// A message that differs from one attempt to the next would be written to the status each time.
func TestPlain(t *testing.T) {
	local, remote := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 40123}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 9090}
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"a connection that breaks": {
			&net.OpError{Op: "read", Net: "tcp", Source: local, Addr: remote, Err: errors.New("connection reset by peer")}, "connection reset by peer",
		},
		"a host that is not there": {&net.DNSError{Err: "no such host", Name: "prom", Server: "10.0.0.10:53", IsNotFound: true}, "there is no host prom"},
		"a name server that is away": {
			&net.OpError{Op: "dial", Err: &net.DNSError{Err: "read udp 10.0.0.1:40123->10.0.0.10:53: i/o timeout", Name: "prom", IsTimeout: true}},
			"the host name prom cannot be resolved",
		},
		"no answer": {fmt.Errorf("asking: %w", context.DeadlineExceeded), "it did not answer in time"},
		"another":   {errors.New("bad gateway"), "bad gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := plain(test.err); got != test.want {
				t.Errorf("The error reads %q, want %q", got, test.want)
			}
		})
	}
}
