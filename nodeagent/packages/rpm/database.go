// Package rpm is what dnf and zypper share: the rpm database of a host, its order
// of versions, what of it a reboot would put to use, and its repair.
package rpm

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// readTimeout is how long a query may take at most. One takes a second for a
// thousand packages; a host that is out of memory or disk bandwidth may need a
// hundred times that.
const readTimeout = 5 * time.Minute

// Environment makes the tools speak one language.
func Environment() []string { return []string{"LC_ALL=C", "LANGUAGE=", "HOME=/root"} }

// Database is the rpm database of one host. It is safe for concurrent use.
type Database struct {
	runner packages.Runner
	files  fs.FS
}

// New returns the rpm database of the host on which runner runs its commands and
// whose root directory is files.
func New(runner packages.Runner, files fs.FS) *Database {
	return &Database{runner: runner, files: files}
}

// Package is one installed package.
type Package struct {
	Name, Architecture string
	// Version is "[epoch:]version-release", with no epoch where it is 0, as dnf
	// prints it.
	Version string
	// SourceName and SourceVersion are those of the source package, the version
	// without an epoch; empty where the package does not say.
	SourceName, SourceVersion string
	Vendor                    string
	// Installed is when, by the host's clock.
	Installed time.Time
	// Transaction is when the transaction began that installed it, in seconds
	// since 1970: all of its packages have the same number, and hardly any other has.
	Transaction int64
}

// NEVRA is the package as rpm and dnf take it for an argument.
func (p *Package) NEVRA() string { return p.Name + "-" + p.Version + "." + p.Architecture }

// Installed are the packages of a database at one moment.
type Installed struct {
	// Packages are sorted by name, architecture and version, the oldest first.
	Packages []Package
	index    map[key][]Package
	many     map[string]bool // the names of those that may be there in several versions
}

type key struct{ name, architecture string }

const queryTool = "rpm -qa"

// format is one line for each package. The first field tells the lines from
// warnings that rpm may print among them.
const format = `%{NAME}|%{EPOCHNUM}:%{VERSION}-%{RELEASE}|%{ARCH}|%{SOURCERPM}|%{INSTALLTIME}|%{INSTALLTID}|%{VENDOR}\n`

// Installed reads the whole database. It returns *packages.InterruptedDatabaseError
// if the database's files are damaged, which [Database.Repair] puts right.
func (d *Database) Installed(ctx context.Context) (*Installed, error) {
	const purpose = "list the installed packages"
	result, err := d.runner.Run(ctx, packages.Command{
		Name: "rpm-installed", Argv: []string{"rpm", "-qa", "--qf", format}, Env: Environment(), Timeout: readTimeout,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", purpose, err)
	}
	if detail := Damage(result.Stderr); detail != "" {
		return nil, fmt.Errorf("%s: %w", purpose, &packages.InterruptedDatabaseError{Detail: detail})
	}
	if result.ExitCode != 0 {
		return nil, fmt.Errorf("%s: %w", purpose,
			&packages.CommandError{Tool: queryTool, ExitCode: result.ExitCode, LastLines: LastLines(result)})
	}
	installed, err := parseInstalled(result.Stdout)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", purpose, err)
	}
	return installed, d.readMany(ctx, installed)
}

// Damage is rpm's first line that says that the database itself cannot be read.
// It then lists what it can read, and with some of them exits with 0.
func Damage(stderr []byte) string {
	for line := range strings.Lines(string(stderr)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "error: ") {
			continue
		}
		for _, words := range []string{
			"rpmdb: ", "rpmdbNextIterator: ", "db3 error", "db5 error", "DB_RUNRECOVERY", "DB_PAGE_NOTFOUND",
			"cannot open Packages", "cannot open Name index", "database disk image is malformed", "not a database",
			"sqlite failure", "Sqlite", "ndb", "damaged header", "bad header",
		} {
			if strings.Contains(line, words) {
				return line
			}
		}
	}
	return ""
}

