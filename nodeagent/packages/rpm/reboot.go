package rpm

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// core are packages that take effect with a reboot only: those of which
// needs-restarting says so (dnf-plugins-core, plugins/needs_restarting.py, and
// dnf5-plugins, needs_restarting_plugin), and their names at SUSE. Kernels are
// compared by their releases instead, because an older one may be installed last.
var core = []string{
	"dbus", "dbus-broker", "dbus-daemon", "dbus-1", "dbus-1-daemon",
	"glibc", "gnutls", "libopenssl1_1", "libopenssl3", "linux-firmware", "kernel-firmware-all", "microcode_ctl",
	"openssl-libs", "systemd", "ucode-amd", "ucode-intel", "udev",
}

// Reboot reads from the host which kernel runs, and whether the host must be
// rebooted: because the running kernel is older than the newest installed, because
// a package that the whole system rests on was installed after the host was
// booted, or because SUSE's flag file says so.
func Reboot(files fs.FS, installed *Installed) (packages.Kernel, packages.Reboot) {
	var kernel packages.Kernel
	var reboot packages.Reboot
	unknown := func(err error) {
		if !reboot.Required {
			reboot.Unknown = true
			reboot.Reasons = append(reboot.Reasons, err.Error())
		}
	}
	require := func(reason string) {
		if !reboot.Required { // what could not be seen does not matter any more
			reboot = packages.Reboot{Required: true}
		}
		reboot.Reasons = append(reboot.Reasons, reason)
	}

	var err error
	if kernel.Running, err = packages.RunningKernel(files); err != nil {
		unknown(err)
	}
	releases, err := kernelReleases(files)
	if err != nil {
		unknown(err)
	}
	kernel.NewestInstalled = newestKernel(kernel.Running, releases)
	if kernel.NewestInstalled != "" && compareReleases(kernel.NewestInstalled, kernel.Running) > 0 {
		require(fmt.Sprintf("kernel %s is installed, %s is running", kernel.NewestInstalled, kernel.Running))
	}

	booted, err := BootTime(files)
	if err != nil {
		unknown(err)
	}
	if names := installed.since(booted, core); err == nil && len(names) > 0 {
		require("updated since the host was booted: " + strings.Join(names, ", "))
		reboot.Packages = names
	}
	switch _, err := fs.Stat(files, "run/reboot-needed"); {
	case err == nil:
		require("asked for by /run/reboot-needed")
	case !errors.Is(err, fs.ErrNotExist):
		unknown(fmt.Errorf("look for the host's reboot flag: %w", err))
	}
	return kernel, reboot
}

// since are the names of those packages of the list that were installed after
// the time, sorted, each once.
func (s *Installed) since(t time.Time, names []string) []string {
	var found []string
	for _, p := range s.Packages {
		if slices.Contains(names, p.Name) && p.Installed.After(t) && !slices.Contains(found, p.Name) {
			found = append(found, p.Name)
		}
	}
	return found
}

// BootTime is when the host was booted, by the clock that it has now: the clock
// by which rpm writes down when it installed a package (proc(5), /proc/stat).
func BootTime(files fs.FS) (time.Time, error) {
	const purpose = "read when the host was booted"
	text, err := fs.ReadFile(files, "proc/stat")
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", purpose, err)
	}
	for line := range bytes.Lines(text) {
		if value, is := strings.CutPrefix(string(line), "btime "); is {
			seconds, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			if err != nil {
				return time.Time{}, fmt.Errorf("%s: %w", purpose, err)
			}
			return time.Unix(seconds, 0), nil
		}
	}
	return time.Time{}, fmt.Errorf("%s: /proc/stat does not say it", purpose)
}

// kernelReleases are the releases of the kernels that lie on the host's disk,
// ready to be booted: those that have modules, and an image beside them or in /boot.
func kernelReleases(files fs.FS) ([]string, error) {
	var found []string
	for _, dir := range []string{"usr/lib/modules", "lib/modules"} {
		entries, err := fs.ReadDir(files, dir)
		// A container has none, and /lib may be a link that leads out of a mounted root.
		if err != nil && !errors.Is(err, fs.ErrNotExist) && dir == "usr/lib/modules" {
			return nil, fmt.Errorf("list the installed kernels: %w", err)
		}
		for _, e := range entries {
			for _, image := range []string{dir + "/" + e.Name() + "/vmlinuz", dir + "/" + e.Name() + "/Image", "boot/vmlinuz-" + e.Name(), "boot/Image-" + e.Name()} {
				if _, err := fs.Stat(files, image); err == nil && !slices.Contains(found, e.Name()) {
					found = append(found, e.Name())
				}
			}
		}
	}
	return found, nil
}

// newestKernel is the newest release of the running kernel's flavour. A kernel of
// another flavour is not what the host boots next, and a running kernel that no
// package brought (a container's) has no flavour among them.
func newestKernel(running string, releases []string) string {
	newest := ""
	for _, r := range releases {
		if flavour(r) == flavour(running) && (newest == "" || compareReleases(r, newest) > 0) {
			newest = r
		}
	}
	return newest
}

func compareReleases(a, b string) int {
	aVersion, aRelease, _ := strings.Cut(a, "-")
	bVersion, bRelease, _ := strings.Cut(b, "-")
	if c := comparePart(aVersion, bVersion); c != 0 {
		return c
	}
	return comparePart(aRelease, bRelease)
}

// flavour is what a release has besides its numbers: "el uek x" of
// "5.15.0-3.60.5.1.el9uek.x86_64", "default" of "6.4.0-150600.21-default".
func flavour(release string) string {
	words := strings.FieldsFunc(release, func(c rune) bool { return !letter(c) })
	return strings.Join(words, " ")
}
