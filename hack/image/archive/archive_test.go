package archive_test

import (
	"archive/tar"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/nodepatch/nodepatch/hack/image/archive"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "new", "image.tar")
	content := archive.Image{Files: map[string]string{"/manager": program}, Entrypoint: []string{"/manager"}, User: "65532:65532"}
	if err := archive.Write(path, "nodepatch:dev", content); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	tag, err := name.NewTag("nodepatch:dev")
	if err != nil {
		t.Fatal(err)
	}
	image, err := tarball.ImageFromPath(path, &tag)
	if err != nil {
		t.Fatalf("read the image under its tag: %v", err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "65532:65532" || config.OS != "linux" {
		t.Errorf("user %q on %q, want 65532:65532 on linux", config.Config.User, config.OS)
	}
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, want 1: %v", len(layers), err)
	}
	reader, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	header, err := tar.NewReader(reader).Next()
	if err != nil {
		t.Fatal(err)
	}
	if header.Name != "manager" || header.Mode != 0o755 || header.Uid != 0 {
		t.Errorf("got %s mode %o owner %d, want manager mode 755 owner 0", header.Name, header.Mode, header.Uid)
	}

	if err := archive.Write(path, "nodepatch:dev", content); err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(first) != string(second) {
		t.Error("the same content gave another image")
	}
}

func TestWriteRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image.tar")
	for name, test := range map[string]struct {
		reference string
		files     map[string]string
	}{
		"a reference that is none":    {reference: "Node Patch", files: nil},
		"a program that is not there": {reference: "nodepatch:dev", files: map[string]string{"/manager": path + ".missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := archive.Write(path, test.reference, archive.Image{Files: test.files}); err == nil {
				t.Error("no error")
			}
			if _, err := os.Stat(path); !os.IsNotExist(err) {
				t.Errorf("left something at the path: %v", err)
			}
		})
	}
}

func TestPush(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	reference := strings.TrimPrefix(server.URL, "http://") + "/team/nodepatch:v1"
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	image := archive.Image{Files: map[string]string{"/manager": program}, User: "65532:65532"}
	digest, err := archive.Push(t.Context(), reference, map[string]archive.Image{"amd64": image, "arm64": image})
	if err != nil {
		t.Fatal(err)
	}

	whole, err := name.NewDigest(reference[:strings.LastIndex(reference, ":")] + "@" + digest)
	if err != nil {
		t.Fatal(err)
	}
	for _, architecture := range []string{"amd64", "arm64"} {
		pushed, err := remote.Image(whole, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: architecture}))
		if err != nil {
			t.Fatalf("pull what was pushed: %v", err)
		}
		config, err := pushed.ConfigFile()
		if err != nil || config.Config.User != "65532:65532" || config.Architecture != architecture {
			t.Errorf("the image pushed for %s has the configuration %+v, %v", architecture, config, err)
		}
	}
	tag, err := name.NewTag(reference)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Head(tag); err != nil {
		t.Errorf("it has not the tag: %v", err)
	}
}
