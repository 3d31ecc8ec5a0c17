package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

// wishes is where the samples are of what people want most often.
const wishes = "config/samples/wishes"

// fleet is a cluster in which each sample finds the nodes that it names, by their names with their labels.
var fleet = map[string]map[string]string{
	"machine-1":    {"pool": "workers"},
	"edge-1":       {"pool": "edge"},
	"web-1":        {"pool": "web", "canary": "true"},
	"web-2":        {"pool": "web"},
	"batch-1":      {"pool": "batch"},
	"office-1":     {"pool": "office"},
	"test-1":       {"stage": "test"},
	"staging-1":    {"stage": "staging"},
	"production-1": {"stage": "production"},
	"databases-1":  {"pool": "databases"},
	"zone-a-1":     {"pool": "zonal", corev1.LabelTopologyZone: "a"},
	"zone-b-1":     {"pool": "zonal", corev1.LabelTopologyZone: "b"},
	"control-1":    {"node-role.kubernetes.io/control-plane": ""},
}

var _ = Describe("The samples", Ordered, func() {
	var nodes []string
	BeforeAll(func() {
		install()
		for name, labels := range fleet {
			_, err := server.CreateNode(ctx, name, labels)
			Expect(err).NotTo(HaveOccurred())
			nodes = append(nodes, name)
		}
		start("manager-samples")
	})
	AfterAll(func() {
		cleanUp(nodes)
		Expect(asked.Forbidden()).To(BeEmpty())
	})

	// The first step of the README, which the wishes that are tasks build on.
	BeforeEach(func() {
		kubectl("apply", "--validate=strict", "-k", "config/samples")
		Eventually(health("PatchPolicy", "everything")).Should(HavePrefix("Current"))
	})
	AfterEach(func() {
		Expect(admin.DeleteAllOf(ctx, &v1alpha1.PatchTask{})).To(Succeed())
		Expect(admin.DeleteAllOf(ctx, &v1alpha1.PatchPolicy{})).To(Succeed())
		for _, node := range nodes {
			Eventually(health("PatchAssignment", node)).Should(BeEmpty())
		}
	})

	It("begin with a policy for all nodes, and a scan of them", func() {
		all := &corev1.NodeList{} // the other suites' too
		Expect(admin.List(ctx, all)).To(Succeed())
		Eventually(object(&v1alpha1.PatchPolicy{}, "everything")).Should(
			HaveField("Status.Nodes", HaveValue(HaveField("Governed", BeEquivalentTo(len(all.Items))))))
		Eventually(object(&v1alpha1.PatchTask{}, "scan-now")).Should(And(beAccepted,
			HaveField("Status.Nodes.Total", BeEquivalentTo(len(all.Items))), HaveField("Status.Template.Action", v1alpha1.ActionScan)))
	})

	files, err := filepath.Glob(filepath.Join(apiserver.Root(), wishes, "*.yaml"))
	It("are of the ten most common wishes, at least", func() {
		Expect(err).NotTo(HaveOccurred())
		Expect(len(files)).To(BeNumerically(">=", 10))
	})
	for _, file := range files {
		It("hold for "+strings.TrimSuffix(filepath.Base(file), ".yaml"), func() {
			text, err := os.ReadFile(file)
			Expect(err).NotTo(HaveOccurred())
			Expect(string(text)).To(HavePrefix("# "), "it says what it is for")
			sample := readSample(string(text))
			verb := "apply"
			if len(sample.tasks) > 0 {
				verb = "create" // as the file says
			} else {
				kubectl("apply", "--server-side", "--field-manager=flux", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", file)
			}
			made := strings.Fields(kubectl(verb, "--validate=strict", "-o", "name", "-f", file))
			Expect(made).To(HaveLen(len(sample.policies) + len(sample.tasks) + len(sample.hooks)))
			DeferCleanup(func() {
				kubectl(append([]string{"delete", "--ignore-not-found", "-n", apiserver.Namespace}, made...)...)
			})
			for i := range sample.policies {
				beTakenPolicy(&sample.policies[i], sample.hooks)
			}
			for _, name := range made {
				if task, ok := strings.CutPrefix(name, "patchtask.nodepatch.io/"); ok {
					Eventually(object(&v1alpha1.PatchTask{}, task)).Should(beAccepted)
				}
			}
		})
	}

	It("would not pass with a field that there is not", func() {
		text, err := os.ReadFile(filepath.Join(apiserver.Root(), wishes, "scan-everything-daily.yaml"))
		Expect(err).NotTo(HaveOccurred())
		for _, verb := range []string{"apply", "create"} {
			command := server.Command(ctx, verb, "--dry-run=server", "--validate=strict", "-f", "-")
			command.Stdin = strings.NewReader(strings.Replace(string(text), "maxScanAge:", "maxScanAgo:", 1))
			out, err := command.CombinedOutput()
			Expect(err).To(HaveOccurred())
			Expect(string(out)).To(ContainSubstring(`unknown field "spec.maxScanAgo"`))
		}
	})
})

// sample is what a file holds.
type sample struct {
	policies []v1alpha1.PatchPolicy
	tasks    []v1alpha1.PatchTask
	hooks    []corev1.PodTemplate
}

// readSample reads a file, and fails at what is unknown in it.
func readSample(text string) sample {
	GinkgoHelper()
	var result sample
	for document := range strings.SplitSeq(text, "\n---\n") {
		kind := metav1.TypeMeta{}
		Expect(yaml.Unmarshal([]byte(document), &kind)).To(Succeed())
		switch kind.Kind {
		case "PatchPolicy":
			result.policies = append(result.policies, decoded[v1alpha1.PatchPolicy](document))
		case "PatchTask":
			result.tasks = append(result.tasks, decoded[v1alpha1.PatchTask](document))
		case "PodTemplate":
			result.hooks = append(result.hooks, decoded[corev1.PodTemplate](document))
		default:
			Fail("a sample of the kind " + kind.Kind)
		}
	}
	return result
}

func decoded[T any](document string) T {
	GinkgoHelper()
	var result T
	Expect(yaml.UnmarshalStrict([]byte(document), &result)).To(Succeed(), document)
	return result
}

// beAccepted says that a run may begin, and has nodes.
var beAccepted = And(
	HaveField("Status.Conditions", ContainElement(And(
		HaveField("Type", v1alpha1.ConditionAccepted), HaveField("Status", metav1.ConditionTrue), HaveField("Message", MatchRegexp(`on [1-9]\d* nodes? of the policy `))))),
	HaveField("Status.Nodes", HaveValue(HaveField("Total", BeNumerically(">", 0)))))

// beTakenPolicy expects that the manager carries a policy out that was applied: that it governs nodes and conflicts with
// no other, that each schedule has a next run, and that each of its tasks is accepted when a person asks for it.
func beTakenPolicy(policy *v1alpha1.PatchPolicy, hooks []corev1.PodTemplate) {
	GinkgoHelper()
	condition := func(kind string, status metav1.ConditionStatus) types.GomegaMatcher {
		return HaveField("Status.Conditions", ContainElement(And(HaveField("Type", kind), HaveField("Status", status))))
	}
	Eventually(health("PatchPolicy", policy.Name)).Should(HavePrefix("Current"))
	Eventually(object(&v1alpha1.PatchPolicy{}, policy.Name)).Should(And(
		condition(v1alpha1.ConditionReady, metav1.ConditionTrue), condition(v1alpha1.ConditionConflicting, metav1.ConditionFalse),
		HaveField("Status.Nodes", HaveValue(HaveField("Governed", BeNumerically(">", 0)))),
		WithTransform(func(p *v1alpha1.PatchPolicy) []string {
			var scheduled []string
			for _, task := range p.Status.Tasks {
				if task.Next != nil {
					scheduled = append(scheduled, task.Name)
				}
			}
			return scheduled
		}, ConsistOf(scheduledTasks(policy)))))
	for i := range policy.Spec.Tasks {
		task := &policy.Spec.Tasks[i]
		for _, wave := range task.Template.Rollout.Waves {
			Expect(takes(policy, wave)).To(BeTrue(), "the wave %s of %s has nodes", wave.Name, task.Name)
		}
		if key := task.Template.Rollout.TopologyKey; key != "" {
			Expect(labelsOf(policy)).To(HaveEach(HaveKey(key)))
		}
		if asked := task.Template.Hooks; asked != nil {
			for _, hook := range []*v1alpha1.Hook{asked.PreDisrupt, asked.PostInstall, asked.PostReboot} {
				if hook != nil {
					Expect(hooks).To(ContainElement(And(HaveField("Name", hook.PodTemplate), HaveField("Namespace", apiserver.Namespace))))
				}
			}
		}
		run := &v1alpha1.PatchTask{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "sample-"},
			Spec:       v1alpha1.PatchTaskSpec{Policy: policy.Name, Task: task.Name},
		}
		Expect(admin.Create(ctx, run)).To(Succeed())
		Eventually(object(&v1alpha1.PatchTask{}, run.Name)).Should(beAccepted, task.Name)
	}
}

