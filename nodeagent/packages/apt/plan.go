package apt

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

const planTool = "apt-get upgrade"

// planCommand asks for everything that an upgrade would do and downloads
// nothing. It removes no package, as an upgrade of ours never does.
func planCommand() []string {
	argv := append([]string{"apt-get", "--print-uris", "--with-new-pkgs", "--show-upgraded", "--verbose-versions"}, options()...)
	return append(argv,
		// Nothing is written that another apt could spoil.
		"-o", "Debug::NoLocking=true",
		// With yes assumed, a downgrade that an administrator has pinned ends the plan.
		"-o", "APT::Get::Assume-Yes=false", "-o", "APT::Get::Simulate=false",
		// Packages that are on disk already would not be printed with their sizes.
		"-o", "Dir::Cache::Archives=/nonexistent/",
		// In a chroot apt ignores phasing, and would offer other versions than
		// to the host. This answers "is this a chroot?" with no.
		"-o", "Dir::Bin::ischroot=/bin/false",
		"upgrade")
}

// plan is what an upgrade would do.
type plan struct {
	upgraded []planned
	kept     []planned // also those that are held
	phased   []planned // apt 2.8 and later; earlier ones count them as kept
	added    []planned
	sizes    map[file]int64
}

// planned is one package of a plan, in the order and with the name that apt prints.
type planned struct {
	name    string
	foreign string // architecture, if it is foreign to the host
	from    string // empty if it is not installed
	to      string
}

// qualified is the name by which apt's commands know the package.
func (p *planned) qualified() string { return key{name: p.name, foreign: p.foreign}.qualified() }

// file is a package's file in an archive.
type file struct{ name, version, architecture string }

// section is a list of packages in a plan.
type section int

const (
	noSection section = iota
	keptSection
	phasedSection
	addedSection
	upgradedSection
	downgradedSection
)

// headings begin the sections that make the plan (ShowList's callers in apt's
// private-output.cc). Under other headings are packages that are not part of it,
// such as those that nothing needs any more.
var headings = map[string]section{
	"The following packages have been kept back:":               keptSection,
	"The following upgrades have been deferred due to phasing:": phasedSection,
	"The following NEW packages will be installed:":             addedSection,
	"The following packages will be upgraded:":                  upgradedSection,
	"The following packages will be DOWNGRADED:":                downgradedSection,
}

// parsePlan reads what planCommand printed. Lines in between that are not
// apt's plan (hooks of Ubuntu Pro print advertisements there) are passed over;
// that nothing of the plan was among them is proved by its own summary, whose
// numbers must be those of what was read.
func parsePlan(output []byte) (*plan, error) {
	p := &plan{sizes: map[file]int64{}}
	counts := map[section]int{}
	current, summed := noSection, false
	for n, line := range lines(output) {
		switch {
		case strings.HasPrefix(line, "'"):
			current = noSection
			_, f, size, ok := parseURI(line)
			if !ok {
				return nil, notUnderstood(planTool, n, line, "not the address of a package")
			}
			p.sizes[f] = size
		case strings.HasPrefix(line, " "):
			if current == noSection {
				continue
			}
			entry, ok := parseEntry(line, current)
			if !ok {
				return nil, notUnderstood(planTool, n, line, "not a package of the list above it")
			}
			counts[current]++
			p.add(current, entry)
		default:
			current = headings[line]
			summary, is, ok := parseSummary(line)
			if !is {
				continue
			}
			if !ok || summed {
				return nil, notUnderstood(planTool, n, line, "not the one summary of a plan")
			}
			summed = true
			if err := summary.check(counts); err != nil {
				return nil, notUnderstood(planTool, n, line, err.Error())
			}
		}
	}
	if !summed {
		return nil, &packages.ParseError{Tool: planTool, Problem: "it has no summary"}
	}
	return p, nil
}

func (p *plan) add(s section, entry planned) {
	switch s {
	case keptSection:
		p.kept = append(p.kept, entry)
	case phasedSection:
		p.phased = append(p.phased, entry)
	case addedSection:
		p.added = append(p.added, entry)
	case upgradedSection:
		p.upgraded = append(p.upgraded, entry)
	}
}

