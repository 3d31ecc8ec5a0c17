package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// change puts a template in the place of a value of a manifest.
type change struct {
	// kind of the objects that it is for, and their name; "" for all of the kind.
	kind, name string
	// path to the value; a number is an index, "+" appends to a list, and a missing key is added.
	path []string
	// text is the value as a template. Text that begins with a line break replaces the
	// whole line, and INDENT in it is the line's indentation in spaces.
	text string
}

// conditions say when the objects of a kind are installed; always if they have none.
var conditions = map[string]string{
	"Namespace":     "and .Values.namespace.create (ne .Values.namespace.name .Release.Namespace)",
	"PriorityClass": ".Values.priorityClasses.create",
	"NetworkPolicy": ".Values.networkPolicy.enabled",
}

const (
	deployment = "Deployment"
	job        = "Job"
)

var (
	pod     = []string{"spec", "template", "spec"}
	manager = in(pod, "containers", "0")
)

var changes = []change{
	{kind: "Namespace", path: []string{"metadata", "labels", "zz"}, text: optional("namespace.labels", "toYaml .")},
	{kind: "CustomResourceDefinition", path: []string{"metadata", "annotations", "zz"}, text: "\n{{- if .Values.crds.keep }}\nINDENThelm.sh/resource-policy: keep\n{{- end }}"},
	{kind: "ServiceAccount", path: []string{"zz"}, text: optional("image.pullSecrets", `toYaml (dict "imagePullSecrets" .)`)},

	{kind: deployment, path: []string{"spec", "replicas"}, text: "{{ .Values.manager.replicas }}"},
	{kind: deployment, path: in(pod, "priorityClassName"), text: "{{ .Values.manager.priorityClassName | quote }}"},
	{kind: deployment, path: in(pod, "nodeSelector"), text: optional("manager.nodeSelector", `toYaml (dict "nodeSelector" .)`)},
	{kind: deployment, path: in(pod, "tolerations", "+"), text: optional("manager.tolerations", "toYaml .")},
	{kind: deployment, path: in(pod, "affinity"), text: optional("manager.affinity", `toYaml (dict "affinity" .)`)},
	{kind: deployment, path: in(manager, "imagePullPolicy"), text: "{{ .Values.image.pullPolicy }}"},
	{kind: deployment, path: in(manager, "resources"), text: optional("manager.resources", `toYaml (dict "resources" .)`)},
	{kind: deployment, path: in(manager, "args", "+"), text: "\n" + strings.Join([]string{
		`{{- with .Values.manager }}`,
		`{{- with .clusterMaxUnavailable }}` + "\nINDENT- --cluster-max-unavailable={{ . }}", `{{- end }}`,
		`{{- if ne .kured "kube-system/kured" }}` + "\nINDENT- --kured={{ .kured }}", `{{- end }}`,
		`{{- with .maintenanceLeaseNamespace }}` + "\nINDENT- --maintenance-lease-namespace={{ . }}", `{{- end }}`,
		`{{- with .verbosity }}` + "\nINDENT- -v={{ . }}", `{{- end }}`,
		`{{- end }}`,
		`{{- with .Values.agents }}`,
		`{{- if ne .priorityClassName "nodepatch-agent" }}` + "\nINDENT- --agent-priority-class={{ .priorityClassName }}", `{{- end }}`,
		`{{- with .resources }}` + "\nINDENT- {{ printf \"--agent-resources=%s\" (toJson .) | quote }}", `{{- end }}`,
		`{{- end }}`,
	}, "\n")},

	{kind: job, path: in(pod, "priorityClassName"), text: "{{ .Values.manager.priorityClassName | quote }}"},
	{kind: job, path: in(pod, "nodeSelector"), text: optional("manager.nodeSelector", `toYaml (dict "nodeSelector" .)`)},
	{kind: job, path: in(pod, "tolerations", "+"), text: optional("manager.tolerations", "toYaml .")},
	{kind: job, path: in(manager, "imagePullPolicy"), text: "{{ .Values.image.pullPolicy }}"},
	{kind: job, path: in(manager, "args", "+"), text: "\nINDENT- --patience={{ .Values.uninstall.patience }}\n{{- if .Values.crds.keep }}\nINDENT- --keep-policies\n{{- end }}"},

	{kind: "ServiceMonitor", path: []string{"metadata", "labels", "zz"}, text: optional("monitoring.labels", "toYaml .")},
	{kind: "PrometheusRule", path: []string{"metadata", "labels", "zz"}, text: optional("monitoring.labels", "toYaml .")},

	{kind: "NetworkPolicy", path: []string{"spec", "egress", "1", "ports"}, text: "{{- range .Values.networkPolicy.egressPorts }}\nINDENT- {port: {{ . }}, protocol: TCP}\n{{- end }}"},
}

// optional is what an expression makes of a value, if there is one.
func optional(value, expression string) string {
	return "\n{{- with .Values." + value + " }}\n{{ " + expression + " | indent WIDTH }}\n{{- end }}"
}

// in is a path inside another.
func in(path []string, more ...string) []string {
	return append(append([]string{}, path...), more...)
}

// put sets the value at a path.
func put(at any, path []string, value string) error {
	key, last := path[0], len(path) == 1
	switch node := at.(type) {
	case object:
		return put(map[string]any(node), path, value)
	case map[string]any:
		if last {
			node[key] = value
			return nil
		}
		child, found := node[key]
		if !found {
			return fmt.Errorf("the manifest has no %s for a value", strings.Join(path, "."))
		}
		if list, ok := child.([]any); ok && path[1] == "+" {
			node[key] = append(list, value)
			return nil
		}
		return put(child, path[1:], value)
	case []any:
		index, err := strconv.Atoi(key)
		if err != nil || index >= len(node) || last {
			return fmt.Errorf("the manifest has no %s for a value", strings.Join(path, "."))
		}
		return put(node[index], path[1:], value)
	default:
		return fmt.Errorf("the manifest has %T where %s should be", at, strings.Join(path, "."))
	}
}

// replace puts a template in the place of a token.
func replace(text, token, replacement string) (string, error) {
	line := regexp.MustCompile(`(?m)^( *)(- )?([\w-]+: )?(- )?` + token + `$`).FindStringSubmatch(text)
	if line == nil {
		return "", fmt.Errorf("%s is not a line's value", token)
	}
	indent := line[1] + strings.Repeat(" ", len(line[2]))
	if line[3] == "" {
		indent = line[1] // an element of a list
	}
	replacement = strings.NewReplacer("INDENT", indent, "WIDTH", strconv.Itoa(len(indent))).Replace(replacement)
	switch {
	case strings.HasPrefix(replacement, "\n"): // the whole line
		return strings.Replace(text, line[0]+"\n", strings.TrimPrefix(replacement, "\n")+"\n", 1), nil
	case strings.HasPrefix(replacement, "{{-"): // the lines after the key
		return strings.Replace(text, " "+token+"\n", "\n"+replacement+"\n", 1), nil
	default:
		return strings.Replace(text, token, replacement, 1), nil
	}
}

// unused is an error if a change is for none of the objects.
func unused(objects []object) error {
	for _, c := range changes {
		used := false
		for _, o := range objects {
			used = used || c.kind == o.kind() && (c.name == "" || c.name == o.name())
		}
		if !used {
			return fmt.Errorf("no manifest is a %s %s, which the chart changes", c.kind, c.name)
		}
	}
	return nil
}
