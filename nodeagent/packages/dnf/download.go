package dnf

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

const downloadTool = "dnf upgrade --downloadonly"

// maxOutages is how many rounds of a download may meet servers that do not answer
// before the rest is put off: each costs minutes.
const maxOutages = 3

// download is one call of Download.
type download struct {
	targets []packages.Target
	// failures are of packages, by NEVRA: of targets, and of what these need.
	failures map[string]transfer
	outages  int
	// plan is that of the last round, and complete says that all of it was fetched.
	plan     *plan
	complete bool
	result   packages.Result
}

// transfer is why a package's file could not be fetched.
type transfer struct {
	reason string
	// fault is true if the server is there and the file is at fault.
	fault bool
}

// Download fetches the targets' files into dnf's cache. dnf gives up when one file
// fails, at times before it has fetched the others, so it is called again without
// the packages that failed until it has all of the rest.
func (m *Manager) Download(ctx context.Context, targets []packages.Target) (packages.Download, error) {
	const purpose = "download packages"
	if err := checkTargets(targets); err != nil {
		return packages.Download{}, fmt.Errorf("%s: %w", purpose, err)
	}
	if len(targets) == 0 {
		return packages.Download{}, nil
	}
	before, err := m.cached()
	if err != nil {
		return packages.Download{}, err
	}
	d := &download{targets: targets, failures: map[string]transfer{}}
	for {
		again, err := m.round(ctx, purpose, d)
		if err != nil {
			return packages.Download{}, err
		}
		if !again {
			break
		}
	}
	after, err := m.cached()
	if err != nil {
		return packages.Download{}, err
	}
	present, err := m.database.Inspect(ctx, targets)
	if err != nil {
		return packages.Download{}, err
	}
	done := d.sort(after, present)
	for name, file := range after {
		if _, found := before[name]; !found {
			done.Bytes += file.size
		}
	}
	if len(done.Ready)+len(done.Failed) == 0 && d.outages > 0 {
		return packages.Download{}, fmt.Errorf("%s: %w", purpose, &packages.RepositoryError{Detail: d.outage()})
	}
	return done, nil
}

// round asks dnf once for all that has not failed yet, and says whether it is
// worth to ask again.
func (m *Manager) round(ctx context.Context, purpose string, d *download) (again bool, err error) {
	argv := m.command(append(m.network(), "-y", "--downloadonly",
		// What cannot be installed, or is in a repository that does not answer,
		// keeps nothing else from being fetched.
		"--setopt=best=0", "--setopt=skip_if_unavailable=1", "--setopt=*.skip_if_unavailable=1",
		// The metadata is that of the scan, however old.
		"--setopt=metadata_expire=-1", "--setopt=*.metadata_expire=-1",
		// The files stay until they are installed, or anything is by another.
		"--setopt=keepcache=0")...)
	if m.five() {
		argv = append(argv, "--skip-broken", "--skip-unavailable")
	}
	// Sorted, because a command that is attached to after a restart is known by its arguments.
	for _, failed := range slices.Sorted(maps.Keys(d.failures)) {
		argv = append(argv, "--exclude="+failed)
	}
	argv = append(argv, "upgrade")
	wanted := 0
	for _, t := range d.targets {
		if _, failed := d.failures[nevra(t)]; !failed {
			argv = append(argv, nevra(t))
			wanted++
		}
	}
	if wanted == 0 {
		return false, nil
	}
	if d.result, err = m.run(ctx, purpose, packages.Command{Name: "dnf-download", Argv: argv}); err != nil {
		return false, err
	}
	p, err := parsePlan(d.result.Stdout, d.result.Stderr)
	if err != nil {
		return false, fmt.Errorf("%s: %w", purpose, err)
	}
	broken := parseRefreshFailures(d.result.Stdout, d.result.Stderr)
	if len(broken) > 0 && d.plan != nil {
		// dnf asks a repository for its metadata again after a download from it has
		// failed, and forgets its packages if that fails too.
		d.outages++
		return false, nil
	}
	d.plan = p
	if d.result.ExitCode == 0 {
		d.complete = true
		return false, nil
	}
	failures := parseTransfers(d.result.Stdout, d.result.Stderr, d.plan)
	for _, transfer := range failures {
		if err := m.noRoom(ctx, transfer.reason); err != nil {
			return false, fmt.Errorf("%s: %w", purpose, err)
		}
	}
	progress, outage := false, false
	for failed, transfer := range failures {
		if _, known := d.failures[failed]; !known {
			d.failures[failed] = transfer
			progress = true
		}
		outage = outage || !transfer.fault
	}
	if outage {
		d.outages++
	}
	if progress {
		return d.outages < maxOutages, nil
	}
	switch {
	case len(broken) > 0:
		return false, fmt.Errorf("%s: %w", purpose, &packages.RepositoryError{Detail: broken[0].Repository + ": " + broken[0].Reason})
	case strings.Contains(string(d.result.Stderr), "There are no enabled repositories"):
		return false, fmt.Errorf("%s: %w", purpose, &packages.RepositoryError{Detail: errorLines(d.result.Stderr)})
	case len(unmatched(d.result, d.targets)) > 0 || len(d.plan.problems) > 0 || strings.Contains(string(d.result.Stderr), "No packages marked for upgrade"):
		return false, nil
	}
	return false, fmt.Errorf("%s: %w", purpose, commandError(downloadTool, d.result))
}

