package operation

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// kubernetesPackages are upgraded by whoever upgrades the cluster, in an order of their own
// (https://kubernetes.io/releases/version-skew-policy/).
var kubernetesPackages = []string{"kubelet", "kubeadm", "kubectl", "cri-tools", "kubernetes-cni"}

// criteria are what a patch's state depends on, beside the patch.
type criteria struct {
	// Selects is true if the operation chooses patches; a scan lists all of them.
	Selects   bool
	Selection *v1alpha1.PatchSelection
	FirstSeen firstSeen
	Now       time.Time
	// Attempts are the failed ones by attemptKey.
	Attempts map[string]*v1alpha1.PatchAttempts
	Limits   v1alpha1.RetryLimits
	// Deferred is why patches were left undone in this operation, by attemptKey.
	Deferred map[string]string
	// Ready are patches that the operation has put on disk, by attemptKey.
	Ready map[string]bool
	// Pin is what the operation installs in place of what Selection chooses; nil if nothing is pinned.
	Pin *pin
}

// judge says in which state a patch is, and why, in the words of the report. Only a patch that is Missing, Downloaded or
// Failed is chosen to be downloaded and installed.
func (c *criteria) judge(p *packages.Patch) (v1alpha1.PatchState, string) {
	version := c.Pin.version(p)
	// Why the version that is offered stays away does not hold for a pinned one, but for what an administrator said.
	if p.State != packages.Missing && (p.State == packages.Held || version == p.AvailableVersion) {
		return v1alpha1.PatchState(p.State), p.Reason
	}
	if c.Selects {
		if why := c.exclude(p); why != "" {
			return v1alpha1.PatchExcluded, why
		}
	}
	key := attemptKey(name(p.Name, p.Architecture), version)
	attempts := c.Attempts[key]
	switch {
	case attempts != nil && blockedAt(attempts, c.Limits) != "":
		return v1alpha1.PatchBlocked, fmt.Sprintf("%s failed, the last time with: %s; clear its counts to have it tried again",
			tally(attempts), attempts.LastError)
	case attempts != nil:
		return v1alpha1.PatchFailed, fmt.Sprintf("%s failed, the last time with: %s", tally(attempts), attempts.LastError)
	case p.Broken:
		return v1alpha1.PatchFailed, "it is not installed in full: a deployment installs it again"
	case p.Downloaded && version == p.AvailableVersion, c.Ready[key]:
		return v1alpha1.PatchDownloaded, c.Deferred[key]
	}
	return v1alpha1.PatchMissing, c.Deferred[key]
}

// chosen says whether a patch in a state is to be downloaded and installed.
func chosen(state v1alpha1.PatchState) bool {
	return state == v1alpha1.PatchMissing || state == v1alpha1.PatchDownloaded || state == v1alpha1.PatchFailed
}

// exclude says why the selection leaves a patch out; empty if it does not.
func (c *criteria) exclude(p *packages.Patch) string {
	if c.Pin != nil {
		return c.Pin.exclude(p)
	}
	s := c.Selection
	if s == nil {
		s = &v1alpha1.PatchSelection{}
	}
	if s.KubernetesPackages != v1alpha1.KubernetesPackagesInclude && slices.Contains(kubernetesPackages, p.Name) {
		return "packages of Kubernetes itself are left out unless a task sets kubernetesPackages: Include"
	}
	if pattern := matching(s.Exclude, p); pattern != "" {
		return fmt.Sprintf("the task excludes %s", pattern)
	}
	if len(s.Include) > 0 && matching(s.Include, p) == "" {
		return "it is none of the packages that the task includes"
	}
	if len(s.Classifications) > 0 && !slices.Contains(s.Classifications, v1alpha1.Classification(p.Classification)) {
		return fmt.Sprintf("it is classified %s, the task chooses %s", p.Classification, join(s.Classifications))
	}
	rated := severity(p.Severity)
	if rated == "" {
		rated = v1alpha1.SeverityUnknown
	}
	if len(s.Severities) > 0 && !slices.Contains(s.Severities, rated) {
		return fmt.Sprintf("its severity is %s, the task chooses %s", rated, join(s.Severities))
	}
	if len(s.Advisories) > 0 && !overlap(s.Advisories, p.Advisories) {
		return "it is of none of the advisories that the task chooses"
	}
	if len(s.CVEs) > 0 && !overlap(s.CVEs, p.CVEs) {
		return "it mends none of the CVEs that the task chooses, as far as the package manager knows"
	}
	if s.MinimumAge != nil {
		seen, known := c.FirstSeen[firstSeenKey(p)]
		if !known {
			seen = c.Now
		}
		if due := seen.Add(s.MinimumAge.Duration); c.Now.Before(due) {
			return fmt.Sprintf("it was first seen at %s and is too young until %s", seen.UTC().Format(time.RFC3339), due.UTC().Format(time.RFC3339))
		}
	}
	return ""
}

// matching is the first pattern that matches the package, with or without its architecture; empty if none does.
func matching(patterns []v1alpha1.PackagePattern, p *packages.Patch) string {
	for _, pattern := range patterns {
		for _, n := range []string{p.Name, name(p.Name, p.Architecture)} {
			// The API lets no pattern pass that path.Match refuses.
			if ok, err := path.Match(string(pattern), n); ok && err == nil {
				return string(pattern)
			}
		}
	}
	return ""
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

func join[T ~string](values []T) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = string(v)
	}
	return strings.Join(words, ", ")
}
