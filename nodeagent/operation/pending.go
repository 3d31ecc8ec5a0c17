package operation

import (
	"slices"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

const pendingRebootFile = "pending-reboot.json"

// pendingReboot are patches that were installed and take effect with the next reboot. A scan does not list them any more.
type pendingReboot struct {
	BootID  string           `json:"bootID,omitempty"`
	Patches []v1alpha1.Patch `json:"patches,omitempty"`
}

// update forgets what a reboot has put in effect, and adds what a deployment has installed of the packages for which the
// scan after it wants a reboot.
func (p pendingReboot) update(found *packages.Scan, d *deployment, boot string) pendingReboot {
	if p.BootID != boot || !found.Reboot.Required {
		p = pendingReboot{BootID: boot}
	}
	if d == nil || !found.Reboot.Required {
		return p
	}
	for _, i := range d.with(resultInstalled) {
		known := slices.ContainsFunc(p.Patches, func(q v1alpha1.Patch) bool { return q.Name == i.name() && q.Available == i.Version })
		if known || !slices.Contains(found.Reboot.Packages, i.Name) || len(p.Patches) >= maxPendingReboot {
			continue
		}
		p.Patches = append(p.Patches, v1alpha1.Patch{
			Name: i.name(), Installed: i.Version, Available: i.Version, Classification: i.Classification,
			State: v1alpha1.PatchInstalledPendingReboot, Reason: "it takes effect with the next reboot",
		})
	}
	return p
}

// maxPendingReboot is far more than there are packages for which a host reboots.
const maxPendingReboot = 100