// sort says what became of each target.
func (d *download) sort(cached map[string]cachedFile, present []packages.Presence) packages.Download {
	var done packages.Download
	missing := unmatched(d.result, d.targets)
	for i, t := range d.targets {
		deferred := func(reason string) {
			done.Deferred = append(done.Deferred, packages.Failure{Target: t, Message: reason})
		}
		_, onDisk := cached[fileName(t.Name, t.Version, t.Architecture)]
		planned := d.plan != nil && (find(d.plan.upgrade, t.Name, t.Architecture, t.Version) || find(d.plan.install, t.Name, t.Architecture, t.Version))
		failure, failed := d.failures[nevra(t)]
		switch {
		case failed && failure.fault:
			done.Failed = append(done.Failed, packages.Failure{Target: t, Message: failure.reason})
		case failed:
			deferred(failure.reason)
		case present[i].Installed, d.complete && planned, !d.complete && planned && onDisk:
			done.Ready = append(done.Ready, t)
		case planned:
			deferred("the repositories do not answer: " + d.outage())
		default:
			deferred(d.reason(t, missing))
		}
	}
	return done
}

// reason says why a target is not part of dnf's plan.
func (d *download) reason(t packages.Target, missing []packages.Failure) string {
	if d.plan != nil {
		if problem := d.plan.problem(t.Name, t.Version); problem != "" {
			for failed, transfer := range d.failures {
				if strings.Contains(problem, failed) {
					return "it needs " + failed + ", which cannot be fetched: " + transfer.reason
				}
			}
			return problem
		}
	}
	for _, f := range missing {
		if f.Target == t {
			if broken := parseRefreshFailures(d.result.Stdout, d.result.Stderr); len(broken) > 0 {
				return "repository " + broken[0].Repository + " cannot be used: " + broken[0].Reason
			}
			return "no repository offers this version any more"
		}
	}
	return "dnf does not include it in the transaction: " + errorLines(d.result.Stderr)
}

// outage is why a server was not reached.
func (d *download) outage() string {
	var said []string
	for _, t := range d.failures {
		if !t.fault {
			said = append(said, t.reason)
		}
	}
	if len(said) == 0 {
		return errorLines(d.result.Stderr)
	}
	return slices.Min(said)
}

