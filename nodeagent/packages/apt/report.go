package apt

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// report is what dpkg did in a transaction, by apt's own account.
type report struct {
	// installed are the names of packages that were installed in full, as apt prints them.
	installed []string
	// culprits are the packages that failed themselves, in turn.
	culprits []culprit
}

// culprit is a package that failed, and not because of another.
type culprit struct {
	// name is as apt prints it, with an architecture only if it is foreign.
	name string
	// file is set where unpacking failed, which apt tells by the file.
	file file
	// message are the last words of its script, if it had any, and dpkg's verdict.
	message string
}

// statusError reads "pmerror:egg:75.7576:installed egg package …". A name may have
// a colon in it.
var statusError = regexp.MustCompile(`^pmerror:(.+?):[0-9]+(?:\.[0-9]+)?:(.*)$`)

// statusInstalled reads "pmstatus:egg:80.0000:Installed egg (amd64)", and with a
// foreign architecture "pmstatus:egg:i386:80.0000:Installed egg (i386)".
var statusInstalled = regexp.MustCompile(`^pmstatus:(.+?):[0-9]+(?:\.[0-9]+)?:Installed `)

// parseReport reads what apt wrote to its status descriptor, and looks for the
// failed scripts' own words in what was printed.
func parseReport(result packages.Result) report {
	var r report
	said := newSpeech(result)
	for _, line := range lines(result.Status) {
		line = clean(line)
		if match := statusInstalled.FindStringSubmatch(line); match != nil {
			r.installed = append(r.installed, match[1])
			continue
		}
		match := statusError.FindStringSubmatch(line)
		if match == nil || victim(match[2]) {
			continue
		}
		c := culprit{name: match[1]}
		if strings.HasPrefix(c.name, "/") {
			f, ok := parseUnpacked(c.name)
			if !ok {
				continue
			}
			c.name, c.file = f.name, f
		} else if _, _, ok := parseName(c.name); !ok {
			continue
		}
		c.message = join(said.before(match[1]), match[2])
		r.culprits = append(r.culprits, c)
	}
	return r
}

// victim says whether dpkg left a package undone because of another.
func victim(message string) bool {
	return strings.HasPrefix(message, "dependency problems") || strings.HasPrefix(message, "pre-dependency problem")
}

var unpackNumber = regexp.MustCompile(`^[0-9]+-`)

// parseUnpacked reads the path of a file as dpkg gets it from apt:
// "/tmp/apt-dpkg-install-59CueT/08-egg_1.1_all.deb", or that in apt's own folder
// if it is the only one.
func parseUnpacked(archive string) (file, bool) {
	name := path.Base(archive)
	if strings.Contains(archive, "/apt-dpkg-install-") {
		name = unpackNumber.ReplaceAllString(name, "")
	}
	return parseFileName(name)
}

// keys are the packages that the transaction installed.
func (r *report) keys(db *database) map[key]bool {
	keys := map[key]bool{}
	for _, name := range r.installed {
		name, architecture, _ := strings.Cut(name, ":")
		keys[db.key(name, architecture)] = true
	}
	return keys
}

// failures are the culprits among the targets, and those that came with them. A
// package that was broken before and is no target is run again by every
// transaction of apt's, which is nobody's attempt.
func (req *request) failures(r report, after *database, targets []packages.Target) []packages.Failure {
	var failures []packages.Failure
	for _, c := range r.culprits {
		name, architecture, _ := strings.Cut(c.name, ":")
		if c.file.architecture != "" {
			architecture = c.file.architecture
		}
		k := req.db.key(name, architecture)
		failure := packages.Failure{Message: c.message}
		if i := slices.IndexFunc(targets, func(t packages.Target) bool { return req.db.key(t.Name, t.Architecture) == k }); i >= 0 {
			failure.Target = targets[i]
		} else {
			before, known := req.db.find(k)
			if known && before.status != "config-files" && before.problem() != "" {
				continue
			}
			failure.Target = packages.Target{Name: name, Architecture: architecture, Version: c.file.version}
			if p, found := after.find(k); found && failure.Target.Version == "" {
				failure.Target.Architecture, failure.Target.Version = p.architecture, p.version
			}
		}
		if !slices.ContainsFunc(failures, func(f packages.Failure) bool { return f.Target == failure.Target }) {
			failures = append(failures, failure)
		}
	}
	return failures
}
