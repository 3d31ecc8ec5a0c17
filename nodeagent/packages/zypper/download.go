package zypper

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// Download has zypper fetch the targets' files, and those of the packages that
// they need, to its cache.
//
// It uses "zypper download", which goes on to the next package where one fails,
// and says for each what became of it; "install --download-only" gives up with
// the first, under the exit status of a failed installation. What is needed is
// asked for before, without downloading.
func (m *Manager) Download(ctx context.Context, targets []packages.Target) (packages.Download, error) {
	const purpose = "download packages"
	o, err := m.order(ctx, targets)
	if err != nil {
		return packages.Download{}, err
	}
	download := packages.Download{Ready: o.done, Deferred: o.gone}
	if len(o.wanted) == 0 {
		return download, nil
	}
	r, err := m.repositories(ctx)
	if err != nil {
		return packages.Download{}, err
	}
	repos, ok := r.usable()
	if !ok {
		return packages.Download{}, fmt.Errorf("%s: %w", purpose, r.useless())
	}

	// What zypper would install, and what of it is not there yet.
	var needed *plan
	accepted := &selection{check: func(ctx context.Context, all []packages.Target) (err error) {
		needed, err = m.plan(ctx, repos, all)
		return err
	}}
	if err := accepted.add(ctx, o.wanted); err != nil {
		return packages.Download{}, err
	}
	download.Deferred = append(download.Deferred, accepted.rejected...)
	if len(accepted.accepted) == 0 {
		return download, nil
	}
	if len(accepted.rejected) > 0 { // the last plan that was asked for may be another's
		if needed, err = m.plan(ctx, repos, accepted.accepted); err != nil {
			return packages.Download{}, err
		}
	}
	missing, err := r.missing(m, needed.installed())
	if err != nil {
		return packages.Download{}, err
	}
	f := &fetch{manager: m, repos: repos, faults: map[packages.Target]string{}, limit: m.limits.download(needed.bytes)}
	if err := f.all(ctx, missing); err != nil {
		return packages.Download{}, err
	}
	download.Bytes = f.bytes
	if err := f.sort(ctx, accepted.accepted, &download); err != nil {
		return packages.Download{}, err
	}
	if f.server != "" && f.bytes == 0 && len(download.Ready)+len(download.Failed) == 0 {
		return packages.Download{}, fmt.Errorf("%s: %w", purpose, &packages.RepositoryError{Detail: f.server})
	}
	return download, nil
}

// useless is the error of a host none of whose repositories can be used.
func (r *repositories) useless() error {
	if len(r.all) == 0 {
		return &packages.RepositoryError{Detail: "no repository is enabled (zypper repos)"}
	}
	return &packages.RepositoryError{Detail: "no repository has ever been refreshed (zypper refresh)"}
}

// missing are the packages that are not in the cache.
func (r *repositories) missing(m *Manager, all []packages.Target) ([]packages.Target, error) {
	stored, err := r.cache.stored(m.files)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(all), func(t packages.Target) bool {
		_, found := stored[fileName(t)]
		return found
	}), nil
}

// fetch is one download of several packages.
type fetch struct {
	manager *Manager
	repos   []string
	limit   time.Duration // of a batch
	// faults are why packages were not fetched, in zypper's words.
	faults map[packages.Target]string
	// server is one of the faults of the last batch that are the server's, and
	// fetched how many packages of it came nevertheless.
	server  string
	fetched int
	bytes   int64
}

// batch is how many packages zypper is asked for at once. If a server fails with
// all of a batch, the rest is given up.
const batch = 16

// all fetches the packages.
func (f *fetch) all(ctx context.Context, wanted []packages.Target) error {
	for targets := range slices.Chunk(wanted, batch) {
		if f.server != "" && f.fetched == 0 {
			for _, t := range targets {
				f.faults[t] = f.server
			}
			continue
		}
		f.fetched, f.server = 0, ""
		var a *answer
		err := f.manager.locks.Retry(ctx, f.manager.files, func() (err error) {
			a, err = f.manager.run(ctx, &command{
				name: "zypper-download", purpose: "download packages", limit: f.limit, repositories: f.repos,
				verb: "download", arguments: capabilities(targets),
			})
			return err
		})
		if err != nil {
			return err
		}
		if err := f.read(a, targets); err != nil {
			return fmt.Errorf("%s: %w", a.command.purpose, err)
		}
	}
	return nil
}

