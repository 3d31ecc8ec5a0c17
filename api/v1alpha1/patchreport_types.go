package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MaxReportedPatches is how many patches a report lists; further ones are only
// counted. At some 330 bytes an entry the object stays well under etcd's limit.
const MaxReportedPatches = 1000

// MaxReportedEntries is how many entries of the patch log a report holds.
const MaxReportedEntries = 20

// PatchReport is the Overview of one node, under the node's name: what its
// package manager offers, and why it is not installed. The node's agent writes
// it.
//
// +genclient
// +genclient:nonNamespaced
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=prep,categories=nodepatch
// +kubebuilder:printcolumn:name="Missing",type=integer,JSONPath=`.status.counts.missing`,description="Patches that the package manager offers"
// +kubebuilder:printcolumn:name="Security",type=integer,JSONPath=`.status.counts.security`,description="How many of them are security patches"
// +kubebuilder:printcolumn:name="Blocked",type=integer,JSONPath=`.status.counts.blocked`,description="How many of them used up their retries"
// +kubebuilder:printcolumn:name="Reboot",type=string,JSONPath=`.status.reboot.state`,description="Whether a reboot is required"
// +kubebuilder:printcolumn:name="Scanned",type=date,JSONPath=`.status.scan.time`,description="When the last successful scan ended"
// +kubebuilder:printcolumn:name="Data",type=date,JSONPath=`.status.patchData.time`,description="When the package metadata was last refreshed"
// +kubebuilder:printcolumn:name="Oldest",type=date,JSONPath=`.status.counts.oldestSecurity`,description="How long the oldest missing security patch has been known",priority=1
// +kubebuilder:printcolumn:name="Policy",type=string,JSONPath=`.status.policy`,description="Policy that governed the node at the last scan",priority=1
// +kubebuilder:printcolumn:name="OS",type=string,JSONPath=`.status.os.name`,description="Operating system of the node",priority=1
// +kubebuilder:printcolumn:name="Kernel",type=string,JSONPath=`.status.kernel.running`,description="Kernel that runs",priority=1
// +kubebuilder:printcolumn:name="Agent",type=string,JSONPath=`.status.agentVersion`,description="Version of the agent that wrote the report",priority=1
// +kubebuilder:printcolumn:name="Why",type=string,JSONPath=`.status.summary`,description="Why patches are missing"
type PatchReport struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// status is what the node's agent found.
	// +optional
	// +default={"summary": "Not scanned yet"}
	Status PatchReportStatus `json:"status,omitzero"`
}

// PatchReportStatus is what a node's agent found.
type PatchReportStatus struct {
	// conditions are Scanned (the last scan succeeded), PatchDataCurrent (so did
	// the last refresh of the package metadata) and PackagesConsistent (no package
	// is half installed).
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// summary says in one line why patches are missing, or what went wrong.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Summary string `json:"summary,omitempty"`
	// policy that governed the node at the last scan.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Policy string `json:"policy,omitempty"`
	// os of the node.
	// +optional
	OS *OperatingSystem `json:"os,omitempty"`
	// kernel of the node.
	// +optional
	Kernel *Kernel `json:"kernel,omitempty"`
	// packageManager that was asked.
	// +optional
	PackageManager *PackageManager `json:"packageManager,omitempty"`
	// agentVersion is the version of the agent that wrote this.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	AgentVersion string `json:"agentVersion,omitempty"`
	// patchData says how old the package metadata is.
	// +optional
	PatchData *PatchData `json:"patchData,omitempty"`
	// scan is the last successful scan.
	// +optional
	Scan *ScanRun `json:"scan,omitempty"`
	// counts of the missing patches, also of those that are not listed.
	// +optional
	Counts *ReportCounts `json:"counts,omitempty"`
	// reboot says whether a reboot is required, and why.
	// +optional
	Reboot *Reboot `json:"reboot,omitempty"`
	// patches that are missing: security first, then by severity and name.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	Patches []Patch `json:"patches,omitempty"`
	// patchesOmitted is how many missing patches did not fit into patches.
	// +optional
	PatchesOmitted int32 `json:"patchesOmitted,omitempty"`
	// newPackages are packages that are not installed and that the missing
	// patches need.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	NewPackages []NewPackage `json:"newPackages,omitempty"`
	// newPackagesOmitted is how many did not fit into newPackages.
	// +optional
	NewPackagesOmitted int32 `json:"newPackagesOmitted,omitempty"`
	// installed is what the last deployment has installed.
	// +optional
	Installed *InstalledPatches `json:"installed,omitempty"`
	// log holds the last 20 entries of the patch log that the node's agent wrote
	// until it sent this report, oldest first.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=20
	Log []LogEntry `json:"log,omitempty"`
	// handled remembers the tokens of buttons that were pressed.
	// +optional
	Handled *HandledButtons `json:"handled,omitempty"`
}