// scheduledTasks are the names of the policy's tasks that begin by themselves.
func scheduledTasks(policy *v1alpha1.PatchPolicy) []string {
	var names []string
	for i := range policy.Spec.Tasks {
		if policy.Spec.Tasks[i].Schedule != nil {
			names = append(names, policy.Spec.Tasks[i].Name)
		}
	}
	return names
}

// labelsOf are the labels of each of the fleet's nodes that the policy selects.
func labelsOf(policy *v1alpha1.PatchPolicy) []map[string]string {
	GinkgoHelper()
	selector, err := metav1.LabelSelectorAsSelector(policy.Spec.NodeSelector)
	Expect(err).NotTo(HaveOccurred())
	var selected []map[string]string
	for _, node := range fleet {
		if selector.Matches(labels.Set(node)) {
			selected = append(selected, node)
		}
	}
	return selected
}

// takes says whether a wave takes some of the policy's nodes.
func takes(policy *v1alpha1.PatchPolicy, wave v1alpha1.Wave) bool {
	GinkgoHelper()
	if wave.Size != nil {
		return true
	}
	selector, err := metav1.LabelSelectorAsSelector(wave.NodeSelector)
	Expect(err).NotTo(HaveOccurred())
	return slices.ContainsFunc(labelsOf(policy), func(node map[string]string) bool { return selector.Matches(labels.Set(node)) })
}
