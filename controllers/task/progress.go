package task

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// maxCause is how much of a cause stands in a message before the numbers.
const maxCause = 512

// Message says in one sentence how the run goes, such as "2 of 2 nodes
// scanned: 31 patches missing, 12 of them security".
func (p *Plan) Message() string {
	started := p.task.Status.StartTime != nil || p.Accepts
	switch {
	case !started && p.Phase == v1alpha1.TaskStopped:
		return limit("Stopped before it began: "+p.Cause, maxMessage)
	case !started:
		return limit(p.Cause, maxMessage)
	}
	var message string
	cause := limit(p.Cause, maxCause)
	switch {
	case p.Reason == v1alpha1.ReasonStopping:
		message = "Stopping (" + cause + "): " + p.waitingFor()
	case p.Phase == v1alpha1.TaskStopped:
		message = "Stopped (" + cause + "): " + p.progress()
	case cause != "":
		message = cause + ": " + p.progress()
	default:
		message = p.progress()
	}
	return limit(message, maxMessage)
}

// progress is the sentence with the numbers. Of a run that was cut short it has
// those of the nodes alone: patches of which nobody can tell to which nodes they
// belong would say nothing.
func (p *Plan) progress() string {
	counts, patches := p.Counts(), p.Patches()
	text := fmt.Sprintf("%d of %s %s", counts.Done, plural(int(counts.Total), "node", "nodes"), p.verb(patches))
	separator := "; "
	if p.Stop != nil {
		separator = ", "
	} else if p.counted() {
		text += ": " + p.outcome(patches)
	}
	for _, part := range []struct {
		count int32
		text  string
	}{
		{counts.Failed, "failed"},
		{counts.Skipped, "skipped"},
		{counts.Unreachable, "could not be reached"},
		{counts.Scanning, "scanning"},
		{counts.Downloading, "downloading"},
		{counts.Draining, "draining"},
		{counts.Installing, "installing"},
		{counts.Rebooting, "rebooting"},
		{counts.Verifying, "verifying"},
	} {
		if part.count > 0 {
			text += fmt.Sprintf("%s%d %s", separator, part.count, part.text)
		}
	}
	if counts.Stopped > 0 {
		text += separator + p.stoppedAfter()
	}
	if waiting := int(counts.Pending + counts.Waiting); waiting > 0 {
		text += separator + p.waiting(waiting)
	}
	return text
}

// verb says what became of the nodes that are done. Before numbers that have
// patches which failed or are blocked, they are not called patched.
func (p *Plan) verb(patches v1alpha1.PatchCounts) string {
	switch {
	case p.action() == v1alpha1.ActionScan:
		return "scanned"
	case p.action() == v1alpha1.ActionDeploy && (p.Stop != nil || patches.Failed+patches.Blocked == 0):
		return "patched"
	default:
		return "done"
	}
}

// counted says whether a node has told the numbers of its patches.
func (p *Plan) counted() bool {
	for i := range p.Nodes {
		if p.Nodes[i].Counts != nil {
			return true
		}
	}
	return false
}

// outcome is what became of the patches.
func (p *Plan) outcome(patches v1alpha1.PatchCounts) string {
	switch p.action() {
	case v1alpha1.ActionDownload:
		if patches.Missing == 0 {
			return "no patch is missing"
		}
		return plural(int(patches.Downloaded), "patch", "patches") + " ready on disk" + left(patches, patches.Downloaded)
	case v1alpha1.ActionDeploy:
		switch {
		case patches.Missing == 0 && patches.Installed == 0:
			return "no patch is missing"
		case patches.Missing == 0:
			return plural(int(patches.Installed), "patch", "patches") + " installed, none missing"
		default:
			return plural(int(patches.Installed), "patch", "patches") + " installed" + left(patches, 0)
		}
	default:
		return missing(patches)
	}
}

// left lists the missing patches by why they are still missing; settled is how
// many of them are where the task wanted them.
func left(patches v1alpha1.PatchCounts, settled int32) string {
	var text strings.Builder
	rest := patches.Missing - settled
	for _, part := range []struct {
		count int32
		text  string
	}{
		{patches.Failed, "failed"},
		{patches.Blocked, "blocked"},
		{patches.Excluded, "excluded"},
		{patches.Held, "on hold"},
		{patches.KeptBack, "kept back"},
		{patches.Phased, "phased"},
	} {
		rest -= part.count
		if part.count > 0 {
			fmt.Fprintf(&text, ", %d %s", part.count, part.text)
		}
	}
	if rest > 0 {
		fmt.Fprintf(&text, ", %d missing", rest)
	}
	return text.String()
}

// missing is what a scan found.
func missing(patches v1alpha1.PatchCounts) string {
	if patches.Missing == 0 {
		return "no patch is missing"
	}
	security := "none"
	if patches.Security > 0 {
		security = strconv.Itoa(int(patches.Security))
	}
	return fmt.Sprintf("%s missing, %s of them security", plural(int(patches.Missing), "patch", "patches"), security)
}

// waiting says which nodes wait, and the first of them for what: those that are
// ready to be disrupted before those that have not begun.
func (p *Plan) waiting(nodes int) string {
	if p.Ended() {
		return fmt.Sprintf("%d not begun", nodes)
	}
	if p.Accepts {
		return fmt.Sprintf("%d waiting", nodes)
	}
	var named []string
	for _, place := range []Place{PlaceWaiting, PlacePending} {
		for i := range p.Nodes {
			node := &p.Nodes[i]
			if node.Place == place && len(named) < waitersShown {
				named = append(named, strings.TrimSpace(node.Name+" "+node.Reason))
			}
		}
	}
	text := fmt.Sprintf("%d waiting (%s", nodes, strings.Join(named, ", "))
	if nodes > len(named) {
		text += fmt.Sprintf(" and %d more", nodes-len(named))
	}
	return text + ")"
}
