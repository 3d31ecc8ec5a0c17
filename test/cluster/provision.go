package cluster

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/nodepatch/nodepatch/test/roots"
)

// pauseImage is the sandbox of every pod. It is built here, as no machine can pull.
const pauseImage = "localhost/pause:1"

//go:embed files
var files embed.FS

// nodeName is the i-th machine's host name and node name.
func nodeName(i int) string { return fmt.Sprintf("machine-%d", i) }

// provision writes to a new machine's disk what an installer would: its network, its container runtime,
// its kubelet with a certificate, and where its packages come from.
func (s *supervisor) provision(layer *roots.Layer, i int) error {
	unified := s.cgroup().unified()
	values := map[string]any{
		"PauseImage":    pauseImage,
		"PodCIDR":       s.Number.pods(i),
		"SystemdCgroup": unified,
		"CgroupDriver":  "cgroupfs",
		"CgroupRoot":    "/pods",
	}
	if unified {
		// Only a systemd that owns the whole tree shares it with kubelet.
		values["CgroupDriver"], values["CgroupRoot"] = "systemd", ""
	}

	if err := layer.WriteResolver(); err != nil {
		return err
	}
	servers, err := nameServers(filepath.Join(layer.Path, "etc/resolv.conf"))
	if err != nil {
		return err
	}
	values["NameServers"] = strings.Join(servers, ", ")

	w := writer{root: layer.Path, values: values}
	w.file("/etc/hostname", nodeName(i)+"\n", 0o644)
	w.file("/etc/machine.env", fmt.Sprintf(
		"NODE=%s\nNODE_IP=%s\nADDRESS=%s/24\nGATEWAY=%s\nAPI=%s:%d\nSERVICE=%s\n",
		nodeName(i), s.Number.machine(i), s.Number.machine(i), s.Number.host(), s.Number.host(), apiPort, apiService), 0o644)
	w.embedded("machine-setup", "/usr/local/sbin/machine-setup", 0o755)
	w.embedded("import-images", "/usr/local/sbin/import-images", 0o755)
	w.embedded("machine-setup.service", "/etc/systemd/system/machine-setup.service", 0o644)
	w.embedded("kubelet.service", "/etc/systemd/system/kubelet.service", 0o644)
	w.embedded("containerd.conf", "/etc/systemd/system/containerd.service.d/machine.conf", 0o644)
	w.embedded("containerd.toml", "/etc/containerd/config.toml", 0o644)
	w.embedded("cni.conflist", "/etc/cni/net.d/10-pods.conflist", 0o644)
	w.embedded("kubelet.yaml", "/etc/kubernetes/kubelet.yaml", 0o644)
	w.file("/etc/kubernetes/ca.crt", string(s.authority.pem), 0o644)

	w.hosts(s.record)

	const system = "/etc/systemd/system/"
	for _, unit := range []string{"machine-setup.service", "containerd.service", "kubelet.service"} {
		w.link("../"+unit, system+"multi-user.target.wants/"+unit)
	}
	// The distribution's own daily updates would hold the package manager's lock when a test does not
	// expect it. A machine has no terminal either.
	for _, unit := range []string{"apt-daily.timer", "apt-daily-upgrade.timer", "console-getty.service", "systemd-networkd.service", "systemd-resolved.service"} {
		w.link("/dev/null", system+unit)
	}
	if w.err != nil {
		return w.err
	}
	return errors.Join(
		s.authority.kubeconfig(filepath.Join(layer.Path, "etc/kubernetes/kubelet.conf"), s.server(), "system:node:"+nodeName(i), "system:nodes"),
		s.writeSources(layer.Path),
	)
}

// nameServers reads a resolv.conf(5). The cluster has no name server of its own, so pods get these too.
func nameServers(path string) ([]string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var servers []string
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "nameserver" {
			servers = append(servers, fields[1])
		}
	}
	return servers, nil
}

// writeSources points the machine's package manager at the cluster's own sources, or at the host's.
func (s *supervisor) writeSources(root string) error {
	if s.Sources == "" {
		return s.hostSources.Write(root)
	}
	return os.WriteFile(filepath.Join(root, "etc/apt/sources.list"), []byte(s.Sources), 0o644)
}

// writer writes files below a root and keeps the first error.
type writer struct {
	root   string
	values map[string]any
	err    error
}

func (w *writer) file(path, content string, mode os.FileMode) {
	w.do(path, func(path string) error {
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			return err
		}
		return os.Chmod(path, mode)
	})
}

// embedded writes one of the embedded files, with the values filled in.
func (w *writer) embedded(name, path string, mode os.FileMode) {
	if w.err != nil {
		return
	}
	var text bytes.Buffer
	parsed, err := template.ParseFS(files, "files/"+name)
	if err == nil {
		err = parsed.Option("missingkey=error").Execute(&text, w.values)
	}
	if err != nil {
		w.err = fmt.Errorf("fill in %s: %w", name, err)
		return
	}
	w.file(path, text.String(), mode)
}

func (w *writer) link(target, path string) {
	w.do(path, func(path string) error {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return os.Symlink(target, path)
	})
}

// hosts adds the machines' names to the host's list of names.
func (w *writer) hosts(r record) {
	content, err := os.ReadFile(filepath.Join(w.root, "etc/hosts"))
	if err != nil {
		w.err = errors.Join(w.err, err)
		return
	}
	text := strings.TrimRight(string(content), "\n") + "\n"
	for i := 1; i <= r.Machines; i++ {
		text += fmt.Sprintf("%s %s\n", r.Number.machine(i), nodeName(i))
	}
	w.file("/etc/hosts", text, 0o644)
}

func (w *writer) do(path string, write func(path string) error) {
	if w.err != nil {
		return
	}
	path = filepath.Join(w.root, path)
	if w.err = os.MkdirAll(filepath.Dir(path), 0o755); w.err == nil {
		w.err = write(path)
	}
}
