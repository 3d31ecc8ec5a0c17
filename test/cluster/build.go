package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/nodepatch/nodepatch/hack/image/archive"
	"github.com/nodepatch/nodepatch/test/roots"
)

// parts are the programs and images that a cluster is made of, as paths.
type parts struct {
	binaries   string // Kubernetes' programs and etcd
	supervisor string
	pauseImage string
}

// build builds what is missing or not current. When all is there it takes about a second.
func build(ctx context.Context, log io.Writer) (parts, error) {
	checkout, err := roots.Checkout()
	if err != nil {
		return parts{}, err
	}
	bin := filepath.Join(checkout, "bin")
	p := parts{
		binaries:   filepath.Join(bin, "k8s"),
		supervisor: filepath.Join(bin, "test-cluster"),
		pauseImage: filepath.Join(bin, "images", "pause.tar"),
	}
	if err := tool(ctx, checkout, log, filepath.Join(checkout, "hack", "k8s", "build")); err != nil {
		return parts{}, err
	}
	if err := goBuild(ctx, checkout, log, p.supervisor, "./test/cluster/cmd/cluster"); err != nil {
		return parts{}, err
	}
	pause := filepath.Join(bin, "images", "pause")
	if err := goBuild(ctx, checkout, log, pause, "./hack/image/pause"); err != nil {
		return parts{}, err
	}
	if _, err := roots.Debian(ctx, log); err != nil {
		return parts{}, err
	}
	if newer(p.pauseImage, pause) {
		return p, nil
	}
	err = archive.Write(p.pauseImage, pauseImage, archive.Image{
		Files:      map[string]string{"/pause": pause},
		Entrypoint: []string{"/pause"},
		User:       "65535:65535",
	})
	return p, err
}

// goBuild builds a program of this module, and leaves the file alone if it is current.
func goBuild(ctx context.Context, checkout string, log io.Writer, output, pkg string) error {
	return tool(ctx, checkout, log, "env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-ldflags=-s -w", "-o", output, pkg)
}

func tool(ctx context.Context, dir string, log io.Writer, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", cmd, err)
	}
	return nil
}

func newer(path, than string) bool {
	a, errA := os.Stat(path)
	b, errB := os.Stat(than)
	return errors.Join(errA, errB) == nil && a.ModTime().After(b.ModTime())
}
