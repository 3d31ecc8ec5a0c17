package main

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/agents"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

var _ = Describe("The manager with the rights of its ServiceAccount", Ordered, func() {
	var (
		manager *process
		policy  *v1alpha1.PatchPolicy
		nodes   = []string{"one", "two"}
		scrape  func() (string, error)
	)

	AfterAll(func() {
		Expect(asked.Forbidden()).To(BeEmpty(), "config/rbac and config/admission allow all that the manager does")
	})

	It("starts, is healthy, and leads", func() {
		manager = start("manager-1")
		Eventually(fetch("http://"+manager.options.healthAddr+"/readyz", "")).Should(HavePrefix("200"))
		Expect(fetch("http://"+manager.options.healthAddr+"/healthz", "")()).To(HavePrefix("200"))
		Eventually(holder).ShouldNot(BeEmpty())
	})

	It("shows its metrics by HTTPS, and only to those who may read them", func() {
		url := "https://" + manager.options.metricsAddr + "/metrics"
		Eventually(fetch(url, "")).Should(HavePrefix("401"))
		Expect(fetch(url, account("somebody", "").BearerToken)()).To(HavePrefix("403"))
		prometheus := account("prometheus", "nodepatch-metrics-reader")
		scrape = func() (string, error) {
			return fetch("https://"+manager.options.metricsAddr+"/metrics", prometheus.BearerToken)()
		}
		Eventually(scrape).Should(And(HavePrefix("200"), ContainSubstring("controller_runtime_reconcile_total"),
			ContainSubstring("nodepatch_build_info{"), ContainSubstring("nodepatch_manager_leader 1\n")))
	})

	It("makes agents and each node's objects for a policy", func() {
		for _, name := range nodes {
			_, err := server.CreateNode(ctx, name, map[string]string{"pool": "workers", corev1.LabelOSStable: "linux"})
			Expect(err).NotTo(HaveOccurred())
		}
		policy = &v1alpha1.PatchPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: "workers"},
			Spec: v1alpha1.PatchPolicySpec{
				NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "workers"}},
			},
		}
		Expect(admin.Create(ctx, policy)).To(Succeed())
		Eventually(func(g Gomega) {
			existing := &appsv1.DaemonSet{}
			g.Expect(admin.Get(ctx, client.ObjectKey{Namespace: apiserver.Namespace, Name: agents.Name}, existing)).To(Succeed())
			g.Expect(existing.Spec.Template.Spec.Containers[0].Image).To(Equal(image))
		}).Should(Succeed())
		for _, name := range nodes {
			Eventually(object(&v1alpha1.PatchAssignment{}, name)).Should(And(
				HaveField("Spec.Policy", "workers"),
				HaveField("Status.Controller", HaveValue(HaveField("Agent", v1alpha1.AgentAbsent)))))
			Expect(object(&v1alpha1.PatchReport{}, name)()).NotTo(BeNil())
			Expect(object(&v1alpha1.PatchRetry{}, name)()).NotTo(BeNil())
		}
		Eventually(object(&v1alpha1.PatchPolicy{}, "workers")).Should(And(
			HaveField("Status.Nodes", HaveValue(HaveField("Governed", BeEquivalentTo(2)))),
			HaveField("Status.Conditions", ContainElement(And(
				HaveField("Type", v1alpha1.ConditionReady), HaveField("Status", metav1.ConditionTrue))))))
	})

	It("carries a scan out, with one write for each node", func() {
		for _, name := range nodes {
			runAgentPod(name)
			Eventually(object(&v1alpha1.PatchAssignment{}, name)).Should(
				HaveField("Status.Controller", HaveValue(HaveField("Agent", v1alpha1.AgentReady))))
		}
		before := quiet()
		Expect(admin.Create(ctx, &v1alpha1.PatchTask{
			ObjectMeta: metav1.ObjectMeta{Name: "scan"},
			Spec: v1alpha1.PatchTaskSpec{
				Policy: "workers", Template: &v1alpha1.TaskTemplate{Action: v1alpha1.ActionScan},
				TTLAfterFinished: &metav1.Duration{},
			},
		})).To(Succeed())
		for _, name := range nodes {
			Eventually(object(&v1alpha1.PatchAssignment{}, name)).Should(HaveField("Spec.Operation", Not(BeNil())))
			answer(name)
		}
		Eventually(func() error {
			return admin.Get(ctx, client.ObjectKey{Name: "scan"}, &v1alpha1.PatchTask{})
		}).Should(MatchError(ContainSubstring("not found")), "its ttlAfterFinished is over at once")
		Eventually(events).Should(ContainElements(v1alpha1.EventTaskStarted, v1alpha1.EventTaskFinished))
		for _, name := range nodes {
			Expect(written(before, "/patchassignments/"+name)).To(HaveLen(1))
			Expect(written(before, "/patchreports/"+name)).To(BeEmpty())
			Expect(written(before, "/patchretries/"+name)).To(BeEmpty())
			Expect(scrape()).To(ContainSubstring(`nodepatch_node_agent_ready{node="` + name + `",policy="workers"} 1`))
		}
		Eventually(scrape).Should(And(
			ContainSubstring(`nodepatch_task_results_total{policy="workers",result="Complete"} 1`),
			ContainSubstring(`nodepatch_step_duration_seconds_count{policy="workers",step="Scanning"} 2`),
			ContainSubstring(`nodepatch_nodes{policy="workers",step="Idle"} 2`)))
	})

	It("clears retry counts at the press of a button", func() {
		counts := `{"status":{"counted":1,"blocked":1,"sequence":11,"patches":[{"name":"ham","version":"2.0","downloadFailures":11,"blocked":"Download"}]}}`
		retry := &v1alpha1.PatchRetry{ObjectMeta: metav1.ObjectMeta{Name: "one"}}
		Expect(admin.Status().Patch(ctx, retry, client.RawPatch(types.MergePatchType, []byte(counts)))).To(Succeed())
		press := `{"metadata":{"annotations":{"nodepatch.io/clear-retries":"ham"}}}`
		Expect(admin.Patch(ctx, retry, client.RawPatch(types.MergePatchType, []byte(press)))).To(Succeed())
		Eventually(object(&v1alpha1.PatchRetry{}, "one")).Should(And(
			HaveField("Annotations", Not(HaveKey(v1alpha1.ClearRetriesAnnotation))),
			HaveField("Status.Handled", HaveValue(BeZero())),
			HaveField("Status.Summary", "No failed attempt")))
		Expect(object(&v1alpha1.PatchAssignment{}, "one")()).To(HaveField("Spec.RetryClears", BeEquivalentTo(1)))
		Expect(events()).To(ContainElement(v1alpha1.EventRetriesCleared))
	})

	It("hands over to another manager, which finds all in order", func() {
		second := start("manager-2")
		Eventually(fetch("http://"+second.options.healthAddr+"/readyz", "")).Should(HavePrefix("200"))
		led := holder()
		Consistently(holder, "500ms").Should(Equal(led), "the second one waits")
		before := quiet()
		manager.stop()
		manager = second
		Eventually(holder).Should(And(Not(BeEmpty()), Not(Equal(led))), "the first one gave the lease back")
		Eventually(scrape).Should(And(ContainSubstring(`nodepatch_node_blocked_patches{node="one",policy="workers"} 0`),
			ContainSubstring(`nodepatch_task_results_total{policy="workers",result="Complete"} 0`)), "it counts from where the first one ended")
		Eventually(func() []string { return written(before, "/daemonsets/") }).Should(HaveLen(1), "it applies what is there")
		Consistently(func() []string { return written(before, "") }, "1s").Should(HaveLen(1), "and changes nothing else")
	})

	It("takes everything back with the policy, but for the memory of failures", func() {
		Expect(admin.Delete(ctx, policy)).To(Succeed())
		missing := func(kind client.Object, name string) {
			GinkgoHelper()
			Eventually(func() error { return admin.Get(ctx, client.ObjectKey{Name: name}, kind) }).
				Should(MatchError(ContainSubstring("not found")))
		}
		for _, name := range nodes {
			missing(&v1alpha1.PatchAssignment{}, name)
			missing(&v1alpha1.PatchReport{}, name)
		}
		missing(&v1alpha1.PatchRetry{}, "two")
		Expect(object(&v1alpha1.PatchRetry{}, "one")()).To(HaveField("Status.Clears", BeEquivalentTo(1)))
		Eventually(func() error {
			return admin.Get(ctx, client.ObjectKey{Namespace: apiserver.Namespace, Name: agents.Name}, &appsv1.DaemonSet{})
		}).Should(MatchError(ContainSubstring("not found")))
		Eventually(scrape).Should(And(ContainSubstring("nodepatch_manager_leader 1"), Not(ContainSubstring(`"workers"`))),
			"what is measured of a policy and its nodes goes with them")
		manager.stop()
		Expect(metrics.Registry.Gather()).NotTo(ContainElement(HaveField("GetName()", "nodepatch_manager_leader")),
			"one that leads no more publishes nothing")
	})

	It("says how to install kinds that are missing", func() {
		Expect(apiextensionsv1.AddToScheme(admin.Scheme())).To(Succeed())
		missing := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "patchretries.nodepatch.io"}}
		DeferCleanup(install)
		Expect(admin.Delete(ctx, missing)).To(Succeed())
		account, err := server.ManagerConfig(ctx)
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() error { return awaitKinds(ctx, account, 1) }).Should(MatchError(And(
			ContainSubstring("patchretries"), Not(ContainSubstring("patchpolicies")), ContainSubstring("make install"))))
	})
})

