package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// directory is where a cluster keeps its files.
//
//	cluster.json       marks the directory as a cluster's, and names the cluster's number
//	kubeconfig         for a person or a test, as cluster administrator
//	logs/              one file per process, the machines' consoles, and audit.log
//	images/            image archives that machines load when they boot
//	pki/ etcd/ machines/
//
// The logs outlive the cluster, for whoever wonders why it failed.
type directory string

func (d directory) path(elements ...string) string {
	return filepath.Join(append([]string{string(d)}, elements...)...)
}

func (d directory) marker() string         { return d.path("cluster.json") }
func (d directory) kubeconfig() string     { return d.path("kubeconfig") }
func (d directory) audit() string          { return d.path("logs", "audit.log") }
func (d directory) log(name string) string { return d.path("logs", name+".log") }
func (d directory) pki(name string) string { return d.path("pki", name) }
func (d directory) machine(i int) string   { return d.path("machines", nodeName(i)) }
func (d directory) containerd(i int) string {
	return d.path("machines", nodeName(i), "disk", "containerd")
}
func (d directory) image(name string) string { return d.path("images", name) }

// prepare makes an empty cluster directory of a new or empty one, or of one that an earlier cluster
// left. Anything else is somebody's own and refused.
func (d directory) prepare() error {
	entries, err := os.ReadDir(string(d))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		if _, err := os.Stat(d.path("logs")); err != nil {
			return fmt.Errorf("%s is not empty and was not made by a cluster: choose another directory", d)
		}
		if err := removeContents(string(d)); err != nil {
			return err
		}
		if err := os.RemoveAll(d.path("logs")); err != nil {
			return err
		}
	}
	for _, name := range []string{"logs", "images", "pki", "etcd", "machines"} {
		if err := os.MkdirAll(d.path(name), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// removeContents removes what a cluster put into its directory, except its logs.
func removeContents(dir string) error {
	d := directory(dir)
	var errs []error
	for _, name := range []string{"machines", "etcd", "pki", "images", "kubeconfig", "cluster.json"} {
		errs = append(errs, os.RemoveAll(d.path(name)))
	}
	return errors.Join(errs...)
}
