package patchlog

import (
	"fmt"
	"time"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// PatchesDownloaded says how many patches lie ready on a node's disk.
func PatchesDownloaded(at time.Time, run Run, node string, patches int, bytes int64, took time.Duration) Entry {
	message := count(patches, "patch", "patches") + " ready on disk"
	if bytes > 0 {
		message += fmt.Sprintf(", %s downloaded in %s", size(bytes), round(took))
	}
	return regardingNode(at, run, node, v1alpha1.EventPatchesDownloaded, false, message)
}

// PatchesInstalled says which patches a package transaction installed; changes are made with Change. Part tells the
// transactions of an operation apart.
func PatchesInstalled(at time.Time, run Run, node, part string, changes []string) []Entry {
	return packed(regardingNode(at, run, node, v1alpha1.EventPatchesInstalled, false, ""), part,
		count(len(changes), "patch", "patches")+" installed: ", changes)
}

// DownloadFailed says which downloads failed; failures are made with Attempt.
func DownloadFailed(at time.Time, run Run, node, part string, failures []string) []Entry {
	return packed(regardingNode(at, run, node, v1alpha1.EventDownloadFailed, true, ""), part, "Download failed: ", failures)
}

// InstallFailed says which installations failed; failures are made with Attempt.
func InstallFailed(at time.Time, run Run, node, part string, failures []string) []Entry {
	return packed(regardingNode(at, run, node, v1alpha1.EventInstallFailed, true, ""), part, "Installation failed: ", failures)
}

// PatchesBlocked says which patches have used up their retries, such as "ham 2.0 after 11 downloads".
func PatchesBlocked(at time.Time, run Run, node, part string, patches []string) []Entry {
	return packed(regardingNode(at, run, node, v1alpha1.EventPatchesBlocked, true, ""), part,
		"Not tried again until their counts are cleared (kubectl annotate patchretry "+node+" "+v1alpha1.ClearRetriesAnnotation+"=NAMES): ", patches)
}

// PatchesNotTried says which chosen patches were left undone for causes that are not theirs, each with its cause.
func PatchesNotTried(at time.Time, run Run, node, part string, patches []string) []Entry {
	return packed(regardingNode(at, run, node, v1alpha1.EventPatchesNotTried, true, ""), part, "Left undone, and not counted: ", patches)
}

// PatchesWarned says which patches were installed although one of their scripts failed.
func PatchesWarned(at time.Time, run Run, node, part string, patches []string) []Entry {
	return packed(regardingNode(at, run, node, v1alpha1.EventPatchesWarned, true, ""), part, "Installed, but a script failed: ", patches)
}

// TransactionInterrupted says that a package transaction was cut off, and by what.
func TransactionInterrupted(at time.Time, run Run, node, part, why string) Entry {
	entry := regardingNode(at, run, node, v1alpha1.EventTransactionInterrupted, true, "A package transaction was cut off: "+why)
	entry.Key += "/" + part
	return entry
}

// PackagesRepaired says which packages a repair put right, and why it was needed.
func PackagesRepaired(at time.Time, run Run, node, part, why string, packages []string) []Entry {
	prefix := "Package database put right (" + cut(why, 256) + ")"
	if len(packages) > 0 {
		prefix += ": "
	}
	return packed(regardingNode(at, run, node, v1alpha1.EventPackagesRepaired, false, ""), part, prefix, packages)
}

// RepairFailed says what of a node's package database could not be put right.
func RepairFailed(at time.Time, run Run, node, part, cause string) Entry {
	entry := regardingNode(at, run, node, v1alpha1.EventRepairFailed, true, "Package database is not in order: "+cause)
	entry.Key += "/" + part
	return entry
}

// DownloadFinished says that a node has staged what a task chose.
func DownloadFinished(at time.Time, run Run, node, message string) Entry {
	return regardingNode(at, run, node, v1alpha1.EventDownloadFinished, false, message)
}

// DeployFinished says that a node has installed what a task chose.
func DeployFinished(at time.Time, run Run, node, message string) Entry {
	return regardingNode(at, run, node, v1alpha1.EventDeployFinished, false, message)
}

// DeployFailed says that a node's download or deployment failed; reason is one of the reasons of v1alpha1.
func DeployFailed(at time.Time, run Run, node, reason, message string) Entry {
	return regardingNode(at, run, node, v1alpha1.EventDeployFailed, true, because(reason, message))
}

// DeployStopped says that the manager ended a node's download or deployment, and what it had done.
func DeployStopped(at time.Time, run Run, node, message string) Entry {
	return regardingNode(at, run, node, v1alpha1.EventDeployStopped, false, message)
}

// Attempt names a patch whose attempt failed, with its count and the package manager's own words.
func Attempt(change string, failures, limit int32, cause string) string {
	return fmt.Sprintf("%s (%d of %d): %s", change, failures, limit, cause)
}

// packed makes as many entries of one as its items need.
func packed(entry Entry, part, prefix string, items []string) []Entry {
	var entries []Entry
	for i, message := range Pack(prefix, items) {
		next := entry
		next.Message = message
		next.Key = fmt.Sprintf("%s/%s/%d", entry.Reason, part, i)
		entries = append(entries, next)
	}
	return entries
}
