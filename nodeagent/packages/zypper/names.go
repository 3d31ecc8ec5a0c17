package zypper

import (
	"fmt"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// checkTargets refuses targets that are no packages of a SUSE host. What passes
// can neither be an option of zypper nor a pattern nor a path.
func checkTargets(targets []packages.Target) error {
	for _, t := range targets {
		if !rpm.ValidName(t.Name) || !rpm.ValidVersion(t.Version) || !rpm.ValidArchitecture(t.Architecture) {
			return fmt.Errorf("%q %q for %q cannot be a package of zypper", t.Name, t.Version, t.Architecture)
		}
	}
	return nil
}

// checkNames says what is wrong with a package as zypper names it; nothing if it
// is empty.
func checkNames(name, edition, architecture string) (problem string) {
	switch {
	case !rpm.ValidName(name):
		return "not the name of a package"
	case !rpm.ValidVersion(edition):
		return "not an edition"
	case !rpm.ValidArchitecture(architecture):
		return "not an architecture"
	}
	return ""
}

// capability is how the target is asked for: this edition and architecture, and
// no other.
func capability(t packages.Target) string {
	return t.Name + "." + t.Architecture + "=" + t.Version
}

func capabilities(targets []packages.Target) []string {
	all := make([]string, 0, len(targets))
	for _, t := range targets {
		all = append(all, capability(t))
	}
	return all
}

// nevra is how zypper and rpm write the target: "name-[epoch:]version-release.arch".
func nevra(t packages.Target) string { return t.Name + "-" + t.Version + "." + t.Architecture }

// fileName is that of the target's package. The epoch is not in it.
func fileName(t packages.Target) string {
	_, version, found := strings.Cut(t.Version, ":")
	if !found {
		version = t.Version
	}
	return t.Name + "-" + version + "." + t.Architecture + ".rpm"
}

// is says whether zypper and rpm may mean the target by a word. Some of their
// messages leave the epoch out.
func is(t packages.Target, word string) bool {
	return word == nevra(t) || word+".rpm" == fileName(t) || word == fileName(t) || word == capability(t)
}

// named says whether a text of zypper's or rpm's names the target.
func named(t packages.Target, text string) bool {
	words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n,;()[]'\"", r) })
	for i, word := range words {
		if is(t, strings.TrimRight(word, ".:")) {
			return true
		}
		// As a capability: "toy.noarch = 1.1-1".
		if i+2 < len(words) && words[i+1] == "=" && words[i+2] == t.Version && (word == t.Name || word == t.Name+"."+t.Architecture) {
			return true
		}
	}
	return false
}

// namedIn are the targets that a text names.
func namedIn(targets []packages.Target, text string) []packages.Target {
	var found []packages.Target
	for _, t := range targets {
		if named(t, text) {
			found = append(found, t)
		}
	}
	return found
}
