package apt

import (
	"fmt"
	"slices"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// request is what is to be done about some targets, by what dpkg has of them.
type request struct {
	db *database
	// upgrade are to be installed, or installed again.
	upgrade []packages.Target
	// configure lie unpacked on the host already, at their versions. Naming them
	// makes apt-get run their scripts and fetch nothing.
	configure []packages.Target
	// done are installed in full, at their versions or newer ones. apt-get would
	// take a newer one for a wish to go back, and refuse all.
	done []packages.Target
	// gone cannot be upgraded on this host as it is now.
	gone []packages.Failure
	// reinstall is true if one of upgrade has its version already, broken, which
	// apt-get does not touch unless it is told to.
	reinstall bool
}

func newRequest(d *database, targets []packages.Target) *request {
	req := &request{db: d}
	for _, t := range targets {
		p, found := d.find(d.key(t.Name, t.Architecture))
		if !found || p.status == "config-files" {
			req.gone = append(req.gone, packages.Failure{Target: t, Message: "it is not installed any more"})
			continue
		}
		newer := compareVersions(p.version, t.Version)
		switch {
		case newer >= 0 && p.problem() == "":
			req.done = append(req.done, t)
		case newer > 0:
			req.gone = append(req.gone, packages.Failure{Target: t, Message: fmt.Sprintf("the newer version %s is %s", p.version, p.problem())})
		case newer == 0 && !p.mustBeUnpacked():
			req.configure = append(req.configure, t)
		default:
			req.reinstall = req.reinstall || newer == 0
			req.upgrade = append(req.upgrade, t)
		}
	}
	return req
}

// named are the targets to put on the command line of apt-get.
func (req *request) named() []packages.Target {
	if req.reinstall {
		// It would unpack again what has only to be configured, which it does unasked.
		return req.upgrade
	}
	return slices.Concat(req.upgrade, req.configure)
}

// argument names exactly one version of one package on the command line of apt-get.
func (req *request) argument(t *packages.Target) string {
	return req.db.key(t.Name, t.Architecture).qualified() + "=" + t.Version
}

func (req *request) arguments(targets []packages.Target) []string {
	list := make([]string, len(targets))
	for i := range targets {
		list[i] = req.argument(&targets[i])
	}
	return list
}

// isFile says whether f is the file of a target. The new version's architecture
// may be another than that of the installed one: none where that had one, or the
// other way round.
func (req *request) isFile(t *packages.Target, f file) bool {
	if t.Name != f.name || t.Version != f.version {
		return false
	}
	foreign := req.db.key(t.Name, t.Architecture).foreign
	return foreign == f.architecture || foreign == "" && (f.architecture == "all" || f.architecture == req.db.native)
}
