package main

import (
	"fmt"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// withImage sets the image in the text of values.yaml, and keeps its comments.
func withImage(values []byte, image string) ([]byte, error) {
	repository, digest, _ := strings.Cut(image, "@")
	tag := ""
	// A colon before the last slash is a registry's port.
	if at := strings.LastIndex(repository, ":"); at > strings.LastIndex(repository, "/") {
		repository, tag = repository[:at], repository[at+1:]
	}
	if repository == "" || tag == "" && digest == "" {
		return nil, fmt.Errorf("the image %q has neither a tag nor a digest: give it as REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:…", image)
	}
	text := string(values)
	for _, change := range []struct{ from, to string }{
		{"\n  repository: nodepatch\n", fmt.Sprintf("\n  repository: %s\n", repository)},
		{"\n  tag: dev\n", fmt.Sprintf("\n  tag: %q\n", tag)},
		{"\n  digest: \"\"\n", fmt.Sprintf("\n  digest: %q\n", digest)},
	} {
		if strings.Count(text, change.from) != 1 {
			return nil, fmt.Errorf("values.yaml has no line %q to put the image in", strings.TrimSpace(change.from))
		}
		text = strings.Replace(text, change.from, change.to, 1)
	}
	return []byte(text), nil
}

// isSemantic says whether Helm takes it as a chart's version.
func isSemantic(version string) bool {
	_, err := semver.StrictNewVersion(version)
	return err == nil
}
