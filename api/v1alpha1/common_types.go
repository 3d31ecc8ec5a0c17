package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Action is what a task does on its nodes.
//
// +kubebuilder:validation:Enum=Scan;Download;Deploy
type Action string

const (
	// ActionScan finds missing patches and changes nothing on the node.
	ActionScan Action = "Scan"
	// ActionDownload scans, then stages packages on the node's disk.
	ActionDownload Action = "Download"
	// ActionDeploy scans, downloads and installs, and reboots where needed.
	ActionDeploy Action = "Deploy"
)

// Classification is the kind of defect that a patch mends.
//
// +kubebuilder:validation:Enum=Security;Bugfix;Enhancement;Other
type Classification string

const (
	// ClassificationSecurity mends a vulnerability.
	ClassificationSecurity Classification = "Security"
	// ClassificationBugfix mends a defect.
	ClassificationBugfix Classification = "Bugfix"
	// ClassificationEnhancement adds something.
	ClassificationEnhancement Classification = "Enhancement"
	// ClassificationOther is everything the vendor does not classify.
	ClassificationOther Classification = "Other"
)

// Severity is the vendor's rating of a patch. Package managers without
// ratings (apt) leave it Unknown.
//
// +kubebuilder:validation:Enum=Critical;Important;Moderate;Low;Unknown
type Severity string

const (
	// SeverityCritical is the vendor's highest rating.
	SeverityCritical Severity = "Critical"
	// SeverityImportant is the vendor's second rating.
	SeverityImportant Severity = "Important"
	// SeverityModerate is the vendor's third rating.
	SeverityModerate Severity = "Moderate"
	// SeverityLow is the vendor's lowest rating.
	SeverityLow Severity = "Low"
	// SeverityUnknown says that the vendor published no rating.
	SeverityUnknown Severity = "Unknown"
)

// Schedule is a cron expression with five fields: minute, hour, day of month,
// month and day of week. Names (JAN, SAT), lists, ranges and steps are allowed.
//
// +kubebuilder:validation:MinLength=9
// +kubebuilder:validation:MaxLength=128
// +kubebuilder:validation:XValidation:rule="self.matches('^ *([*]|[0-5]?[0-9](-[0-5]?[0-9])?)(/[1-9][0-9]?)?(,([*]|[0-5]?[0-9](-[0-5]?[0-9])?)(/[1-9][0-9]?)?)* +[^ ]+ +[^ ]+ +[^ ]+ +[^ ]+ *$')",message="a schedule has five fields, and the first is the minute: 0 to 59, such as 30, 0,30 or */15"
// +kubebuilder:validation:XValidation:rule="self.matches('^ *[^ ]+ +([*]|([01]?[0-9]|2[0-3])(-([01]?[0-9]|2[0-3]))?)(/[1-9][0-9]?)?(,([*]|([01]?[0-9]|2[0-3])(-([01]?[0-9]|2[0-3]))?)(/[1-9][0-9]?)?)* ')",message="the second field of a schedule is the hour: 0 to 23, such as 1, 1-5 or */6"
// +kubebuilder:validation:XValidation:rule="self.matches('^ *[^ ]+ +[^ ]+ +([*?]|(0?[1-9]|[12][0-9]|3[01])(-(0?[1-9]|[12][0-9]|3[01]))?)(/[1-9][0-9]?)?(,([*]|(0?[1-9]|[12][0-9]|3[01])(-(0?[1-9]|[12][0-9]|3[01]))?)(/[1-9][0-9]?)?)* ')",message="the third field of a schedule is the day of the month: 1 to 31, such as 1, 1,15 or *"
// +kubebuilder:validation:XValidation:rule="self.matches('^ *[^ ]+ +[^ ]+ +[^ ]+ +([*]|(0?[1-9]|1[0-2]|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec))(-(0?[1-9]|1[0-2]|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)))?)(/[1-9][0-9]?)?(,(0?[1-9]|1[0-2]|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec))(-(0?[1-9]|1[0-2]|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)))?)* ')",message="the fourth field of a schedule is the month: 1 to 12 or JAN to DEC, such as *, 3 or JAN,JUL"
// +kubebuilder:validation:XValidation:rule="self.matches('^ *[^ ]+ +[^ ]+ +[^ ]+ +[^ ]+ +([*?]|([0-6]|(?i:sun|mon|tue|wed|thu|fri|sat))(-([0-6]|(?i:sun|mon|tue|wed|thu|fri|sat)))?)(/[1-7])?(,([0-6]|(?i:sun|mon|tue|wed|thu|fri|sat))(-([0-6]|(?i:sun|mon|tue|wed|thu|fri|sat)))?)* *$')",message="the fifth and last field of a schedule is the day of the week: 0 to 6 or SUN to SAT, such as *, SAT or MON-FRI"
type Schedule string

