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
	"time"
)

// rpmRecipe is raised when a root with rpm tools that an older version of this package built must not
// be used any more.
const rpmRecipe = "1"

// rpmPackages are the package managers of rpm distributions as Debian has them, with what dnf's core
// plugins need.
var rpmPackages = []string{"dnf", "python3-dateutil", "python3-dbus", "rpm", "zypper"}

// rpmPlugins holds needs-restarting and versionlock, which are files of their own on any rpm
// distribution. It is unpacked and not installed: the package refuses to be on one machine with zypper,
// without having a file in common with it.
const rpmPlugins = "dnf-plugins-core"

// RPM returns the root of [Debian] with dnf 4, zypper and rpm added to it, and makes it first if it is
// not there, which takes half a minute more. The rpm database in it is empty, and neither dnf nor
// zypper has a repository: toy packages of test/rpmrepo are all that they ever see. It needs what
// [Debian] needs.
func RPM(ctx context.Context, log io.Writer) (*Root, error) {
	base, err := Debian(ctx, log)
	if err != nil {
		return nil, err
	}
	sources, err := HostSources(ctx)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(strings.Join(append([]string{rpmRecipe, base.Path, rpmPlugins}, rpmPackages...), "\n")))
	name := fmt.Sprintf("%s-rpm-%x", base.Codename, sum[:6])
	cache := filepath.Dir(base.Path)
	root := &Root{Path: filepath.Join(cache, name), Codename: base.Codename}

	unlock, err := lock(ctx, filepath.Join(cache, "."+name+".lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := os.Stat(root.Path); err == nil {
		return root, nil
	}

	start := time.Now()
	fmt.Fprintf(log, "Adding rpm, dnf and zypper to a copy of %s\n", base.Path)
	if err := addRPM(ctx, base, root.Path, sources, log); err != nil {
		return nil, fmt.Errorf("build the root with rpm tools: %w", err)
	}
	fmt.Fprintf(log, "Built %s in %s\n", root.Path, time.Since(start).Round(time.Second))
	return root, nil
}

// addRPM works on a copy beside its final place and renames it, so that what is at path is always whole.
func addRPM(ctx context.Context, base *Root, path string, sources *Sources, log io.Writer) (err error) {
	building := path + ".building"
	if err := os.RemoveAll(building); err != nil { // left by one that was killed
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(building)) }()
	if output, err := exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", base.Path, building).CombinedOutput(); err != nil {
		return fmt.Errorf("copy %s: %w: %s", base.Path, err, output)
	}

	// A layer without mounts: commands run in the copy itself, in namespaces of their own.
	copied := &Layer{Path: building}
	if err := errors.Join(sources.Write(building), copied.WriteResolver()); err != nil {
		return err
	}
	for _, argv := range [][]string{
		{"apt-get", "-q", "update"},
		append([]string{"apt-get", "-q", "-y", "--no-install-recommends", "install"}, rpmPackages...),
		{"sh", "-ec", "cd /var/cache/apt/archives && apt-get -q download " + rpmPlugins + " && dpkg-deb -x " + rpmPlugins + "_*.deb /"},
		// Without it, each user of Debian's rpm has a database below the home directory.
		{"sh", "-ec", "mkdir -p /etc/rpm && echo '%_dbpath /var/lib/rpm' >/etc/rpm/macros && rpm --initdb && rm -rf /root/.rpmdb"},
		// What only this needed, and a plugin that adds a repository of what is in dnf's cache.
		{"sh", "-ec", "apt-get clean; rm -rf /var/cache/apt/archives/*.deb /var/lib/apt/lists/* /etc/resolv.conf " +
			"/etc/dnf/plugins/local.conf /usr/lib/python3/dist-packages/dnf-plugins/local.py"},
	} {
		cmd := copied.Command(ctx, argv[0], argv[1:]...)
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
		}
	}
	return os.Rename(building, path)
}