// OperatingSystem is what /etc/os-release says.
type OperatingSystem struct {
	// name for people, such as "Debian GNU/Linux 12 (bookworm)".
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Name string `json:"name,omitempty"`
	// id of the distribution, such as debian.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	ID string `json:"id,omitempty"`
	// versionID of the distribution, such as 12.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	VersionID string `json:"versionID,omitempty"`
}

// Kernel is the node's kernel.
type Kernel struct {
	// running release, as uname -r prints it.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Running string `json:"running,omitempty"`
	// newestInstalled release; empty where no kernel package is installed, as
	// in a container.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	NewestInstalled string `json:"newestInstalled,omitempty"`
}

// PackageManager is the program that was asked.
type PackageManager struct {
	// name is apt, dnf or zypper.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Name string `json:"name,omitempty"`
	// version of the program.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Version string `json:"version,omitempty"`
}

// PatchData says how old the package metadata is.
type PatchData struct {
	// time of the last successful refresh, by whomever; where no record of a
	// refresh exists, the age of the oldest metadata in use.
	// +optional
	Time *metav1.Time `json:"time,omitempty"`
}

// ScanRun is a scan that ended with success.
type ScanRun struct {
	// time at which it ended.
	// +optional
	Time *metav1.Time `json:"time,omitempty"`
	// durationMilliseconds is how long the package manager took, in milliseconds,
	// the refresh of its metadata apart.
	// +optional
	DurationMilliseconds int64 `json:"durationMilliseconds,omitempty"`
	// task that asked for it.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Task string `json:"task,omitempty"`
	// operationID of the assignment that asked for it.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	OperationID string `json:"operationID,omitempty"`
}

// ReportCounts counts a node's missing patches.
type ReportCounts struct {
	PatchCounts `json:",inline"`
	// critical is how many of the missing are rated Critical.
	// +optional
	Critical int32 `json:"critical"`
	// important is how many of the missing are rated Important.
	// +optional
	Important int32 `json:"important"`
	// moderate is how many of the missing are rated Moderate.
	// +optional
	Moderate int32 `json:"moderate"`
	// low is how many of the missing are rated Low.
	// +optional
	Low int32 `json:"low"`
	// newPackages is how many packages would be installed in addition.
	// +optional
	NewPackages int32 `json:"newPackages"`
	// downloadBytes is the size of everything that would be downloaded, in bytes.
	// +optional
	DownloadBytes int64 `json:"downloadBytes"`
	// oldestSecurity is when a scan of this node first offered the security patch
	// that has been missing for the longest.
	// +optional
	OldestSecurity *metav1.Time `json:"oldestSecurity,omitempty"`
}

// RebootState says whether a node has to be rebooted.
//
// +kubebuilder:validation:Enum=NotRequired;Required;Unknown
type RebootState string

const (
	// RebootNotRequired says that nothing asks for a reboot.
	RebootNotRequired RebootState = "NotRequired"
	// RebootRequired says that the reasons ask for a reboot.
	RebootRequired RebootState = "Required"
	// RebootUnknown says that the check failed; that is never taken for Required.
	RebootUnknown RebootState = "Unknown"
)

// Reboot says whether a node has to be rebooted, and why.
type Reboot struct {
	// state of the check: Required says that the reasons ask for a reboot,
	// NotRequired that nothing does, Unknown that the check failed, which is never
	// taken for Required.
	// +optional
	State RebootState `json:"state,omitempty"`
	// reasons for people, such as "kernel 6.1.0-40-amd64 is installed,
	// 6.1.0-37-amd64 is running".
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=20
	// +kubebuilder:validation:items:MaxLength=512
	Reasons []string `json:"reasons,omitempty"`
}

