package rpm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// Inspect says what the database has of each target, in their order.
func (d *Database) Inspect(ctx context.Context, targets []packages.Target) ([]packages.Presence, error) {
	installed, err := d.Installed(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]packages.Presence, len(targets))
	for i, t := range targets {
		all[i] = installed.Presence(t)
	}
	return all, nil
}

// Presence says what there is of a target. A package of which an older version
// is there beside it counts as installed: rpm writes a package into its database
// when all of its files are in place.
func (s *Installed) Presence(t packages.Target) packages.Presence {
	newest, found := s.Newest(t.Name, t.Architecture)
	if !found {
		// An update may change the architecture, such as to noarch.
		for _, other := range s.Packages {
			if other.Name == t.Name && other.Version == t.Version {
				newest, found = other, true
			}
		}
	}
	if !found {
		return packages.Presence{}
	}
	presence := packages.Presence{Version: newest.Version, Installed: Compare(newest.Version, t.Version) >= 0}
	if older := s.leftovers(newest.Name, newest.Architecture); len(older) > 0 {
		presence.Problem = fmt.Sprintf("version %s is still there beside it", older[len(older)-1].Version)
	}
	return presence
}

// Problems are what a transaction has left that was cut off: packages that are
// there in two versions, as rpm removes the old ones only after it has installed
// the new ones.
func (s *Installed) Problems() []packages.Problem {
	var problems []packages.Problem
	for _, p := range s.duplicates() {
		newest, _ := s.Newest(p.Name, p.Architecture)
		problems = append(problems, packages.Problem{
			Kind: packages.InterruptedTransaction, Name: p.Name, Architecture: p.Architecture, Version: p.Version,
			Message: fmt.Sprintf("a transaction was cut off: %s is there in version %s and in version %s: run \"rpm -e --nodeps %s\" on the host",
				p.Name, p.Version, newest.Version, p.NEVRA()),
		})
	}
	return problems
}

// duplicates are the older versions of all packages that are there twice and
// should not be.
func (s *Installed) duplicates() []Package {
	var all []Package
	for i, p := range s.Packages {
		if i > 0 && p.Name == s.Packages[i-1].Name && p.Architecture == s.Packages[i-1].Architecture {
			continue // the key has been seen
		}
		all = append(all, s.leftovers(p.Name, p.Architecture)...)
	}
	return all
}

// leftovers are the older versions of a package of which there should be one.
func (s *Installed) leftovers(name, architecture string) []Package {
	all := s.All(name, architecture)
	if len(all) < 2 || s.many[name] {
		return nil
	}
	return slices.Clone(all[:len(all)-1])
}

// many are what packages provide that are installed beside their older versions:
// dnf's and libzypp's words for kernels and for what is built for one kernel.
var many = []string{
	"installonlypkg(kernel)", "installonlypkg(kernel-module)", "installonlypkg(vm)", "multiversion(kernel)",
}

// readMany asks which packages are meant to be there in several versions, if any
// are there in several.
func (d *Database) readMany(ctx context.Context, s *Installed) error {
	if len(s.duplicates()) == 0 {
		return nil
	}
	const purpose = "list the packages that are installed in several versions"
	// Not an error where nothing provides one of them: rpm says so, and exits with their number.
	result, err := d.runner.Run(ctx, packages.Command{
		Name: "rpm-many-versions", Env: Environment(), Timeout: readTimeout,
		Argv: append([]string{"rpm", "-q", "--qf", `%{NAME}\n`, "--whatprovides"}, many...),
	})
	if err != nil {
		return fmt.Errorf("%s: %w", purpose, err)
	}
	s.many = map[string]bool{}
	for line := range strings.Lines(string(result.Stdout)) {
		s.many[strings.TrimSpace(line)] = true
	}
	return nil
}