// TimeZone is a name of the IANA time zone database, such as Europe/Berlin.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=64
// +kubebuilder:validation:XValidation:rule="self != 'Local' && !self.contains(':') && timestamp('2024-01-01T00:00:00Z').getHours(self) >= 0",message="a time zone is a name of the IANA database, such as UTC or Europe/Berlin"
type TimeZone string

// PackagePattern is a package name in which * stands for any characters and ?
// for one.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=128
// +kubebuilder:validation:XValidation:rule="self.matches('^[a-zA-Z0-9*?+._:~@-]+$')",message="a package pattern has letters, digits, + . _ : ~ @ -, and the wildcards * and ?"
type PackagePattern string

// TaskTemplate is what a run does: the body of a policy's named task, or of a
// task that a person starts with options of its own.
type TaskTemplate struct {
	// action says what the run does: Scan finds missing patches and changes no
	// package; Download also stages the chosen ones on the nodes' disks; Deploy
	// also installs them, and drains and reboots nodes where that is needed.
	// +required
	Action Action `json:"action,omitempty"`
	// scan holds the options of the scanning step, with which every run begins.
	// +optional
	// +kubebuilder:default={}
	Scan ScanOptions `json:"scan,omitzero"`
	// download holds the options of the downloading step, of runs that download or
	// deploy.
	// +optional
	// +kubebuilder:default={}
	Download DownloadOptions `json:"download,omitzero"`
	// install holds the options of the installing step, of runs that deploy.
	// +optional
	// +kubebuilder:default={}
	Install InstallOptions `json:"install,omitzero"`
	// patches chooses which missing patches are downloaded and installed. If it is
	// left out, all of them are but the packages of Kubernetes itself. A scan
	// lists all of them whatever stands here.
	// +optional
	Patches *PatchSelection `json:"patches,omitempty"`
	// rollout says in which order nodes go, how many at once, and when to halt.
	// +optional
	// +kubebuilder:default={}
	Rollout RolloutOptions `json:"rollout,omitzero"`
	// blockers hold a node back from its disruption as long as one of them is
	// there. If it is left out, nothing of the kind does.
	// +optional
	Blockers *Blockers `json:"blockers,omitempty"`
	// drain says when and how a node's pods are moved away.
	// +optional
	// +kubebuilder:default={}
	Drain DrainOptions `json:"drain,omitzero"`
	// reboot says when a node is rebooted, and how long that may take.
	// +optional
	// +kubebuilder:default={}
	Reboot RebootOptions `json:"reboot,omitzero"`
	// verify holds the options of the last step, in which a node has to show that
	// it is in service again.
	// +optional
	// +kubebuilder:default={}
	Verify VerifyOptions `json:"verify,omitzero"`
	// hooks are pods that run on a node before and after its disruption. If it is
	// left out, none do.
	// +optional
	Hooks *Hooks `json:"hooks,omitempty"`
	// loadBalancer takes a node out of external load balancers before it is
	// drained. If it is left out, nodes stay in them.
	// +optional
	LoadBalancer *LoadBalancerOptions `json:"loadBalancer,omitempty"`
	// deadline ends the run this long after its start, whatever is left: a
	// duration such as 90m or 72h, of at least 1m. What a node has begun by then
	// is brought to its end. If it is left out, the run takes as long as it needs.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m')",message="a deadline is at least 1m; durations are written like 90m or 72h (days are not a unit)"
	Deadline *metav1.Duration `json:"deadline,omitempty"`
}

