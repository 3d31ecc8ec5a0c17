// Command golangci-lint is golangci-lint with kube-api-linter linked in, which
// checks the types in api/ against the Kubernetes API conventions.
// golangci-lint's own way to add a linter clones its repository; linking both
// needs nothing but the module proxy, and go.sum pins what is linked.
package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/golangci/golangci-lint/v2/pkg/commands"
	"github.com/golangci/golangci-lint/v2/pkg/exitcodes"

	_ "sigs.k8s.io/kube-api-linter" // registers the linter kubeapilinter
)

func main() {
	info := commands.BuildInfo{GoVersion: runtime.Version(), Version: "2", Commit: "pinned in hack/tools/go.mod", Date: "unknown"}
	if err := commands.Execute(info); err != nil {
		fmt.Fprintf(os.Stderr, "golangci-lint: %v\n", err)
		os.Exit(exitcodes.Failure)
	}
}
