package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

// install brings everything back that another container took away: they come in any order.
func install() {
	GinkgoHelper()
	Expect(apiextensionsv1.AddToScheme(admin.Scheme())).To(Succeed())
	Eventually(func(g Gomega) {
		kinds := &apiextensionsv1.CustomResourceDefinitionList{}
		g.Expect(admin.List(ctx, kinds)).To(Succeed())
		for i := range kinds.Items {
			g.Expect(kinds.Items[i].DeletionTimestamp).To(BeNil(), "%s goes away", kinds.Items[i].Name)
		}
	}).Should(Succeed())
	Expect(server.Install(ctx)).To(Succeed())
}

// cleanUp ends the managers and leaves nothing of these nodes for another container.
func cleanUp(nodes []string) {
	GinkgoHelper()
	Expect(admin.DeleteAllOf(ctx, &v1alpha1.PatchTask{})).To(Succeed())
	Expect(admin.DeleteAllOf(ctx, &v1alpha1.PatchPolicy{})).To(Succeed())
	for _, node := range nodes {
		Eventually(health("PatchAssignment", node)).Should(BeEmpty())
	}
	quiet()
	for _, p := range started {
		p.stop()
	}
	for _, node := range nodes {
		for _, object := range []client.Object{
			&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "agent-" + node, Namespace: apiserver.Namespace}},
			&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}},
			&v1alpha1.PatchRetry{ObjectMeta: metav1.ObjectMeta{Name: node}},
		} {
			Expect(client.IgnoreNotFound(admin.Delete(ctx, object, client.GracePeriodSeconds(0)))).To(Succeed())
		}
	}
	Expect(admin.DeleteAllOf(ctx, &corev1.Event{}, client.InNamespace(metav1.NamespaceDefault))).To(Succeed())
}

// git applies what stands in Git, on the server's side and under a name of its own: a conflict is an error, unless
// it is told to take fields over.
func git(kind, name, spec string, options ...client.ApplyOption) error {
	GinkgoHelper()
	return applied(manifest(kind, name, spec), options...)
}

// gitPresses applies the same with an annotation.
func gitPresses(kind, name, annotation, value, spec string) error {
	GinkgoHelper()
	object := manifest(kind, name, spec)
	object.SetAnnotations(map[string]string{annotation: value})
	return applied(object)
}

func manifest(kind, name, spec string) *unstructured.Unstructured {
	GinkgoHelper()
	object := &unstructured.Unstructured{Object: map[string]any{}}
	if spec != "" {
		Expect(yaml.Unmarshal([]byte("spec: "+spec), &object.Object)).To(Succeed(), spec)
	}
	object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
	object.SetName(name)
	return object
}

func applied(object *unstructured.Unstructured, options ...client.ApplyOption) error {
	return admin.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), append(options, client.FieldOwner("flux"))...)
}

// prune deletes what no longer stands in Git.
func prune(kind, name string) {
	GinkgoHelper()
	Expect(admin.Delete(ctx, manifest(kind, name, ""))).To(Succeed())
}

// stored reads an object as the API server has it, nil if it has none.
func stored(kind, name string) (*unstructured.Unstructured, error) {
	object := manifest(kind, name, "")
	if err := admin.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return object, nil
}

// health makes a function that is what Flux and others who compute it with kstatus see: "Current: All is well". Argo CD
// must see the same of what Git holds. It is empty for an object that is not there.
func health(kind, name string) func() (string, error) {
	return func() (string, error) {
		object, err := stored(kind, name)
		if object == nil || err != nil {
			return "", err
		}
		result, err := status.Compute(object)
		if err != nil {
			return "", err
		}
		if kind == "PatchPolicy" || kind == "PatchTask" {
			seen, err := asArgoCD(object)
			if err != nil {
				return "", err
			}
			if seen != result.Status.String() {
				return "", fmt.Errorf("kstatus takes %s %s for %s, and Argo CD for %s", kind, name, result.Status, seen)
			}
		}
		return result.Status.String() + ": " + result.Message, nil
	}
}

func versionOf(kind, name string) string {
	GinkgoHelper()
	object, err := stored(kind, name)
	Expect(err).NotTo(HaveOccurred())
	Expect(object).NotTo(BeNil(), "%s %s is not there", kind, name)
	return object.GetResourceVersion()
}

// ownersOf lists who owns fields of an object, and of which subresource.
func ownersOf(kindAndName string) []string {
	GinkgoHelper()
	kind, name, _ := strings.Cut(kindAndName, "/")
	object, err := stored(kind, name)
	Expect(err).NotTo(HaveOccurred())
	var owners []string
	for _, entry := range object.GetManagedFields() {
		owners = append(owners, strings.TrimSpace(entry.Manager+" "+entry.Subresource))
	}
	return owners
}

// orderedBy makes a function that is the task which a node is to work for, empty if none or if its agent has ended it.
func orderedBy(node string) func() (string, error) {
	return func() (string, error) {
		assignment, err := object(&v1alpha1.PatchAssignment{}, node)()
		if err != nil || assignment.Spec.Operation == nil {
			return "", err
		}
		ordered, said := assignment.Spec.Operation, assignment.Status.Agent
		if said != nil && said.OperationID == ordered.ID && said.Step.Ended() {
			return "", nil
		}
		return ordered.Task, nil
	}
}

// say says for a node's agent, with the agent's own rights, how far it has come.
func say(node string, step v1alpha1.Step, reason string) {
	GinkgoHelper()
	pod := &corev1.Pod{}
	Expect(admin.Get(ctx, client.ObjectKey{Namespace: apiserver.Namespace, Name: "agent-" + node}, pod)).To(Succeed())
	account, err := server.AccountConfig(ctx, apiserver.AgentAccount, pod)
	Expect(err).NotTo(HaveOccurred())
	agent, err := apiserver.Client(account)
	Expect(err).NotTo(HaveOccurred())
	assignment, err := object(&v1alpha1.PatchAssignment{}, node)()
	Expect(err).NotTo(HaveOccurred())
	Expect(assignment.Spec.Operation).NotTo(BeNil())
	said := v1alpha1.AgentStatus{
		OperationID: assignment.Spec.Operation.ID, Task: assignment.Spec.Operation.Task,
		Step: step, Time: new(metav1.NewTime(time.Now())), Reason: reason,
	}
	if step.Ended() || step == v1alpha1.StepWaiting {
		said.Counts = &v1alpha1.PatchCounts{Missing: 3, Security: 1, Other: 2, Downloaded: 3}
	}
	body, err := json.Marshal(map[string]any{"status": v1alpha1.PatchAssignmentStatus{Agent: &said}})
	Expect(err).NotTo(HaveOccurred())
	Expect(agent.Status().Patch(ctx, assignment, client.RawPatch(types.MergePatchType, body),
		client.FieldOwner(v1alpha1.AgentFieldOwner))).To(Succeed())
}

func kubectl(args ...string) string {
	GinkgoHelper()
	out, err := server.Kubectl(ctx, args...)
	Expect(err).NotTo(HaveOccurred(), fmt.Sprint(args))
	return out
}
