package apt

import "github.com/nodepatch/nodepatch/nodeagent/packages"

// brokenBeside are the packages that were begun to be installed, are not installed
// in full, and are not in the plan: apt has nothing newer for them, and does not
// count what it has only to finish.
func (d *database) brokenBeside(p *plan) []*installed {
	inPlan := map[key]bool{}
	for _, list := range [][]planned{p.upgraded, p.kept, p.phased} {
		for i := range list {
			inPlan[key{name: list[i].name, foreign: list[i].foreign}] = true
		}
	}
	var broken []*installed
	for i := range d.packages {
		p := &d.packages[i]
		// What is to be removed is no patch, however far its removal got.
		wanted := p.want == "install" || p.want == "hold"
		if wanted && p.status != "config-files" && p.problem() != "" && !inPlan[d.key(p.name, p.architecture)] {
			broken = append(broken, p)
		}
	}
	return broken
}

func (b *builder) brokenPatch(p *installed) packages.Patch {
	patch := packages.Patch{
		Name: p.name, Architecture: p.architecture,
		InstalledVersion: p.configured, AvailableVersion: p.version,
		SourcePackage: p.sourcePackage, SourceVersion: p.sourceVersion,
		Classification: packages.Other, State: packages.Missing, Broken: true,
	}
	// Only their triggers are left to be run: the package itself is configured.
	if p.configured == "" && (p.status == "triggers-awaited" || p.status == "triggers-pending") {
		patch.InstalledVersion = p.version
	}
	if offer := b.offers[b.installed.key(p.name, p.architecture).qualified()]; offer != nil {
		patch.Classification, patch.Origin = b.classifier.between(offer, patch.InstalledVersion, p.version)
	}
	f := file{name: p.name, version: p.version, architecture: p.architecture}
	patch.DownloadSize = b.plan.sizes[f]
	patch.Downloaded = !p.mustBeUnpacked() || b.isFetched(f, patch.DownloadSize)
	if p.want == "hold" {
		patch.State, patch.Reason = packages.Held, heldReason
	}
	return patch
}
