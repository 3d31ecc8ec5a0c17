package operation

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

func TestJudge(t *testing.T) {
	foreign := "i386"
	if native[0] == foreign {
		foreign = "amd64"
	}
	for name, test := range map[string]struct {
		patch     func(*packages.Patch)
		selection *v1alpha1.PatchSelection
		attempts  *v1alpha1.PatchAttempts
		deferred  string
		scanOnly  bool
		pin       *pin

		want       v1alpha1.PatchState
		wantReason string // a part of it
	}{
		"nothing is asked for": {want: v1alpha1.PatchMissing},
		"held": {
			patch: func(p *packages.Patch) { p.State, p.Reason = packages.Held, "an administrator holds it" },
			want:  v1alpha1.PatchHeld, wantReason: "an administrator holds it",
		},
		"held stays so where the task excludes it": {
			patch:     func(p *packages.Patch) { p.State = packages.Held },
			selection: &v1alpha1.PatchSelection{Exclude: []v1alpha1.PackagePattern{"ham"}}, want: v1alpha1.PatchHeld,
		},
		"kept back": {patch: func(p *packages.Patch) { p.State = packages.KeptBack }, want: v1alpha1.PatchKeptBack},
		"phased":    {patch: func(p *packages.Patch) { p.State = packages.Phased }, want: v1alpha1.PatchPhased},

		"kubelet": {
			patch: func(p *packages.Patch) { p.Name = "kubelet" },
			want:  v1alpha1.PatchExcluded, wantReason: "kubernetesPackages: Include",
		},
		"kubelet in a scan": {patch: func(p *packages.Patch) { p.Name = "kubelet" }, scanOnly: true, want: v1alpha1.PatchMissing},
		"kubelet is asked for": {
			patch:     func(p *packages.Patch) { p.Name = "kubelet" },
			selection: &v1alpha1.PatchSelection{KubernetesPackages: v1alpha1.KubernetesPackagesInclude}, want: v1alpha1.PatchMissing,
		},
		"kubelet is included by name, which is not enough": {
			patch:     func(p *packages.Patch) { p.Name = "kubelet" },
			selection: &v1alpha1.PatchSelection{Include: []v1alpha1.PackagePattern{"kubelet"}}, want: v1alpha1.PatchExcluded,
		},
		"kubernetes-cni is asked for and excluded": {
			patch: func(p *packages.Patch) { p.Name = "kubernetes-cni" },
			selection: &v1alpha1.PatchSelection{
				KubernetesPackages: v1alpha1.KubernetesPackagesInclude, Exclude: []v1alpha1.PackagePattern{"kube*"},
			},
			want: v1alpha1.PatchExcluded, wantReason: "excludes kube*",
		},

		"included": {selection: &v1alpha1.PatchSelection{Include: []v1alpha1.PackagePattern{"egg", "h?m"}}, want: v1alpha1.PatchMissing},
		"not included": {
			selection: &v1alpha1.PatchSelection{Include: []v1alpha1.PackagePattern{"egg"}},
			want:      v1alpha1.PatchExcluded, wantReason: "none of the packages that the task includes",
		},
		"excluded though included": {
			selection: &v1alpha1.PatchSelection{Include: []v1alpha1.PackagePattern{"*"}, Exclude: []v1alpha1.PackagePattern{"ha*"}},
			want:      v1alpha1.PatchExcluded, wantReason: "excludes ha*",
		},
		"a foreign architecture is excluded by its whole name": {
			patch:     func(p *packages.Patch) { p.Architecture = foreign },
			selection: &v1alpha1.PatchSelection{Exclude: []v1alpha1.PackagePattern{"ham:" + v1alpha1.PackagePattern(foreign)}},
			want:      v1alpha1.PatchExcluded,
		},
		"another architecture is excluded": {
			selection: &v1alpha1.PatchSelection{Exclude: []v1alpha1.PackagePattern{"ham:s390x"}}, want: v1alpha1.PatchMissing,
		},

		"classification": {
			selection: &v1alpha1.PatchSelection{Classifications: []v1alpha1.Classification{v1alpha1.ClassificationSecurity}},
			want:      v1alpha1.PatchExcluded, wantReason: "classified Bugfix, the task chooses Security",
		},
		"one of the classifications": {
			selection: &v1alpha1.PatchSelection{Classifications: []v1alpha1.Classification{v1alpha1.ClassificationSecurity, v1alpha1.ClassificationBugfix}},
			want:      v1alpha1.PatchMissing,
		},
		"severity in the distribution's words": {
			patch:     func(p *packages.Patch) { p.Severity = "high" },
			selection: &v1alpha1.PatchSelection{Severities: []v1alpha1.Severity{v1alpha1.SeverityImportant}}, want: v1alpha1.PatchMissing,
		},
		"severity": {
			patch:     func(p *packages.Patch) { p.Severity = "low" },
			selection: &v1alpha1.PatchSelection{Severities: []v1alpha1.Severity{v1alpha1.SeverityImportant, v1alpha1.SeverityCritical}},
			want:      v1alpha1.PatchExcluded, wantReason: "its severity is Low, the task chooses Important, Critical",
		},
		"no severity is not critical": {
			selection: &v1alpha1.PatchSelection{Severities: []v1alpha1.Severity{v1alpha1.SeverityCritical}},
			want:      v1alpha1.PatchExcluded, wantReason: "its severity is Unknown",
		},
		"no severity is asked for": {
			selection: &v1alpha1.PatchSelection{Severities: []v1alpha1.Severity{v1alpha1.SeverityUnknown}}, want: v1alpha1.PatchMissing,
		},
		"advisory": {
			patch:     func(p *packages.Patch) { p.Advisories = []string{"DSA-1", "DSA-2"} },
			selection: &v1alpha1.PatchSelection{Advisories: []string{"DSA-2"}}, want: v1alpha1.PatchMissing,
		},
		"another advisory": {
			patch:     func(p *packages.Patch) { p.Advisories = []string{"DSA-1"} },
			selection: &v1alpha1.PatchSelection{Advisories: []string{"DSA-10"}}, want: v1alpha1.PatchExcluded, wantReason: "none of the advisories",
		},
		"CVE": {
			patch:     func(p *packages.Patch) { p.CVEs = []string{"CVE-2026-1234"} },
			selection: &v1alpha1.PatchSelection{CVEs: []string{"CVE-2026-1234"}}, want: v1alpha1.PatchMissing,
		},
		"CVEs that the package manager does not know": {
			selection: &v1alpha1.PatchSelection{CVEs: []string{"CVE-2026-1234"}}, want: v1alpha1.PatchExcluded, wantReason: "as far as the package manager knows",
		},
		"every list has to choose it": {
			patch: func(p *packages.Patch) { p.Advisories = []string{"DSA-1"} },
			selection: &v1alpha1.PatchSelection{
				Advisories: []string{"DSA-1"}, Classifications: []v1alpha1.Classification{v1alpha1.ClassificationSecurity},
			},
			want: v1alpha1.PatchExcluded, wantReason: "classified",
		},
		"too young": {
			selection: &v1alpha1.PatchSelection{MinimumAge: &metav1.Duration{Duration: 25 * time.Hour}},
			want:      v1alpha1.PatchExcluded, wantReason: "first seen at 2026-11-23T06:00:00Z and is too young until 2026-11-24T07:00:00Z",
		},
		"old enough to the second": {
			selection: &v1alpha1.PatchSelection{MinimumAge: &metav1.Duration{Duration: 24 * time.Hour}}, want: v1alpha1.PatchMissing,
		},
		"seen for the first time": {
			patch:     func(p *packages.Patch) { p.AvailableVersion = "3" },
			selection: &v1alpha1.PatchSelection{MinimumAge: &metav1.Duration{Duration: time.Second}}, want: v1alpha1.PatchExcluded,
		},

		"downloaded": {patch: func(p *packages.Patch) { p.Downloaded = true }, want: v1alpha1.PatchDownloaded},
		"downloaded and left undone": {
			patch: func(p *packages.Patch) { p.Downloaded = true }, deferred: "the disk was full", want: v1alpha1.PatchDownloaded, wantReason: "the disk was full",
		},
		"left undone":       {deferred: "unmet dependencies", want: v1alpha1.PatchMissing, wantReason: "unmet dependencies"},
		"installed by half": {patch: func(p *packages.Patch) { p.Broken = true }, want: v1alpha1.PatchFailed, wantReason: "not installed in full"},
		"failed before": {
			attempts: &v1alpha1.PatchAttempts{DownloadFailures: 10, InstallFailures: 3, LastError: "no"},
			want:     v1alpha1.PatchFailed, wantReason: "10 downloads and 3 installations failed, the last time with: no",
		},
		"downloads used up": {
			attempts: &v1alpha1.PatchAttempts{DownloadFailures: 11, LastError: "404"},
			want:     v1alpha1.PatchBlocked, wantReason: "11 downloads failed, the last time with: 404; clear its counts",
		},
		"installations used up": {
			attempts: &v1alpha1.PatchAttempts{InstallFailures: 4}, want: v1alpha1.PatchBlocked, wantReason: "4 installations failed",
		},
		"blocked under a lower limit": {
			attempts: &v1alpha1.PatchAttempts{InstallFailures: 1, Blocked: v1alpha1.BlockedAtInstall}, want: v1alpha1.PatchBlocked, wantReason: "1 installation failed",
		},
		"blocked in a scan":                     {attempts: &v1alpha1.PatchAttempts{InstallFailures: 4}, scanOnly: true, want: v1alpha1.PatchBlocked},
		"pinned at the version that is offered": {pin: &pin{Versions: map[string]string{"ham": "2"}}, want: v1alpha1.PatchMissing},
		"pinned, whatever the task chooses": {
			pin:       &pin{Versions: map[string]string{"ham": "2"}},
			selection: &v1alpha1.PatchSelection{Exclude: []v1alpha1.PackagePattern{"ham"}}, want: v1alpha1.PatchMissing,
		},
		"not pinned": {
			pin: &pin{Versions: map[string]string{"egg": "2"}}, want: v1alpha1.PatchExcluded,
			wantReason: "the task has not pinned it, as its first wave has not installed it",
		},
		"pinned at what is installed": {
			pin: &pin{Versions: map[string]string{"ham": "1"}}, want: v1alpha1.PatchExcluded,
			wantReason: "the task has pinned 1, and this or a newer version is there; 2 is left to another task",
		},
		"pinned at less than what is installed": {
			pin: &pin{Versions: map[string]string{"ham": "0.9"}, Present: map[string]bool{"ham": true}}, want: v1alpha1.PatchExcluded,
			wantReason: "the task has pinned 0.9, and this or a newer version is there",
		},
		"the file of another version than the pinned one lies on disk": {
			pin: &pin{Versions: map[string]string{"ham": "1.5"}}, patch: func(p *packages.Patch) { p.Downloaded = true }, want: v1alpha1.PatchMissing,
		},
		"only another version than the pinned one is kept back": {
			pin: &pin{Versions: map[string]string{"ham": "1.5"}}, patch: func(p *packages.Patch) { p.State = packages.KeptBack }, want: v1alpha1.PatchMissing,
		},
		"the pinned one itself is kept back": {
			pin: &pin{Versions: map[string]string{"ham": "2"}}, patch: func(p *packages.Patch) { p.State = packages.KeptBack }, want: v1alpha1.PatchKeptBack,
		},
		"pinned and held": {
			pin: &pin{Versions: map[string]string{"ham": "1.5"}}, patch: func(p *packages.Patch) { p.State = packages.Held }, want: v1alpha1.PatchHeld,
		},
		"failures of the version that is offered are not those of the pinned one": {
			pin: &pin{Versions: map[string]string{"ham": "1.5"}}, attempts: &v1alpha1.PatchAttempts{InstallFailures: 4}, want: v1alpha1.PatchMissing,
		},
		"excluded is said before blocked": {
			attempts:  &v1alpha1.PatchAttempts{InstallFailures: 4},
			selection: &v1alpha1.PatchSelection{Exclude: []v1alpha1.PackagePattern{"ham"}}, want: v1alpha1.PatchExcluded,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := packages.Patch{Name: "ham", Architecture: "all", InstalledVersion: "1", AvailableVersion: "2", State: packages.Missing, Classification: packages.Bugfix}
			seen := firstSeen{firstSeenKey(&p): monday}
			if test.patch != nil {
				test.patch(&p)
			}
			c := &criteria{
				Selects: !test.scanOnly, Selection: test.selection, FirstSeen: seen, Now: tuesday, Limits: limitsOf(nil),
				Attempts: map[string]*v1alpha1.PatchAttempts{}, Deferred: map[string]string{"ham=2": test.deferred}, Pin: test.pin,
			}
			if test.attempts != nil {
				c.Attempts["ham=2"] = test.attempts
			}
			state, reason := c.judge(&p)
			if state != test.want || !strings.Contains(reason, test.wantReason) {
				t.Errorf("It is %s (%s), want %s (%s)", state, reason, test.want, test.wantReason)
			}
			if want := test.want == v1alpha1.PatchMissing || test.want == v1alpha1.PatchDownloaded || test.want == v1alpha1.PatchFailed; chosen(state) != want {
				t.Errorf("That it is chosen is %t", chosen(state))
			}
		})
	}
}
