package dnf

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

const refreshTool = "dnf makecache"

// Refresh fetches the metadata of all repositories. One that does not answer does
// not keep the others from being fetched.
func (m *Manager) Refresh(ctx context.Context) (packages.Refresh, error) {
	const purpose = "refresh the package metadata"
	argv := m.command(append(m.network(), "-y", "--refresh",
		// Otherwise dnf 4 gives up at the first repository that fails.
		"--setopt=skip_if_unavailable=1", "--setopt=*.skip_if_unavailable=1", "makecache")...)
	result, err := m.run(ctx, purpose, packages.Command{Name: "dnf-refresh", Argv: argv, Timeout: refreshTimeout})
	if err != nil {
		return packages.Refresh{}, err
	}
	failures := parseRefreshFailures(result.Stdout, result.Stderr)
	switch {
	case len(failures) > 0:
		return packages.Refresh{}, &packages.RefreshError{Failures: failures}
	case result.ExitCode != 0:
		return packages.Refresh{}, fmt.Errorf("%s: %w", purpose, commandError(refreshTool, result))
	}
	if _, err := m.runner.Run(ctx, packages.Command{
		Name: "dnf-refresh-stamp", Argv: []string{"touch", "/" + refreshStamp}, Env: environment(), Timeout: readTimeout,
	}); err != nil {
		return packages.Refresh{}, fmt.Errorf("record that the package metadata was refreshed: %w", err)
	}
	return parseRefresh(result.Stdout, result.Stderr), nil
}

var (
	// dnf 4: "toys      590 kB/s | 2.6 kB     00:00"; dnf 5: "toys   100% |   8.0 KiB/s | ...".
	// The name comes first, which for dnf 5 is that of a person's choosing.
	fetched     = regexp.MustCompile(`^\s?\S.*\s(?:\S+\s+[kMG]?B/s \||100% \|)\s`)
	loading     = regexp.MustCompile(`^ (\S.*?)\s{2,}\S*% \|`)
	dnf4Failure = regexp.MustCompile(`^Errors during downloading metadata for repository '([^']+)':$`)
	dnf4Summary = regexp.MustCompile(`^(?:Error: )?Failed to (?:download|synchronize|load) (?:metadata|cache) for repo '([^']+)'(?:: (.*))?$`)
	dnf4Ignored = regexp.MustCompile(`^Ignoring repositories: (.+)$`)
	dnf5Failure = regexp.MustCompile(`^(?:Error: |>>> )?Failed to download metadata \((?:baseurl|metalink|mirrorlist): "([^"]*)"\) for repository "([^"]+)"(?:: (.*))?$`)
)

// parseRefresh counts the repositories of which something was fetched, and keeps
// what dnf warns of. Neither version of it lists what was current already: the
// indexes are at least as many as were fetched.
func parseRefresh(stdout, stderr []byte) packages.Refresh {
	var refresh packages.Refresh
	for line := range strings.Lines(string(stdout) + "\n" + string(stderr)) {
		if fetched.MatchString(strings.TrimRight(line, "\r\n")) {
			refresh.Indexes++
			refresh.Changed++
		}
	}
	const most = 20
	for line := range strings.Lines(string(stderr)) {
		if fetched.MatchString(strings.TrimRight(line, "\r\n")) || strings.HasPrefix(line, "Updating and loading") || strings.HasPrefix(line, "Repositories loaded") {
			continue // dnf 5 has its progress here
		}
		if line = strings.TrimSpace(line); line != "" && len(refresh.Warnings) < most {
			refresh.Warnings = append(refresh.Warnings, line)
		}
	}
	return refresh
}

// parseRefreshFailures are the repositories whose metadata could not be fetched,
// each once, with the first reason that is given for it:
//
//	Errors during downloading metadata for repository 'toys':
//	  - Curl error (7): Couldn't connect to server for http://127.0.0.1:1/repodata/repomd.xml [Failed to connect]
//	Error: Failed to download metadata for repo 'toys': Cannot download repomd.xml: …
//	Ignoring repositories: toys
//
// dnf 5 has the name of a repository in the line of its progress before:
//
//	 Toys    ???% |   0.0   B/s |   0.0   B |  00m00s
//	>>> Curl error (7): Could not connect to server for http://127.0.0.1:1/repodata/repomd.xml [] - http://127.0.0.1:1/repodata/repomd.xml
//	>>> Librepo error: Cannot download repomd.xml: Cannot download repodata/repomd.xml: All mirrors were tried
func parseRefreshFailures(outputs ...[]byte) []packages.RepositoryFailure {
	var failures []packages.RepositoryFailure
	add := func(repository, reason string) {
		for i := range failures {
			if failures[i].Repository == repository {
				if failures[i].Reason == "" {
					failures[i].Reason, failures[i].Unreachable = reason, unreachable(reason)
				}
				return
			}
		}
		failures = append(failures, packages.RepositoryFailure{Repository: repository, Reason: reason, Unreachable: unreachable(reason)})
	}
	for _, text := range outputs {
		current, five, said := "", "", ""
		for line := range strings.Lines(string(text)) {
			if found := loading.FindStringSubmatch(line); found != nil {
				five, said = found[1], ""
			}
			line = strings.TrimSpace(line)
			// dnf 5 goes on to the next mirror, and says this when there is no other.
			if message, is := strings.CutPrefix(line, ">>> "); is && five != "" {
				if strings.HasPrefix(message, "Librepo error: ") || strings.HasPrefix(message, "Usable URL not found") {
					add(five, cmp.Or(said, message))
				} else {
					said = cmp.Or(said, shorten(message))
				}
				continue
			}
			if found := dnf4Failure.FindStringSubmatch(line); found != nil {
				current = found[1]
				continue
			}
			if reason, is := strings.CutPrefix(line, "- "); is && current != "" {
				add(current, reason)
				continue
			}
			current = ""
			if found := dnf4Summary.FindStringSubmatch(line); found != nil {
				add(found[1], found[2])
			} else if found := dnf5Failure.FindStringSubmatch(line); found != nil {
				current = found[2]
				add(found[2], found[3])
			} else if found := dnf4Ignored.FindStringSubmatch(line); found != nil {
				for name := range strings.SplitSeq(found[1], ", ") {
					add(name, "")
				}
			}
		}
	}
	for i := range failures {
		if failures[i].Reason == "" {
			failures[i].Reason = "dnf does not say why"
		}
	}
	return failures
}

// unreachable says whether the reason for a failed transfer is that the server
// did not answer, in the words of librepo, which have curl's number for the error
// (libcurl-errors(3)): no name, no route, no connection, no answer in time, no
// handshake. A certificate that is not valid is an answer.
func unreachable(reason string) bool {
	_, rest, found := strings.Cut(reason, "Curl error (")
	if !found {
		// librepo's own words for a 5xx: the server is there, and cannot answer now.
		return strings.Contains(reason, "Status code: 5")
	}
	number, _, _ := strings.Cut(rest, ")")
	switch number {
	case "5", "6", "7", "16", "18", "28", "35", "52", "55", "56", "92":
		return true
	}
	return false
}
