package apt

import (
	"errors"
	"regexp"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// refused is apt-get's answer that it does nothing of what it was asked for.
type refused struct {
	// named has its reasons by the names of packages, as apt prints them. They
	// may be those of packages that it was not asked for.
	named map[string]string
	// detail are its own lines, joined.
	detail string
	// missingFiles is true if files were to be downloaded and must not be.
	missingFiles bool
}

func (r *refused) Error() string { return r.detail }

func asRefused(err error) (*refused, bool) {
	var r *refused
	return r, errors.As(err, &r)
}

// of are those of the targets that the refusal names, and the others.
func (r *refused) of(d *database, targets []packages.Target) (named []packages.Failure, others []packages.Target) {
	for _, t := range targets {
		if reason, is := r.named[d.key(t.Name, t.Architecture).qualified()]; is {
			named = append(named, packages.Failure{Target: t, Message: reason})
		} else {
			others = append(others, t)
		}
	}
	return named, others
}

// verdict is why an apt-get or dpkg that ended with a failure did not do what it
// was told: an error of the packages package, or *refused. It is a CommandError if
// only packages failed, see processed.
func verdict(tool string, result packages.Result) error {
	if interrupted := interrupted(result.Stderr); interrupted != nil {
		return interrupted
	}
	if full := diskFull(result); full != nil {
		return full
	}
	command := &packages.CommandError{Tool: tool, ExitCode: result.ExitCode, LastLines: lastLines(result)}
	// A script of a package may have run another apt-get, whose words are not this one's.
	if processed(result) {
		return command
	}
	for _, output := range [][]byte{result.Stderr, result.Stdout} {
		if held := lockHeld(output); held != nil {
			return held
		}
	}
	if strings.Contains(string(result.Stderr), "Unmet dependencies") {
		return planFailure(result)
	}
	if r := parseRefusal(result); r != nil {
		return r
	}
	if fatal := fatalError.FindSubmatch(result.Stdout); fatal != nil {
		words := strings.Join(strings.Fields(string(fatal[1])), " ")
		command.LastLines = shorten(clean(words), longestMessage) + "; " + command.LastLines
	}
	return command
}

// fatalError is what dpkg says, to the terminal that it has from apt, where it ends
// for another reason than a package's failure.
var fatalError = regexp.MustCompile(`(?m)^(dpkg: (?:error|unrecoverable fatal error)[^\n]*(?:\n [^\n]*)?)`)

// processed says whether dpkg worked through all that it had to do, and listed the
// packages that failed.
func processed(result packages.Result) bool {
	const list = "Errors were encountered while processing:"
	return strings.Contains(string(result.Stderr), list) || strings.Contains(string(result.Stdout), list)
}

// interruptions are apt's words for a database that must be repaired first, or for
// a dpkg that was killed in this very transaction.
var interruptions = regexp.MustCompile(`^E: (dpkg was interrupted, .*|Sub-process /usr/bin/dpkg (?:received|exited unexpectedly).*|` +
	`The package \S+ needs to be reinstalled, .*)$`)

func interrupted(stderr []byte) *packages.InterruptedDatabaseError {
	for _, line := range lines(stderr) {
		if match := interruptions.FindStringSubmatch(line); match != nil {
			return &packages.InterruptedDatabaseError{Detail: shorten(clean(strings.TrimSpace(match[1])), longestMessage)}
		}
	}
	return nil
}

var quotedPath = regexp.MustCompile(`'(/[^']*)'`)

// diskFull reads that a file system has no room, in the words of apt, of its
// download methods and of dpkg.
//
//	E: You don't have enough free space in /var/cache/apt/archives/.
//	  Error writing to file - write (28: No space left on device)
//	 cannot copy extracted data for './opt/x' to '/opt/x.dpkg-new': failed to write (No space left on device)
func diskFull(result packages.Result) *packages.DiskFullError {
	for _, output := range [][]byte{result.Stderr, result.Stdout} {
		for _, line := range lines(output) {
			line = clean(line)
			if rest, is := strings.CutPrefix(line, "E: You don't have enough free space in "); is {
				return &packages.DiskFullError{Path: strings.TrimSuffix(rest, "."), Detail: strings.TrimPrefix(line, "E: ")}
			}
			if strings.Contains(line, "No space left on device") {
				full := &packages.DiskFullError{Path: "a file system", Detail: shorten(strings.TrimPrefix(line, "E: "), longestMessage)}
				if paths := quotedPath.FindAllStringSubmatch(line, -1); len(paths) > 0 {
					full.Path = paths[len(paths)-1][1]
				}
				return full
			}
		}
	}
	return nil
}

// reasons of apt-get's that come on a line of their own with the name of a package in them.
var namedReasons = []*regexp.Regexp{
	regexp.MustCompile(`^E: Version '.*' for '([^']+)' was not found$`),
	regexp.MustCompile(`^E: Unable to locate package (\S+)$`),
	regexp.MustCompile(`^E: Package '?([^' ]+)'? has no installation candidate$`),
	regexp.MustCompile(`^E: Can't select (?:candidate|installed|newest) version from package '?([^' ]+)'? as it has no `),
}

// refusals are the errors that mean that nothing was begun because of what was
// asked for (private-install.cc, problem resolvers of apt 1 to 3).
var refusals = []string{
	"E: Unable to correct problems", "E: Packages need to be removed but remove is disabled",
	"E: Held packages were changed", "E: Packages were downgraded", "E: Essential packages were removed",
	"E: Error, pkgProblemResolver::", "E: Unable to satisfy dependencies", "E: Broken packages",
	"E: Unable to fetch some archives", "E: There were unauthenticated packages",
}

// listReasons are the lists in which apt-get names the packages that it minds.
var listReasons = map[string]string{
	"The following held packages will be changed:":             "an administrator holds it at its version",
	"The following packages will be DOWNGRADED:":               "a newer version is installed",
	"WARNING: The following packages cannot be authenticated!": "its repository is not signed with a key that the host trusts",
}

// parseRefusal reads why apt-get does not begin; nil if that is not what it says.
func parseRefusal(result packages.Result) *refused {
	r := &refused{named: map[string]string{}}
	is := false
	var details []string
	for _, line := range lines(result.Stderr) {
		for _, form := range namedReasons {
			if match := form.FindStringSubmatch(line); match != nil {
				r.named[match[1]] = shorten(clean(strings.TrimPrefix(line, "E: ")), longestMessage)
				is = true
			}
		}
		r.missingFiles = r.missingFiles || strings.HasPrefix(line, "E: Unable to fetch some archives")
		for _, begin := range refusals {
			is = is || strings.HasPrefix(line, begin)
		}
		if strings.HasPrefix(line, "E: ") {
			details = append(details, strings.TrimPrefix(line, "E: "))
		}
	}
	if !is {
		return nil
	}
	unmet := r.readLists(result.Stdout)
	r.detail = shorten(clean(strings.Join(append(unmet, details...), "; ")), 2*longestMessage)
	return r
}

// readLists reads apt-get's lists of what it minds, and returns the dependencies that are not met.
//
//	The following packages have unmet dependencies:
//	 egg : Depends: absent but it is not installable
//	       Breaks: ham (< 2)
func (r *refused) readLists(stdout []byte) (unmet []string) {
	const unmetHeading = "The following packages have unmet dependencies:"
	heading, name := "", ""
	for _, line := range lines(stdout) {
		switch {
		case !strings.HasPrefix(line, " "):
			heading, name = line, ""
		case heading == unmetHeading:
			text := strings.Join(strings.Fields(line), " ")
			if before, after, found := strings.Cut(text, " : "); found {
				name, text = before, after
			}
			if _, is := r.named[name]; name != "" && !is {
				r.named[name] = shorten(clean("unmet dependencies: "+text), longestMessage)
			}
			unmet = append(unmet, name+": "+text)
		case listReasons[heading] != "":
			for _, listed := range strings.Fields(line) {
				// "name (from => to)" where versions are shown; words in brackets are no names.
				if _, _, ok := parseName(listed); ok {
					r.named[listed] = listReasons[heading]
				}
			}
		}
	}
	return unmet
}

// longestMessage is how much of a tool's words is kept, in bytes.
const longestMessage = 400

// shorten keeps the end of a text, which is where the reason is.
func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	const mark = "…"
	return mark + strings.ToValidUTF8(text[len(text)-most+len(mark):], "")
}

var escapes = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)

// clean makes a line of a terminal one of text: what a carriage return has
// overwritten, colours and other control characters are gone.
func clean(line string) string {
	line = strings.TrimRight(line, "\r")
	if i := strings.LastIndexByte(line, '\r'); i >= 0 {
		line = line[i+1:]
	}
	line = escapes.ReplaceAllString(line, "")
	line = strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r < ' ' || r == 0x7f:
			return -1
		default:
			return r
		}
	}, line)
	return strings.ToValidUTF8(line, "\uFFFD")
}
