package operation

import (
	"fmt"
	"maps"
	"slices"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// pinModel is what became of the patches that tasks had pinned.
type pinModel struct {
	pinsInstalled, pinsLost int
}

// pin is what a first wave has installed when the mirror offered less, the same or more: of some packages what is offered, of
// others what was offered before or is not any more, and nothing of the rest.
func (m *hostModel) pin() *v1alpha1.PinnedPatches {
	pinned := &v1alpha1.PinnedPatches{Nodes: 1}
	for _, name := range slices.Sorted(maps.Keys(m.toys)) {
		if version := m.toys[name].newest - 1 + m.s.rand.IntN(4); version < m.toys[name].newest+2 && version > 0 {
			pinned.Patches = append(pinned.Patches, v1alpha1.InstalledPatch{Name: name, Version: fmt.Sprint(version)})
		}
	}
	return pinned
}

// chosen wants patches to be exactly those that are pinned, if the operation's task has pinned any, and counts them.
func (m *hostModel) chosen(targets []packages.Target) {
	pinned := m.s.api.pinned[m.id()]
	if pinned == nil {
		return
	}
	for _, t := range targets {
		if !slices.Contains(pinned.Patches, v1alpha1.InstalledPatch{Name: t.Name, Version: t.Version}) {
			m.s.t.Errorf("%s goes for %s %s, and pinned are %v", m.id(), t.Name, t.Version, pinned.Patches)
		}
		if m.s.worker.journal.Current.Phase == phaseInstall {
			m.pinsInstalled++
		}
	}
}
