package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/hack/image/archive"
)

const (
	workloads     = "workloads" // their namespace
	workloadImage = "localhost/workload:test"
	workloadPort  = 8080
)

// workload is a Deployment of web servers with a PodDisruptionBudget.
type workload struct {
	name     string
	replicas int32
	// node is where they all run; if it is empty, each runs on a node of its own.
	node string
	// minAvailable is what the PodDisruptionBudget asks for.
	minAvailable int32
	// args of the program, see workload/main.go.
	args []string
	// grace is the pods' terminationGracePeriodSeconds.
	grace int64
}

// loadWorkload puts the image of the web server on all machines.
func loadWorkload(ctx context.Context) {
	GinkgoHelper()
	dir := GinkgoT().TempDir()
	program := filepath.Join(dir, "program")
	build := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w", "-o", program, "./test/e2e/workload")
	build.Dir, build.Env = checkout, append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
	tar := filepath.Join(dir, "workload.tar")
	Expect(archive.Write(tar, workloadImage, archive.Image{
		Files: map[string]string{"/workload": program}, Entrypoint: []string{"/workload"}, User: "65532:65532",
	})).To(Succeed())
	Expect(machines.LoadImage(ctx, tar)).To(Succeed())
	err = client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: workloads}})
	Expect(ctrlclient.IgnoreAlreadyExists(err)).NotTo(HaveOccurred())
	Eventually(ctx, func() error {
		return client.Get(ctx, ctrlclient.ObjectKey{Namespace: workloads, Name: "default"}, &corev1.ServiceAccount{})
	}).Should(Succeed())
}

// run creates the workload, waits until it serves, and removes it at the end of the spec.
func (w workload) run(ctx context.Context) {
	GinkgoHelper()
	labels := map[string]string{"app": w.name}
	selector := &metav1.LabelSelector{MatchLabels: labels}
	meta := metav1.ObjectMeta{Namespace: workloads, Name: w.name}
	deployment := &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{
		Replicas: &w.replicas, Selector: selector,
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &w.grace,
			AutomountServiceAccountToken:  new(false),
			Containers: []corev1.Container{{
				Name: "web", Image: workloadImage, ImagePullPolicy: corev1.PullNever, Args: w.args,
				ReadinessProbe: &corev1.Probe{
					PeriodSeconds: 1,
					ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(workloadPort)}},
				},
			}},
		}},
	}}
	pod := &deployment.Spec.Template.Spec
	if w.node != "" {
		pod.NodeSelector = map[string]string{corev1.LabelHostname: w.node}
	} else {
		pod.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelHostname, LabelSelector: selector}},
		}}
	}
	budget := &policyv1.PodDisruptionBudget{ObjectMeta: meta, Spec: policyv1.PodDisruptionBudgetSpec{
		MinAvailable: new(intstr.FromInt32(w.minAvailable)), Selector: selector,
	}}
	Expect(client.Create(ctx, deployment)).To(Succeed())
	Expect(client.Create(ctx, budget)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) {
		Expect(client.Delete(ctx, budget)).To(Or(Succeed(), WithTransform(apierrors.IsNotFound, BeTrue())))
		Expect(client.Delete(ctx, deployment, ctrlclient.PropagationPolicy(metav1.DeletePropagationForeground))).To(Succeed())
		Eventually(ctx, func(g Gomega) {
			var pods corev1.PodList
			g.Expect(client.List(ctx, &pods, ctrlclient.InNamespace(workloads), ctrlclient.MatchingLabels(labels))).To(Succeed())
			g.Expect(pods.Items).To(BeEmpty())
		}).Should(Succeed())
	}, NodeTimeout(2*time.Minute))
	Eventually(ctx, func(g Gomega) {
		g.Expect(client.Get(ctx, ctrlclient.ObjectKeyFromObject(deployment), deployment)).To(Succeed())
		g.Expect(deployment.Status.ReadyReplicas).To(Equal(w.replicas))
		g.Expect(client.Get(ctx, ctrlclient.ObjectKeyFromObject(budget), budget)).To(Succeed())
		g.Expect(budget.Status.CurrentHealthy).To(Equal(w.replicas), "as the PodDisruptionBudget sees it")
	}).Should(Succeed())
}

// allow takes the workload's PodDisruptionBudget away.
func (w workload) allow(ctx context.Context) {
	GinkgoHelper()
	Expect(client.Delete(ctx, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: workloads, Name: w.name}})).To(Succeed())
}
