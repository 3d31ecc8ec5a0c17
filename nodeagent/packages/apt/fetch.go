package apt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

const (
	fetchTool   = "apt-get -d install"
	addressTool = "apt-get --print-uris install"
)

// limits bound how long a download takes where servers hang.
type limits struct {
	// answer is how long a server may say nothing before apt gives this try up.
	// It tries four times, with pauses in between.
	answer time.Duration
	// least and rate bound the whole: least, and the time that its bytes take at
	// rate, in bytes a second. Apt by itself waits in turn for every file of a
	// server that hangs.
	least time.Duration
	rate  int64
}

func defaultLimits() limits {
	return limits{answer: 30 * time.Second, least: 10 * time.Minute, rate: 64 << 10}
}

// options tell apt how long to try.
func (l limits) options() []string {
	seconds := strconv.Itoa(int(l.answer.Seconds()))
	return []string{"-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=" + seconds, "-o", "Acquire::https::Timeout=" + seconds}
}

// installOptions are those of every apt-get that is asked to install something,
// whether it then does so or not: with the same options it makes the same plan.
func installOptions(reinstall bool) []string {
	list := append([]string{"-y", "--only-upgrade", "--no-remove"}, options()...)
	if reinstall {
		list = append(list, "--reinstall")
	}
	return list
}

// location is where a file is that apt does not have in its folder.
type location struct {
	file
	address string
	size    int64
}

// local says whether apt uses the file where it is, and so never has it in its folder.
func (l location) local() bool {
	return strings.HasPrefix(l.address, "file:")
}

// size is how many bytes there are to fetch.
func size(all []location) (sum int64) {
	for _, l := range all {
		if !l.local() {
			sum += l.size
		}
	}
	return sum
}

// locate asks apt which files it would have to get to install the targets. The
// error is a *refused if it would not install them.
func (m *Manager) locate(ctx context.Context, req *request, targets []packages.Target) ([]location, error) {
	if len(targets) == 0 {
		return nil, nil
	}
	argv := append([]string{"apt-get", "--print-uris"}, installOptions(req.reinstall)...)
	argv = append(argv, "-o", "Debug::NoLocking=true", "install", "--")
	result, err := m.run(ctx, "apt-addresses", "ask apt what it needs", readTimeout, append(argv, req.arguments(targets)...)...)
	if err != nil {
		return nil, err
	}
	if result.ExitCode != 0 {
		return nil, verdict(addressTool, result)
	}
	return parseLocations(result.Stdout)
}

func parseLocations(output []byte) ([]location, error) {
	var all []location
	for n, line := range lines(output) {
		if !strings.HasPrefix(line, "'") {
			continue
		}
		address, f, size, ok := parseURI(line)
		if !ok {
			return nil, notUnderstood(addressTool, n, line, "not the address of a package")
		}
		all = append(all, location{file: f, address: address, size: size})
	}
	return all, nil
}

// fetch has apt download what the targets need, and returns what it says of the
// files that it could not get.
func (m *Manager) fetch(ctx context.Context, req *request, targets []packages.Target, bytes int64) (found faults, err error) {
	timeout := m.limits.least + time.Duration(bytes/m.limits.rate)*time.Second
	argv := append([]string{"apt-get", "--download-only"}, installOptions(req.reinstall)...)
	argv = append(append(argv, m.limits.options()...), "install", "--")
	argv = append(argv, req.arguments(targets)...)
	err = m.locks.Retry(ctx, m.files, func() error {
		result, err := m.runner.Run(ctx, packages.Command{Name: "apt-download", Argv: argv, Env: environment(), Timeout: timeout})
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			found = faults{rest: fault{fmt.Sprintf("it was not fetched within %s", timeout), true}}
			return nil
		}
		if err != nil || result.ExitCode == 0 {
			return err
		}
		found = parseFaults(result)
		if full := diskFull(result); full != nil {
			return full
		}
		if len(found.files)+len(found.addresses) > 0 {
			return nil
		}
		return verdict(fetchTool, result)
	})
	return found, err
}

// fault is the reason why a file could not be fetched.
type fault struct {
	message string
	// shared is true if it is not the file's own: its server would not have served
	// any other file either.
	shared bool
}

// faults are what apt says of the files that it could not fetch.
type faults struct {
	files     map[file]fault
	addresses map[string]fault
	// rest is the reason of all others.
	rest fault
}

// find is what apt says of a file.
func (f faults) find(l location) (fault, bool) {
	if found, is := f.files[l.file]; is {
		return found, true
	}
	found, is := f.addresses[l.address]
	return found, is
}

// of is the reason why a file is not there.
func (f faults) of(l location) fault {
	if found, is := f.find(l); is {
		return found
	}
	if f.rest != (fault{}) {
		return f.rest
	}
	return fault{"apt did not fetch it, and does not say why", true}
}

// isMissing says whether a file that apt needs is one that it does not have.
func (f faults) isMissing(l location) bool {
	_, is := f.find(l)
	return is || !l.local()
}

// parseFaults reads what "apt-get -d install" printed of the files it did not get:
//
//	Err:4 http://mirror.example/debian bookworm/main amd64 egg all 1.1
//	  404  Not Found [IP: 192.0.2.1 80]
//	E: Failed to fetch http://mirror.example/debian/pool/egg_1.1_all.deb  404  Not Found [IP: 192.0.2.1 80]
//
// The first form names the package, and the second the address that was asked for,
// which a redirection may have changed.
func parseFaults(result packages.Result) faults {
	found := faults{files: map[file]fault{}, addresses: map[string]fault{}}
	var current *file
	for _, line := range lines(result.Stdout) {
		line = clean(line)
		if reason, indented := strings.CutPrefix(line, "  "); indented && current != nil {
			found.files[*current] = newFault(reason)
		}
		current = nil
		if strings.HasPrefix(line, "Err:") {
			if f, ok := parseDescription(line); ok {
				current = &f
			}
		}
	}
	for _, line := range lines(result.Stderr) {
		if rest, is := strings.CutPrefix(clean(line), "E: Failed to fetch "); is {
			address, reason, _ := strings.Cut(rest, " ")
			found.addresses[address] = newFault(reason)
		}
	}
	return found
}

// newFault takes as shared a server that does not answer, or answers that it
// cannot or does not want to serve anybody. What is left are files that are not
// there (404, 410), and those that are not what the metadata says.
func newFault(reason string) fault {
	reason = shorten(strings.TrimSpace(reason), longestMessage)
	status, _, _ := strings.Cut(reason, " ")
	code, err := strconv.Atoi(status)
	refused := err == nil && len(status) == 3 && !slices.Contains([]int{404, 410}, code)
	return fault{reason, refused || unreachable(reason)}
}

// parseDescription reads the package at the end of "Err:4 http://… bookworm/main
// amd64 egg all 1.1".
func parseDescription(line string) (file, bool) {
	fields := strings.Fields(line)
	if len(fields) < 5 {
		return file{}, false
	}
	fields = fields[len(fields)-3:]
	f := file{name: fields[0], architecture: fields[1], version: fields[2]}
	return f, validName(f.name) && validArchitecture(f.architecture) && validVersion(f.version)
}
