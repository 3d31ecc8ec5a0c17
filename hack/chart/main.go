// Command chart writes the templates of the Helm chart from the manifests that kustomize
// installs, so that there is one source of what nodepatch is. What is not generated
// (values, their schema, notes) stands in config/chart by hand. With -package it also
// writes the chart as an archive.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
)

func main() {
	config := flag.String("config", "../../config", "`folder` of the manifests, with the chart in chart/")
	pack := flag.String("package", "", "`folder` to write an archive of the chart to, instead of its templates")
	image := flag.String("image", "", "`reference` of the image that the archived chart installs, with a digest if it is known")
	version := flag.String("version", "", "version of the archived chart, if that is semantic, and of what it installs")
	flag.Parse()
	work := func() error { return generate(*config) }
	if *pack != "" {
		work = func() error { return archive(*config, *pack, *image, *version) }
	}
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// generate replaces the chart's generated templates by those of today's manifests.
func generate(config string) error {
	files, err := templates(config)
	if err != nil {
		return err
	}
	folder := filepath.Join(config, "chart", "templates")
	old, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if _, wanted := files[filepath.Base(path)]; !wanted {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// archive writes the chart as it stands, with another image and version.
func archive(config, folder, image, version string) error {
	chart, err := loader.LoadDir(filepath.Join(config, "chart"))
	if err != nil {
		return fmt.Errorf("load the chart: %w", err)
	}
	if image != "" {
		for _, file := range chart.Raw {
			if file.Name == chartutil.ValuesfileName {
				if file.Data, err = withImage(file.Data, image); err != nil {
					return err
				}
			}
		}
	}
	if version != "" {
		chart.Metadata.AppVersion = version
		if semantic := strings.TrimPrefix(version, "v"); isSemantic(semantic) {
			chart.Metadata.Version = semantic
		}
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	path, err := chartutil.Save(chart, folder)
	if err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	fmt.Println("Wrote", path)
	return nil
}
