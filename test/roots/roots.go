// Package roots builds the root file systems of test machines: a whole Debian (or, on an Ubuntu host,
// Ubuntu) with systemd and containerd, built once by mmdebstrap and layered per machine by overlayfs.
//
// A root holds the distribution's main suite as of its last point release and nothing newer, so that
// every security update since then is really missing on a machine that is given the host's sources
// (see [HostSources] and [Sources.Write]).
package roots

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// recipe is raised when a root built by an older version of this package must not be used any more.
const recipe = "1"

// packages is what a machine needs to be a Kubernetes node, beyond mmdebstrap's minbase.
var packages = []string{
	"ca-certificates", "containerd", "containernetworking-plugins", "dbus", "iproute2", "iptables",
	"procps", "runc", "systemd", "systemd-sysv", "udev",
}

// Root is a finished root file system. It is shared: never write to it, only to a [Layer] of it.
type Root struct {
	// Path is the absolute path of the directory.
	Path string
	// Codename is the distribution's release, "bookworm".
	Codename string
}

// Debian returns the root for the release that the host runs, and builds it first if it is not there,
// which takes half a minute and downloads some 100 MB. Progress goes to log. Two processes that ask at
// once build it once. It needs root, mmdebstrap (see hack/packages.txt) and a package index that
// "apt-get update" has fetched; the errors say which of them is missing.
func Debian(ctx context.Context, log io.Writer) (*Root, error) {
	if err := Supported(); err != nil {
		return nil, err
	}
	sources, err := HostSources(ctx)
	if err != nil {
		return nil, err
	}
	main, err := sources.main()
	if err != nil {
		return nil, err
	}
	checkout, err := Checkout()
	if err != nil {
		return nil, err
	}
	cache := filepath.Join(checkout, "bin", "roots")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(strings.Join(append([]string{recipe, main.line()}, packages...), "\n")))
	name := fmt.Sprintf("%s-%x", sources.Codename, sum[:6])
	root := &Root{Path: filepath.Join(cache, name), Codename: sources.Codename}

	unlock, err := lock(ctx, filepath.Join(cache, "."+name+".lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := os.Stat(root.Path); err == nil {
		return root, nil
	}

	start := time.Now()
	fmt.Fprintf(log, "Building a %s root with mmdebstrap\n", sources.Codename)
	if err := build(ctx, root.Path, sources, main, log); err != nil {
		return nil, fmt.Errorf("build the %s root: %w", sources.Codename, err)
	}
	fmt.Fprintf(log, "Built %s in %s\n", root.Path, time.Since(start).Round(time.Second))
	return root, nil
}

// Supported returns nil where machines can be built and booted: as root, on Debian or Ubuntu, with
// the programs of hack/packages.txt. Otherwise the error is one sentence for a person.
func Supported() error {
	if os.Geteuid() != 0 {
		return errors.New("test machines need root, to mount and to make namespaces: run it as root")
	}
	for _, name := range []string{"apt-get", "mmdebstrap", "unshare"} {
		if _, err := exec.LookPath(name); err != nil {
			if name == "apt-get" {
				return errors.New("test machines are Debian machines and need a Debian or Ubuntu host: apt-get is not here")
			}
			return fmt.Errorf("%s is not installed: install the packages of hack/packages.txt", name)
		}
	}
	return nil
}

// build makes the root beside its final place and renames it, so that what is at path is always whole.
func build(ctx context.Context, path string, sources *Sources, main source, log io.Writer) error {
	leftovers, err := filepath.Glob(path + ".building-*")
	if err != nil {
		return err
	}
	for _, left := range leftovers {
		if err := os.RemoveAll(left); err != nil {
			return err
		}
	}
	building, err := os.MkdirTemp(filepath.Dir(path), filepath.Base(path)+".building-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(building)
	if err := os.Chmod(building, 0o755); err != nil {
		return err
	}

	args := []string{
		"--mode=root", "--variant=minbase", "--include=" + strings.Join(packages, ","),
		// A machine writes its own identity and its own resolver.
		"--customize-hook=rm -f \"$1\"/etc/resolv.conf \"$1\"/etc/hostname \"$1\"/var/lib/dbus/machine-id",
	}
	for _, option := range sources.Options {
		args = append(args, "--aptopt="+option)
	}
	args = append(args, sources.Codename, building, main.line())
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	// An interrupt lets mmdebstrap unmount what it mounted in the root; a kill would not.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("mmdebstrap: %w", err)
	}
	return os.Rename(building, path)
}

// Checkout is the top directory of the checkout that the working directory is in. Its bin directory
// keeps what was built, so that "rm -r bin" starts afresh.
func Checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(content), "module github.com/nodepatch/nodepatch\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("not inside a checkout of nodepatch, whose bin directory keeps what test machines are made of")
		}
		dir = filepath.Dir(dir)
	}
}

// lock takes an exclusive lock that the kernel drops when the process ends, however it ends.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("wait for another process that builds the same root: %w", ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}
