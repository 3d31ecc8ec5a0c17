package dnf

import (
	"regexp"
	"slices"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

var (
	// rpm's own words, which both versions of dnf pass on; dnf 5 puts ">>> [RPM] "
	// before them. %prein and %post are what rpm calls the scriptlets.
	scriptlet = regexp.MustCompile(`%(\w+)\(([^()]+)\) scriptlet failed, (.+)$`)
	// "error: toy-2.0-1.noarch: install failed"
	notDone = regexp.MustCompile(`error: (\S+): (install|erase) (?:failed|skipped)`)
	// dnf 4's heading of what it is at: "  Upgrading        : toy-2.0-1.noarch   3/12"
	step     = regexp.MustCompile(`^\s{2}(\w[\w ]*?)\s*: (\S+)\s+\d+/\d+$`)
	unpacked = regexp.MustCompile(`^(?:>>> )?(?:\[RPM\] )?(?:error: )?unpacking of archive failed`)
	// A file that an administrator has changed and that the package replaces.
	replacedConfig = regexp.MustCompile(`warning: (\S+) saved as (\S+\.rpmsave)`)
	// dnf 5 says this before the scriptlet's own words and rpm's (dnf5/context.cpp).
	// Its errors are critical to the transaction since rpm 6, whatever it calls them.
	dnf5Scriptlet = regexp.MustCompile(`^>>> (?:Non-critical error|Error) in (\S+) scriptlet: (\S+)`)
	dnf5Unpack    = regexp.MustCompile(`^>>> ((?:Unpack|Cpio) error): (\S+)`)
)

// parseInstall reads what a transaction did:
//
//	Running scriptlet: toy-2.0-1.noarch                         4/12
//	the scriptlet's own words
//	error: %prein(toy-2.0-1.noarch) scriptlet failed, exit status 1
//
//	error: toy-2.0-1.noarch: install failed
//	Failed:
//	  toy-1.0-1.noarch                   toy-2.0-1.noarch
func parseInstall(result packages.Result, targets []packages.Target) (packages.Install, error) {
	stdout, stderr := string(result.Stdout), string(result.Stderr)
	// dnf 5 says it among its errors.
	if !strings.Contains(stdout+stderr, "Running transaction\n") && result.ExitCode != 0 {
		return notBegun(stdout+"\n"+stderr, result, targets)
	}
	o := &outcome{targets: targets, said: map[packages.Target]string{}}
	o.read(stdout + "\n" + stderr)
	o.flush()
	done := packages.Install{Failed: o.failed, Warned: o.warned}
	if result.ExitCode != 0 && len(o.failed) == 0 && len(o.warned) == 0 {
		return done, commandError(installTool, result)
	}
	return done, nil
}

// notBegun reads why a transaction did not begin.
func notBegun(text string, result packages.Result, targets []packages.Target) (packages.Install, error) {
	switch {
	// rpm's test of the transaction: a file of one package is in the way of another's.
	case strings.Contains(text, "ransaction test error") || strings.Contains(text, "conflicts between attempted installs"):
		if culprits := mentioned(text, targets); len(culprits) > 0 {
			return packages.Install{Failed: culprits}, nil
		}
	// dnf 4 checks the files in its cache before it begins. What it names is not there, or not whole.
	case strings.Contains(text, "incorrect checksum") || strings.Contains(text, "invalid cache") || strings.Contains(text, "cacheonly"):
		return packages.Install{}, &packages.RefusedError{
			Targets: mentioned(text, targets), Detail: "files are missing in dnf's cache: " + errorLines(result.Stderr),
		}
	}
	if missing := unmatched(result, targets); len(missing) > 0 {
		return packages.Install{}, &packages.RefusedError{Targets: missing, Detail: "the repositories do not offer " + names(missing)}
	}
	if problems := parseProblems(text); len(problems) > 0 {
		return packages.Install{}, &packages.RefusedError{
			Targets: mentioned(strings.Join(problems, "\n"), targets), Detail: strings.Join(problems, "; "),
		}
	}
	return packages.Install{}, commandError(installTool, result)
}

// outcome gathers what a transaction says of each target.
type outcome struct {
	targets        []packages.Target
	failed, warned []packages.Failure

	current string                     // the package that the transaction is at, as dnf prints it
	words   []string                   // what was said since it came to it
	said    map[packages.Target]string // why a target failed

	// pending is a scriptlet of dnf 5 whose words are still to come.
	pending, pendingOf string
}

func (o *outcome) read(text string) {
	inFailed := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n ")
		trimmed := strings.TrimSpace(line)
		if found := step.FindStringSubmatch(line); found != nil {
			o.current, o.words = found[2], nil
			inFailed = false
			continue
		}
		switch {
		case line == "Failed:":
			inFailed = true
			continue
		case inFailed && strings.HasPrefix(line, "  "):
			for word := range strings.FieldsSeq(line) {
				o.fail(word, o.said[o.find(word, true)])
			}
			continue
		case trimmed != "":
			inFailed = false
		}
		if o.pending != "" && !strings.HasPrefix(trimmed, ">>>") {
			o.flush()
		}
		if found := dnf5Scriptlet.FindStringSubmatch(trimmed); found != nil {
			o.flush()
			o.pending, o.pendingOf, o.words = found[1], found[2], nil
			continue
		}
		if found := dnf5Unpack.FindStringSubmatch(trimmed); found != nil {
			o.flush()
			o.fail(found[2], found[1])
			continue
		}
		o.event(trimmed)
	}
}

