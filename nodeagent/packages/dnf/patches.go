package dnf

import (
	"fmt"
	"io/fs"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// builder makes the patches of a scan from what dnf and rpm have said.
type builder struct {
	installed *rpm.Installed
	all       []offer // newer versions, also those that the host's configuration excludes
	excludes  bool    // whether it excludes any
	plan      *plan
	extra     map[string]offer // of the plan and no newer version of anything, by NEVRA
	cached    map[string]cachedFile
	known     known
}

func (m *Manager) glob(pattern string) ([]string, error) {
	names, err := fs.Glob(m.files, pattern)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", pattern, err)
	}
	return names, nil
}

// isUpgrade says whether a package of the plan is a newer version of an installed
// one, also where it is installed beside that, as a kernel.
func (b *builder) isUpgrade(r row) bool {
	_, found := b.installed.Newest(r.name, r.architecture)
	return found
}

// notOffered are those packages of the plan that are newer versions of nothing.
func (b *builder) notOffered() []row {
	var rows []row
	for _, r := range b.plan.install {
		if !b.isUpgrade(r) {
			rows = append(rows, r)
		}
	}
	return rows
}

// patches are what the plan installs of newer versions, also under another name,
// and what it does not.
func (b *builder) patches() []packages.Patch {
	var all []packages.Patch
	seen := map[key]bool{}
	add := func(p packages.Patch) {
		if at := (key{p.Name, p.Architecture}); !seen[at] {
			seen[at] = true
			b.known.describe(&p)
			all = append(all, p)
		}
	}
	for _, r := range b.plan.upgrade {
		add(b.patch(r))
		b.replacedBy(r, seen)
	}
	for _, r := range b.plan.install {
		if b.isUpgrade(r) || len(r.replaces) > 0 {
			add(b.patch(r))
			b.replacedBy(r, seen)
		}
	}
	// dnf shows what is locked by a plugin in its lists, and what is excluded by its
	// configuration only if asked to.
	for _, o := range newest(b.all) {
		if _, found := b.installed.Newest(o.name, o.architecture); !found && b.planned(o.name) {
			continue // the same package for another architecture
		}
		p := b.fromOffer(o)
		p.State, p.Reason = b.whyNotPlanned(o)
		add(p)
	}
	sortPatches(all)
	return all
}

// replacedBy keeps packages that are obsoleted from being reported as well.
func (b *builder) replacedBy(r row, seen map[key]bool) {
	for _, old := range r.replaces {
		seen[key{old.name, old.architecture}] = true
	}
}

func (b *builder) planned(name string) bool {
	for _, rows := range [][]row{b.plan.upgrade, b.plan.install} {
		for _, r := range rows {
			if r.name == name {
				return true
			}
		}
	}
	return false
}

func (b *builder) whyNotPlanned(o offer) (packages.State, string) {
	if problem := b.plan.problem(o.name, o.version); problem != "" {
		return packages.KeptBack, "dnf cannot install it: " + problem
	}
	if b.excludes {
		return packages.Held, "the host's dnf configuration excludes the version, or locks the package at the installed one"
	}
	return packages.KeptBack, "dnf does not include it in an upgrade of everything"
}

// patch is a package of the plan. Where it replaces another, the installed
// version is that one's.
func (b *builder) patch(r row) packages.Patch {
	o, found := b.extra[r.name+"-"+r.version+"."+r.architecture]
	for _, candidate := range b.all {
		if candidate.name == r.name && candidate.architecture == r.architecture && candidate.version == r.version {
			o, found = candidate, true
		}
	}
	if !found {
		o = offer{name: r.name, architecture: r.architecture, version: r.version, file: fileName(r.name, r.version, r.architecture)}
	}
	o.repository = r.repository
	p := b.fromOffer(o)
	p.State = packages.Missing
	if p.InstalledVersion == "" && len(r.replaces) > 0 {
		old := r.replaces[0]
		p.InstalledVersion = old.version
		if before, found := b.installed.Newest(old.name, old.architecture); found {
			p.SourcePackage, p.SourceVersion = before.SourceName, before.SourceVersion
		}
	}
	return p
}

func (b *builder) fromOffer(o offer) packages.Patch {
	p := packages.Patch{
		Name: o.name, Architecture: o.architecture, AvailableVersion: o.version,
		DownloadSize: o.size, Origin: o.repository,
	}
	file, found := b.cached[o.file]
	p.Downloaded = found && o.size > 0 && file.size == o.size
	before, found := b.installed.Newest(o.name, o.architecture)
	if !found {
		// A package may come for another architecture than before: noarch.
		for _, other := range b.installed.Packages {
			if other.Name == o.name {
				before, found = other, true
			}
		}
	}
	if found {
		p.InstalledVersion, p.SourcePackage, p.SourceVersion = before.Version, before.SourceName, before.SourceVersion
	}
	return p
}

// newest are the newest versions of offers, one for each package.
func newest(offers []offer) []offer {
	at := map[key]int{}
	var all []offer
	for _, o := range offers {
		k := key{o.name, o.architecture}
		i, found := at[k]
		if !found {
			at[k] = len(all)
			all = append(all, o)
		} else if rpm.Compare(o.version, all[i].version) > 0 {
			all[i] = o
		}
	}
	return all
}

// newPackages are those that the plan installs because others need them.
func (b *builder) newPackages() []packages.NewPackage {
	var all []packages.NewPackage
	for _, r := range b.notOffered() {
		if len(r.replaces) > 0 {
			continue
		}
		all = append(all, packages.NewPackage{
			Name: r.name, Architecture: r.architecture, Version: r.version,
			DownloadSize: b.extra[r.name+"-"+r.version+"."+r.architecture].size,
		})
	}
	sortNew(all)
	return all
}
