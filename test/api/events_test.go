package api

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

// What the policies for events answer.
const (
	notAboutNode = "may only write events regarding its own node"
	notItsOwn    = "has its label nodepatch.io/node, its reporting component and instance, and a name of its own"
	neverChanged = "an entry of the patch log is never changed"
	notManagers  = "the manager writes entries of the patch log under its own name, nodepatch.io/manager"
	notPatchLog  = "the manager removes entries of the patch log and no other events"
)

// entry is an event as the agent of node-a writes it.
func entry() *corev1.Event {
	now := time.Now().Truncate(time.Second)
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Name: "node-a.a0123456789abcdef0123", Namespace: patchlog.Namespace,
			Labels: map[string]string{v1alpha1.NodeLabel: "node-a", v1alpha1.TaskLabel: "weekly"},
		},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: "node-a", UID: "node-a"},
		Related:        &corev1.ObjectReference{APIVersion: "nodepatch.io/v1alpha1", Kind: "PatchTask", Name: "weekly"},
		Type:           "Normal", Reason: v1alpha1.EventScanStarted, Message: "Scan begins", Action: "Patch",
		EventTime: metav1.NewMicroTime(now), FirstTimestamp: metav1.NewTime(now), LastTimestamp: metav1.NewTime(now), Count: 1,
		ReportingController: string(patchlog.AgentComponent), ReportingInstance: "node-a",
	}
}

// converted is the event as a client of events.k8s.io/v1 writes it.
func converted(event *corev1.Event) *eventsv1.Event {
	return &eventsv1.Event{
		ObjectMeta: event.ObjectMeta, Regarding: event.InvolvedObject, Related: event.Related,
		Type: event.Type, Reason: event.Reason, Note: event.Message, Action: event.Action, EventTime: event.EventTime,
		ReportingController: event.ReportingController, ReportingInstance: event.ReportingInstance,
	}
}

var _ = Describe("an agent's events", Ordered, func() {
	var config *rest.Config
	var agent client.Client

	BeforeAll(func(ctx SpecContext) {
		var err error
		config, err = server.AgentConfig(ctx, "node-a")
		Expect(err).NotTo(HaveOccurred())
		agent = clientOf(config)
	})

	DescribeTable("are refused",
		func(ctx SpecContext, change func(*corev1.Event), refused string) {
			event := entry()
			change(event)
			Expect(agent.Create(ctx, event.DeepCopy(), client.DryRunAll)).To(beForbidden(refused))
			more := withMoreRights(ctx, config)
			Expect(more.Create(ctx, converted(event), client.DryRunAll)).To(beForbidden(refused), "as events.k8s.io/v1")
		},
		Entry("about another node", func(e *corev1.Event) { e.InvolvedObject.Name = "node-b" }, notAboutNode),
		Entry("about a task", func(e *corev1.Event) { e.InvolvedObject.Kind = "PatchTask" }, notAboutNode),
		Entry("with another node's label", func(e *corev1.Event) { e.Labels[v1alpha1.NodeLabel] = "node-b" }, notItsOwn),
		Entry("without the label", func(e *corev1.Event) { delete(e.Labels, v1alpha1.NodeLabel) }, notItsOwn),
		Entry("without labels", func(e *corev1.Event) { e.Labels = nil }, notItsOwn),
		Entry("as the manager", func(e *corev1.Event) { e.ReportingController = string(patchlog.ManagerComponent) }, notItsOwn),
		Entry("as kubelet", func(e *corev1.Event) { e.ReportingController = "kubelet" }, notItsOwn),
		Entry("as another agent", func(e *corev1.Event) { e.ReportingInstance = "node-b" }, notItsOwn),
		Entry("under the manager's name for it", func(e *corev1.Event) { e.Name = "node-a.m0123456789abcdef0123" }, notItsOwn),
		Entry("under another node's name", func(e *corev1.Event) { e.Name = "node-b.a0123456789abcdef0123" }, notItsOwn),
		Entry("under the name of a node that begins alike", func(e *corev1.Event) { e.Name = "node-a.example.a0123456789abcdef0123" }, notItsOwn),
		Entry("under a name of no pattern", func(e *corev1.Event) { e.Name = "node-a.x" }, notItsOwn),
	)

	It("are accepted about its node, by both APIs", func(ctx SpecContext) {
		Expect(agent.Create(ctx, entry(), client.DryRunAll)).To(Succeed())
		Expect(withMoreRights(ctx, config).Create(ctx, converted(entry()), client.DryRunAll)).To(Succeed())
	})
	It("are written only where the log is, and by the role only through core/v1", func(ctx SpecContext) {
		elsewhere := entry()
		elsewhere.Namespace = apiserver.Namespace
		Expect(agent.Create(ctx, elsewhere, client.DryRunAll)).To(beForbidden(byRole))
		Expect(agent.Create(ctx, converted(entry()), client.DryRunAll)).To(beForbidden(byRole))
	})
	It("are refused with a token of no pod, or of a pod on no node", func(ctx SpecContext) {
		pod, err := server.AgentPod(ctx, "")
		Expect(err).NotTo(HaveOccurred())
		for _, pod := range []*corev1.Pod{nil, pod} {
			config, err := server.AccountConfig(ctx, apiserver.AgentAccount, pod)
			Expect(err).NotTo(HaveOccurred())
			Expect(clientOf(config).Create(ctx, entry(), client.DryRunAll)).To(beForbidden(noNode))
		}
	})
	It("are never changed and never deleted", func(ctx SpecContext) {
		stored := entry()
		Expect(agent.Create(ctx, stored)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, stored)).To(Succeed()) })
		refuses := func(c client.Client, refused string) {
			GinkgoHelper()
			Expect(c.Update(ctx, stored.DeepCopy())).To(beForbidden(refused))
			Expect(c.Patch(ctx, stored.DeepCopy(), mergePatch(`{"message":"else"}`))).To(beForbidden(refused))
			Expect(c.Delete(ctx, stored.DeepCopy())).To(beForbidden(refused))
			Expect(c.DeleteAllOf(ctx, &corev1.Event{}, client.InNamespace(patchlog.Namespace))).To(beForbidden(refused))
		}
		refuses(agent, byRole)
		refuses(withMoreRights(ctx, config), neverChanged)
	})
})

