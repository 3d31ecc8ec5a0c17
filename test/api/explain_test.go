package api

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/discovery"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// descriptionLimit is how many characters a description has at most: what is longer is read by nobody in a
// terminal, and belongs into the README.
const descriptionLimit = 600

// lineLimit is the length of a line that kubectl explain prints as it is: it indents by four, for 80 columns.
const lineLimit = 76

// kinds are those that people read about.
var kinds = []string{"PatchPolicy", "PatchTask", "PatchReport", "PatchRetry", "PatchAssignment"}

// Kubernetes' own types are described in its own words.
var foreign = regexp.MustCompile(`^[^.]+\.(apiVersion|kind|metadata)$|[sS]elector\.|\.(skipPods|waitForPods)\.|\.conditions\[\]`)

// written is what people write themselves, in the spec of a policy or a task. A run's status has a copy of it.
var written = regexp.MustCompile(`^Patch(Policy|Task)\.(spec|status\.template)\.`)

var (
	duration = regexp.MustCompile(`\b(such as|written like) \d+[smh]\b`)
	absence  = regexp.MustCompile(`(?i)\bby default\b|left out|\bwithout\b|\beither this\b|\bhas either\b`)
	goism    = regexp.MustCompile("`|\\*[A-Z]|&[A-Z]|\\bnil\\b|\\bstruct\\b|\\bpointer\\b|\\bint(32|64)\\b|\\bbool\\b|\\bslice\\b|metav1\\.|\\+(optional|required|kubebuilder)|TODO|FIXME")
)

// described is a field, or the items of a list, with the path at which kubectl explain finds it; items have [] at
// the end.
type described struct {
	path string
	spec.Schema
	required bool
}

func (d described) name() string { return d.path[strings.LastIndex(d.path, ".")+1:] }

// items says whether it is no field of its own: what is written of a list's items is the name of no field.
func (d described) items() bool {
	return strings.HasSuffix(d.path, "]") || strings.HasSuffix(d.path, "}")
}

// leaf says whether it is a value and no object.
func (d described) leaf() bool { return len(d.Properties) == 0 && !d.items() }

// faults is what a reader of kubectl explain would miss.
func (d described) faults() []string {
	var faults []string
	fault := func(text string, args ...any) {
		faults = append(faults, d.path+" "+fmt.Sprintf(text, args...)+": "+d.Description)
	}
	text := strings.Join(strings.Fields(d.Description), " ")
	switch {
	case text == "" && d.items() && len(d.Properties) == 0:
		return nil // The list's own description says it.
	case text == "":
		fault("has no description")
		return faults
	}
	if len(text) > descriptionLimit {
		fault("has %d characters, more than %d", len(text), descriptionLimit)
	}
	if foreign.MatchString(d.path) {
		return faults
	}
	for line := range strings.Lines(d.Description) {
		if len(strings.TrimSpace(line)) > lineLimit && strings.Contains(strings.TrimSpace(line), " ") {
			fault("has a line of more than %d characters, which kubectl breaks in two", lineLimit)
		}
	}
	// The house's Go types begin their comments with the name of the field, and kubectl prints them as they are.
	if first, _, _ := strings.Cut(text, " "); !d.items() && first != d.name() {
		fault("does not begin with its name")
	}
	if !strings.HasSuffix(text, ".") {
		fault("does not end with a period")
	}
	if found := goism.FindString(text); found != "" {
		fault("speaks Go (%s)", found)
	}
	if d.limits("duration(") && written.MatchString(d.path) && !duration.MatchString(text) {
		fault("does not say how a duration is written")
	}
	for _, unit := range []string{"Milliseconds", "Seconds", "Bytes"} {
		if strings.HasSuffix(d.name(), unit) && !strings.Contains(strings.ReplaceAll(text, d.name(), ""), strings.ToLower(unit)) {
			fault("does not say that it is in %s", strings.ToLower(unit))
		}
	}
	if d.leaf() && d.Default != nil && fmt.Sprint(d.Default) != "map[]" && !strings.Contains(text, fmt.Sprintf("It is %v by default", d.Default)) {
		fault("does not say that it is %v by default, which kubectl explain does not show", d.Default)
	}
	if d.leaf() && written.MatchString(d.path) && !d.required && !absence.MatchString(text) {
		fault("does not say what it means to leave it out")
	}
	for _, value := range d.values() {
		if !strings.Contains(text, fmt.Sprint(value)) {
			fault("does not say what %v means", value)
		}
	}
	return faults
}

