package apt

import (
	"context"
	"slices"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

const downloadPurpose = "download packages"

// Download has apt fetch the targets' files, and those of the packages that they
// need, to its own folder.
//
// Apt takes all targets or none, so it is first asked, without downloading, which
// it takes. What is missing afterwards is asked of apt too: what it printed of its
// work is read for the reasons alone.
func (m *Manager) Download(ctx context.Context, targets []packages.Target) (packages.Download, error) {
	db, err := m.database(ctx, "apt-before")
	if err != nil {
		return packages.Download{}, err
	}
	req := newRequest(db, targets)
	d := &downloader{Manager: m, request: req, result: packages.Download{
		Ready: slices.Concat(req.done, req.configure), Deferred: slices.Clone(req.gone),
	}}
	if err := d.download(ctx, req.upgrade); err != nil {
		return packages.Download{}, wrap(downloadPurpose, req.explain(err, req.upgrade))
	}
	if len(d.unreachable) > 0 && d.result.Bytes == 0 && len(d.result.Ready)+len(d.result.Failed) == 0 {
		slices.Sort(d.unreachable)
		return packages.Download{}, wrap(downloadPurpose,
			&packages.RepositoryError{Detail: strings.Join(slices.Compact(d.unreachable), "; ")})
	}
	return d.result, nil
}

// downloader is one download.
type downloader struct {
	*Manager
	request     *request
	faults      faults
	result      packages.Download
	unreachable []string // reasons of files that could not be fetched through no fault of theirs
}

func (d *downloader) download(ctx context.Context, targets []packages.Target) error {
	var needed []location
	accepted := &selection{db: d.request.db, check: func(ctx context.Context, all []packages.Target) error {
		locations, err := d.locate(ctx, d.request, all)
		if err == nil {
			needed = locations
		}
		return err
	}}
	if err := accepted.add(ctx, targets); err != nil {
		return err
	}
	d.result.Deferred = append(d.result.Deferred, accepted.rejected...)
	if len(needed) > 0 {
		var err error
		d.faults, err = d.fetch(ctx, d.request, accepted.fitting, size(needed))
		// Whether packages are signed it asks only now.
		if r, is := asRefused(err); is {
			if named, others := r.of(d.request.db, accepted.fitting); len(named) > 0 {
				d.result.Deferred = append(d.result.Deferred, named...)
				return d.download(ctx, others)
			}
		}
		if err != nil {
			return err
		}
	}
	return d.settle(ctx, accepted.fitting, needed)
}

// settle finds out which targets are there with all that they need.
func (d *downloader) settle(ctx context.Context, targets []packages.Target, needed []location) error {
	missing, err := d.missing(ctx, targets, needed)
	if err != nil {
		return err
	}
	d.result.Bytes += size(needed) - size(missing)
	if len(missing) == 0 {
		d.result.Ready = append(d.result.Ready, targets...)
		return nil
	}
	var others []packages.Target
	for _, t := range targets {
		i := slices.IndexFunc(missing, func(l location) bool { return d.request.isFile(&t, l.file) })
		if i < 0 {
			others = append(others, t)
			continue
		}
		fault := d.faults.of(missing[i])
		failure := packages.Failure{Target: t, Message: fault.message}
		if fault.shared {
			d.unreachable = append(d.unreachable, failure.Message)
			d.result.Deferred = append(d.result.Deferred, failure)
		} else {
			d.result.Failed = append(d.result.Failed, failure)
		}
	}
	// These have their own files, and may lack those of others.
	complete := &selection{db: d.request.db, check: func(ctx context.Context, all []packages.Target) error {
		needed, err := d.locate(ctx, d.request, all)
		if err != nil {
			return err
		}
		for _, l := range needed {
			if d.faults.isMissing(l) {
				return &refused{detail: "it needs " + l.name + " " + l.version + ", which could not be fetched: " + d.faults.of(l).message}
			}
		}
		return nil
	}}
	if err := complete.add(ctx, others); err != nil {
		return err
	}
	d.result.Ready = append(d.result.Ready, complete.fitting...)
	d.result.Deferred = append(d.result.Deferred, complete.rejected...)
	return nil
}

// missing are the files of which apt says after a download that it still needs them.
func (d *downloader) missing(ctx context.Context, targets []packages.Target, needed []location) ([]location, error) {
	// Nothing that is on the network was needed, so nothing can have changed.
	remote := slices.ContainsFunc(needed, func(l location) bool { return !l.local() })
	if remote {
		var err error
		if needed, err = d.locate(ctx, d.request, targets); err != nil {
			return nil, err
		}
	}
	var missing []location
	for _, l := range needed {
		if d.faults.isMissing(l) {
			missing = append(missing, l)
		}
	}
	return missing, nil
}
