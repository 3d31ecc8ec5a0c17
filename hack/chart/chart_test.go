package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	release "helm.sh/helm/v4/pkg/release/v1"
	"sigs.k8s.io/yaml"
)

const config = "../../config"

// oldest is the oldest Kubernetes that the chart goes with.
var oldest = &common.KubeVersion{Version: "v1.30.0", Major: "1", Minor: "30"}

// render is what Helm would install, and its hooks.
func render(t *testing.T, values string) (*release.Release, error) {
	t.Helper()
	chart, err := loader.LoadDir(filepath.Join(config, "chart"))
	if err != nil {
		t.Fatal(err)
	}
	given := map[string]any{}
	if err := yaml.Unmarshal([]byte(values), &given); err != nil {
		t.Fatal(err)
	}
	install := action.NewInstall(&action.Configuration{})
	install.DryRunStrategy = action.DryRunClient
	install.ReleaseName, install.Namespace, install.KubeVersion = "nodepatch", "default", oldest
	made, err := install.Run(chart, given)
	if err != nil {
		return nil, err
	}
	return made.(*release.Release), nil
}

// manifest is the object of a kind and name; nil if Helm would not install it.
func manifest(t *testing.T, values, kind, name string) object {
	t.Helper()
	made, err := render(t, values)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, made.Manifest)[kind+" "+name]
}

// decode returns the objects of a text by kind and name.
func decode(t *testing.T, text string) map[string]object {
	t.Helper()
	objects := map[string]object{}
	for document := range strings.SplitSeq(text, "\n---\n") {
		var o object
		if err := yaml.Unmarshal([]byte(strings.TrimPrefix(document, "---\n")), &o); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if o != nil {
			objects[o.kind()+" "+o.name()] = o
		}
	}
	return objects
}

func TestChartInstallsWhatKustomizeInstalls(t *testing.T) {
	made, err := render(t, "")
	if err != nil {
		t.Fatal(err)
	}
	got := decode(t, made.Manifest)
	built, err := build(filepath.Join(config, "default"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range built {
		key := want.kind() + " " + want.name()
		if !reflect.DeepEqual(got[key], want) {
			t.Errorf("%s differs: kustomize has\n%s\nthe chart has\n%s", key, text(t, want), text(t, got[key]))
		}
		delete(got, key)
	}
	for key := range got {
		t.Errorf("the chart installs %s, and kustomize does not", key)
	}
}

func TestChartInstallsMonitoringWhereAsked(t *testing.T) {
	made, err := render(t, "monitoring: {enabled: true}")
	if err != nil {
		t.Fatal(err)
	}
	got := decode(t, made.Manifest)
	built, err := build(filepath.Join(config, "prometheus"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range built {
		key := want.kind() + " " + want.name()
		if !reflect.DeepEqual(got[key], want) {
			t.Errorf("%s differs: kustomize has\n%s\nthe chart has\n%s", key, text(t, want), text(t, got[key]))
		}
	}
}

func text(t *testing.T, o object) string {
	t.Helper()
	text, err := yaml.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestChartLeavesBeforeItIsUninstalled(t *testing.T) {
	made, err := render(t, "")
	if err != nil {
		t.Fatal(err)
	}
	built, err := build(filepath.Join(config, "leave"))
	if err != nil {
		t.Fatal(err)
	}
	hooks := map[string]object{}
	for _, hook := range made.Hooks {
		if !reflect.DeepEqual(hook.Events, []release.HookEvent{release.HookPreDelete}) {
			t.Errorf("%s %s is for %v", hook.Kind, hook.Name, hook.Events)
		}
		if job := hook.Kind == "Job"; job != (hook.Weight == 0) || !job && hook.Weight >= 0 {
			t.Errorf("%s %s has weight %d: the Job comes after what lets it work", hook.Kind, hook.Name, hook.Weight)
		}
		for key, o := range decode(t, hook.Manifest) {
			delete(o["metadata"].(map[string]any), "annotations")
			hooks[key] = o
		}
	}
	for _, want := range built {
		key := want.kind() + " " + want.name()
		if want.kind() == "Job" {
			if err := put(want, in(manager, "args", "+"), "--patience=280s"); err != nil {
				t.Fatal(err)
			}
		}
		if !reflect.DeepEqual(hooks[key], want) {
			t.Errorf("%s differs: kustomize has\n%s\nthe hook is\n%s", key, text(t, want), text(t, hooks[key]))
		}
		delete(hooks, key)
	}
	if len(hooks) > 0 {
		t.Errorf("there are more hooks: %v", hooks)
	}
}

func TestTemplatesAreGenerated(t *testing.T) {
	files, err := templates(config)
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(config, "chart", "templates", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != len(files) {
		t.Errorf("there are %d templates, and %d are generated", len(found), len(files))
	}
	for _, path := range found {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(content, files[filepath.Base(path)]) {
			t.Errorf("%s is not what the manifests make: run \"make generate\"", path)
		}
	}
}

func TestLint(t *testing.T) {
	linter := lint.RunAll(filepath.Join(config, "chart"), nil, "default")
	for _, message := range linter.Messages {
		// An icon is for shops.
		if message.Severity > support.InfoSev {
			t.Errorf("%v", message)
		}
	}
}

func TestSchemaKnowsEveryValue(t *testing.T) {
	values, err := os.ReadFile(filepath.Join(config, "chart", "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	schema, err := os.ReadFile(filepath.Join(config, "chart", "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var has, knows map[string]any
	if err := yaml.Unmarshal(values, &has); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(schema, &knows); err != nil {
		t.Fatal(err)
	}
	for name, group := range has {
		known, found := knows["properties"].(map[string]any)[name].(map[string]any)
		if !found {
			t.Errorf("the schema does not know %s", name)
			continue
		}
		properties := known["properties"].(map[string]any)
		for key := range group.(map[string]any) {
			if _, found := properties[key]; !found {
				t.Errorf("the schema does not know %s.%s", name, key)
			}
			delete(properties, key)
		}
		for key := range properties {
			t.Errorf("values.yaml does not tell of %s.%s", name, key)
		}
	}
}