// PatchState is why a patch is not installed.
//
// +kubebuilder:validation:Enum=Missing;Downloaded;InstalledPendingReboot;Failed;Blocked;Excluded;Held;KeptBack;Phased
type PatchState string

const (
	// PatchMissing can be installed.
	PatchMissing PatchState = "Missing"
	// PatchDownloaded lies ready on the node's disk.
	PatchDownloaded PatchState = "Downloaded"
	// PatchInstalledPendingReboot takes effect with the next reboot.
	PatchInstalledPendingReboot PatchState = "InstalledPendingReboot"
	// PatchFailed failed at the last attempt and is tried again.
	PatchFailed PatchState = "Failed"
	// PatchBlocked used up its retries.
	PatchBlocked PatchState = "Blocked"
	// PatchExcluded is left out by the policy.
	PatchExcluded PatchState = "Excluded"
	// PatchHeld was put on hold by an administrator of the node.
	PatchHeld PatchState = "Held"
	// PatchKeptBack is kept back by the package manager, for its dependencies.
	PatchKeptBack PatchState = "KeptBack"
	// PatchPhased is not yet released to this machine by the vendor.
	PatchPhased PatchState = "Phased"
)

// Patch is a newer version of an installed package.
type Patch struct {
	// name of the package as its manager prints it; a package of a foreign
	// architecture carries it, as in libc6:i386.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Name string `json:"name,omitempty"`
	// installed version.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Installed string `json:"installed,omitempty"`
	// available version.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Available string `json:"available,omitempty"`
	// classification of the patch: Security mends a vulnerability, Bugfix a
	// defect, Enhancement adds something, Other is all that the vendor does not
	// classify.
	// +required
	Classification Classification `json:"classification,omitempty"`
	// severity by the vendor: Critical, Important, Moderate or Low. Left out, or
	// Unknown, where there is no rating.
	// +optional
	Severity Severity `json:"severity,omitempty"`
	// advisories of the vendor.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=128
	Advisories []string `json:"advisories,omitempty"`
	// cves that the patch mends.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=32
	CVEs []string `json:"cves,omitempty"`
	// cvesOmitted is how many did not fit into cves.
	// +optional
	CVEsOmitted int32 `json:"cvesOmitted,omitempty"`
	// downloadBytes is the size of the package, in bytes.
	// +optional
	DownloadBytes int64 `json:"downloadBytes,omitempty"`
	// firstSeen is when a scan of this node first offered this version.
	// +optional
	FirstSeen *metav1.Time `json:"firstSeen,omitempty"`
	// state says why the patch is not installed: Missing could be; Downloaded lies
	// ready on the node's disk; InstalledPendingReboot takes effect with the next
	// reboot; Failed did at the last attempt, and is tried again; Blocked used up
	// its retries; Excluded is left out by the policy; Held was put on hold by an
	// administrator; KeptBack is kept back by the package manager; Phased is not
	// yet released to this machine by the vendor.
	// +required
	State PatchState `json:"state,omitempty"`
	// reason in words, where the state alone does not say it.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Reason string `json:"reason,omitempty"`
}

// InstalledPatches is what a deployment has installed on a node.
type InstalledPatches struct {
	// task that deployed.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Task string `json:"task,omitempty"`
	// operationID of the assignment that asked for it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	OperationID string `json:"operationID,omitempty"`
	// patches that were installed, by name.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	Patches []InstalledPatch `json:"patches,omitempty"`
	// patchesOmitted is how many did not fit into patches.
	// +optional
	PatchesOmitted int32 `json:"patchesOmitted,omitempty"`
}

// InstalledPatch is a package in the version that was installed.
type InstalledPatch struct {
	// name of the package as its manager prints it; a package of a foreign
	// architecture carries it, as in libc6:i386.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Name string `json:"name,omitempty"`
	// version of the package.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Version string `json:"version,omitempty"`
}

// NewPackage is a package that patches need in addition.
type NewPackage struct {
	// name of the package.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Name string `json:"name,omitempty"`
	// version that would be installed.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Version string `json:"version,omitempty"`
	// downloadBytes is the size of the package, in bytes.
	// +optional
	DownloadBytes int64 `json:"downloadBytes,omitempty"`
}

// PatchReportList is a list of PatchReports.
//
// +kubebuilder:object:root=true
type PatchReportList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []PatchReport `json:"items"`
}
