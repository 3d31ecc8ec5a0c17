package apiserver

import (
	"strings"
	"testing"
)

// Everything in config/default and config/samples is taken by the API server in every way that the
// documents name, and applying it again, as GitOps does all day, changes nothing.
func TestInstall(t *testing.T) {
	Require(t)
	server, _ := Run(t)
	if err := server.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	kubectl := func(args ...string) string {
		t.Helper()
		out, err := server.Kubectl(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	kubectl("apply", "-k", "config/default")
	kubectl("apply", "-k", "config/samples")
	for _, args := range [][]string{
		{"apply", "-k", "config/samples"},
		{"apply", "-f", "config/samples"},
		{"apply", "--server-side", "--force-conflicts", "-k", "config/samples"},
	} {
		kubectl(args...)
		generations := kubectl("get", "patchpolicies,patchtasks", "-o", "jsonpath={.items[*].metadata.generation}")
		if generations != "1 1" {
			t.Errorf("After %s the generations of the samples are %q, want 1 1", strings.Join(args, " "), generations)
		}
	}
}
