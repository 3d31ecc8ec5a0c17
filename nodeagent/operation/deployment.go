package operation

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// result is what became of a chosen patch.
type result string

const (
	// resultOpen has not been tried.
	resultOpen result = ""
	// resultReady lies on disk.
	resultReady result = "Ready"
	// resultInstalled is installed in full.
	resultInstalled result = "Installed"
	// resultFailed failed through its own fault, and was counted.
	resultFailed result = "Failed"
	// resultDeferred was left undone for another cause, and was not counted.
	resultDeferred result = "Deferred"
)

// deploymentFile holds the current deployment.
const deploymentFile = "deployment.json"

// deployment is what an operation is to download and install, and what became of each patch. It is in the journal in a file
// of its own, and on disk before the next thing is begun.
type deployment struct {
	Operation string  `json:"operation"`
	Patches   []*item `json:"patches"`
	// Blocked is how many patches are not tried because their retries are used up.
	Blocked int `json:"blocked"`
	// Queue are the batches to install, as positions in Patches; the first is next, or under way.
	Queue [][]int `json:"queue,omitempty"`
	// Round is the number of the transaction that is under way, or was last.
	Round int `json:"round,omitempty"`
	// UnderWay is true from before a transaction starts until its outcome is noted here.
	UnderWay bool `json:"underWay,omitempty"`
	// Mending is why the package database has to be repaired before the next transaction; empty if it has not.
	Mending string `json:"mending,omitempty"`
	// Cuts is how often a transaction was cut off.
	Cuts int `json:"cuts,omitempty"`
	// Began is the boot ID of the boot in which that transaction was begun.
	Began string `json:"began,omitempty"`
	// BootID is that of the boot in which patches were installed last.
	BootID string `json:"bootID,omitempty"`
	// Obstacle is what ended the downloads or transactions, if it is no patch's failure.
	Obstacle *finding `json:"obstacle,omitempty"`
}

// item is one chosen patch.
type item struct {
	packages.Target
	// From is the installed version.
	From           string                  `json:"from,omitempty"`
	Classification v1alpha1.Classification `json:"classification,omitempty"`
	Result         result                  `json:"result,omitempty"`
	Message        string                  `json:"message,omitempty"`
	// Beside says what the repositories offer in place of a version that is pinned; empty if they offer that.
	Beside string `json:"beside,omitempty"`
}

func (i *item) name() string { return name(i.Name, i.Architecture) }

func (i *item) key() string { return attemptKey(i.name(), i.Version) }

func (i *item) change() string { return patchlog.Change(i.name(), i.From, i.Version) }

// why is what the package manager says of a patch, with what the repositories offer in its place.
func (i *item) why(message string) string {
	if i.Beside == "" {
		return message
	}
	return i.Beside + ": " + message
}

// settle notes what became of a patch. What is final stays.
func (i *item) settle(r result, message string) {
	if i.Result == resultOpen || i.Result == resultReady {
		i.Result, i.Message = r, message
	}
}

func (d *deployment) find(t packages.Target) *item {
	for _, i := range d.Patches {
		if i.Target == t {
			return i
		}
	}
	return nil
}

// with are the patches with a result.
func (d *deployment) with(r result) []*item {
	var found []*item
	for _, i := range d.Patches {
		if i.Result == r {
			found = append(found, i)
		}
	}
	return found
}

// positions are those of the patches with a result.
func (d *deployment) positions(r result) []int {
	var found []int
	for n, i := range d.Patches {
		if i.Result == r {
			found = append(found, n)
		}
	}
	return found
}

// batch are the patches of the queue's first batch.
func (d *deployment) batch() []*item {
	batch := make([]*item, len(d.Queue[0]))
	for n, position := range d.Queue[0] {
		batch[n] = d.Patches[position]
	}
	return batch
}

// enqueue puts those of the positions that are still to be installed at the head of the queue: as one batch, or in two
// halves.
func (d *deployment) enqueue(positions []int, halves bool) {
	open := slices.DeleteFunc(slices.Clone(positions), func(p int) bool { return d.Patches[p].Result != resultReady })
	switch {
	case len(open) == 0:
	case halves && len(open) > 1:
		d.Queue = slices.Insert(d.Queue, 0, open[:len(open)/2], open[len(open)/2:])
	default:
		d.Queue = slices.Insert(d.Queue, 0, open)
	}
}

// deferRest leaves every patch undone that has no result yet.
func (d *deployment) deferRest(message string) {
	for _, i := range d.Patches {
		i.settle(resultDeferred, message)
	}
	d.Queue = nil
}

// deferred are the messages of what was left undone, by attemptKey.
func (d *deployment) deferred() map[string]string {
	messages := map[string]string{}
	for _, i := range d.with(resultDeferred) {
		messages[i.key()] = i.Message
	}
	return messages
}

// done says how far it came, such as "3 of 12 patches installed, 1 failed".
func (d *deployment) done(verb string, r result) string {
	if len(d.Patches) == 0 {
		return "No patch was to be " + verb
	}
	text := fmt.Sprintf("%d of %s %s", len(d.with(r)), plural(len(d.Patches), "patch", "patches"), verb)
	if n := len(d.with(resultFailed)); n > 0 {
		text += fmt.Sprintf(", %d failed", n)
	}
	if n := len(d.with(resultDeferred)); n > 0 {
		text += fmt.Sprintf(", %d left undone", n)
	}
	if d.Blocked > 0 {
		text += fmt.Sprintf(", %d blocked", d.Blocked)
	}
	return text
}

// first tells of one patch with a result, and of how many others there are.
func (d *deployment) first(r result) string {
	items := d.with(r)
	if len(items) == 0 {
		return ""
	}
	text := items[0].name() + " " + items[0].Version + ": " + items[0].Message
	if len(items) > 1 {
		text += fmt.Sprintf(" (and %d more)", len(items)-1)
	}
	return text
}

// installedIn says whether patches were installed in a boot of the host.
func (d *deployment) installedIn(bootID string) bool {
	return len(d.with(resultInstalled)) > 0 && d.BootID == bootID
}

func targets(items []*item) []packages.Target {
	list := make([]packages.Target, len(items))
	for n, i := range items {
		list[n] = i.Target
	}
	return list
}

func changes(items []*item) []string {
	list := make([]string, len(items))
	for n, i := range items {
		list[n] = i.change()
	}
	return list
}

func messages(items []*item) []string {
	list := make([]string, len(items))
	for n, i := range items {
		list[n] = i.change() + ": " + strings.TrimSuffix(i.Message, ".")
	}
	return list
}
