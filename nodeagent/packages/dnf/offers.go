package dnf

import (
	"context"
	"path"
	"strconv"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// offer is a package that a repository has.
type offer struct {
	name, architecture, version, repository string
	// size is that of its file, in bytes.
	size int64
	// file is the name of its file in dnf's cache.
	file string
}

type key struct{ name, architecture string }

const offersTool = "dnf repoquery"

// offerFormat works in both versions of dnf, other than the JSON of dnf 5's
// check-upgrade, which older releases of it lack. It says what the table of
// check-update does not: the sizes, and where the files are.
const offerFormat = "%{name}|%{evr}|%{arch}|%{downloadsize}|%{repoid}|%{location}"

func (m *Manager) offerArguments(more ...string) []string {
	format := offerFormat
	if m.five() {
		format += `\n` // dnf 4 ends each line by itself
	}
	return append([]string{"-q", "-C", "repoquery", "--qf", format}, more...)
}

// offers are all versions of installed packages that are newer than these, with
// or without those that the host's configuration excludes. The locks of dnf 5
// hide versions in any case.
func (m *Manager) offers(ctx context.Context, excluded bool) ([]offer, error) {
	var args []string
	if excluded {
		all := "all"
		if m.five() {
			all = "*"
		}
		args = append(args, "--setopt=disable_excludes="+all)
	}
	output, err := m.output(ctx, "dnf-offers", offersTool, "list the newer versions of the packages", append(args, m.offerArguments("--upgrades")...)...)
	if err != nil {
		return nil, err
	}
	return parseOffers(output)
}

// sizes asks for packages of a plan that are not installed.
func (m *Manager) sizes(ctx context.Context, rows []row) (map[string]offer, error) {
	found := map[string]offer{}
	if len(rows) == 0 {
		return found, nil
	}
	var specs []string
	for _, r := range rows {
		specs = append(specs, r.name+"-"+r.version+"."+r.architecture)
	}
	output, err := m.output(ctx, "dnf-sizes", offersTool, "list the sizes of the packages", append(m.offerArguments(), specs...)...)
	if err != nil {
		return nil, err
	}
	offers, err := parseOffers(output)
	if err != nil {
		return nil, err
	}
	for _, o := range offers {
		found[o.nevra()] = o
	}
	return found, nil
}

func (o *offer) nevra() string { return o.name + "-" + o.version + "." + o.architecture }

func parseOffers(output []byte) ([]offer, error) {
	var all []offer
	n := 0
	for line := range strings.Lines(string(output)) {
		n++
		line = strings.TrimSpace(line)
		// Plugins may have something to say; every package has the separators.
		if !strings.Contains(line, "|") {
			continue
		}
		fields := strings.Split(line, "|")
		if len(fields) != 6 {
			return nil, rpm.NotUnderstood(offersTool, n, line, "not the fields that were asked for")
		}
		o := offer{
			name: fields[0], version: strings.TrimPrefix(fields[1], "0:"), architecture: fields[2], repository: fields[4],
		}
		if !rpm.ValidName(o.name) || !rpm.ValidVersion(o.version) || !rpm.ValidArchitecture(o.architecture) {
			return nil, rpm.NotUnderstood(offersTool, n, line, "not a package")
		}
		var err error
		if o.size, err = strconv.ParseInt(fields[3], 10, 64); err != nil || o.size < 0 {
			return nil, rpm.NotUnderstood(offersTool, n, line, "not the size of a package")
		}
		// dnf 5 has no location where it knows no mirror, as without network.
		if o.file = path.Base(fields[5]); !strings.HasSuffix(o.file, ".rpm") {
			o.file = fileName(o.name, o.version, o.architecture)
		}
		all = append(all, o)
	}
	return all, nil
}

// fileName is that of a package's file by custom: without the epoch.
func fileName(name, version, architecture string) string {
	if _, rest, found := strings.Cut(version, ":"); found {
		version = rest
	}
	return name + "-" + version + "." + architecture + ".rpm"
}
