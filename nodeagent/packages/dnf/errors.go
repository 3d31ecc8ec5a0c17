package dnf

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// lockFiles are dnf 4's locks by the names that it has for them (dnf/lock.py).
var lockFiles = map[string]string{
	"metadata": "/var/cache/dnf/metadata_lock.pid",
	"cachedir": "/var/cache/dnf/download_lock.pid",
	"RPMDB":    "/var/lib/dnf/rpmdb_lock.pid",
	"log":      "/var/log/log_lock.pid",
}

var (
	dnfLock  = regexp.MustCompile(`(?m)^(\w+) already locked by (\d+)$`)
	rpmLock  = regexp.MustCompile(`can't create transaction lock on (\S+)`)
	dnf5Lock = regexp.MustCompile(`Failed to obtain rpm transaction lock|Failed to lock|Failed to obtain lock`)
	// The first is rpm's test of a transaction, the second what dnf makes of it.
	diskNeeds = regexp.MustCompile(`(?m)needs (\S+) (?:more space )?on the (\S+) filesystem|At least (\S+) more space needed on the (\S+) filesystem`)
)

// lockHeld reads who holds one of the locks; nil if none is held.
//
//	metadata already locked by 123
//	RPM: error: can't create transaction lock on /var/lib/rpm/.rpm.lock (Resource temporarily unavailable)
func lockHeld(result packages.Result) *packages.LockHeldError {
	if result.ExitCode == 0 {
		return nil
	}
	if found := dnfLock.FindSubmatch(result.Stderr); found != nil {
		pid, err := strconv.Atoi(string(found[2]))
		if err != nil {
			pid = 0
		}
		return &packages.LockHeldError{Path: lockFiles[string(found[1])], PID: pid}
	}
	for _, text := range [][]byte{result.Stderr, result.Stdout} {
		if found := rpmLock.FindSubmatch(text); found != nil {
			return &packages.LockHeldError{Path: string(found[1])}
		}
		if dnf5Lock.Match(text) {
			return &packages.LockHeldError{Path: "/var/lib/rpm/.rpm.lock"}
		}
	}
	return nil
}

// diskFull reads that a file system has no room; nil if that is not said.
func diskFull(result packages.Result) *packages.DiskFullError {
	for _, text := range [][]byte{result.Stderr, result.Stdout} {
		if found := diskNeeds.FindSubmatch(text); found != nil {
			path := string(found[2]) + string(found[4]) // one of them is empty
			return &packages.DiskFullError{Path: path, Detail: strings.TrimSpace(string(found[0]))}
		}
		for line := range strings.Lines(string(text)) {
			// curl's number is for data that it cannot write.
			if strings.Contains(line, "No space left on device") || strings.Contains(line, "Curl error (23)") {
				return &packages.DiskFullError{Path: fullPath(line), Detail: strings.TrimSpace(line)}
			}
		}
	}
	return nil
}

// fullPath is the path that a line names, or dnf's cache where it names none, as
// "[Errno 28] No space left on device".
func fullPath(line string) string {
	for word := range strings.FieldsSeq(line) {
		word = strings.Trim(word, "'\":;,")
		if strings.HasPrefix(word, "/") {
			path, _, _ := strings.Cut(word, ";") // rpm's name of a file that is being written
			return path
		}
	}
	return "/var/cache/dnf"
}

// errorLines are what dnf says in its errors, in one line: its own "Error:", the
// problems of its plan, and what it ignores.
func errorLines(stderr []byte) string {
	var said []string
	for line := range strings.Lines(string(stderr)) {
		line = strings.TrimSpace(line)
		if line == "" || line == "Error:" || strings.HasPrefix(line, "(try to add") || line == "Operation aborted." {
			continue
		}
		said = append(said, strings.TrimPrefix(line, "Error: "))
	}
	const most, longest = 8, 1500
	if len(said) > most {
		said = said[:most]
	}
	text := strings.Join(said, "; ")
	if len(text) > longest {
		text = text[:longest]
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// mentioned are those of the targets that a text names, each with the line that
// does. dnf names a package by its version, installed or not.
func mentioned(text string, targets []packages.Target) []packages.Failure {
	var found []packages.Failure
	for line := range strings.Lines(text) {
		for word := range strings.FieldsSeq(line) {
			name, version, architecture, ok := rpm.ParseNEVRA(strings.Trim(word, `",:;()'`))
			if !ok {
				continue
			}
			for _, t := range targets {
				known := slices.ContainsFunc(found, func(f packages.Failure) bool { return f.Target == t })
				if t.Name == name && t.Architecture == architecture && t.Version == version && !known {
					found = append(found, packages.Failure{Target: t, Message: strings.TrimLeft(strings.TrimSpace(line), "- ")})
				}
			}
		}
	}
	return found
}

// unmatched are the targets that the repositories do not offer.
func unmatched(result packages.Result, targets []packages.Target) []packages.Failure {
	var found []packages.Failure
	for _, text := range [][]byte{result.Stdout, result.Stderr} {
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			_, argument, is := strings.Cut(line, "No match for argument: ")
			if !is {
				// dnf 4, of a package that it knows and that is not installed.
				argument, is = strings.CutSuffix(line, " available, but not installed.")
				argument = strings.TrimPrefix(argument, "Package ")
			}
			if !is {
				continue
			}
			for _, t := range targets {
				if strings.TrimSpace(argument) == nevra(t) || argument == t.Name {
					found = append(found, packages.Failure{Target: t, Message: line})
				}
			}
		}
	}
	return found
}
