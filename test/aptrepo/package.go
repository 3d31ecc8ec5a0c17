package aptrepo

import (
	"fmt"
	"strings"

	"github.com/nodepatch/nodepatch/test/mirror"
)

// Package is a toy package. Only Name and Version are required.
type Package struct {
	Name    string
	Version string
	// Architecture is "all" if it is empty, which every machine can install.
	Architecture string
	// Source is the source package, "name" or "name (version)"; the package
	// itself if it is empty.
	Source string
	// MultiArch is "same", "foreign" or "allowed".
	MultiArch string

	// Relations are written as in a control file: "a (>= 1), b | c".
	Depends, Conflicts, Breaks, Provides string

	// The maintainer scripts are bodies for /bin/sh; "exit 1" fails. An empty one is left out.
	Preinst, Postinst, Prerm, Postrm string

	// Conffiles and Files are contents by absolute path.
	Conffiles, Files map[string]string

	// Phased is the Phased-Update-Percentage that the index says; 0 leaves the
	// field out, so that the package is for all machines.
	Phased int

	// Fault makes the download of the package fail. The index lists it all the same.
	Fault Fault
}

// Fault is what is wrong with a package's download.
type Fault = mirror.Fault

// The faults of downloads; package mirror says what each does.
const NoFault, MissingFile, CorruptFile, SlowFile = mirror.NoFault, mirror.MissingFile, mirror.CorruptFile, mirror.SlowFile

// Good is a package that installs.
func Good(name, version string) Package { return Package{Name: name, Version: version} }

// FailingPreinst is a package that cannot be unpacked.
func FailingPreinst(name, version string) Package {
	return Package{Name: name, Version: version, Preinst: mirror.FailingScript(name, "preinst")}
}

// FailingPostinst is a package that can be unpacked and not be configured.
func FailingPostinst(name, version string) Package {
	return Package{Name: name, Version: version, Postinst: mirror.FailingScript(name, "postinst")}
}

// FailingTimes is a package whose postinst fails so many times on a machine, and
// then succeeds.
func FailingTimes(name, version string, times int) Package {
	return Package{Name: name, Version: version, Postinst: mirror.ScriptFailingTimes(name, "postinst", times)}
}

// WithConffile is a package with the file /etc/<name>.conf, whose content changes
// with the version, so that an upgrade asks what to do with one that an
// administrator has changed.
func WithConffile(name, version string) Package {
	return Package{
		Name: name, Version: version,
		Conffiles: map[string]string{"/etc/" + name + ".conf": "version = " + version + "\n"},
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

func (p *Package) architecture() string {
	if p.Architecture == "" {
		return "all"
	}
	return p.Architecture
}

// path is that of the package's file in its repository.
func (p *Package) path() string {
	_, version, found := strings.Cut(p.Version, ":") // the epoch is not in the name of a file
	if !found {
		version = p.Version
	}
	return fmt.Sprintf("pool/%s_%s_%s.deb", p.Name, version, p.architecture())
}