// parseTransfers reads of which packages the files could not be fetched, by NEVRA,
// and the last reason for each. dnf 4 names the file with each reason, and the
// packages at the end:
//
//	[MIRROR] toy-2.0-1.noarch.rpm: Status code: 404 for http://127.0.0.1/packages/toy-2.0-1.noarch.rpm (IP: 127.0.0.1)
//	[FAILED] toy-2.0-1.noarch.rpm: No more mirrors to try - All mirrors were already tried without success
//	Error: Error downloading packages:
//	  toy-1:2.0-1.noarch: Cannot download, all mirrors were already tried without success
//
// dnf 5 names the address, of each mirror that it tries (dnf5/download_callbacks.cpp):
//
//	>>> Status code: 404 for http://127.0.0.1/packages/toy-2.0-1.noarch.rpm (IP: 127.0.0.1) - http://127.0.0.1/packages/toy-2.0-1.noarch.rpm
//	>>> No more mirrors to try - All mirrors were already tried without success
func parseTransfers(stdout, stderr []byte, p *plan) map[string]transfer {
	reasons := map[string]string{} // by the name of the file
	failed := map[string]bool{}
	found := map[string]transfer{}
	last := "" // the file that dnf 5 has named
	for line := range strings.Lines(string(stdout) + "\n" + string(stderr)) {
		line = strings.TrimSpace(strings.TrimRight(line, "\r\n"))
		switch mark, rest, _ := strings.Cut(line, " "); mark {
		case "[MIRROR]":
			if file, reason, is := strings.Cut(rest, ": "); is && strings.HasSuffix(file, ".rpm") {
				reasons[file] = shorten(reason)
			}
		case "[FAILED]":
			if file, reason, is := strings.Cut(rest, ": "); is && strings.HasSuffix(file, ".rpm") {
				failed[file] = true
				if reasons[file] == "" {
					reasons[file] = reason
				}
			}
		case ">>>":
			if file := fileInURL(rest); file != "" {
				last, reasons[file] = file, shorten(rest)
			} else if last != "" && strings.HasPrefix(rest, "No more mirrors to try") {
				failed[last] = true
			}
		}
	}
	for _, rows := range [][]row{p.install, p.upgrade} {
		for _, r := range rows {
			file := fileName(r.name, r.version, r.architecture)
			if failed[file] {
				found[r.name+"-"+r.version+"."+r.architecture] = newTransfer(reasons[file])
			}
		}
	}
	// Files that are not named as usual, and reasons that come without a file.
	in := false
	for line := range strings.Lines(string(stderr)) {
		line = strings.TrimRight(line, "\r\n ")
		if strings.HasSuffix(line, "Error downloading packages:") {
			in = true
			continue
		}
		which, reason, is := strings.Cut(strings.TrimSpace(line), ": ")
		if !in || !is || !strings.HasPrefix(line, "  ") {
			in = false
			continue
		}
		name, version, architecture, ok := rpm.ParseNEVRA(which)
		if _, known := found[name+"-"+version+"."+architecture]; ok && !known {
			found[name+"-"+version+"."+architecture] = newTransfer(reason)
		}
	}
	return found
}

// newTransfer tells a file that is at fault from a server that does not answer.
// Where dnf gives no reason but that all mirrors were tried, it is the file's.
func newTransfer(reason string) transfer {
	return transfer{reason: reason, fault: !unreachable(reason)}
}

// fileInURL is the name of the package's file in the first address of a line.
func fileInURL(line string) string {
	for word := range strings.FieldsSeq(line) {
		if strings.Contains(word, "://") && strings.HasSuffix(word, ".rpm") {
			return word[strings.LastIndexByte(word, '/')+1:]
		}
	}
	return ""
}

// shorten leaves hashes out of a reason: a person has no use for them.
func shorten(reason string) string {
	before, _, _ := strings.Cut(reason, " Calculated: ")
	before, _, _ = strings.Cut(before, " (IP: ")
	return before
}