// parseEntry reads "   name (from => to)", or "   name (version)" where only one
// version is to tell.
func parseEntry(line string, s section) (planned, bool) {
	name, versions, found := strings.Cut(strings.TrimSpace(line), " ")
	name, foreign, ok := parseName(name)
	if !ok || !found || !strings.HasPrefix(versions, "(") || !strings.HasSuffix(versions, ")") {
		return planned{}, false
	}
	from, to, two := strings.Cut(versions[1:len(versions)-1], " => ")
	entry := planned{name: name, foreign: foreign, from: from, to: to}
	if s == addedSection {
		entry.from, entry.to = "", from
		return entry, !two && validVersion(from)
	}
	return entry, two && validVersion(from) && validVersion(to)
}

// parseURI reads "'address' name_version_architecture.deb size hash". The hash is
// empty where apt distrusts it.
func parseURI(line string) (address string, f file, size int64, ok bool) {
	end := strings.LastIndex(line, "' ")
	if end < 1 {
		return "", file{}, 0, false
	}
	fields := strings.Split(line[end+2:], " ")
	if len(fields) < 2 || len(fields) > 3 {
		return "", file{}, 0, false
	}
	size, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil || size < 0 {
		return "", file{}, 0, false
	}
	f, ok = parseFileName(fields[0])
	return line[1:end], f, size, ok
}

// parseFileName takes apart the name that apt gives to a package's file.
func parseFileName(s string) (file, bool) {
	parts := strings.Split(s, "_")
	if len(parts) != 3 {
		return file{}, false
	}
	architecture, _, found := strings.Cut(parts[2], ".")
	f := file{name: unescape(parts[0]), version: unescape(parts[1]), architecture: unescape(architecture)}
	return f, found && validName(f.name) && validVersion(f.version) && validArchitecture(f.architecture)
}

// fileName is the name that apt gives to a package's file in its own folder.
func (f file) fileName() string {
	return f.name + "_" + strings.ReplaceAll(f.version, ":", "%3a") + "_" + f.architecture + ".deb"
}

// unescape undoes apt's QuoteString, which writes a byte as %3a.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// summary is "N upgraded, N newly installed, [N reinstalled, ][N downgraded, ]N
// to remove and N not upgraded."
type summary struct {
	upgraded, added, downgraded, notUpgraded int
}

// parseSummary says whether the line is a summary (is), and reads it (ok).
func parseSummary(line string) (s summary, is, ok bool) {
	if !strings.HasSuffix(line, " not upgraded.") {
		return s, false, false
	}
	line = strings.Replace(strings.TrimSuffix(line, "."), " and ", ", ", 1)
	fields := map[string]*int{
		"upgraded": &s.upgraded, "newly installed": &s.added, "reinstalled": new(int),
		"downgraded": &s.downgraded, "to remove": new(int), "not upgraded": &s.notUpgraded,
	}
	for part := range strings.SplitSeq(line, ", ") {
		number, label, _ := strings.Cut(part, " ")
		target, known := fields[label]
		value, err := strconv.ParseUint(number, 10, 31)
		if !known || err != nil {
			return s, true, false
		}
		*target = int(value)
		delete(fields, label)
	}
	// What was seen is gone from the fields; these two are printed only if they are not 0.
	delete(fields, "reinstalled")
	delete(fields, "downgraded")
	return s, true, len(fields) == 0
}

// check compares the summary's numbers with those of the lists above it.
func (s *summary) check(counts map[section]int) error {
	for _, c := range []struct {
		label     string
		said, saw int
	}{
		{"upgraded", s.upgraded, counts[upgradedSection]},
		{"newly installed", s.added, counts[addedSection]},
		{"downgraded", s.downgraded, counts[downgradedSection]},
		{"not upgraded", s.notUpgraded, counts[keptSection] + counts[phasedSection]},
	} {
		if c.said != c.saw {
			return fmt.Errorf("it says %d %s, and %d were listed", c.said, c.label, c.saw)
		}
	}
	return nil
}