// ScanOptions are the options of the scanning step.
type ScanOptions struct {
	// timeout is how long a node may take to answer, and how long the task waits
	// for a node that cannot be reached, before the task goes on without it: a
	// duration such as 90s or 30m, between 10s and 24h. It is 30m by default.
	// +optional
	// +kubebuilder:default="30m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s') && duration(self) <= duration('24h')",message="a scan's timeout is between 10s and 24h; durations are written like 90s or 30m"
	Timeout metav1.Duration `json:"timeout,omitzero"`
}

// DownloadOptions are the options of the downloading step.
type DownloadOptions struct {
	// timeout is how long a node may take to stage its packages: a duration such
	// as 90s or 2h, between 10s and 24h. It is 1h by default.
	// +optional
	// +kubebuilder:default="1h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s') && duration(self) <= duration('24h')",message="a download's timeout is between 10s and 24h; durations are written like 90s or 30m"
	Timeout metav1.Duration `json:"timeout,omitzero"`
}

// InstallOptions are the options of the installing step.
type InstallOptions struct {
	// timeout is how long a node may take to install its packages: a duration such
	// as 30m, between 10s and 24h. It is 2h by default. A package transaction that
	// has begun is never cut: after the timeout the task goes on without the node,
	// and the node finishes what it has begun.
	// +optional
	// +kubebuilder:default="2h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s') && duration(self) <= duration('24h')",message="an installation's timeout is between 10s and 24h; durations are written like 90s or 30m"
	Timeout metav1.Duration `json:"timeout,omitzero"`
}

// PatchSelection chooses patches. Every list that is given must match; an
// empty list matches all.
type PatchSelection struct {
	// classifications to choose: Security mends a vulnerability, Bugfix a defect,
	// Enhancement adds something, Other is all that the vendor does not classify.
	// All of them, if it is left out or empty.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=4
	Classifications []Classification `json:"classifications,omitempty"`
	// severities to choose, as the vendor rates patches: Critical, Important,
	// Moderate, Low, or Unknown for those without a rating. With apt, which has no
	// ratings, every patch is Unknown. All of them, if it is left out or empty.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=5
	Severities []Severity `json:"severities,omitempty"`
	// include chooses packages by name; in a name * stands for any characters and
	// ? for one, such as linux-image-*. All packages, if it is left out or empty.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	Include []PackagePattern `json:"include,omitempty"`
	// exclude leaves packages out by name, with the same wildcards, also ones that
	// another list chose. None, if it is left out or empty.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	Exclude []PackagePattern `json:"exclude,omitempty"`
	// advisories chooses patches of one of these advisories, such as DSA-5925-1 or
	// RHSA-2026:1234. Any and none will do, if it is left out or empty.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	Advisories []string `json:"advisories,omitempty"`
	// cves chooses patches that mend one of these vulnerabilities, such as
	// CVE-2024-6387. Any and none will do, if it is left out or empty.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=32
	// +kubebuilder:validation:items:Pattern="^CVE-[0-9]{4}-[0-9]{4,}$"
	CVEs []string `json:"cves,omitempty"`
	// minimumAge leaves out patches that a scan of the node first saw more
	// recently than this: a duration such as 72h. If it is left out, a patch of
	// any age is chosen.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s')",message="minimumAge is a duration such as 72h (days are not a unit)"
	MinimumAge *metav1.Duration `json:"minimumAge,omitempty"`
	// kubernetesPackages says whether the packages that Kubernetes upgrades itself
	// (kubelet, kubeadm, kubectl, cri-tools, kubernetes-cni) are chosen: Exclude
	// never installs them, Include treats them as any other package. It is Exclude
	// by default.
	// +optional
	// +kubebuilder:default=Exclude
	KubernetesPackages KubernetesPackages `json:"kubernetesPackages,omitempty"`
}

