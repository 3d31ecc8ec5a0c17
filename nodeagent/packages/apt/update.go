package apt

import (
	"strconv"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// lockHeld reads from the errors of apt or dpkg who holds a lock; nil if none is held.
//
//	E: Could not get lock /var/lib/apt/lists/lock. It is held by process 123 (apt-get)
//	E: Could not get lock /var/lib/apt/lists/lock - open (11: Resource temporarily unavailable)
//	dpkg: error: dpkg frontend lock was locked by another process with pid 123
//	dpkg: error: dpkg frontend is locked by another process
func lockHeld(stderr []byte) *packages.LockHeldError {
	for _, line := range lines(stderr) {
		if rest, is := strings.CutPrefix(line, "dpkg: error: dpkg "); is && strings.Contains(rest, " locked by another process") {
			held := &packages.LockHeldError{Path: "/var/lib/dpkg/lock"}
			if strings.HasPrefix(rest, "frontend ") {
				held.Path = "/var/lib/dpkg/lock-frontend"
			}
			_, number, _ := strings.Cut(strings.TrimSpace(rest), " with pid ")
			if pid, err := strconv.Atoi(number); err == nil && pid > 0 {
				held.PID = pid
			}
			return held
		}
		rest, is := strings.CutPrefix(line, "E: Could not get lock ")
		if !is {
			continue
		}
		// Both forms have it up to a mark that no lock's path has in it.
		path, _, _ := strings.Cut(rest, " ")
		held := &packages.LockHeldError{Path: strings.TrimSuffix(path, ".")}
		_, holder, _ := strings.Cut(rest, " It is held by process ")
		number, name, _ := strings.Cut(holder, " (")
		if pid, err := strconv.Atoi(number); err == nil && pid > 0 {
			held.PID = pid
			held.Process = strings.TrimSuffix(name, ")")
		}
		return held
	}
	return nil
}

// parseRefresh reads what "apt-get update" printed: the indexes it asked for, and
// the repositories that failed, each once.
func parseRefresh(stdout, stderr []byte) (packages.Refresh, []packages.RepositoryFailure, error) {
	var refresh packages.Refresh
	numbers := map[string]string{} // an index's number to what became of it
	for n, line := range lines(stdout) {
		verb, rest, _ := strings.Cut(line, ":")
		switch verb {
		case "Get", "Hit", "Ign", "Err":
			number, _, _ := strings.Cut(rest, " ")
			if _, err := strconv.ParseUint(number, 10, 32); err != nil {
				return refresh, nil, notUnderstood(refreshTool, n, line, "not the number of an index")
			}
			// A later line of the same number corrects the earlier.
			numbers[number] = verb
		}
	}
	for _, verb := range numbers {
		switch verb {
		case "Get":
			refresh.Indexes++
			refresh.Changed++
		case "Hit":
			refresh.Indexes++
		}
	}

	var failures []packages.RepositoryFailure
	seen := map[string]bool{}
	for _, line := range lines(stderr) {
		kind, text, found := strings.Cut(line, ": ")
		if !found || kind != "E" && kind != "W" {
			continue
		}
		failure, is := parseFailure(kind, text)
		switch {
		case is && !seen[failure.Repository]:
			seen[failure.Repository] = true
			failures = append(failures, failure)
		case !is && kind == "W" && len(refresh.Warnings) < maxWarnings:
			refresh.Warnings = append(refresh.Warnings, text)
		}
	}
	return refresh, failures, nil
}

// maxWarnings is how many of apt's warnings are kept: one for each of a sane
// host's repositories.
const maxWarnings = 20

// parseFailure reads one error or warning, and says whether it means that a
// repository was not refreshed.
func parseFailure(kind, text string) (packages.RepositoryFailure, bool) {
	if rest, is := strings.CutPrefix(text, "Failed to fetch "); is {
		// Two spaces stand before the reason.
		address, reason, _ := strings.Cut(rest, " ")
		reason = strings.Trim(reason, " :") // apt 3 ends some with a colon
		return packages.RepositoryFailure{Repository: address, Reason: reason, Unreachable: unreachable(reason)}, true
	}
	// "The repository 'http://… suite Release' does not have a Release file.",
	// "… is not signed.", "… is no longer signed."
	if rest, is := strings.CutPrefix(text, "The repository '"); is && kind == "E" {
		repository, reason, found := strings.Cut(rest, "' ")
		return packages.RepositoryFailure{Repository: repository, Reason: strings.TrimSuffix(reason, "."), Unreachable: false}, found
	}
	// "GPG error: http://… suite InRelease: The following signatures …",
	// "Release file for http://… is not valid yet (invalid for another 2h).",
	// "An error occurred during the signature verification. The repository is
	// not updated and the previous index files will be used. GPG error: …"
	for _, sign := range []string{"GPG error: ", "Release file for "} {
		_, rest, is := strings.Cut(text, sign)
		if !is {
			continue
		}
		address, reason, _ := strings.Cut(rest, " ")
		return packages.RepositoryFailure{Repository: address, Reason: strings.TrimSpace(reason)}, true
	}
	return packages.RepositoryFailure{}, false
}

// unreachable says whether apt's reason is that a server did not answer, in the
// words of apt's connect and http methods.
func unreachable(reason string) bool {
	for _, words := range []string{
		"Could not connect", "Unable to connect", "Could not resolve", "Temporary failure resolving",
		"Something wicked happened resolving", "Cannot initiate the connection", "Connection failed",
		"Connection timed out", "connection timed out", "Connection refused", "No route to host", "Network is unreachable",
		"Could not wait for server", "Error reading from server", "Could not handshake", "Failed to resolve",
	} {
		if strings.Contains(reason, words) {
			return true
		}
	}
	return false
}
