package roots

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Sources is where a machine gets its packages from.
type Sources struct {
	// Codename is the distribution's release, "bookworm".
	Codename string
	// Options are lines of apt.conf, for example `Acquire::http::Proxy "http://proxy:3128";`.
	Options []string

	entries []source
}

// source is one suite of a repository, with all components that are used of it.
type source struct {
	uri        string
	suite      string
	components []string
}

func (s source) line() string {
	return "deb " + s.uri + " " + s.suite + " " + strings.Join(s.components, " ")
}

// distributions are the values of Origin in the Release files of the distributions themselves, which
// tell their repositories from third parties'.
var distributions = []string{"Debian", "Ubuntu"}

// HostSources reads the host's own apt configuration, through apt: the distribution's main, updates and
// security suites with the mirrors that the host uses, and its proxies and other Acquire options.
// Repositories of third parties are left out: their keys are on the host and not on a machine.
func HostSources(ctx context.Context) (*Sources, error) {
	codename, err := codename()
	if err != nil {
		return nil, err
	}
	records, err := output(ctx, "apt-get", "indextargets", "--format",
		"$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)", "Created-By: Packages")
	if err != nil {
		return nil, err
	}
	configuration, err := output(ctx, "apt-config", "dump", "Acquire")
	if err != nil {
		return nil, err
	}
	sources := &Sources{Codename: codename, Options: acquireOptions(configuration), entries: parseTargets(records, codename)}
	if _, err := sources.main(); err != nil {
		return nil, err
	}
	return sources, nil
}

// parseTargets reads one "origin|uri|suite|component" line per index that apt has on disk.
func parseTargets(records, codename string) []source {
	suites := []string{codename, codename + "-updates", codename + "-security"}
	var entries []source
	for line := range strings.Lines(records) {
		fields := strings.Split(strings.TrimSpace(line), "|")
		if len(fields) != 4 || !slices.Contains(distributions, fields[0]) || !slices.Contains(suites, fields[2]) {
			continue
		}
		uri, suite, component := fields[1], fields[2], fields[3]
		if !strings.HasPrefix(uri, "http://") && !strings.HasPrefix(uri, "https://") {
			continue
		}
		known := slices.IndexFunc(entries, func(s source) bool { return s.uri == uri && s.suite == suite })
		if known < 0 {
			entries = append(entries, source{uri: uri, suite: suite, components: []string{component}})
		} else if !slices.Contains(entries[known].components, component) {
			entries[known].components = append(entries[known].components, component)
		}
	}
	return entries
}

// acquireOptions picks what a machine needs to reach the same mirrors: proxies, time-outs and checks of
// a mirror that is frozen in time. The rest of the tree is apt's own defaults.
func acquireOptions(dump string) []string {
	var options []string
	for line := range strings.Lines(dump) {
		line = strings.TrimSpace(line)
		name, value, _ := strings.Cut(line, " ")
		if value == `"";` {
			continue
		}
		for _, wanted := range []string{
			"Acquire::http::", "Acquire::https::", "Acquire::Check-Date", "Acquire::Check-Valid-Until",
			"Acquire::Retries", "Acquire::ForceIPv4", "Acquire::ForceIPv6",
		} {
			if name == wanted || strings.HasSuffix(wanted, "::") && strings.HasPrefix(name, wanted) {
				options = append(options, line)
			}
		}
	}
	return options
}

// main is the suite that roots are built from: the release itself, without updates.
func (s *Sources) main() (source, error) {
	for _, entry := range s.entries {
		if entry.suite == s.Codename {
			return entry, nil
		}
	}
	return source{}, fmt.Errorf("apt knows no mirror of %s: its sources need the suite %q, and \"apt-get update\" must have run", s.Codename, s.Codename)
}

// List is the text of a sources.list with all suites.
func (s *Sources) List() string {
	var text strings.Builder
	for _, entry := range s.entries {
		fmt.Fprintln(&text, entry.line())
	}
	return text.String()
}

// Write makes these the only sources of the root at the path, which must be a layer's.
func (s *Sources) Write(root string) error {
	options := strings.Join(s.Options, "\n") + "\n"
	return errors.Join(
		os.WriteFile(filepath.Join(root, "etc/apt/sources.list"), []byte(s.List()), 0o644),
		os.WriteFile(filepath.Join(root, "etc/apt/apt.conf.d/99host"), []byte(options), 0o644),
	)
}

// codename reads os-release(5).
func codename() (string, error) {
	content, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(content)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			return strings.Trim(value, `"`), nil
		}
	}
	return "", errors.New("/etc/os-release has no VERSION_CODENAME: test machines need a released Debian or Ubuntu as host")
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, args[0], err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}