// flush ends a scriptlet of dnf 5.
func (o *outcome) flush() {
	if o.pending == "" {
		return
	}
	which, of := o.pending, o.pendingOf
	o.pending = ""
	message := which + " scriptlet failed"
	if words := strings.Join(o.words, "; "); words != "" {
		message += ": " + words
	}
	o.words = nil
	if before[strings.TrimPrefix(which, "%")] {
		o.fail(of, message)
	} else {
		o.warn(of, message)
	}
}

// before are the scriptlets that come before a package's files, by all their
// names: if one fails, rpm does not install the package.
var before = map[string]bool{
	"pre": true, "prein": true, "pretrans": true, "pre-install": true, "pre-transaction": true,
}

func (o *outcome) event(line string) {
	switch {
	case line == "", line == ">>>", line == ">>> Scriptlet output:", strings.HasPrefix(line, ">>> Running "):
	case o.pending == "" && scriptlet.MatchString(line):
		found := scriptlet.FindStringSubmatch(line)
		message := "%" + found[1] + " scriptlet failed, " + found[3]
		if words := strings.Join(o.words, "; "); words != "" {
			message += ": " + words
		}
		o.words = nil
		if before[found[1]] {
			o.fail(found[2], message)
			return
		}
		o.warn(found[2], message)
	case notDone.MatchString(line):
		found := notDone.FindStringSubmatch(line)
		if found[2] == "install" {
			o.fail(found[1], strings.Join(append([]string{"install failed"}, o.words...), ": "))
		}
	case unpacked.MatchString(line):
		o.fail(o.current, line)
		o.words = nil
	case replacedConfig.MatchString(line):
		found := replacedConfig.FindStringSubmatch(line)
		o.warn(o.current, found[1]+" was changed on the host and is replaced, the old one is "+found[2])
	default:
		const most = 5
		// dnf 5 marks what is not its own progress.
		line = strings.TrimPrefix(strings.TrimPrefix(line, ">>> "), "[RPM] ")
		if o.words = append(o.words, line); len(o.words) > most {
			o.words = o.words[1:]
		}
	}
}

// find is the target that the transaction means by a NEVRA. Where exact is false
// it may also be an older version, which goes with the upgrade.
func (o *outcome) find(text string, exact bool) packages.Target {
	name, version, architecture, ok := rpm.ParseNEVRA(text)
	if !ok {
		return packages.Target{}
	}
	for _, t := range o.targets {
		if t.Name == name && t.Architecture == architecture && (!exact || t.Version == version || withoutEpoch(t.Version) == version) {
			return t
		}
	}
	return packages.Target{}
}

func withoutEpoch(version string) string {
	if _, rest, found := strings.Cut(version, ":"); found {
		return rest
	}
	return version
}

func (o *outcome) fail(text, message string) {
	t := o.find(text, true)
	if t.Name == "" || slices.ContainsFunc(o.failed, func(f packages.Failure) bool { return f.Target == t }) {
		return
	}
	if message == "" {
		message = "dnf lists it as failed"
	}
	o.said[t] = message
	o.failed = append(o.failed, packages.Failure{Target: t, Message: message})
	o.warned = slices.DeleteFunc(o.warned, func(f packages.Failure) bool { return f.Target == t })
}

func (o *outcome) warn(text, message string) {
	t := o.find(text, false)
	if t.Name == "" || o.said[t] != "" {
		return
	}
	o.warned = append(o.warned, packages.Failure{Target: t, Message: message})
}