var (
	// "Retrieving package toy-1.1-1.noarch (1/5),   5.4 KiB (    0   B unpacked)"
	retrieving = regexp.MustCompile(`^(?:Retrieving package|Retrieving:) (\S+) \(`)
	// "(1/5) toy-1.1-1.noarch (Toy repository)", which newer ones print alone.
	progressOf = regexp.MustCompile(`^\( *\d+/\d+\) (\S+) \(`)
	// "Argument resolves to no package: toy.noarch=1.1-1"
	noPackage = regexp.MustCompile(`^Argument resolves to no package: (.*)$`)
)

// read takes from zypper's answer what became of each package: it has a result,
// or complaints came after its name.
func (f *fetch) read(a *answer, targets []packages.Target) error {
	said := map[packages.Target][]string{}
	fetched := map[packages.Target]bool{}
	var current *packages.Target
	turn := func(word string) {
		current = nil
		for i := range targets {
			if is(targets[i], word) {
				current = &targets[i]
			}
		}
	}
	for _, element := range a.elements {
		switch e := element.(type) {
		case *downloadResult:
			for _, t := range targets {
				if e.Package.is(t) {
					fetched[t] = true
					f.fetched++
					f.bytes += f.manager.size(e.File.Path)
				}
			}
			current = nil
		case *progress:
			if found := progressOf.FindStringSubmatch(e.Name); found != nil && e.Done == "" {
				turn(found[1])
			}
		case *message:
			text := strings.TrimSpace(e.Text)
			if found := retrieving.FindStringSubmatch(text); found != nil {
				turn(found[1])
				continue
			}
			if found := noPackage.FindStringSubmatch(text); found != nil {
				for _, t := range targets {
					if is(t, found[1]) {
						said[t] = append(said[t], "no repository offers this version any more")
					}
				}
				continue
			}
			if e.Type == "info" || current == nil || strings.HasPrefix(text, "ABORT request") {
				continue
			}
			if full := diskFull(text); full != nil {
				return full
			}
			said[*current] = append(said[*current], strings.ReplaceAll(text, "Do you want to retry retrieval?", ""))
		}
	}
	for _, t := range targets {
		switch {
		case fetched[t]:
		case a.late():
			f.server = fmt.Sprintf("it was not fetched within %s", f.limit)
			f.faults[t] = f.server
		case len(said[t]) > 0:
			f.faults[t] = oneLine(strings.Join(said[t], "\n"))
			if unreachable(f.faults[t]) {
				f.server = f.faults[t]
			}
		case a.exit != exitOK && a.exit != exitReboot && a.exit != exitCommit:
			return a.failure()
		default:
			f.faults[t] = "zypper did not fetch it and does not say why"
		}
	}
	return nil
}

// size is that of a file of the host; 0 if it cannot be read.
func (m *Manager) size(name string) int64 {
	info, err := fs.Stat(m.files, strings.TrimPrefix(path.Clean(name), "/"))
	if err != nil {
		return 0
	}
	return info.Size()
}

// is says whether the package, in the form of a result, is the target.
func (c *conflicting) is(t packages.Target) bool { return c.target() == t }

func (c *conflicting) target() packages.Target {
	version := c.Edition.Version
	if c.Edition.Release != "" {
		version += "-" + c.Edition.Release
	}
	if c.Edition.Epoch != "" && c.Edition.Epoch != "0" {
		version = c.Edition.Epoch + ":" + version
	}
	return packages.Target{Name: c.Name, Architecture: c.Arch, Version: version}
}

// sort puts each target into one of the download's lists.
func (f *fetch) sort(ctx context.Context, targets []packages.Target, d *packages.Download) error {
	var rest []packages.Target
	for _, t := range targets {
		fault, failed := f.faults[t]
		switch failure := (packages.Failure{Target: t, Message: fault}); {
		case !failed:
			rest = append(rest, t)
		case unreachable(fault) || strings.HasPrefix(fault, "no repository offers"):
			d.Deferred = append(d.Deferred, failure)
		default:
			d.Failed = append(d.Failed, failure)
		}
	}
	if len(f.faults) == 0 {
		d.Ready = append(d.Ready, rest...)
		return nil
	}
	// A package that others need may be among those that failed: what is left is
	// ready only with all that it needs.
	ready := &selection{check: func(ctx context.Context, all []packages.Target) error {
		p, err := f.manager.plan(ctx, f.repos, all)
		if err != nil {
			return err
		}
		for _, t := range p.installed() {
			if fault, failed := f.faults[t]; failed {
				return &packages.RefusedError{Detail: fmt.Sprintf("it needs %s, which cannot be fetched: %s", nevra(t), fault)}
			}
		}
		return nil
	}}
	if err := ready.add(ctx, rest); err != nil {
		return err
	}
	d.Ready = append(d.Ready, ready.accepted...)
	d.Deferred = append(d.Deferred, ready.rejected...)
	return nil
}