// values are those that the field, or each item of the list, may have, of which kubectl shows no more than their names.
// Steps are the same everywhere, and the README tells of them; buttons are annotations that people know.
func (d described) values() []any {
	values := d.Enum
	if d.Items != nil && d.Items.Schema != nil {
		values = d.Items.Schema.Enum
	}
	if d.items() || d.name() == "button" || slices.Contains(values, any(string(v1alpha1.StepVerifying))) {
		return nil
	}
	return values
}

// limits says whether one of the field's rules contains a text.
func (d described) limits(text string) bool {
	rules, err := json.Marshal(d.Extensions["x-kubernetes-validations"])
	return err == nil && strings.Contains(string(rules), text)
}

// schemas are all fields of a kind, as the API server publishes them for kubectl explain.
func schemas(kind string) []described {
	GinkgoHelper()
	client, err := discovery.NewDiscoveryClientForConfig(server.Config)
	Expect(err).NotTo(HaveOccurred())
	paths, err := client.OpenAPIV3().Paths()
	Expect(err).NotTo(HaveOccurred())
	path := "apis/" + v1alpha1.GroupVersion.String()
	Expect(paths).To(HaveKey(path))
	document, err := paths[path].Schema("application/json")
	Expect(err).NotTo(HaveOccurred())
	var parsed spec3.OpenAPI
	Expect(json.Unmarshal(document, &parsed)).To(Succeed())
	var found []described
	var walk func(path string, schema spec.Schema, required bool)
	walk = func(path string, schema spec.Schema, required bool) {
		// A reference stands beside a description of its own.
		for _, part := range schema.AllOf {
			schema.Description = cmp.Or(schema.Description, "refers to "+part.Ref.String())
		}
		found = append(found, described{path, schema, required})
		for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
			walk(path+"."+name, schema.Properties[name], slices.Contains(schema.Required, name))
		}
		if schema.Items != nil && schema.Items.Schema != nil {
			walk(path+"[]", *schema.Items.Schema, true)
		}
		if schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil {
			walk(path+"{}", *schema.AdditionalProperties.Schema, true)
		}
	}
	root := parsed.Components.Schemas["io.nodepatch.v1alpha1."+kind]
	Expect(root).NotTo(BeNil(), "the API server publishes %s", kind)
	walk(kind, *root, true)
	return found
}

var _ = Describe("kubectl explain", func() {
	for _, kind := range kinds {
		It("reads well for every field of a "+kind, func() {
			all := schemas(kind)
			Expect(len(all)).To(BeNumerically(">", 20))
			var faults []string
			for _, field := range all {
				faults = append(faults, field.faults()...)
			}
			Expect(faults).To(BeEmpty(), strings.Join(faults, "\n"))
		})

		It("says what a "+kind+" is, and finds it by its plural", func(ctx SpecContext) {
			text := kubectl(ctx, "explain", resourceOf[kind])
			Expect(text).To(ContainSubstring("KIND:       " + kind))
			Expect(text).To(MatchRegexp(`DESCRIPTION:\n    ` + kind + ` [a-z]`))
		})
	}

	It("tells a newcomer what to write, with its units, what is there by default, and what the values mean", func(ctx SpecContext) {
		words := func(path string) string {
			return strings.Join(strings.Fields(kubectl(ctx, "explain", path)), " ")
		}
		Expect(words("patchpolicy.spec.tasks.template.drain")).To(And(
			ContainSubstring("a duration such as 30m, of at least 10s. It is 15m by default."),
			ContainSubstring("enum: Never, BeforeReboot, BeforeInstall"),
			ContainSubstring("BeforeInstall every one before packages are installed on it")))
		Expect(words("pt.spec.template.patches.minimumAge")).To(ContainSubstring("If it is left out, a patch of any age is chosen."))
		Expect(words("prep.status.patches.state")).To(ContainSubstring("Blocked used up its retries"))
		recursive := kubectl(ctx, "explain", "patchpolicy.spec.tasks.template", "--recursive")
		Expect(recursive).To(MatchRegexp(`(?s)action\t<string> -required-.*rollout\t<Object>.*maxUnavailable\t`))
	})
})

var resourceOf = map[string]string{
	"PatchPolicy": "patchpolicies", "PatchTask": "patchtasks", "PatchReport": "patchreports",
	"PatchRetry": "patchretries", "PatchAssignment": "patchassignments",
}
