package zypper

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// oneLine makes one line of a tool's text of several, without rpm's remarks that
// are the same for everybody.
func oneLine(text string) string {
	const longest = 500
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.Join(strings.Fields(line), " ")
		// Debian's rpm says these with every package.
		if line == "" || strings.HasPrefix(line, "rpm: RPM should not be used") || strings.HasPrefix(line, "rpm: However assuming") {
			continue
		}
		lines = append(lines, line)
	}
	return shorten(strings.Join(lines, "; "), longest)
}

// texts are the texts of the messages of a type, or of all of them if kind is empty.
func (a *answer) texts(kind string) []string {
	var all []string
	for _, element := range a.elements {
		if m, is := element.(*message); is && (kind == "" || m.Type == kind) {
			all = append(all, m.Text)
		}
	}
	return all
}

// complaint is what zypper says that went wrong, in one line; all of its output
// if it does not say so in XML.
func (a *answer) complaint() string {
	var lines []string
	for _, text := range a.texts("error") {
		lines = append(lines, oneLine(text))
	}
	if p, found := find[prompt](a); found && p.Description != "" {
		lines = append(lines, oneLine(p.Description))
	}
	if len(lines) == 0 {
		return rpm.LastLines(a.result)
	}
	return shorten(strings.Join(slices.Compact(lines), "; "), 1000)
}

// failure is the error of an exit status that has none of its own.
func (a *answer) failure() error {
	return &packages.CommandError{Tool: a.command.tool(), ExitCode: a.exit, LastLines: a.complaint()}
}

// obstacle is the error of a zypper that did not begin: nobody's failure.
func (a *answer) obstacle() error {
	text := strings.Join(a.texts("error"), "\n")
	if held := lockHeld(text); held != nil && (a.exit == exitLocked || held.Path != lockFile) {
		return held
	}
	if a.exit == exitLocked {
		return &packages.LockHeldError{Path: lockFile}
	}
	if a.exit == exitOK {
		return nil
	}
	for _, words := range []string{"Target initialization failed", "Failed to initialize RPM database", "Rpm Exception", "rpmdb: "} {
		if strings.Contains(text, words) {
			return &packages.InterruptedDatabaseError{Detail: oneLine(text + "\n" + string(a.result.Stderr))}
		}
	}
	if full := diskFull(text + "\n" + string(a.result.Stderr)); full != nil && !a.command.transaction {
		return full
	}
	return nil
}

// lockFile is libzypp's.
const lockFile = "/run/zypp.pid"

var (
	// "System management is locked by the application with pid 16940 (zypper)."
	lockedBy = regexp.MustCompile(`locked by the application with pid (\d+) \(([^)]*)\)`)
	// rpm's own, of a program that works without zypper.
	lockOfRPM = regexp.MustCompile(`can't create transaction lock on (\S+)`)
)

// lockHeld reads who holds the lock; nil if no lock is spoken of.
func lockHeld(text string) *packages.LockHeldError {
	if found := lockedBy.FindStringSubmatch(text); found != nil {
		held := &packages.LockHeldError{Path: lockFile, Process: found[2]}
		if pid, err := strconv.Atoi(found[1]); err == nil && pid > 0 {
			held.PID = pid
		}
		// A path where the process was started by one.
		held.Process = held.Process[strings.LastIndexByte(held.Process, '/')+1:]
		return held
	}
	if found := lockOfRPM.FindStringSubmatch(text); found != nil {
		return &packages.LockHeldError{Path: strings.TrimRight(found[1], ":")}
	}
	return nil
}

// fullDisk are what zypper, libzypp and rpm say of a file system without room. The
// path is the one that is meant where the words name none.
var fullDisk = []struct {
	words *regexp.Regexp
	path  string
}{
	// rpm, before it unpacks: "installing package toy-1.1-1.noarch needs 30MB more space on the /big filesystem"
	{regexp.MustCompile(`needs [0-9.]+[KMGT]?i?B? more (?:space|inodes)? ?on the (\S+) filesystem`), ""},
	// libzypp, with a file that it has fetched: it gives no other cause.
	{regexp.MustCompile(`Can't hardlink/copy \S+ to (\S+)`), ""},
	// Any of them: "unpacking of archive failed on file /x;1: cpio: write failed - No space left on device"
	{regexp.MustCompile(`(?:(/[^\s;:]*)\S*.*)?(?:No space left on device|Disk quota exceeded)`), "a file system"},
	// curl, which writes to where libzypp keeps what is being fetched.
	{regexp.MustCompile(`(?:Write error|Failed writing (?:body|received data))()`), "/var/tmp"},
}

// diskFull reads that a file system has no room; nil if nothing says so.
func diskFull(text string) *packages.DiskFullError {
	for line := range strings.Lines(text) {
		for _, full := range fullDisk {
			if found := full.words.FindStringSubmatch(line); found != nil {
				return &packages.DiskFullError{Path: cmp.Or(found[1], full.path), Detail: oneLine(line)}
			}
		}
	}
	return nil
}

// unreachable says whether a reason is that a server did not answer as it
// should: its fault, or the network's, and no package's. The words are those of
// libzypp's MediaException and of curl's errors below it.
func unreachable(reason string) bool {
	for _, words := range []string{
		"Connection failed", "Failed to connect", "Couldn't connect", "Could not connect", "Connection refused",
		"Could not resolve", "Couldn't resolve", "Unable to resolve", "Temporary failure in name resolution",
		"it was not fetched within", "Timeout exceeded", "Timeout reached", "Permission to access", "Login failed", "Operation timed out", "Connection timed out", "timed out", "Network is unreachable",
		"No route to host", "Empty reply from server", "Recv failure", "Send failure", "Connection reset",
		"Server returned nothing", "transfer closed", "SSL connect error", "SSL certificate problem", "Proxy CONNECT aborted",
		"Bad Gateway", "Service Unavailable", "Gateway Time", "HTTP response: 5", "returned error: 5",
		"Failed to mount", "temporarily unaccessible", "Location is temporarily",
	} {
		if strings.Contains(reason, words) {
			return true
		}
	}
	return false
}
