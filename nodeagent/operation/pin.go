package operation

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// pinFile holds what the current operation is to install, if its task has pinned that.
const pinFile = "pin.json"

// pin is what an operation installs in place of what its selection chooses: the versions that the task's first wave has
// installed. It is read once, and stays the same for the operation's reports and for agents that go on with it.
type pin struct {
	Operation string `json:"operation"`
	// Versions by the names of packages, as reports have them.
	Versions map[string]string `json:"versions"`
	// Present are those of which this version or a newer one was there when the operation began.
	Present map[string]bool `json:"present,omitempty"`
	// Unlisted are there in older versions, and no scan lists them: the repositories offer nothing newer any more.
	Unlisted []*item `json:"unlisted,omitempty"`
}

// version is the one to install of a patch: what the task has pinned, or else what is offered. A nil pin has none.
func (p *pin) version(patch *packages.Patch) string {
	if p != nil {
		if version := p.Versions[name(patch.Name, patch.Architecture)]; version != "" {
			return version
		}
	}
	return patch.AvailableVersion
}

// exclude says why a patch is not installed by an operation that installs what is pinned; empty if it is.
func (p *pin) exclude(patch *packages.Patch) string {
	n := name(patch.Name, patch.Architecture)
	switch version := p.Versions[n]; {
	case version == "":
		return "the task has not pinned it, as its first wave has not installed it"
	case p.Present[n], patch.InstalledVersion == version:
		return fmt.Sprintf("the task has pinned %s, and this or a newer version is there; %s is left to another task", version, patch.AvailableVersion)
	}
	return ""
}

// beside says what is offered in place of a pinned version; empty if it is that version.
func (p *pin) beside(patch *packages.Patch) string {
	if version := p.version(patch); version != patch.AvailableVersion {
		return fmt.Sprintf("the task has pinned %s, and the repositories offer %s", version, patch.AvailableVersion)
	}
	return ""
}

// readPin finds out what the current operation is to install, if its task says that, from the API server and by what the
// package database has. It has failed the operation if it returns false and ctx has not ended: without the pin nothing may
// be installed.
func (w *Worker) readPin(ctx context.Context, found *packages.Scan, manager packages.Manager) (goOn bool) {
	r := w.journal.Current
	if r.Pin == "" {
		return true
	}
	pinned, err := w.awaitPin(ctx)
	if ctx.Err() != nil {
		return false
	}
	var p *pin
	if err == nil {
		p, err = newPin(r.ID, pinned)
	}
	if err != nil {
		w.failed(v1alpha1.ReasonPinUnknown, err.Error())
		return false
	}
	if err := p.compare(ctx, found, manager); err != nil {
		if ctx.Err() == nil {
			w.failed(scanReason(err), err.Error())
		}
		return false
	}
	if err := w.journal.store(pinFile, p); err != nil {
		w.failed(v1alpha1.ReasonHostUnavailable, err.Error())
		return false
	}
	w.pin = p
	return true
}

