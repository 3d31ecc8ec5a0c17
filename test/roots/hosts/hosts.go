// Package hosts shows a machine's disk as the node's agent sees it. It stands apart
// from package roots, which the tests of package host use.
package hosts

import (
	"os"
	"testing"

	"github.com/nodepatch/nodepatch/nodeagent/host"
	"github.com/nodepatch/nodepatch/test/roots"
)

// Open finds the host on a machine's disk, with its files, which are closed when the test ends.
func Open(tb testing.TB, layer *roots.Layer) (*host.Host, *os.Root) {
	tb.Helper()
	node, err := host.Detect(layer.Path, host.DefaultDir)
	if err != nil {
		tb.Fatal(err)
	}
	files, err := os.OpenRoot(layer.Path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = files.Close() })
	return node, files
}
