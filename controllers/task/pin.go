package task

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// maxPinned is how many patches a task pins, as the API has it.
const maxPinned = 1000

// pins says whether the first wave decides what the other nodes install.
func (r *run) pins() bool {
	return r.template.Action == v1alpha1.ActionDeploy && r.template.Rollout.Pin == v1alpha1.PinFirstWave
}

// pinned is what it has decided; nil before that.
func (r *run) pinned() *v1alpha1.PinnedPatches { return r.in.Task.Status.Pinned }

// checkPin keeps nodes of later waves from preparing themselves before it is
// recorded what they install: whoever gets an operation before that, chooses
// for itself.
func (r *run) checkPin(wave int) *refusal {
	if !r.pins() || r.pinned() != nil || wave == 0 {
		return nil
	}
	return no(v1alpha1.ReasonNotPinned, "What the node is to install is known when the first wave is done")
}

// freeze finds out whether it is time to record what the first wave has
// installed, and from which nodes. That is when all of its nodes have ended, and
// all others that were given work when they still belonged to it.
func (r *run) freeze(plan *Plan, waves waves) {
	if !r.pins() || r.pinned() != nil || waves.list[0].open || plan.atWork() > 0 || !waits(plan.Nodes) {
		return
	}
	for i := range plan.Nodes {
		if node := &plan.Nodes[i]; node.Place == PlaceDone {
			plan.Freezes = append(plan.Freezes, Installer{Node: node.Name, Ended: node.Since})
		}
	}
}

// waits says whether there is a node left that something could be pinned for.
func waits(nodes []Node) bool {
	return slices.ContainsFunc(nodes, func(n Node) bool { return n.Place == PlacePending })
}

// nothingPinned says whether a run has to end because its first wave has left
// nothing to go by: to install whatever is offered instead is what nobody asked for.
func (r *run) nothingPinned(plan *Plan, waves waves) *v1alpha1.TaskStop {
	if !r.pins() {
		return nil
	}
	stop := func(message string) *v1alpha1.TaskStop {
		return &v1alpha1.TaskStop{Time: metav1.NewTime(r.in.Now), Reason: v1alpha1.ReasonNothingPinned, Message: limit(message, maxMessage)}
	}
	pinned := r.pinned()
	done := slices.ContainsFunc(plan.Nodes, func(n Node) bool { return n.Place == PlaceDone })
	switch {
	case pinned != nil && pinned.Nodes == 0:
		return stop(pinned.Message)
	case pinned != nil, done, waves.list[0].open, plan.atWork() > 0, !waits(plan.Nodes):
		return nil
	case !slices.Contains(waves.of, 0):
		return stop("Nothing is pinned, as no node belongs to the first wave; mend its nodeSelector or size, then start another task")
	default:
		return stop("Nothing is pinned, as no node of the first wave is done; mend what failed there, then start another task")
	}
}

// Installer is a node of the first wave that is done.
type Installer struct {
	Node string
	// Ended is when it was done.
	Ended time.Time
	// Installed is what its report says of its last deployment; nil if nothing.
	Installed *v1alpha1.InstalledPatches
}

// version is one in which a package was installed.
type version struct {
	number string
	nodes  []string
	last   time.Time
}

// pin is what nodes have installed in an operation, all together. What a report
// says of another operation does not count. A package that was installed in
// several versions is pinned at the one that most nodes have, and of two that
// equally many have at the one that was installed last: the manager does not
// know how the distributions order versions, and each of them was tried.
func pin(operation string, installers []Installer, now time.Time) *v1alpha1.PinnedPatches {
	pinned := &v1alpha1.PinnedPatches{Time: metav1.NewTime(now)}
	found := map[string][]*version{}
	var from, silent []string
	for _, installer := range installers {
		said := installer.Installed
		if said == nil || said.OperationID != operation {
			silent = append(silent, installer.Node)
			continue
		}
		from = append(from, installer.Node)
		pinned.PatchesOmitted = max(pinned.PatchesOmitted, said.PatchesOmitted)
		for _, p := range said.Patches {
			i := slices.IndexFunc(found[p.Name], func(v *version) bool { return v.number == p.Version })
			if i < 0 {
				i = len(found[p.Name])
				found[p.Name] = append(found[p.Name], &version{number: p.Version})
			}
			v := found[p.Name][i]
			v.nodes, v.last = append(v.nodes, installer.Node), latest(v.last, installer.Ended)
		}
	}
	pinned.Nodes = int32(len(from))
	var differ []string
	for _, name := range slices.Sorted(maps.Keys(found)) {
		versions := found[name]
		slices.SortFunc(versions, func(a, b *version) int {
			return cmp.Or(cmp.Compare(len(b.nodes), len(a.nodes)), b.last.Compare(a.last), cmp.Compare(b.nodes[0], a.nodes[0]))
		})
		if len(versions) > 1 {
			differ = append(differ, fmt.Sprintf("%s %s and not %s as on %s", name, versions[0].number, versions[1].number, versions[1].nodes[0]))
		}
		pinned.Patches = append(pinned.Patches, v1alpha1.InstalledPatch{Name: name, Version: versions[0].number})
	}
	if more := len(pinned.Patches) - maxPinned; more > 0 {
		pinned.Patches, pinned.PatchesOmitted = pinned.Patches[:maxPinned], pinned.PatchesOmitted+int32(more)
	}
	pinned.Message = limit(describe(pinned, from, silent, differ), maxMessage)
	return pinned
}

// describe says in a sentence what is pinned.
func describe(pinned *v1alpha1.PinnedPatches, from, silent, differ []string) string {
	var text string
	switch {
	case len(from) == 0:
		return "Nothing is pinned: the reports of " + list(silent) + " do not say what this task has installed there, as after another deployment; start another task"
	case len(pinned.Patches) == 0:
		text = "No patch is pinned: " + list(from) + " had none to install"
	default:
		text = plural(len(pinned.Patches), "patch", "patches") + " pinned, as installed on " + list(from)
	}
	if pinned.PatchesOmitted > 0 {
		text += fmt.Sprintf("; %d more did not fit and are left to another task", pinned.PatchesOmitted)
	}
	if len(silent) > 0 {
		text += "; the reports of " + list(silent) + " do not say what it has installed there"
	}
	if len(differ) > 0 {
		text += "; installed in several versions: " + strings.Join(differ[:min(len(differ), namesShown)], ", ")
		if more := len(differ) - namesShown; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
	}
	return text
}
