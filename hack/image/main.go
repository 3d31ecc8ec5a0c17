// Command image writes the operator's image, with both of its programs, or that of one other program, as
// an archive. It needs no container engine.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/nodepatch/nodepatch/hack/image/archive"
)

func main() {
	manager := flag.String("manager", "bin/manager", "static `program` to put at /manager, which the image runs by default")
	agent := flag.String("agent", "bin/agent", "static `program` to put at /agent")
	program := flag.String("program", "", "`PATH=FILE` of a single static program to put there instead, and to run")
	tag := flag.String("tag", "nodepatch:dev", "`reference` of the image")
	output := flag.String("o", "bin/nodepatch-image.tar", "`archive` to write")
	push := flag.Bool("push", false, "also upload it to the registry of its reference")
	flag.Parse()
	image := archive.Image{
		Files:      map[string]string{"/manager": *manager, "/agent": *agent},
		Entrypoint: []string{"/manager"},
		User:       "65532:65532",
	}
	if path, file, given := strings.Cut(*program, "="); given {
		image.Files, image.Entrypoint = map[string]string{path: file}, []string{path}
	}
	err := archive.Write(*output, *tag, image)
	if err != nil {
		fmt.Fprintf(os.Stderr, "Error: %v\n", err)
		os.Exit(1)
	}
	fmt.Printf("Wrote %s as %s\n", *output, *tag)
	if !*push {
		return
	}
	if err := archive.Push(context.Background(), *output, *tag); err != nil {
		fmt.Fprintf(os.Stderr, "Error: %v\n", err)
		os.Exit(1)
	}
	fmt.Printf("Pushed %s\n", *tag)
}
