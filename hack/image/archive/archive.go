// Package archive writes container images without a container engine: a few static programs in one
// layer, as an archive that "ctr images import", "docker load" and "skopeo copy docker-archive:" take.
package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Image is what an image contains.
type Image struct {
	// Files maps absolute paths in the image to files on this host. They are owned by root, mode 0755.
	Files map[string]string
	// Entrypoint is the program that the image runs by default.
	Entrypoint []string
	// User is the numeric "uid:gid" that it runs as by default. A number lets kubelet see that it is
	// not root.
	User string
}

// Write writes the image to path under the reference, for example "nodepatch:dev". The same content
// gives the same image: files carry no time. The file at path is replaced at once or not at all.
func Write(path, reference string, content Image) error {
	tag, err := name.NewTag(reference)
	if err != nil {
		return fmt.Errorf("image reference %q: %w", reference, err)
	}
	image, err := build(content, runtime.GOARCH)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	unfinished := path + ".new"
	if err := tarball.WriteToFile(unfinished, tag, image); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(unfinished, path)
}

// build makes the image for an architecture, for which its files are.
func build(content Image, architecture string) (v1.Image, error) {
	layer, err := layer(content.Files)
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", architecture
	config.Config = v1.Config{
		Entrypoint: content.Entrypoint,
		User:       content.User,
		Env:        []string{"PATH=/"},
		WorkingDir: "/",
	}
	return mutate.ConfigFile(image, config)
}

// layer makes one layer of the files. It is held in memory: an image here is two programs.
func layer(files map[string]string) (v1.Layer, error) {
	paths := make([]string, 0, len(files))
	for path := range files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	for _, path := range paths {
		if err := add(writer, strings.TrimPrefix(path, "/"), files[path]); err != nil {
			return nil, fmt.Errorf("add %s: %w", path, err)
		}
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buffer.Bytes())), nil
	}, tarball.WithCompressionLevel(gzip.BestSpeed)) // most archives are read once, on this host
}

func add(writer *tar.Writer, target, source string) error {
	file, err := os.Open(source)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: target, Size: info.Size(), Mode: 0o755, Format: tar.FormatUSTAR}
	if err := writer.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(writer, file)
	return err
}