var _ = Describe("the manager's events", Ordered, func() {
	var manager client.Client

	// managers is an event as the manager writes it.
	managers := func() *corev1.Event {
		event := entry()
		event.Name = strings.Replace(event.Name, ".a", ".m", 1)
		event.ReportingController, event.ReportingInstance = string(patchlog.ManagerComponent), "nodepatch-manager-0"
		return event
	}

	BeforeAll(func(ctx SpecContext) {
		config, err := server.ManagerConfig(ctx)
		Expect(err).NotTo(HaveOccurred())
		manager = clientOf(config)
	})

	It("are accepted in the patch log, and in its own namespace", func(ctx SpecContext) {
		Expect(manager.Create(ctx, managers(), client.DryRunAll)).To(Succeed())
		leader := managers()
		leader.Namespace, leader.ReportingController = apiserver.Namespace, "nodepatch-manager"
		leader.InvolvedObject = corev1.ObjectReference{APIVersion: "coordination.k8s.io/v1", Kind: "Lease", Name: "a", Namespace: apiserver.Namespace}
		Expect(manager.Create(ctx, leader, client.DryRunAll)).To(Succeed())
	})
	It("are refused under another's name, and elsewhere", func(ctx SpecContext) {
		for _, component := range []string{string(patchlog.AgentComponent), "kubelet"} {
			event := managers()
			event.ReportingController = component
			Expect(manager.Create(ctx, event, client.DryRunAll)).To(beForbidden(notManagers))
		}
		elsewhere := managers()
		elsewhere.Namespace = metav1.NamespaceSystem
		Expect(manager.Create(ctx, elsewhere, client.DryRunAll)).To(beForbidden(byRole))
	})
	It("are never changed, and no other's are removed, whatever a role allows", func(ctx SpecContext) {
		others, own := managers(), managers()
		others.Name, others.ReportingController = "others", "kubelet"
		for _, event := range []*corev1.Event{others, own} {
			Expect(admin.Create(ctx, event)).To(Succeed())
			DeferCleanup(func(ctx SpecContext) { Expect(client.IgnoreNotFound(admin.Delete(ctx, event))).To(Succeed()) })
		}
		Expect(manager.Delete(ctx, others.DeepCopy())).To(beForbidden(notPatchLog))
		Expect(manager.Delete(ctx, own.DeepCopy(), client.DryRunAll)).To(Succeed(), "that is how the log is cleared")
		for _, event := range []*corev1.Event{others, own} {
			Expect(manager.Patch(ctx, event.DeepCopy(), mergePatch(`{"message":"else"}`))).To(beForbidden(byRole))
		}
		grant(ctx, "extra-manager", `- {apiGroups: [""], resources: [events], verbs: ["*"]}`, apiserver.ManagerAccount)
		Eventually(func() error { return manager.List(ctx, &corev1.EventList{}) }).Should(Succeed(), "the role is known everywhere")
		Expect(manager.Delete(ctx, others.DeepCopy())).To(beForbidden(notPatchLog))
		Expect(manager.Patch(ctx, others.DeepCopy(), mergePatch(`{"message":"else"}`))).To(beForbidden("nodepatch-manager-events"))
		Expect(manager.Patch(ctx, own.DeepCopy(), mergePatch(`{"message":"else"}`))).To(beForbidden(neverChanged))
		Expect(manager.Delete(ctx, own.DeepCopy())).To(Succeed())
	})
})
