package operation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/host"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// fault is what is wrong with a package of the model.
type fault int

const (
	sound     fault = iota
	noFile          // its download fails
	noUnpack        // it cannot be unpacked
	noScript        // it is left half-configured
	refusal         // no transaction is begun that has it in it, and the tool says so
	anonymous       // the same, and the tool does not say for whom
	silent          // the tool fails with it, and names nobody
	needy           // it waits for another to be configured
	faults
)

// toy is a package of the model: its versions are numbers.
type toy struct {
	fault           fault
	version, newest int
	begun           int // the version that is unpacked and not configured, 0 if none is
	needs           *toy
}

// hostModel is a package manager with its database. What it has done for an operation it answers again to the next agent, as
// commands do that outlive one.
type hostModel struct {
	s     *simulation
	host  *host.Host
	locks packages.Locks

	toys        map[string]*toy
	interrupted bool
	downloads   map[string]packages.Download
	installs    map[string]installation

	failures  map[string]int // by attemptKey, since they were cleared
	tried     map[string]bool
	cut       map[string]bool // operations of which a transaction was cut off
	installed []string        // changes

	rebootModel
	pinModel
}

type installation struct {
	packages.Install
	err error
}

func newHostModel(s *simulation, h *host.Host) *hostModel {
	m := &hostModel{
		s: s, host: h, toys: map[string]*toy{}, downloads: map[string]packages.Download{}, installs: map[string]installation{},
		failures: map[string]int{}, tried: map[string]bool{}, cut: map[string]bool{},
		rebootModel: rebootModel{orders: map[string][]order{}, installedIn: map[string]int{}},
	}
	m.start()
	for i := range 2 + s.rand.IntN(7) {
		m.toys[fmt.Sprint("p", i)] = &toy{version: 1, newest: 1}
	}
	return m
}

// offer publishes newer versions, sound ones and others.
func (m *hostModel) offer() {
	names := slices.Sorted(maps.Keys(m.toys))
	for _, name := range names {
		p := m.toys[name]
		if p.newest > p.version && m.s.rand.IntN(4) > 0 {
			continue // as bad as it was
		}
		p.newest++
		p.fault, p.needs = sound, nil
		if m.s.rand.IntN(2) == 0 {
			p.fault = fault(m.s.rand.IntN(int(faults)))
		}
		if other := m.toys[names[m.s.rand.IntN(len(names))]]; p.fault == needy && other != p && other.fault != needy {
			p.needs = other
		}
	}
}

// offers says whether a patch is still missing.
func (m *hostModel) offers(key string) bool {
	name, version, _ := strings.Cut(key, "=")
	p := m.toys[name]
	return fmt.Sprint(p.newest) == version && p.version < p.newest
}

func (m *hostModel) id() string { return m.s.worker.journal.Current.ID }

func (*hostModel) Name() string { return "apt" }

func (m *hostModel) Refresh(ctx context.Context) (packages.Refresh, error) {
	m.s.point()
	m.s.interfere()
	if m.s.maybe(10) {
		return packages.Refresh{}, &packages.RefreshError{Failures: []packages.RepositoryFailure{{Unreachable: true}}}
	}
	return packages.Refresh{}, context.Cause(ctx)
}

func (m *hostModel) Scan(ctx context.Context) (packages.Scan, error) {
	m.s.point()
	m.s.interfere()
	if ctx.Err() != nil {
		return packages.Scan{}, context.Cause(ctx)
	}
	scan := packages.Scan{MetadataRefreshed: time.Now()}
	if m.interrupted {
		scan.Problems = append(scan.Problems, packages.Problem{Kind: packages.InterruptedTransaction, Message: "interrupted"})
	}
	for _, name := range slices.Sorted(maps.Keys(m.toys)) {
		p := m.toys[name]
		if p.newest > p.version {
			scan.Patches = append(scan.Patches, packages.Patch{
				Name: name, Architecture: "all", InstalledVersion: fmt.Sprint(p.version), AvailableVersion: fmt.Sprint(p.newest),
				State: packages.Missing, Classification: packages.Other, Broken: p.begun == p.newest,
			})
		}
		if p.begun != 0 {
			scan.Problems = append(scan.Problems, packages.Problem{
				Kind: packages.BrokenPackage, Name: name, Architecture: "all", Version: fmt.Sprint(p.begun), Message: name + " is begun",
			})
		}
	}
	scan.Reboot = m.need()
	m.s.point()
	return scan, nil
}

func (m *hostModel) Download(ctx context.Context, targets []packages.Target) (packages.Download, error) {
	m.s.point()
	if done, known := m.downloads[m.id()]; known {
		return done, nil
	}
	m.s.begun(ctx, m.id(), "The download", v1alpha1.StepDownloading)
	m.chosen(targets)
	m.s.interfere()
	switch {
	case ctx.Err() != nil:
		return packages.Download{}, context.Cause(ctx)
	case m.s.maybe(20):
		return packages.Download{}, &packages.DiskFullError{Path: "/var", Detail: "full"}
	case m.s.maybe(20):
		return packages.Download{}, &packages.RepositoryError{Detail: "nobody answers"}
	}
	var d packages.Download
	for _, t := range targets {
		p, key := m.toys[t.Name], attemptKey(t.Name, t.Version)
		switch {
		case t.Version != fmt.Sprint(p.newest):
			m.pinsLost++
			d.Deferred = append(d.Deferred, packages.Failure{Target: t, Message: "not offered"})
		case p.fault == noFile:
			m.s.tried(m.id(), v1alpha1.BlockedAtDownload, key)
			m.failures[key]++
			d.Failed = append(d.Failed, packages.Failure{Target: t, Message: "404"})
		case m.s.maybe(20):
			d.Deferred = append(d.Deferred, packages.Failure{Target: t, Message: "hangs"})
		default:
			d.Ready = append(d.Ready, t)
		}
	}
	m.downloads[m.id()] = d
	m.s.point()
	return d, nil
}

