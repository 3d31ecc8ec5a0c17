// Command image writes the operator's image, with both of its programs, or that of one other program, as
// an archive. It needs no container engine.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nodepatch/nodepatch/hack/image/archive"
)

func main() {
	manager := flag.String("manager", "bin/manager", "static `program` to put at /manager, which the image runs by default")
	agent := flag.String("agent", "bin/agent", "static `program` to put at /agent")
	program := flag.String("program", "", "`PATH=FILE` of a single static program to put there instead, and to run")
	tag := flag.String("tag", "nodepatch:dev", "`reference` of the image")
	output := flag.String("o", "bin/nodepatch-image.tar", "`archive` to write")
	push := flag.String("push", "", "write no archive, but upload the image for these `architectures`, such as \"amd64 arm64\", to the registry of its reference")
	programs := flag.String("programs", "bin/push", "`folder` with the programs for each of them, at ARCHITECTURE/manager and ARCHITECTURE/agent")
	digest := flag.String("digest", "", "`file` to write the reference with the digest of what was uploaded to")
	flag.Parse()
	image := archive.Image{Entrypoint: []string{"/manager"}, User: "65532:65532"}
	image.Files = map[string]string{"/manager": *manager, "/agent": *agent}
	if path, file, given := strings.Cut(*program, "="); given {
		image.Files, image.Entrypoint = map[string]string{path: file}, []string{path}
	}
	work := func() error { return write(*output, *tag, image) }
	if *push != "" {
		work = func() error { return upload(strings.Fields(*push), *programs, *tag, *digest, image) }
	}
	if err := work(); err != nil {
		fmt.Fprintf(os.Stderr, "Error: %v\n", err)
		os.Exit(1)
	}
}

func write(output, tag string, image archive.Image) error {
	if err := archive.Write(output, tag, image); err != nil {
		return err
	}
	fmt.Printf("Wrote %s as %s\n", output, tag)
	return nil
}

// upload pushes the image for each architecture, and remembers its digest in a file.
func upload(architectures []string, programs, tag, file string, image archive.Image) error {
	content := map[string]archive.Image{}
	for _, architecture := range architectures {
		of := image
		of.Files = map[string]string{
			"/manager": filepath.Join(programs, architecture, "manager"),
			"/agent":   filepath.Join(programs, architecture, "agent"),
		}
		content[architecture] = of
	}
	digest, err := archive.Push(context.Background(), tag, content)
	if err != nil {
		return err
	}
	fmt.Printf("Pushed %s@%s for %s\n", tag, digest, strings.Join(architectures, ", "))
	if file == "" {
		return nil
	}
	return os.WriteFile(file, []byte(tag+"@"+digest+"\n"), 0o644)
}