// awaitPin reads what the operation's task has pinned, and tries until the API server answers. An error is final.
func (w *Worker) awaitPin(ctx context.Context) (*v1alpha1.PinnedPatches, error) {
	r := w.journal.Current
	if r.Pin != v1alpha1.OperationPinTask {
		return nil, fmt.Errorf("agent %s does not know the pin %s: it is older than the manager; wait until the agents' DaemonSet is updated", w.Version, r.Pin)
	}
	backoff := newBackoff()
	for {
		var task *v1alpha1.PatchTask
		err := w.write(ctx, func(ctx context.Context) (err error) {
			task, err = w.API.Task(ctx, r.Task)
			return err
		})
		switch {
		case apierrors.IsNotFound(err), err == nil && string(task.UID) != r.ID:
			return nil, fmt.Errorf("the task %s is gone, and with it what it has pinned", r.Task)
		case err == nil && task.Status.Pinned == nil:
			return nil, fmt.Errorf("the task %s has pinned nothing", r.Task)
		case err == nil:
			return task.Status.Pinned, nil
		}
		pause := backoff.Step()
		w.Logger.Warn("What the task has pinned is not known yet, trying again", "in", pause.Round(time.Millisecond).String(), "error", err)
		w.say(v1alpha1.ReasonAPIUnavailable, "Waiting for what the task has pinned: "+err.Error())
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// versionGrammar is what versions of Debian and of RPM packages are written with. What comes from other nodes becomes
// arguments of the package manager, in which a wildcard would be one.
var versionGrammar = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+~^:_-]*$`)

func newPin(operation string, pinned *v1alpha1.PinnedPatches) (*pin, error) {
	p := &pin{Operation: operation, Versions: make(map[string]string, len(pinned.Patches)), Present: map[string]bool{}}
	for _, patch := range pinned.Patches {
		if !versionGrammar.MatchString(patch.Version) {
			return nil, fmt.Errorf("the task has pinned %s at %q, which is no version", patch.Name, patch.Version)
		}
		p.Versions[patch.Name] = patch.Version
	}
	return p, nil
}

// compare asks the package database what it has of the pinned packages: how versions are ordered it knows alone.
func (p *pin) compare(ctx context.Context, found *packages.Scan, manager packages.Manager) error {
	listed := map[string]bool{}
	var targets []packages.Target
	for i := range found.Patches {
		patch := &found.Patches[i]
		if version := p.Versions[name(patch.Name, patch.Architecture)]; version != "" {
			listed[name(patch.Name, patch.Architecture)] = true
			targets = append(targets, packages.Target{Name: patch.Name, Architecture: patch.Architecture, Version: version})
		}
	}
	for n, version := range p.Versions {
		if !listed[n] {
			targets = append(targets, candidates(n, version)...)
		}
	}
	if len(targets) == 0 {
		return nil
	}
	slices.SortFunc(targets, func(a, b packages.Target) int {
		return strings.Compare(a.Name+" "+a.Architecture, b.Name+" "+b.Architecture)
	})
	present, err := manager.Inspect(ctx, targets)
	if err != nil {
		return fmt.Errorf("compare what is installed with what the task has pinned: %w", err)
	}
	for i, t := range targets {
		n := name(t.Name, t.Architecture)
		switch {
		case present[i].Installed:
			p.Present[n] = true
		case listed[n] || present[i].Version == "":
		case !slices.ContainsFunc(p.Unlisted, func(i *item) bool { return i.name() == n }):
			p.Unlisted = append(p.Unlisted, &item{
				Target: t, From: present[i].Version, Classification: v1alpha1.ClassificationOther,
				Beside: fmt.Sprintf("the task has pinned %s, and the repositories offer nothing newer than %s", t.Version, present[i].Version),
			})
		}
	}
	p.Unlisted = slices.DeleteFunc(p.Unlisted, func(i *item) bool { return p.Present[i.name()] })
	return nil
}

// candidates are a package by the name that reports have, for each architecture of which it may be here.
func candidates(n, version string) []packages.Target {
	if bare, architecture, foreign := strings.Cut(n, ":"); foreign {
		return []packages.Target{{Name: bare, Architecture: architecture, Version: version}}
	}
	var targets []packages.Target
	for _, architecture := range slices.Concat(native, []string{"all", "noarch"}) {
		targets = append(targets, packages.Target{Name: n, Architecture: architecture, Version: version})
	}
	return targets
}

// pinned is what the current operation is to install, read back from the journal if an earlier agent began it; nil if it
// chooses itself, or has not read it.
func (w *Worker) pinned() *pin {
	r := w.journal.Current
	if r.Pin == "" {
		return nil
	}
	if w.pin == nil || w.pin.Operation != r.ID {
		p := &pin{}
		if err := w.journal.load(pinFile, p); err != nil {
			w.Logger.Error("What the task has pinned is lost", "error", err)
		}
		if p.Operation != r.ID {
			return nil
		}
		w.pin = p
	}
	return w.pin
}
