package packages

import "time"

// Classification says what a patch is for. The values are those of the
// PatchReport.
type Classification string

// The classifications, the most urgent first.
const (
	Security    Classification = "Security"
	Bugfix      Classification = "Bugfix"
	Enhancement Classification = "Enhancement"
	Other       Classification = "Other"
)

// State says why a patch is not installed.
type State string

const (
	// Missing would be installed by the next upgrade.
	Missing State = "Missing"
	// Held is kept at its version because an administrator said so.
	Held State = "Held"
	// KeptBack cannot be installed as things are: the upgrade would remove a
	// package, or needs one that cannot be installed.
	KeptBack State = "KeptBack"
	// Phased is rolled out by the distribution to a growing share of all
	// machines, and this one's turn has not come.
	Phased State = "Phased"
)

// Refresh says what fetching the repositories' metadata did.
type Refresh struct {
	// Indexes is the number of metadata files that were asked for: one at least for each repository.
	Indexes int
	// Changed is how many of them were new.
	Changed int
	// Warnings are the tool's own, one line each, such as a key that expires.
	Warnings []string
}

// Scan is everything the package manager knows about what is missing on the host.
type Scan struct {
	OS     OS
	Kernel Kernel
	Reboot Reboot
	// ManagerVersion is the package manager's own version.
	ManagerVersion string

	// Installed is the number of installed packages.
	Installed int
	// Patches are the packages of which a newer version is offered, whether it
	// can be installed or not; sorted by name and architecture.
	Patches []Patch
	// NewPackages are not installed and would be, because patches need them;
	// sorted by name and architecture.
	NewPackages []NewPackage
	// Problems are what an administrator or a repair must put right before
	// anything can be installed. A scan with problems is still a scan.
	Problems []Problem

	// MetadataRefreshed is a time that the metadata of every repository is at
	// least as recent as: the last Refresh that succeeded, or where the host has
	// no record of one, the publication of the oldest metadata in use. It is zero
	// if there is none.
	MetadataRefreshed time.Time
}

// Count is the number of patches in the given state.
func (s *Scan) Count(state State) int {
	n := 0
	for i := range s.Patches {
		if s.Patches[i].State == state {
			n++
		}
	}
	return n
}

// Patch is a package of which a newer version is offered.
type Patch struct {
	Name string
	// Architecture is the distribution's name for it, such as "amd64" or "all".
	// Name and Architecture together are the key: a host may have one name
	// installed for two architectures.
	Architecture     string
	InstalledVersion string
	AvailableVersion string
	Classification   Classification
	// Severity is the advisory's, in the distribution's own words; empty where
	// the package manager knows none, as apt.
	Severity string
	// SourcePackage and SourceVersion are what the installed package was built
	// from: advisories are keyed by it.
	SourcePackage string
	SourceVersion string
	// Advisories and CVEs are empty where the package manager knows none, as apt.
	Advisories []string
	CVEs       []string
	// DownloadSize is the size of the package in bytes, whether it is on disk
	// already or not; 0 if it is not known.
	DownloadSize int64
	// Origin says whose archive offers the version, such as "Debian-Security oldstable-security".
	Origin string
	State  State
	// Reason says in one sentence why the State is not Missing; empty if it is.
	Reason string
	// Downloaded is true if the package's file lies on the host's disk, ready for Install.
	Downloaded bool
	// Broken is true if AvailableVersion was begun to be installed and is not
	// installed in full: it is unpacked or configured by half. InstalledVersion
	// is then the version that was last configured in full, empty if none was.
	Broken bool
}

// NewPackage is a package that is not installed and that patches need.
type NewPackage struct {
	Name         string
	Architecture string
	Version      string
	// DownloadSize is in bytes; 0 if it is not known.
	DownloadSize int64
}

// Reboot says whether the host must be rebooted for its packages to take effect.
type Reboot struct {
	Required bool
	// Unknown is true if nothing asks for a reboot as far as could be seen, and
	// something could not be seen. It is never to be taken for Required.
	Unknown bool
	// Reasons are sentences without a full stop: why it is required or unknown.
	Reasons []string
	// Packages are the names of installed packages that take effect with the
	// reboot, as far as they are known; sorted, each once.
	Packages []string
}

// ProblemKind says what is wrong with the package database.
type ProblemKind string

const (
	// InterruptedTransaction means that the package manager was cut off while it
	// wrote its database.
	InterruptedTransaction ProblemKind = "InterruptedTransaction"
	// BrokenPackage means that a package is unpacked or removed by half, or that
	// one of its scripts failed.
	BrokenPackage ProblemKind = "BrokenPackage"
)

// Problem is one thing that is wrong with the package database.
type Problem struct {
	Kind ProblemKind
	// Name, Architecture and Version are the package's; empty if the problem is
	// not one package's.
	Name         string
	Architecture string
	Version      string
	// Message says what is wrong and what to do, in one sentence.
	Message string
}
