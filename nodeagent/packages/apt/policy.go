package apt

import (
	"strconv"
	"strings"
)

const policyTool = "apt-cache policy"

func archivesCommand() []string {
	return append([]string{"apt-cache", "policy"}, options()...)
}

func versionsCommand(names []string) []string {
	return append(append(archivesCommand(), "--"), names...)
}

// archive is the Release file's account of a repository's part.
type archive struct {
	origin, label, suite, codename string
}

// parseArchives reads "apt-cache policy": the archives by the words in which
// parseVersions finds them, such as
// "http://mirror.example/debian bookworm/main amd64 Packages".
func parseArchives(output []byte) (map[string]archive, error) {
	const files, pins = "Package files:", "Pinned packages:"
	archives := map[string]archive{}
	heading, current := "", ""
	for n, line := range lines(output) {
		switch {
		case line == files || line == pins:
			heading = line
		case heading == pins && strings.HasPrefix(line, "     "):
			// An administrator's pins are part of apt's plan already.
		case heading == files && current != "" && strings.HasPrefix(line, "     release "):
			archives[current] = parseRelease(strings.TrimPrefix(line, "     release "))
		case heading == files && current != "" && strings.HasPrefix(line, "     origin "):
			// The server's name: it says nothing about what a version is for.
		case heading == files:
			location, ok := parseLocation(line)
			if !ok {
				return nil, notUnderstood(policyTool, n, line, "not a priority and a repository")
			}
			current = location
			archives[current] = archive{}
		default:
			return nil, notUnderstood(policyTool, n, line, "not a list of repositories")
		}
	}
	return archives, nil
}

// parseLocation reads " 500 http://mirror.example/debian bookworm/main amd64 Packages".
func parseLocation(line string) (string, bool) {
	priority, location, found := strings.Cut(strings.TrimLeft(line, " "), " ")
	if _, err := strconv.Atoi(priority); err != nil {
		return "", false
	}
	return location, found && location != ""
}

// parseRelease reads "v=12,o=Debian,a=stable,n=bookworm,l=Debian,c=main,b=amd64".
// A value may have commas in it.
func parseRelease(text string) archive {
	var a archive
	var value *string
	for part := range strings.SplitSeq(text, ",") {
		if len(part) < 2 || part[1] != '=' {
			if value != nil {
				*value += "," + part
			}
			continue
		}
		switch part[0] {
		case 'o':
			value = &a.origin
		case 'l':
			value = &a.label
		case 'a':
			value = &a.suite
		case 'n':
			value = &a.codename
		default:
			value = new(string)
		}
		*value = part[2:]
	}
	return a
}

// offer is what the archives offer of one package.
type offer struct {
	candidate string
	versions  []version // the newest first
}

// version is one version of a package.
type version struct {
	number    string
	installed bool
	// phased is the share of machines in percent that it is for; 100 if all.
	phased    int
	locations []string
}

// parseVersions adds to offers what "apt-cache policy NAME…" printed. The keys
// are names as apt prints them.
func parseVersions(output []byte, offers map[string]*offer) error {
	var current *offer
	var latest *version
	for n, line := range lines(output) {
		switch {
		case line != "" && line[0] != ' ' && strings.HasSuffix(line, ":"):
			name := strings.TrimSuffix(line, ":")
			if _, _, ok := parseName(name); !ok {
				return notUnderstood(policyTool, n, line, "not the name of a package")
			}
			current, latest = &offer{}, nil
			offers[name] = current
		case current == nil:
			return notUnderstood(policyTool, n, line, "not the name of a package")
		case strings.HasPrefix(line, "  Installed: "), line == "  Version table:",
			strings.HasPrefix(line, "  Package pin: "): // the last by apt before 1.1 only
		case strings.HasPrefix(line, "  Candidate: "):
			current.candidate = strings.TrimPrefix(line, "  Candidate: ")
		case strings.HasPrefix(line, "       "):
			location, ok := parseLocation(line)
			if !ok || latest == nil {
				return notUnderstood(policyTool, n, line, "not a priority and a repository")
			}
			latest.locations = append(latest.locations, location)
		default:
			v, ok := parseVersionLine(line)
			if !ok {
				return notUnderstood(policyTool, n, line, "not a version and its priority")
			}
			current.versions = append(current.versions, v)
			latest = &current.versions[len(current.versions)-1]
		}
	}
	return nil
}

// parseVersionLine reads " *** 1.2-3 500" or "     1.2-3 500 (phased 20%)".
func parseVersionLine(line string) (version, bool) {
	v := version{phased: 100}
	rest, ok := strings.CutPrefix(line, " *** ")
	if v.installed = ok; !ok {
		if rest, ok = strings.CutPrefix(line, "     "); !ok {
			return v, false
		}
	}
	fields := strings.Split(rest, " ")
	switch len(fields) {
	case 2:
	case 4:
		percent, err := strconv.ParseUint(strings.TrimSuffix(fields[3], "%)"), 10, 8)
		if err != nil || fields[2] != "(phased" || percent > 100 {
			return v, false
		}
		v.phased = int(percent)
	default:
		return v, false
	}
	v.number = fields[0]
	_, err := strconv.Atoi(fields[1])
	return v, err == nil && validVersion(v.number)
}
