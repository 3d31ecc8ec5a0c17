package operation

import (
	"context"
	"time"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// verify scans again: what was installed is no longer listed, and the report says what is left and why. Where that scan wants
// a reboot, the operation goes on to it.
func (w *Worker) verify(life, ctx context.Context) (goOn bool) {
	d, err := w.current()
	if err != nil {
		w.failed(v1alpha1.ReasonHostUnavailable, err.Error())
		return false
	}
	w.say("", "Looking what is still missing")
	began := time.Now()
	found, manager, err := w.look(life, stepVerify)
	if detached(life) {
		return false
	}
	var counts *v1alpha1.PatchCounts
	if err == nil {
		w.confirm(d, &found)
		var report *v1alpha1.PatchReportStatus
		if report, err = w.report(&found, manager.Name(), time.Since(began), d); err == nil {
			counts = &report.Counts.PatchCounts
		}
	}
	looked := counts != nil
	if !looked {
		counts = &v1alpha1.PatchCounts{}
		if d.Obstacle == nil {
			d.Obstacle = &finding{Reason: scanReason(err), Message: "Scan after the installation: " + err.Error(), Time: time.Now()}
		}
	}
	counts.Installed = int32(len(d.with(resultInstalled)))
	var cause error
	if ctx.Err() != nil {
		cause = context.Cause(ctx)
	}
	if cause == nil && looked {
		why, trouble := w.journal.Current.needsReboot(&found, d.installedIn(w.boot()))
		if len(why) > 0 {
			w.awaitReboot(d, why, counts)
			return true
		}
		w.journal.Current.Trouble = trouble
	}
	w.conclude(d, cause, counts)
	return false
}

// confirm takes back what was noted as installed and a scan still lists: the host was changed in the meantime.
func (w *Worker) confirm(d *deployment, found *packages.Scan) {
	for i := range found.Patches {
		p := &found.Patches[i]
		t := packages.Target{Name: p.Name, Architecture: p.Architecture, Version: p.AvailableVersion}
		if installed := d.find(t); installed != nil && installed.Result == resultInstalled {
			installed.Result, installed.Message = resultDeferred, "it was installed, and a scan after that lists it as missing again"
		}
	}
	w.keep()
}
