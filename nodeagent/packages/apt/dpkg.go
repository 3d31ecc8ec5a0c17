package apt

import (
	"context"
	"fmt"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

const dpkgTool = "dpkg-query"

// dpkgFormat makes dpkg-query print what parseInstalled reads. All of its fields
// exist since dpkg 1.18, and dpkg-query itself reads the escapes.
const dpkgFormat = `${Package}\t${Architecture}\t${db:Status-Want}\t${db:Status-Eflag}\t${db:Status-Status}\t` +
	`${Version}\t${source:Package}\t${source:Version}\t${Config-Version}\n`

func installedCommand() []string {
	return []string{"dpkg-query", "--show", "--showformat=" + dpkgFormat}
}

// database is what dpkg knows of the packages of a host.
type database struct {
	native    string // the host's architecture
	packages  []installed
	positions map[key]int
	count     int // of packages that are installed in full
}

// key tells packages apart as dpkg does: packages for all architectures share a
// name with those of the native one, and only with them.
type key struct {
	name    string
	foreign string // architecture, if it is foreign to the host
}

// qualified is the name by which apt's commands know the package.
func (k key) qualified() string {
	if k.foreign == "" {
		return k.name
	}
	return k.name + ":" + k.foreign
}

// installed is one package of dpkg's database; it may be installed by half.
type installed struct {
	name, architecture, version  string
	sourcePackage, sourceVersion string
	want                         string // install, hold, deinstall, purge or unknown
	flag                         string // ok or reinstreq
	status                       string // the words of dpkg(1), such as installed or half-configured
	// configured is the version that was configured in full before, of a package that is not now.
	configured string
}

// database is what dpkg has at this moment. Each use in one call has a name of its
// own: a Runner may answer an agent that was restarted with what the same command
// printed to the one before, and must not take one use for another.
func (m *Manager) database(ctx context.Context, name string) (*database, error) {
	const purpose = "list the installed packages"
	output, err := m.output(ctx, name, purpose, dpkgTool, installedCommand()...)
	if err != nil {
		return nil, err
	}
	d, err := parseInstalled(output)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", purpose, err)
	}
	return d, nil
}

func (d *database) find(k key) (*installed, bool) {
	i, found := d.positions[k]
	if !found {
		return nil, false
	}
	return &d.packages[i], true
}

func (d *database) key(name, architecture string) key {
	if architecture == "all" || architecture == d.native {
		architecture = ""
	}
	return key{name: name, foreign: architecture}
}

func parseInstalled(output []byte) (*database, error) {
	d := &database{positions: map[key]int{}}
	for n, line := range lines(output) {
		fields := strings.Split(line, "\t")
		if len(fields) != strings.Count(dpkgFormat, `\t`)+1 {
			return nil, notUnderstood(dpkgTool, n, line, "not the nine fields that were asked for")
		}
		p := installed{
			name: fields[0], architecture: fields[1], want: fields[2], flag: fields[3], status: fields[4],
			version: fields[5], sourcePackage: fields[6], sourceVersion: fields[7], configured: fields[8],
		}
		if p.status == "not-installed" {
			continue
		}
		if !validName(p.name) || !validArchitecture(p.architecture) || !validVersion(p.version) {
			return nil, notUnderstood(dpkgTool, n, line, "not a package, its architecture and its version")
		}
		if p.status == "installed" {
			d.count++
		}
		// dpkg cannot be without itself, and is never for all architectures.
		if p.name == "dpkg" && d.native == "" {
			d.native = p.architecture
		}
		d.packages = append(d.packages, p)
	}
	if d.native == "" {
		return nil, &packages.ParseError{Tool: dpkgTool, Problem: "dpkg itself is not in its list"}
	}
	for i := range d.packages {
		d.positions[d.key(d.packages[i].name, d.packages[i].architecture)] = i
	}
	return d, nil
}

// problem says in dpkg's own words what is wrong with a package; empty if nothing is.
func (p *installed) problem() string {
	switch {
	case p.flag == "reinstreq":
		return p.status + ", reinstallation required"
	case p.status != "installed":
		return p.status
	default:
		return ""
	}
}

// mustBeUnpacked says whether a broken package needs its file again.
func (p *installed) mustBeUnpacked() bool {
	return p.flag == "reinstreq" || p.status == "half-installed"
}

// problems are the packages that dpkg has left half-way.
func (d *database) problems() []packages.Problem {
	var found []packages.Problem
	for i := range d.packages {
		p := &d.packages[i]
		message := ""
		switch {
		case p.flag == "reinstreq":
			message = "is broken and must be installed again: run \"apt-get install --reinstall " + p.name + "\" on the host"
		case p.status == "half-installed":
			message = "is installed by half: run \"apt-get -f install\" on the host"
		case p.status == "unpacked" || p.status == "half-configured":
			message = "is " + p.status + ": run \"dpkg --configure -a\" on the host"
		case p.status == "triggers-awaited" || p.status == "triggers-pending":
			message = "has triggers that were not run: run \"dpkg --configure -a\" on the host"
		default:
			continue
		}
		found = append(found, packages.Problem{
			Kind: packages.BrokenPackage, Name: p.name, Architecture: p.architecture, Version: p.version,
			Message: p.name + " " + p.version + " " + message,
		})
	}
	return found
}
