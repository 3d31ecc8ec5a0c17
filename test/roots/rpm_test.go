package roots_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodepatch/nodepatch/test/roots"
)

// TestRPM has the tools of rpm distributions run, on a database that has nothing in it.
func TestRPM(t *testing.T) {
	roots.Require(t, roots.Supported())
	root, err := roots.RPM(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	again, err := roots.RPM(t.Context(), t.Output())
	if err != nil || again.Path != root.Path {
		t.Fatalf("a second call returns %v, %v, want %s", again, err, root.Path)
	}
	machine := layer(t, root)
	for _, c := range []struct {
		argv []string
		want string
	}{
		{[]string{"rpm", "--eval", "%_dbpath"}, "/var/lib/rpm"},
		{[]string{"rpm", "-qa"}, ""},
		{[]string{"dnf", "--version"}, "4."},
		{[]string{"dnf", "needs-restarting", "--help"}, "--reboothint"},
		{[]string{"dnf", "versionlock", "list"}, ""},
		{[]string{"zypper", "-n", "repos"}, "No repositories defined"},
	} {
		output, err := machine.Command(t.Context(), c.argv[0], c.argv[1:]...).CombinedOutput()
		if c.want == "" && err != nil || !strings.Contains(string(output), c.want) {
			t.Errorf("%q says %q (%v), want %q", c.argv, output, err, c.want)
		}
	}
	for _, left := range []string{"var/lib/apt/lists/*Packages*", "var/cache/apt/archives/*.deb"} {
		if found, err := filepath.Glob(filepath.Join(root.Path, left)); err != nil || len(found) > 0 {
			t.Errorf("the root has %q (%v)", found, err)
		}
	}
	if _, err := os.Stat(root.Path + ".building"); !os.IsNotExist(err) {
		t.Errorf("what it was built in is left: %v", err)
	}
}
