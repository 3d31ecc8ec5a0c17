package operation

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// maxReboots is how often an operation reboots its node at most, the second time only for another reason than the first.
const maxReboots = 2

// needsReboot says why the host is to be rebooted by what a scan saw, or what is wrong with its reboots; installed says
// whether patches were installed since the host was booted. What could not be found out is never taken for a yes.
func (r *record) needsReboot(found *packages.Scan, installed bool) (why []string, trouble *finding) {
	if r.Action != v1alpha1.ActionDeploy || r.Reboot == v1alpha1.RebootNever || r.Reboot == "" {
		return nil, nil
	}
	is := func(reason, message string) (why []string, trouble *finding) {
		return nil, &finding{Reason: reason, Message: message, Time: time.Now()}
	}
	reasons := strings.Join(found.Reboot.Reasons, "; ")
	switch {
	case found.Reboot.Required && len(found.Reboot.Reasons) > 0:
		why = found.Reboot.Reasons
	case found.Reboot.Required:
		why = []string{"the host asks for it"}
	case r.Reboot == v1alpha1.RebootAlways && installed:
		why = []string{"the task reboots every node on which patches were installed"}
	case found.Reboot.Unknown && installed:
		return is(v1alpha1.ReasonRebootUnknown, "Whether a reboot is required could not be found out: "+reasons)
	default:
		return nil, nil
	}
	for _, p := range found.Problems {
		if p.Kind == packages.InterruptedTransaction {
			return is(v1alpha1.ReasonInterrupted, "The node is not rebooted before its package database is put right: "+p.Message)
		}
	}
	if r.Forgot {
		return is(v1alpha1.ReasonRebootStillRequired,
			"A reboot is still required, and the agent has lost what it knew of the one before: "+strings.Join(why, "; "))
	}
	for _, former := range r.Reboots {
		if former.sharesReason(why) {
			return is(v1alpha1.ReasonRebootStillRequired, "A reboot is still required for the same reason: "+strings.Join(why, "; "))
		}
	}
	if len(r.Reboots) >= maxReboots {
		return is(v1alpha1.ReasonRebootStillRequired, fmt.Sprintf("A reboot is still required after %d: %s", len(r.Reboots), strings.Join(why, "; ")))
	}
	return why, nil
}

func (o *rebootOrder) sharesReason(why []string) bool {
	return slices.ContainsFunc(why, func(reason string) bool { return slices.Contains(o.Reasons, reason) })
}
