package dnf

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// askReboot adds what needs-restarting knows, where it is installed: what an
// administrator has added to its list, and advisories that ask for a reboot. It
// ends with 1 for a reboot and for any error of its own, so its words count and
// not that it fails.
func (m *Manager) askReboot(ctx context.Context, reboot *packages.Reboot) error {
	arguments, read := []string{"-q", "-C", "needs-restarting", "-r"}, parseNeedsRestarting
	plugin := []string{"usr/lib/python3*/site-packages/dnf-plugins/needs_restarting.py", "usr/lib/python3/dist-packages/dnf-plugins/needs_restarting.py"}
	if m.five() {
		arguments, read = []string{"-q", "-C", "needs-restarting", "--json"}, parseNeedsRestartingJSON
		plugin = []string{"usr/lib*/dnf5/plugins/needs_restarting_cmd_plugin.so"}
	}
	if !m.exists(plugin...) {
		return nil
	}
	result, err := m.run(ctx, "ask whether a reboot is needed", packages.Command{
		Name: "dnf-needs-restarting", Argv: m.command(arguments...), Timeout: readTimeout,
	})
	if err != nil {
		return err
	}
	required, names := read(result.Stdout)
	if !required {
		return nil
	}
	var more []string
	for _, name := range names {
		if !slices.Contains(reboot.Packages, name) {
			more = append(more, name)
		}
	}
	if reboot.Required && len(more) == 0 {
		return nil
	}
	if !reboot.Required {
		*reboot = packages.Reboot{Required: true} // what could not be seen does not matter any more
	}
	reason := "needs-restarting asks for it"
	if len(more) > 0 {
		reason += " because of " + strings.Join(more, ", ")
	}
	reboot.Reasons = append(reboot.Reasons, reason)
	reboot.Packages = append(reboot.Packages, more...)
	slices.Sort(reboot.Packages)
	return nil
}

// parseNeedsRestarting reads dnf 4's answer, and that of a dnf 5 without JSON:
//
//	Core libraries or services have been updated since boot-up:
//	  * glibc
//
//	Reboot is required to fully utilize these updates.
func parseNeedsRestarting(output []byte) (required bool, names []string) {
	for line := range strings.Lines(string(output)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "Reboot is required") {
			required = true
		}
		if name, is := strings.CutPrefix(line, "* "); is {
			names = append(names, name)
		}
	}
	if !required {
		return false, nil
	}
	slices.Sort(names)
	return true, slices.Compact(names)
}

// parseNeedsRestartingJSON reads dnf 5's answer (dnf5-plugins,
// needs_restarting.cpp). Versions that do not know --json answer in words.
func parseNeedsRestartingJSON(output []byte) (required bool, names []string) {
	var entries []struct {
		Type     string
		Required bool `json:"reboot_required"`
		Packages []string
	}
	if err := json.Unmarshal(output, &entries); err != nil {
		return parseNeedsRestarting(output)
	}
	for _, e := range entries {
		if e.Type == "reboot" && e.Required {
			required = true
			names = append(names, e.Packages...)
		}
	}
	slices.Sort(names)
	return required, slices.Compact(names)
}