func parseInstalled(output []byte) (*Installed, error) {
	var all []Package
	n := 0
	for line := range strings.Lines(string(output)) {
		n++
		line = strings.TrimSuffix(line, "\n")
		p, skip, problem := parseLine(line)
		if problem != "" {
			return nil, NotUnderstood(queryTool, n, line, problem)
		}
		if !skip {
			all = append(all, p)
		}
	}
	return newInstalled(all), nil
}

func newInstalled(all []Package) *Installed {
	slices.SortStableFunc(all, func(a, b Package) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Architecture, b.Architecture), Compare(a.Version, b.Version))
	})
	set := &Installed{Packages: all, index: map[key][]Package{}}
	for _, p := range all {
		k := key{p.Name, p.Architecture}
		set.index[k] = append(set.index[k], p)
	}
	return set
}

func parseLine(line string) (p Package, skip bool, problem string) {
	// The vendor is last: it is free text.
	fields := strings.SplitN(line, "|", 7)
	if len(fields) != 7 {
		return Package{}, false, "not the fields that were asked for"
	}
	// The keys of repositories are packages of a kind, without an architecture.
	if fields[0] == "gpg-pubkey" {
		return Package{}, true, ""
	}
	p = Package{Name: fields[0], Version: strings.TrimPrefix(fields[1], "0:"), Architecture: fields[2], Vendor: fields[6]}
	if p.Vendor == "(none)" {
		p.Vendor = ""
	}
	switch {
	case !ValidName(p.Name):
		return Package{}, false, "not the name of a package"
	case !ValidVersion(p.Version):
		return Package{}, false, "not a version"
	case p.Architecture == "(none)":
		p.Architecture = ""
	case !ValidArchitecture(p.Architecture):
		return Package{}, false, "not an architecture"
	}
	// Packages that were not made by rpmbuild may have anything here.
	p.SourceName, p.SourceVersion, _ = ParseSource(fields[3])
	seconds, err := strconv.ParseInt(fields[4], 10, 64)
	if err != nil {
		return Package{}, false, "not the time of the installation"
	}
	p.Installed = time.Unix(seconds, 0)
	if p.Transaction, err = strconv.ParseInt(fields[5], 10, 64); err != nil && fields[5] != "(none)" {
		return Package{}, false, "not the number of a transaction"
	}
	return p, false, ""
}

// All are the installed versions of a package, the oldest first: one of all but
// kernels and their like, or of what an interrupted transaction has left.
func (s *Installed) All(name, architecture string) []Package { return s.index[key{name, architecture}] }

// Newest is the newest installed version of a package.
func (s *Installed) Newest(name, architecture string) (Package, bool) {
	all := s.All(name, architecture)
	if len(all) == 0 {
		return Package{}, false
	}
	return all[len(all)-1], true
}

// LastLines are the last lines that say something of a tool's complaint: of its
// errors, or of all that it printed if it printed no errors.
func LastLines(result packages.Result) string {
	const most, longest = 5, 1000
	text := bytes.TrimSpace(result.Stderr)
	if len(text) == 0 {
		text = bytes.TrimSpace(result.Stdout)
	}
	lines := bytes.Split(text, []byte("\n"))
	if len(lines) > most {
		lines = lines[len(lines)-most:]
	}
	text = bytes.Join(lines, []byte("; "))
	if len(text) > longest {
		text = text[len(text)-longest:]
	}
	return string(bytes.ToValidUTF8(text, []byte("\uFFFD")))
}

// NotUnderstood is the error of a line that is not what the tool prints.
func NotUnderstood(tool string, n int, line, problem string) error {
	const longest = 200
	if len(line) > longest {
		line = line[:longest]
	}
	return &packages.ParseError{Tool: tool, Line: n, Text: strings.ToValidUTF8(line, "\uFFFD"), Problem: problem}
}
