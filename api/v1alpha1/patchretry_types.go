package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PatchRetry counts the failed attempts of one node, under the node's name.
// The agent counts, the manager clears, each with the object's
// resourceVersion.
//
// +genclient
// +genclient:nonNamespaced
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=pr,categories=nodepatch
// +kubebuilder:printcolumn:name="Counted",type=integer,JSONPath=`.status.counted`,description="Patches with failed attempts"
// +kubebuilder:printcolumn:name="Blocked",type=integer,JSONPath=`.status.blocked`,description="Patches that used up their retries"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="What",type=string,JSONPath=`.status.summary`,description="Which patches they are"
type PatchRetry struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// status holds the counts.
	// +optional
	// +default={"counted": 0, "blocked": 0, "summary": "No failed attempt"}
	Status PatchRetryStatus `json:"status,omitzero"`
}

// PatchRetryStatus holds the counts of one node.
type PatchRetryStatus struct {
	// counted is how many patches have failed attempts.
	// +optional
	Counted int32 `json:"counted"`
	// blocked is how many patches used up their retries, of those with failed
	// attempts.
	// +optional
	Blocked int32 `json:"blocked"`
	// summary names the patches with failed attempts in one line, the blocked
	// first.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Summary string `json:"summary,omitempty"`
	// patches with failed attempts. A patch that was installed, or is no
	// longer offered, loses its entry.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +listMapKey=version
	// +kubebuilder:validation:MaxItems=1000
	Patches []PatchAttempts `json:"patches,omitempty"`
	// sequence is the number of the agent's last failure that is counted here:
	// a failure that is sent twice is counted once, also if its count was
	// cleared in between.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Sequence int64 `json:"sequence,omitempty"`
	// clears is how often nodepatch.io/clear-retries was answered here, also
	// where there was nothing to clear.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Clears int64 `json:"clears,omitempty"`
	// handled remembers the tokens of buttons that were pressed.
	// +optional
	Handled *HandledButtons `json:"handled,omitempty"`
}

// BlockedAt is the step at which a patch used up its retries.
//
// +kubebuilder:validation:Enum=Download;Install
type BlockedAt string

const (
	// BlockedAtDownload says that the limit of downloads is reached.
	BlockedAtDownload BlockedAt = "Download"
	// BlockedAtInstall says that the limit of installations is reached.
	BlockedAtInstall BlockedAt = "Install"
)

// PatchAttempts counts the failed attempts of one patch.
type PatchAttempts struct {
	// name of the package.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Name string `json:"name,omitempty"`
	// version that was tried.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Version string `json:"version,omitempty"`
	// downloadFailures is how many downloads failed.
	// +optional
	// +kubebuilder:validation:Minimum=0
	DownloadFailures int32 `json:"downloadFailures,omitempty"`
	// installFailures is how many installations failed.
	// +optional
	// +kubebuilder:validation:Minimum=0
	InstallFailures int32 `json:"installFailures,omitempty"`
	// lastError is the package manager's own last word.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	LastError string `json:"lastError,omitempty"`
	// lastTask is the PatchTask whose attempt failed last.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	LastTask string `json:"lastTask,omitempty"`
	// lastTime is when the last attempt failed.
	// +optional
	LastTime *metav1.Time `json:"lastTime,omitempty"`
	// blocked says at which step the patch used up its retries, Download or
	// Install; it is then not tried again until a person clears its counts. Left
	// out while it may be tried.
	// +optional
	Blocked BlockedAt `json:"blocked,omitempty"`
}

// PatchRetryList is a list of PatchRetries.
//
// +kubebuilder:object:root=true
type PatchRetryList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []PatchRetry `json:"items"`
}
