package operation

import (
	"cmp"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// patches are the most important ones: security first, then by severity and name. The rest is counted. What was installed
// and waits for a reboot comes last.
func patches(o observation) (listed []v1alpha1.Patch, omitted int32) {
	order := make([]*packages.Patch, len(o.Scan.Patches))
	for i := range o.Scan.Patches {
		order[i] = &o.Scan.Patches[i]
	}
	slices.SortFunc(order, func(a, b *packages.Patch) int {
		return cmp.Or(
			cmp.Compare(rank(a), rank(b)),
			cmp.Compare(a.Name, b.Name),
			cmp.Compare(a.Architecture, b.Architecture),
		)
	})
	n := min(len(order), v1alpha1.MaxReportedPatches)
	listed = make([]v1alpha1.Patch, n, n+len(o.PendingReboot.Patches))
	for i, p := range order[:n] {
		listed[i] = patch(p, o.FirstSeen[firstSeenKey(p)])
		state, reason := o.Criteria.judge(p)
		listed[i].State, listed[i].Reason = state, cut(reason, 512)
	}
	room := min(len(o.PendingReboot.Patches), v1alpha1.MaxReportedPatches-n)
	return append(listed, o.PendingReboot.Patches[:room]...), int32(len(order) - n)
}

// rank is low for what is urgent.
func rank(p *packages.Patch) int {
	r := 0
	switch severity(p.Severity) {
	case v1alpha1.SeverityCritical:
	case v1alpha1.SeverityImportant:
		r = 1
	case v1alpha1.SeverityModerate:
		r = 2
	case v1alpha1.SeverityLow:
		r = 3
	default:
		r = 4
	}
	if p.Classification != packages.Security {
		r += 10
	}
	return r
}

func patch(p *packages.Patch, seen time.Time) v1alpha1.Patch {
	r := v1alpha1.Patch{
		Name:           cut(name(p.Name, p.Architecture), 256),
		Installed:      cut(p.InstalledVersion, 256),
		Available:      cut(p.AvailableVersion, 256),
		Classification: v1alpha1.Classification(p.Classification),
		Severity:       severity(p.Severity),
		Advisories:     p.Advisories[:min(len(p.Advisories), maxAdvisories)],
		CVEs:           p.CVEs[:min(len(p.CVEs), maxCVEs)],
		CVEsOmitted:    int32(max(0, len(p.CVEs)-maxCVEs)),
		DownloadBytes:  p.DownloadSize,
	}
	if !seen.IsZero() {
		r.FirstSeen = &metav1.Time{Time: seen}
	}
	return r
}

// installedBy is what a deployment has installed, by name.
func installedBy(r *record, d *deployment) *v1alpha1.InstalledPatches {
	done := &v1alpha1.InstalledPatches{Task: r.Task, OperationID: r.ID}
	for _, i := range d.with(resultInstalled) {
		done.Patches = append(done.Patches, v1alpha1.InstalledPatch{Name: cut(i.name(), 256), Version: cut(i.Version, 256)})
	}
	slices.SortFunc(done.Patches, func(a, b v1alpha1.InstalledPatch) int { return cmp.Compare(a.Name, b.Name) })
	if more := len(done.Patches) - v1alpha1.MaxReportedPatches; more > 0 {
		done.Patches, done.PatchesOmitted = done.Patches[:v1alpha1.MaxReportedPatches], int32(more)
	}
	return done
}

func newPackages(list []packages.NewPackage) (listed []v1alpha1.NewPackage, omitted int32) {
	n := min(len(list), maxNewPackages)
	for _, p := range list[:n] {
		listed = append(listed, v1alpha1.NewPackage{
			Name: cut(name(p.Name, p.Architecture), 256), Version: cut(p.Version, 256), DownloadBytes: p.DownloadSize,
		})
	}
	return listed, int32(len(list) - n)
}

// severity puts the distributions' words into the API's. What is not known is left out.
func severity(word string) v1alpha1.Severity {
	switch strings.ToLower(word) {
	case "critical":
		return v1alpha1.SeverityCritical
	case "important", "high":
		return v1alpha1.SeverityImportant
	case "moderate", "medium":
		return v1alpha1.SeverityModerate
	case "low", "negligible":
		return v1alpha1.SeverityLow
	}
	return ""
}

// native are the package managers' names for the agent's own architecture, which is the host's.
var native = map[string][]string{
	"amd64":   {"amd64", "x86_64"},
	"arm64":   {"arm64", "aarch64"},
	"386":     {"i386", "i586", "i686"},
	"arm":     {"armhf", "armv7hl"},
	"ppc64le": {"ppc64el", "ppc64le"},
	"s390x":   {"s390x"},
	"riscv64": {"riscv64"},
}[runtime.GOARCH]

// name is a package's name as its manager prints it: a foreign architecture is part of it.
func name(name, architecture string) string {
	switch architecture {
	case "", "all", "noarch", "any":
		return name
	}
	if slices.Contains(native, architecture) {
		return name
	}
	return name + ":" + architecture
}

// cut bounds a string in bytes, at a character's border.
func cut(s string, limit int) string {
	const mark = "…"
	if len(s) <= limit {
		return s
	}
	end := limit - len(mark)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + mark
}