// account makes a ServiceAccount with a ClusterRole, if one is given.
func account(name, role string) *rest.Config {
	GinkgoHelper()
	made := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: apiserver.Namespace}}
	Expect(admin.Create(ctx, made)).To(Succeed())
	if role != "" {
		Expect(admin.Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: name, Namespace: made.Namespace}},
		})).To(Succeed())
	}
	config, err := server.AccountConfig(ctx, name, nil)
	Expect(err).NotTo(HaveOccurred())
	return config
}

// holder is who leads, empty if nobody.
func holder() string {
	existing := &coordinationv1.Lease{}
	if err := admin.Get(ctx, client.ObjectKey{Namespace: apiserver.Namespace, Name: lease}, existing); err != nil {
		return ""
	}
	if existing.Spec.HolderIdentity == nil {
		return ""
	}
	return *existing.Spec.HolderIdentity
}

// fetch makes a function that is the status and the body of a page.
func fetch(url, token string) func() (string, error) {
	return func() (string, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return "", err
		}
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		// The certificate is the manager's own.
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		defer transport.CloseIdleConnections()
		response, err := (&http.Client{Transport: transport}).Do(request)
		if err != nil {
			return "", err
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		return response.Status + "\n" + string(body), err
	}
}

// object makes a function that reads an object by name.
func object[T client.Object](kind T, name string) func() (T, error) {
	return func() (T, error) {
		fresh := kind.DeepCopyObject().(T)
		return fresh, admin.Get(ctx, client.ObjectKey{Name: name}, fresh)
	}
}

