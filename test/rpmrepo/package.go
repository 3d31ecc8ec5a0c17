package rpmrepo

import (
	"fmt"
	"strings"

	"github.com/nodepatch/nodepatch/test/mirror"
)

// Package is a toy package. Only Name and Version are required.
type Package struct {
	Name string
	// Version is "[epoch:]version-release", as rpm prints it.
	Version string
	// Architecture is "noarch" if it is empty, which every machine can install.
	Architecture string
	// Source is the file name of the source package; that of a source package of
	// the same name and version if it is empty.
	Source string
	// Vendor changes are what zypper does not upgrade across.
	Vendor string

	// Relations are written as in a spec file: "a >= 1". That the package provides
	// itself goes without saying.
	Requires, Provides, Obsoletes, Conflicts, Recommends []string

	// The scriptlets are bodies for /bin/sh; "exit 1" fails. An empty one is left out.
	Pretrans, Pre, Post, Preun, Postun, Posttrans string

	// Config are files marked config(noreplace), Files any others: contents by
	// absolute path.
	Config, Files map[string]string

	// Fault makes the download of the package fail. The index lists it all the same.
	Fault Fault
}

// Fault is what is wrong with a package's download.
type Fault = mirror.Fault

// The faults of downloads; package mirror says what each does.
const NoFault, MissingFile, CorruptFile, SlowFile = mirror.NoFault, mirror.MissingFile, mirror.CorruptFile, mirror.SlowFile

// Good is a package that installs.
func Good(name, version string) Package { return Package{Name: name, Version: version} }

// FailingPre is a package that rpm does not install: its %pre fails.
func FailingPre(name, version string) Package {
	return Package{Name: name, Version: version, Pre: mirror.FailingScript(name, "%pre")}
}

// FailingPost is a package that rpm installs, and whose %post fails: a warning
// and no more, for rpm.
func FailingPost(name, version string) Package {
	return Package{Name: name, Version: version, Post: mirror.FailingScript(name, "%post")}
}

// FailingTimes is a package whose %pre fails so many times on a machine, and
// then succeeds.
func FailingTimes(name, version string, times int) Package {
	return Package{Name: name, Version: version, Pre: mirror.ScriptFailingTimes(name, "%pre", times)}
}

// WithConfig is a package with the file /etc/<name>.conf, config(noreplace),
// whose content changes with the version.
func WithConfig(name, version string) Package {
	return Package{
		Name: name, Version: version,
		Config: map[string]string{"/etc/" + name + ".conf": "version = " + version + "\n"},
	}
}

// Missing is a package whose file is not on the server.
func Missing(name, version string) Package {
	return Package{Name: name, Version: version, Fault: MissingFile}
}

// Corrupt is a package whose file is not the one that the index describes.
func Corrupt(name, version string) Package {
	return Package{Name: name, Version: version, Fault: CorruptFile}
}

// Slow is a package whose download takes until ReleaseSlow is called.
func Slow(name, version string) Package {
	return Package{Name: name, Version: version, Fault: SlowFile}
}

// Base is what every machine of an rpm distribution has: a shell, for packages
// that require one, and a release, which package managers ask for.
func Base() Package {
	return Package{
		Name: "toy-release", Version: "9-1",
		Provides: []string{"/bin/sh", "system-release = 9", "system-release(releasever) = 9"},
	}
}

// Kernel is a kernel package as those of Fedora and its kin, several of which
// are installed beside each other. The release of the kernel, as uname -r has it,
// is the version and the architecture x86_64.
func Kernel(version string) Package {
	release := version + ".x86_64"
	return Package{
		Name: "kernel-core", Version: version, Architecture: "x86_64",
		Provides: []string{"installonlypkg(kernel)", "kernel-core-uname-r = " + release, "kernel = " + version},
		Files:    map[string]string{"/lib/modules/" + release + "/vmlinuz": release},
	}
}

func (p *Package) architecture() string {
	if p.Architecture == "" {
		return "noarch"
	}
	return p.Architecture
}

// evr splits the version. The epoch is "0" where there is none.
func (p *Package) evr() (epoch, version, release string) {
	epoch, rest, found := strings.Cut(p.Version, ":")
	if !found {
		epoch, rest = "0", p.Version
	}
	version, release, _ = strings.Cut(rest, "-")
	return epoch, version, release
}

// path is that of the package's file in its repository.
func (p *Package) path() string {
	_, version, release := p.evr() // the epoch is not in the name of a file
	return fmt.Sprintf("packages/%s-%s-%s.%s.rpm", p.Name, version, release, p.architecture())
}

// doc is a file that every package has. Each version has its own, so that they can
// be installed beside each other.
func (p *Package) doc() string {
	_, version, release := p.evr()
	return fmt.Sprintf("/usr/share/doc/%s-%s-%s/version", p.Name, version, release)
}

func (p *Package) source() string {
	if p.Source != "" {
		return p.Source
	}
	_, version, release := p.evr()
	return fmt.Sprintf("%s-%s-%s.src.rpm", p.Name, version, release)
}
