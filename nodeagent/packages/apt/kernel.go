package apt

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// kernelImage is what installed kernel packages are named after: the release
// follows, as in "linux-image-6.1.0-37-amd64". "linux-image-amd64" has none; it
// only depends on the newest.
const kernelImage = "linux-image-"

// release is a kernel's release taken apart: "6.1.0-37-cloud-amd64" is version
// "6.1.0-37" of flavour "cloud-amd64".
type release struct {
	full, version, flavour string
}

// parseRelease takes a release apart, or says that it is none. A version is the
// first part and, if it begins with a digit, the second: "6.12.9+bpo-amd64" has
// no second one.
func parseKernelRelease(s string) (release, bool) {
	if s == "" || !digit(s[0]) {
		return release{}, false
	}
	parts := strings.Split(s, "-")
	n := 1
	if len(parts) > 1 && parts[1] != "" && digit(parts[1][0]) {
		n = 2
	}
	return release{full: s, version: strings.Join(parts[:n], "-"), flavour: strings.Join(parts[n:], "-")}, true
}

// kernels are the releases of the kernels that are installed in full, with the
// versions of their packages.
func (d *database) kernels() map[release]string {
	found := map[release]string{}
	for i := range d.packages {
		if r, is := d.packages[i].kernel(); is {
			found[r] = d.packages[i].version
		}
	}
	return found
}

// kernelPackages are the names of the installed packages with the kernel of a
// release, and that of the package through which the host gets new releases of its
// flavour, such as "linux-image-amd64".
func (d *database) kernelPackages(of release) (names []string) {
	for i := range d.packages {
		p := &d.packages[i]
		if r, is := p.kernel(); is && r == of || p.status == "installed" && p.name == kernelImage+of.flavour {
			names = append(names, p.name)
		}
	}
	return names
}

// kernel is the release of the kernel that the package is, if it is one and
// installed in full.
func (p *installed) kernel() (release, bool) {
	name, is := strings.CutPrefix(p.name, kernelImage)
	if !is || p.status != "installed" {
		return release{}, false
	}
	// Both forms put the same image in /boot; Debian's unsigned ones say so at the
	// end, Ubuntu's at the beginning. The debugging symbols are no kernel.
	name = strings.TrimPrefix(strings.TrimSuffix(name, "-unsigned"), "unsigned-")
	if strings.HasSuffix(name, "-dbg") || strings.HasSuffix(name, "-dbgsym") {
		return release{}, false
	}
	return parseKernelRelease(name)
}

// newestKernel is the newest installed kernel of the running one's flavour. A
// kernel of another flavour is not what the host boots next, and a running
// kernel that no package brought (a container's) has no flavour among them.
func newestKernel(running string, kernels map[release]string) (release, bool) {
	now, ok := parseKernelRelease(running)
	if !ok {
		return release{}, false
	}
	newest, found := release{}, false
	for r := range kernels {
		if r.flavour == now.flavour && (!found || compareVersions(r.version, newest.version) > 0) {
			newest, found = r, true
		}
	}
	return newest, found
}

// kernelAndReboot reads from the host which kernel runs and whether it must be
// rebooted: because its packages say so by the flag file, which a new kernel on
// a minimal Debian does not leave behind, or because the running kernel is older
// than the newest installed.
func kernelAndReboot(files fs.FS, d *database) (packages.Kernel, packages.Reboot) {
	var kernel packages.Kernel
	var reboot packages.Reboot
	unknown := func(err error) {
		reboot.Unknown = true
		reboot.Reasons = append(reboot.Reasons, err.Error())
	}
	require := func(format string, args ...any) {
		if !reboot.Required { // what could not be seen does not matter any more
			reboot = packages.Reboot{Required: true}
		}
		reboot.Reasons = append(reboot.Reasons, fmt.Sprintf(format, args...))
	}

	var waiting []string
	running, err := packages.RunningKernel(files)
	if err != nil {
		unknown(err)
	}
	kernel.Running = running
	installed := d.kernels()
	newest, found := newestKernel(running, installed)
	if found {
		kernel.NewestInstalled = newest.full
		now, _ := parseKernelRelease(running)
		onDisk, booted := installed[now], ""
		if onDisk != "" {
			banner, err := packages.KernelBanner(files)
			if err != nil {
				unknown(err)
			}
			booted = bannerVersion(banner)
		}
		switch {
		case compareVersions(newest.version, now.version) > 0:
			waiting = append(waiting, d.kernelPackages(newest)...)
			require("kernel %s is installed, %s is running", newest.full, running)
		case booted != "" && compareVersions(onDisk, booted) > 0:
			waiting = append(waiting, d.kernelPackages(now)...)
			require("kernel %s was updated to version %s, version %s is running", running, onDisk, booted)
		}
	}

	set, by, err := packages.RebootFlag(files)
	if err != nil {
		unknown(err)
	}
	switch {
	case set && len(by) > 0:
		waiting = append(waiting, by...)
		require("asked for by %s", strings.Join(by, ", "))
	case set:
		require("asked for by /run/reboot-required, which names no package")
	}
	slices.Sort(waiting)
	reboot.Packages = slices.Compact(waiting)
	return kernel, reboot
}

// bannerVersion is the version of the package that the running kernel is from,
// which Debian puts at the end of /proc/version: "#1 SMP PREEMPT_DYNAMIC Debian
// 6.1.140-1 (2025-05-22)". It matters where a new version keeps the release.
// Ubuntu's kernels do not have it, and never keep the release.
func bannerVersion(banner string) string {
	i := strings.LastIndex(banner, " Debian ")
	if i < 0 {
		return ""
	}
	version, _, _ := strings.Cut(banner[i+len(" Debian "):], " ")
	if !validVersion(version) || !digit(version[0]) {
		return ""
	}
	return version
}