// events lists the reasons of the patch log.
func events() ([]string, error) {
	list := &corev1.EventList{}
	err := admin.List(ctx, list, client.InNamespace(metav1.NamespaceDefault))
	var reasons []string
	for _, event := range list.Items {
		reasons = append(reasons, event.Reason)
	}
	return reasons, err
}

// runAgentPod does what the DaemonSet controller and the kubelet would do.
func runAgentPod(node string) {
	GinkgoHelper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "agent-" + node, Namespace: apiserver.Namespace, Labels: agents.PodLabels},
		Spec: corev1.PodSpec{
			NodeName: node, ServiceAccountName: apiserver.AgentAccount,
			Containers: []corev1.Container{{Name: "agent", Image: image}},
		},
	}
	Expect(admin.Create(ctx, pod)).To(Succeed())
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	Expect(admin.Status().Update(ctx, pod)).To(Succeed())
}

// answer says for a node's agent, with the agent's own rights, that it scanned.
func answer(node string) {
	GinkgoHelper()
	pod := &corev1.Pod{}
	Expect(admin.Get(ctx, client.ObjectKey{Namespace: apiserver.Namespace, Name: "agent-" + node}, pod)).To(Succeed())
	account, err := server.AccountConfig(ctx, apiserver.AgentAccount, pod)
	Expect(err).NotTo(HaveOccurred())
	agent, err := apiserver.Client(account)
	Expect(err).NotTo(HaveOccurred())
	assignment, err := object(&v1alpha1.PatchAssignment{}, node)()
	Expect(err).NotTo(HaveOccurred())
	body := strings.NewReplacer("<id>", assignment.Spec.Operation.ID, "<now>", time.Now().UTC().Format(time.RFC3339)).Replace(
		`{"status":{"agent":{"operationID":"<id>","task":"scan","step":"Done","time":"<now>","reason":"Scanned","counts":{"missing":3,"security":1}}}}`)
	Expect(agent.Status().Patch(ctx, assignment, client.RawPatch(types.MergePatchType, []byte(body)),
		client.FieldOwner(v1alpha1.AgentFieldOwner))).To(Succeed())
}
