package apt

import (
	"slices"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// classifier knows what an archive is for, by its Release file.
type classifier struct {
	archives map[string]archive
	// distributions are the origins whose archives are the host's own
	// distribution, in lower case: "debian", or "ubuntu" and "debian".
	distributions []string
}

func newClassifier(system packages.OS, archives map[string]archive) *classifier {
	own := append([]string{system.ID}, system.IDLike...)
	for i := range own {
		own[i] = strings.ToLower(own[i])
	}
	return &classifier{archives: archives, distributions: own}
}

// classify says what an upgrade from the installed version to the candidate is
// for, and from whose archive it comes.
//
// If any version after the installed one, up to the candidate, is in a security
// archive, the upgrade is Security: a mend stays in the versions that follow it,
// whatever archive they come from. Else the most urgent of the candidate's own
// archives counts, because one version may be in several.
func (c *classifier) classify(o *offer) (packages.Classification, string) {
	return c.upTo(o.candidate, o.versions, func(v *version) bool { return v.installed })
}

// between is classify for other versions than the installed one and the candidate.
// It is from the beginning if from is empty, and then asks only what to itself is for.
func (c *classifier) between(o *offer, from, to string) (packages.Classification, string) {
	newest := slices.IndexFunc(o.versions, func(v version) bool { return v.number == to })
	return c.upTo(to, o.versions[max(newest, 0):], func(v *version) bool {
		return v.number != to && (from == "" || compareVersions(v.number, from) <= 0)
	})
}

// upTo looks at the versions from the one of that number, the newest of them, down
// to the one that ends it, which is not among them.
func (c *classifier) upTo(number string, versions []version, ends func(*version) bool) (packages.Classification, string) {
	result, origin := packages.Other, ""
	rank := len(urgency)
	reached := false
	for i := range versions {
		v := &versions[i]
		if ends(v) {
			break
		}
		offered := v.number == number
		reached = reached || offered
		if !reached {
			continue
		}
		for _, location := range v.locations {
			a, known := c.archives[location]
			if !known {
				continue
			}
			class := c.purpose(a)
			if class == packages.Security {
				result = packages.Security
			}
			if r := slices.Index(urgency, class); offered && r < rank {
				rank, origin = r, a.String()
				if result != packages.Security {
					result = class
				}
			}
		}
	}
	return result, origin
}

var urgency = []packages.Classification{packages.Security, packages.Bugfix, packages.Enhancement, packages.Other}

// purpose says what an archive is for.
//
//   - Security: its suite, codename or label ends in "-security" (Debian's
//     "Debian-Security", Ubuntu's "jammy-security", and a company's mirror of
//     them under an origin of its own), or it is one of Ubuntu's ESM archives
//     other than their "-updates". The suite alone would not do for Debian: it
//     reads "oldstable-security" once the release ages.
//   - Enhancement: backports, and what is not released yet for the host's
//     distribution (experimental).
//   - Bugfix: every other archive of the host's own distribution: the release
//     itself, which only changes with point releases, its updates and what is
//     proposed for them.
//   - Other: archives of third parties, and packages that no archive has.
func (c *classifier) purpose(a archive) packages.Classification {
	ends := func(suffix string) bool {
		for _, s := range []string{a.suite, a.codename, a.label} {
			if strings.HasSuffix(strings.ToLower(s), suffix) {
				return true
			}
		}
		return false
	}
	esm := strings.HasPrefix(a.origin, "UbuntuESM")
	// Debian's backports are of origin "Debian Backports".
	origin, _, _ := strings.Cut(strings.ToLower(a.origin), " ")
	switch {
	case ends("-security"):
		return packages.Security
	case esm && !ends("-updates"):
		return packages.Security
	case esm:
		return packages.Bugfix
	case !slices.Contains(c.distributions, origin):
		return packages.Other
	case ends("backports"), ends("backports-sloppy"), a.suite == "experimental":
		return packages.Enhancement
	default:
		return packages.Bugfix
	}
}

// String names the archive for people, such as "Debian-Security oldstable-security".
func (a archive) String() string {
	suite := a.suite
	if suite == "" {
		suite = a.codename
	}
	name := a.label
	if name == "" {
		name = a.origin
	}
	return strings.TrimSpace(name + " " + suite)
}
