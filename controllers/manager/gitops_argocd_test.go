package main

import (
	"fmt"
	"os"
	"path/filepath"

	lua "github.com/yuin/gopher-lua"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/nodepatch/nodepatch/test/apiserver"
)

// asArgoCD says in the words of kstatus what Argo CD makes of an object with the
// health checks of the sample, which its own interpreter runs here.
func asArgoCD(object *unstructured.Unstructured) (string, error) {
	content, err := os.ReadFile(filepath.Join(apiserver.Root(), "config", "samples", "gitops", "argocd-cm.yaml"))
	if err != nil {
		return "", err
	}
	settings := &corev1.ConfigMap{}
	if err := yaml.UnmarshalStrict(content, settings); err != nil {
		return "", fmt.Errorf("reading argocd-cm.yaml: %w", err)
	}
	script, found := settings.Data["resource.customizations.health.nodepatch.io_"+object.GetKind()]
	if !found {
		return "", fmt.Errorf("argocd-cm.yaml has no health check for %s", object.GetKind())
	}

	// The libraries that Argo CD opens for health checks.
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, open := range []lua.LGFunction{lua.OpenPackage, lua.OpenBase, lua.OpenTable} {
		state.Push(state.NewFunction(open))
		state.Call(0, 0)
	}
	state.SetGlobal("obj", luaValue(state, object.Object))
	if err := state.DoString(script); err != nil {
		return "", fmt.Errorf("running the health check for %s: %w", object.GetKind(), err)
	}
	health, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return "", fmt.Errorf("the health check for %s returned no table", object.GetKind())
	}
	if _, ok := health.RawGetString("message").(lua.LString); !ok {
		return "", fmt.Errorf("the health check for %s says nothing", object.GetKind())
	}
	switch said := health.RawGetString("status").String(); said {
	case "Healthy":
		return "Current", nil
	case "Progressing":
		return "InProgress", nil
	case "Degraded":
		return "Failed", nil
	default:
		return "", fmt.Errorf("the health check for %s returned the status %s, which Argo CD does not know", object.GetKind(), said)
	}
}

// luaValue is a value of JSON for Lua.
func luaValue(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case string:
		return lua.LString(value)
	case bool:
		return lua.LBool(value)
	case int64:
		return lua.LNumber(value)
	case float64:
		return lua.LNumber(value)
	case []any:
		table := state.NewTable()
		for _, item := range value {
			table.Append(luaValue(state, item))
		}
		return table
	case map[string]any:
		table := state.NewTable()
		for key, item := range value {
			table.RawSetString(key, luaValue(state, item))
		}
		return table
	default:
		return lua.LNil
	}
}
