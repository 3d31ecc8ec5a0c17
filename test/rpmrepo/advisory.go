package rpmrepo

import (
	"fmt"
	"time"
)

// Advisory is what updateinfo.xml says of some packages.
type Advisory struct {
	// ID is such as "TOY-2026:0001".
	ID string
	// Type is "security", "bugfix", "enhancement", "newpackage", and what else
	// distributions write: "recommended", "optional" or "feature" at SUSE.
	Type string
	// Severity is such as "Important"; the element is left out if it is empty.
	Severity string
	// Title is the ID if it is empty.
	Title string
	CVEs  []string
	// Packages are written "name-[epoch:]version-release", and all in the repository.
	Packages []string
	// Issued is a day in January 2026 if it is zero.
	Issued time.Time
	// RebootSuggested and RestartSuggested ask for a reboot, and for the package
	// manager itself to be started again, after each of the packages.
	RebootSuggested, RestartSuggested bool
}

// collected is an advisory with its packages looked up.
type collected struct {
	Advisory
	Collected []*indexed
}

func (r *Repository) collect(index []*indexed) ([]collected, error) {
	known := map[string][]*indexed{}
	for _, p := range index {
		name := p.Name + "-" + p.Version
		known[name] = append(known[name], p)
	}
	all := make([]collected, 0, len(r.advisories))
	for _, a := range r.advisories {
		if a.Title == "" {
			a.Title = a.ID
		}
		if a.Issued.IsZero() {
			a.Issued = built
		}
		c := collected{Advisory: a}
		for _, name := range a.Packages {
			if len(known[name]) == 0 {
				return nil, fmt.Errorf("advisory %s: the repository has no package %q", a.ID, name)
			}
			c.Collected = append(c.Collected, known[name]...)
		}
		all = append(all, c)
	}
	return all, nil
}
