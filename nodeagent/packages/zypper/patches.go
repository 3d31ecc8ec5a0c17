package zypper

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// builder puts together what the commands of one scan said.
type builder struct {
	installed *rpm.Installed
	repos     *repositories
	stored    map[string]int64
	// offered are all updates, installable those that zypper would install.
	offered, installable []update
	held                 map[packages.Target]bool
	advisories           []advisory
	added                []packages.NewPackage
}

func (b *builder) patches() ([]packages.Patch, error) {
	patches := []packages.Patch{}
	seen := map[packages.Target]int{}
	for _, list := range []struct {
		updates []update
		state   packages.State
	}{
		{b.installable, packages.Missing},
		{b.offered, packages.KeptBack},
	} {
		for i := range list.updates {
			u := &list.updates[i]
			key := packages.Target{Name: u.Name, Architecture: u.Arch}
			known, is := seen[key]
			if is && (list.state != packages.Missing || rpm.Compare(patches[known].AvailableVersion, u.Edition) >= 0) {
				// What can be installed counts where something newer cannot, and the
				// newest where a package is installed in several versions.
				continue
			}
			patch, err := b.patch(u, list.state)
			if err != nil {
				return nil, err
			}
			if is {
				patches[known] = patch
				continue
			}
			seen[key] = len(patches)
			patches = append(patches, patch)
		}
	}
	slices.SortFunc(patches, func(x, y packages.Patch) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Architecture, y.Architecture))
	})
	return patches, nil
}

func (b *builder) patch(u *update, state packages.State) (packages.Patch, error) {
	from, err := b.from(u)
	if err != nil {
		return packages.Patch{}, err
	}
	target := packages.Target{Name: u.Name, Architecture: u.Arch, Version: u.Edition}
	patch := packages.Patch{
		Name: u.Name, Architecture: u.Arch, InstalledVersion: from.Version, AvailableVersion: u.Edition,
		SourcePackage: from.SourceName, SourceVersion: from.SourceVersion,
		Origin: b.repos.title(u.Source.Alias), State: state,
		// The metadata has it, and no command of zypper's tells it before it is there.
		DownloadSize: b.stored[fileName(target)],
		Downloaded:   b.repos.ready(b.stored, u.Source.Alias, target),
	}
	describe(&patch, b.advisories)
	switch {
	case state == packages.Missing:
	case b.held[target]:
		patch.State = packages.Held
		patch.Reason = "an administrator holds it at its version (zypper addlock)"
	default:
		patch.Reason = "zypper keeps it back: it needs a package that cannot be installed, would remove one, or comes from another vendor"
	}
	return patch, nil
}

// from is the installed package that the update is for: of those that are there
// in several versions the newest.
func (b *builder) from(u *update) (rpm.Package, error) {
	newest, found := b.installed.Newest(u.Name, u.Arch)
	if !found {
		// An update may change the architecture.
		for _, p := range b.installed.Packages {
			if p.Name == u.Name && (!found || rpm.Compare(p.Version, newest.Version) > 0) {
				newest, found = p, true
			}
		}
	}
	if !found {
		return rpm.Package{}, &changed{fmt.Sprintf("zypper updates %s, which rpm does not have", u.Name)}
	}
	if len(b.installed.All(newest.Name, newest.Architecture)) == 1 && u.EditionOld != "" && u.EditionOld != newest.Version {
		return rpm.Package{}, &changed{fmt.Sprintf("zypper updates %s %s, of which rpm has %s", u.Name, u.EditionOld, newest.Version)}
	}
	return newest, nil
}
