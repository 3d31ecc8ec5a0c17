package roots_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nodepatch/nodepatch/test/roots"
)

func TestDebian(t *testing.T) {
	roots.Require(t, roots.Supported())
	ctx := context.Background()

	// Asked for twice at once: one builds it, the other waits for it.
	var both [2]*roots.Root
	var wg sync.WaitGroup
	for i := range both {
		wg.Go(func() {
			root, err := roots.Debian(ctx, t.Output())
			if err != nil {
				t.Errorf("Debian: %v", err)
			}
			both[i] = root
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	if both[0].Path != both[1].Path {
		t.Fatalf("two roots for one recipe: %s and %s", both[0].Path, both[1].Path)
	}
	root := both[0]

	t.Run("layers are apart from each other and from the root", func(t *testing.T) {
		a, b := layer(t, root), layer(t, root)
		if err := os.WriteFile(filepath.Join(a.Path, "etc", "only-in-a"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{b.Path, root.Path} {
			if _, err := os.Stat(filepath.Join(path, "etc", "only-in-a")); !os.IsNotExist(err) {
				t.Errorf("what was written to one layer is in %s: %v", path, err)
			}
		}
	})

	t.Run("a layer keeps its files when it is mounted again", func(t *testing.T) {
		dir := t.TempDir()
		for _, want := range []string{"", "kept"} {
			layer, err := root.Layer(dir)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(layer.Path, "etc", "state")
			if got, _ := os.ReadFile(path); string(got) != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if err := os.WriteFile(path, []byte("kept"), 0o644); err != nil {
				t.Error(err)
			}
			if err := layer.Close(); err != nil {
				t.Error(err)
			}
		}
	})

	t.Run("security updates are really missing", func(t *testing.T) {
		layer := layer(t, root)
		sources, err := roots.HostSources(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := layer.WriteResolver(); err != nil {
			t.Fatal(err)
		}
		if err := sources.Write(layer.Path); err != nil {
			t.Fatal(err)
		}
		script := "apt-get update >/dev/null && apt-get -s dist-upgrade"
		out, err := layer.Command(ctx, "sh", "-ec", script).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if !strings.Contains(string(out), "\nInst ") {
			t.Errorf("no update is missing in a fresh root with the sources\n%s\napt says\n%s", sources.List(), out)
		}
	})
}

func layer(t *testing.T, root *roots.Root) *roots.Layer {
	t.Helper()
	layer, err := root.Layer(filepath.Join(t.TempDir(), "a, b: c"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := layer.Close(); err != nil {
			t.Error(err)
		}
		mounts, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			t.Error(err)
		}
		if strings.Contains(string(mounts), layer.Path) {
			t.Errorf("%s is still mounted", layer.Path)
		}
	})
	if err := layer.MountKernel(); err != nil {
		t.Fatal(err)
	}
	return layer
}
