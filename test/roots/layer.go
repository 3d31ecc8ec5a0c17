package roots

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Layer is a writable copy of a [Root] that costs no time and no space until it is written to.
type Layer struct {
	// Path is the root directory of the copy.
	Path string

	dir    string
	mounts []string // in the order they were mounted
}

// Layer lays a writable layer over the root, with its files in dir, which is created and should be
// empty. What was written there by an earlier layer is kept: a machine that was switched off finds its
// disk again.
func (r *Root) Layer(dir string) (*Layer, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	layer := &Layer{Path: filepath.Join(dir, "root"), dir: dir}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := layer.mountUpper(); err != nil {
		return nil, errors.Join(err, layer.Close())
	}
	upper, work := filepath.Join(dir, "disk", "upper"), filepath.Join(dir, "disk", "work")
	for _, path := range []string{upper, work, layer.Path} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return nil, errors.Join(err, layer.Close())
		}
	}
	if err := layer.mountOverlay(r.Path, upper, work); err != nil {
		return nil, errors.Join(err, layer.Close())
	}
	return layer, nil
}

// mountOverlay names the directories by descriptors: in the options of a mount, the commas and colons
// of a path mean something else.
func (l *Layer) mountOverlay(lower, upper, work string) error {
	var options []string
	for _, directory := range [][2]string{{"lowerdir", lower}, {"upperdir", upper}, {"workdir", work}} {
		file, err := os.Open(directory[1])
		if err != nil {
			return err
		}
		defer file.Close()
		options = append(options, fmt.Sprintf("%s=/proc/self/fd/%d", directory[0], file.Fd()))
	}
	return l.mount("overlay", l.Path, "overlay", 0, strings.Join(options, ","))
}

// mountUpper puts a tmpfs below the layer where the directory is itself on overlayfs, as in a
// container: the kernel takes no overlayfs as the upper layer of another.
func (l *Layer) mountUpper() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(l.dir, &fs); err != nil {
		return fmt.Errorf("statfs %s: %w", l.dir, err)
	}
	if fs.Type != unix.OVERLAYFS_SUPER_MAGIC {
		return nil
	}
	disk := filepath.Join(l.dir, "disk")
	if err := os.MkdirAll(disk, 0o755); err != nil {
		return err
	}
	return l.mount("tmpfs", disk, "tmpfs", 0, "mode=0755")
}

// MountKernel mounts /proc, /sys and /dev in the layer, as a program in a plain chroot expects them.
// A layer that is booted as a machine gets them from there and must not have these.
func (l *Layer) MountKernel() error {
	return errors.Join(
		l.mount("proc", filepath.Join(l.Path, "proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""),
		l.mount("sysfs", filepath.Join(l.Path, "sys"), "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, ""),
		l.mount("/dev", filepath.Join(l.Path, "dev"), "", unix.MS_BIND, ""),
	)
}

// WriteResolver gives the layer the host's name resolution.
func (l *Layer) WriteResolver() error {
	// Where systemd-resolved answers on the host's loopback, these are the servers that it asks.
	const upstream = "/run/systemd/resolve/resolv.conf"
	for _, path := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		content, err := os.ReadFile(path)
		if err == nil && bytes.Contains(content, []byte("nameserver 127.0.0.53")) {
			content, err = os.ReadFile(upstream)
		}
		if err != nil {
			return err
		}
		// The target may be a link out of the layer (to systemd-resolved's file on the host).
		target := filepath.Join(l.Path, path)
		if err := os.RemoveAll(target); err != nil {
			return err
		}
		if err := os.WriteFile(target, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Command runs a program chrooted in the layer, in PID and mount namespaces of its own: nothing that it
// starts or mounts outlives it.
func (l *Layer) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	unshare := []string{"--fork", "--pid", "--mount", "--kill-child", "--root=" + l.Path, "--mount-proc", "--", name}
	cmd := exec.CommandContext(ctx, "unshare", append(unshare, args...)...)
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive",
	}
	return cmd
}

// Close unmounts the layer. Its files stay in the directory that it was given. It may be called twice.
func (l *Layer) Close() error {
	var errs []error
	for len(l.mounts) > 0 {
		target := l.mounts[len(l.mounts)-1]
		l.mounts = l.mounts[:len(l.mounts)-1]
		// Detached: a program that is still at work in the layer must not keep a test from ending.
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", target, err))
		}
	}
	return errors.Join(errs...)
}

func (l *Layer) mount(device, target, kind string, flags uintptr, options string) error {
	if err := unix.Mount(device, target, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", device, target, err)
	}
	// A private mount stays out of other namespaces, which would hold it busy.
	if err := unix.Mount("", target, "", unix.MS_PRIVATE, ""); err != nil {
		return errors.Join(fmt.Errorf("make %s private: %w", target, err), unix.Unmount(target, unix.MNT_DETACH))
	}
	l.mounts = append(l.mounts, target)
	return nil
}
