package apt

import (
	"fmt"
	"io/fs"
	"slices"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// builder puts together what the commands of one scan said.
type builder struct {
	plan       *plan
	installed  *database
	broken     []*installed
	offers     map[string]*offer
	sizes      map[file]int64
	classifier *classifier
	fetched    map[string]fs.DirEntry
}

const heldReason = "an administrator holds it at its version (apt-mark hold)"

func (b *builder) patches() ([]packages.Patch, error) {
	patches := make([]packages.Patch, 0, len(b.plan.upgraded)+len(b.plan.kept)+len(b.plan.phased))
	for _, list := range []struct {
		entries []planned
		state   packages.State
	}{
		{b.plan.upgraded, packages.Missing},
		{b.plan.kept, packages.KeptBack},
		{b.plan.phased, packages.Phased},
	} {
		for i := range list.entries {
			patch, err := b.patch(&list.entries[i], list.state)
			if err != nil {
				return nil, err
			}
			patches = append(patches, patch)
		}
	}
	for _, p := range b.broken {
		patches = append(patches, b.brokenPatch(p))
	}
	slices.SortFunc(patches, byName(
		func(p *packages.Patch) string { return p.Name }, func(p *packages.Patch) string { return p.Architecture }))
	return patches, nil
}

func (b *builder) patch(p *planned, state packages.State) (packages.Patch, error) {
	installed, found := b.installed.find(key{name: p.name, foreign: p.foreign})
	if !found || installed.version != p.from {
		return packages.Patch{}, &changed{fmt.Sprintf("apt upgrades %s %s, which dpkg does not have", p.qualified(), p.from)}
	}
	offer := b.offers[p.qualified()]
	offered, found := offer.find(p.to)
	if !found {
		return packages.Patch{}, &changed{fmt.Sprintf("apt upgrades to %s %s, which no archive offers", p.qualified(), p.to)}
	}
	patch := packages.Patch{
		Name: p.name, Architecture: installed.architecture,
		InstalledVersion: p.from, AvailableVersion: p.to,
		SourcePackage: installed.sourcePackage, SourceVersion: installed.sourceVersion,
		State: state,
	}
	patch.DownloadSize, patch.Downloaded = b.download(p)
	patch.Classification, patch.Origin = b.classifier.classify(offer)

	switch {
	case state == packages.Missing:
	case installed.want == "hold":
		patch.State = packages.Held
		patch.Reason = heldReason
	case state == packages.Phased || offered.phased < 100:
		patch.State = packages.Phased
		patch.Reason = fmt.Sprintf("the distribution offers it to %d%% of all machines so far, and not yet to this one", offered.phased)
	default:
		patch.Reason = "apt keeps it back: it needs a package that cannot be installed, or would remove one"
	}
	return patch, nil
}

// find is the version of that number among those on offer.
func (o *offer) find(number string) (*version, bool) {
	if o == nil {
		return nil, false
	}
	for i := range o.versions {
		if o.versions[i].number == number {
			return &o.versions[i], true
		}
	}
	return nil, false
}

// download is the size of the file of a planned package, and whether it is on
// disk. Its architecture may be the host's or none, whatever the installed
// version's is.
func (b *builder) download(p *planned) (size int64, fetched bool) {
	for _, architecture := range b.architectures(p) {
		f := file{name: p.name, version: p.to, architecture: architecture}
		for _, sizes := range []map[file]int64{b.plan.sizes, b.sizes} {
			if size, found := sizes[f]; found {
				return size, b.isFetched(f, size)
			}
		}
	}
	return 0, false
}

// isFetched says whether apt has the file. One of another size is what an
// interrupted download left; apt compares its hash before it installs it.
func (b *builder) isFetched(f file, size int64) bool {
	entry, found := b.fetched[f.fileName()]
	if !found {
		return false
	}
	info, err := entry.Info()
	return err == nil && info.Size() == size
}

func (b *builder) architectures(p *planned) []string {
	if p.foreign != "" {
		return []string{p.foreign}
	}
	return []string{b.installed.native, "all"}
}

func (b *builder) newPackages() []packages.NewPackage {
	added := make([]packages.NewPackage, 0, len(b.plan.added))
	for i := range b.plan.added {
		p := &b.plan.added[i]
		n := packages.NewPackage{Name: p.name, Version: p.to, Architecture: b.architectures(p)[0]}
		for _, architecture := range b.architectures(p) {
			if size, found := b.plan.sizes[file{name: p.name, version: p.to, architecture: architecture}]; found {
				n.Architecture, n.DownloadSize = architecture, size
			}
		}
		added = append(added, n)
	}
	slices.SortFunc(added, byName(
		func(n *packages.NewPackage) string { return n.Name }, func(n *packages.NewPackage) string { return n.Architecture }))
	return added
}
