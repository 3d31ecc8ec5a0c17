package roots

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// Open makes a machine's disk for a test: a layer over a root, such as that of [Debian], with the kernel's file systems. It is
// gone when the test ends.
func Open(tb testing.TB, root func(context.Context, io.Writer) (*Root, error)) *Layer {
	tb.Helper()
	Require(tb, Supported())
	r, err := root(tb.Context(), tb.Output())
	if err != nil {
		tb.Fatal(err)
	}
	layer, err := r.Layer(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := layer.Close(); err != nil {
			tb.Error(err)
		}
	})
	if err := layer.MountKernel(); err != nil {
		tb.Fatal(err)
	}
	return layer
}

// Write writes a file, which anybody may run, and the directories above it.
func (l *Layer) Write(tb testing.TB, name, content string) {
	tb.Helper()
	path := filepath.Join(l.Path, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		tb.Fatal(err)
	}
}

// Read returns what is in a file.
func (l *Layer) Read(tb testing.TB, name string) string {
	tb.Helper()
	content, err := os.ReadFile(filepath.Join(l.Path, name))
	if err != nil {
		tb.Fatal(err)
	}
	return string(content)
}

// Run runs a command that must succeed, and returns what it printed.
func (l *Layer) Run(tb testing.TB, argv ...string) string {
	tb.Helper()
	output, err := l.Command(context.Background(), argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		tb.Fatalf("%q: %v: %s", argv, err, output)
	}
	return string(output)
}