func (m *hostModel) Install(ctx context.Context, targets []packages.Target) (packages.Install, error) {
	m.s.point()
	round := fmt.Sprintf("%s/install-%d", m.id(), m.s.worker.deployment.Round)
	if done, known := m.installs[round]; known {
		return done.Install, done.err
	}
	m.s.begun(ctx, m.id(), "A transaction", v1alpha1.StepInstalling)
	m.chosen(targets)
	if m.s.maybe(15) {
		held := &packages.LockHeldError{Path: "/lock", PID: 7}
		m.s.interfere()
		if err := m.locks.Waiting(held); err != nil {
			return packages.Install{}, fmt.Errorf("install: %w", err)
		}
		if m.s.maybe(2) {
			return packages.Install{}, held
		}
	}
	if m.interrupted {
		m.cut[m.id()] = true
		return packages.Install{}, &packages.InterruptedDatabaseError{Detail: "run Repair"}
	}
	// The command is on the host now, and ends whatever becomes of the agent.
	dir := m.host.Path("run", filepath.FromSlash(round), "0001-apt-install")
	record := []byte(`{"name":"apt-install","argv":["apt-get"],"unit":"u","transaction":true}`)
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "command.json"), record, 0o600)); err != nil {
		m.s.t.Fatal(err)
	}
	var i installation
	i.Install, i.err = m.transact(targets)
	m.installs[round] = i
	m.s.point()
	m.s.interfere()
	return i.Install, i.err
}

func (m *hostModel) transact(targets []packages.Target) (done packages.Install, err error) {
	var named []packages.Failure
	var cause error
	for _, t := range targets {
		switch m.toys[t.Name].fault {
		case refusal:
			named = append(named, packages.Failure{Target: t, Message: "unmet"})
			cause = &packages.RefusedError{Targets: named, Detail: "unmet"}
		case anonymous:
			cause = &packages.RefusedError{Targets: named, Detail: "unmet"}
		case silent:
			if len(targets) == 1 {
				key := attemptKey(t.Name, t.Version)
				m.s.tried(m.id(), v1alpha1.BlockedAtInstall, key)
				m.failures[key]++
			}
			cause = &packages.CommandError{Tool: "apt-get", ExitCode: 100}
		}
	}
	if cause != nil {
		return done, cause
	}
	until := len(targets)
	if m.s.maybe(8) {
		until = m.s.rand.IntN(len(targets))
		m.cut[m.id()] = true
	}
	for _, t := range targets[:until] {
		if failure := m.unpack(t); failure != "" && until == len(targets) {
			key := attemptKey(t.Name, t.Version)
			m.failures[key]++
			done.Failed = append(done.Failed, packages.Failure{Target: t, Message: failure})
		}
	}
	if until == len(targets) {
		return done, nil
	}
	if p := m.toys[targets[until].Name]; p.fault != noUnpack {
		p.begun = p.newest
	}
	if m.interrupted = m.s.rand.IntN(2) == 0; m.interrupted {
		return packages.Install{}, &packages.InterruptedDatabaseError{Detail: "dpkg was killed"}
	}
	return packages.Install{}, &host.InterruptedError{Command: "apt-install", Reason: "the power was cut", Transaction: true}
}

// unpack installs one target, and says why its own script failed if it did.
func (m *hostModel) unpack(t packages.Target) (failure string) {
	p := m.toys[t.Name]
	switch {
	case p.needs != nil && p.needs.begun != 0:
		p.begun = p.newest
		return ""
	case p.fault == noUnpack:
		failure = "preinst"
	case p.fault == noScript:
		p.begun, failure = p.newest, "postinst"
	}
	m.s.tried(m.id(), v1alpha1.BlockedAtInstall, attemptKey(t.Name, t.Version))
	if failure == "" {
		m.installed = append(m.installed, patchlog.Change(t.Name, fmt.Sprint(p.version), t.Version))
		p.version, p.begun = p.newest, 0
		m.changed(t.Name, t.Version)
	}
	return failure
}

// Repair configures what can be configured.
func (m *hostModel) Repair(ctx context.Context) (packages.Repair, error) {
	m.s.point()
	m.s.begun(ctx, m.id(), "A repair", v1alpha1.StepInstalling)
	var done packages.Repair
	m.interrupted = false
	for _, name := range slices.Sorted(maps.Keys(m.toys)) {
		p := m.toys[name]
		if p.begun != 0 && p.fault != noScript && (p.needs == nil || p.needs.begun == 0) {
			// It is installed by the next transaction that names it, which finds nothing to do.
			done.Packages = append(done.Packages, fmt.Sprintf("%s %d", name, p.begun))
			p.begun = 0
		}
		if p.begun != 0 {
			done.Remaining = append(done.Remaining, packages.Problem{Kind: packages.BrokenPackage, Name: name, Version: fmt.Sprint(p.begun), Message: name + " is begun"})
		}
	}
	m.s.point()
	return done, nil
}

func (m *hostModel) Inspect(_ context.Context, targets []packages.Target) ([]packages.Presence, error) {
	m.s.point()
	present := make([]packages.Presence, len(targets))
	for i, t := range targets {
		p := m.toys[t.Name]
		wanted, err := strconv.Atoi(t.Version)
		if err != nil {
			m.s.t.Fatal(err)
		}
		present[i] = packages.Presence{Installed: p.version >= wanted, Version: fmt.Sprint(max(p.version, p.begun))}
		if p.begun != 0 {
			present[i].Problem = "half-configured"
		}
	}
	m.s.point()
	return present, nil
}