// KubernetesPackages says what happens to the packages of Kubernetes itself.
//
// +kubebuilder:validation:Enum=Exclude;Include
type KubernetesPackages string

const (
	// KubernetesPackagesExclude never installs them.
	KubernetesPackagesExclude KubernetesPackages = "Exclude"
	// KubernetesPackagesInclude treats them as any other package.
	KubernetesPackagesInclude KubernetesPackages = "Include"
)

// RetryLimits are the failed attempts after which a patch is not tried again.
type RetryLimits struct {
	// download is the number of failed downloads after which a patch is not tried
	// again, 1 to 1000. It is 11 by default.
	// +optional
	// +kubebuilder:default=11
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Download int32 `json:"download,omitempty"`
	// install is the number of failed installations after which a patch is not
	// tried again, 1 to 1000. It is 4 by default.
	// +optional
	// +kubebuilder:default=4
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Install int32 `json:"install,omitempty"`
}

// HandledButtons remembers the last token of each button that carried one, so
// that a button which Git puts back is not pressed twice.
type HandledButtons struct {
	// clearRetries is the last value of nodepatch.io/clear-retries that carried
	// a token.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	ClearRetries string `json:"clearRetries,omitempty"`
	// answer is what the patch log still has to say about the button that was
	// pressed last. It is gone once that is said.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Answer string `json:"answer,omitempty"`
	// clearLog is the last token of nodepatch.io/clear-log.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	ClearLog string `json:"clearLog,omitempty"`
	// updatePatchData is the last token of nodepatch.io/update-patch-data.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	UpdatePatchData string `json:"updatePatchData,omitempty"`
	// press is the button that is being acted on. It is gone once that is done.
	// +optional
	Press *ButtonPress `json:"press,omitempty"`
	// presses is how many buttons were acted on here, on other kinds than
	// PatchRetry.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Presses int64 `json:"presses,omitempty"`
	// policyPress is the last press of nodepatch.io/clear-retries on the node's
	// policy that was acted on here, on a PatchRetry: the policy's UID, a slash
	// and the number of the press. A manager that goes on with it clears nothing
	// twice.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	PolicyPress string `json:"policyPress,omitempty"`
	// logClearedAt is when the log of a PatchTask was last cleared: entries up to
	// then do not come back into its status.
	// +optional
	LogClearedAt *metav1.MicroTime `json:"logClearedAt,omitempty"`
}

// ButtonPress is a button that was pressed, from the moment at which the
// manager has seen it.
type ButtonPress struct {
	// button is the annotation that was set.
	// +required
	// +kubebuilder:validation:Enum=nodepatch.io/clear-retries;nodepatch.io/clear-log;nodepatch.io/update-patch-data
	Button string `json:"button,omitempty"`
	// value it was set to.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Value string `json:"value,omitempty"`
	// number tells it from the presses before it on this object, from 1.
	// +required
	// +kubebuilder:validation:Minimum=1
	Number int64 `json:"number,omitempty"`
	// time at which it was seen.
	// +required
	Time metav1.MicroTime `json:"time,omitzero"`
	// logVersion is the resourceVersion that the Events had when clear-log was
	// pressed: later entries stay.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	LogVersion string `json:"logVersion,omitempty"`
	// refreshes is what spec.patchDataRefreshes of the assignments becomes for
	// update-patch-data.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Refreshes int64 `json:"refreshes,omitempty"`
}
