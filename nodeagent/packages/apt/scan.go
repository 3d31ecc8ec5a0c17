package apt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// changed is the error of what cannot be unless the packages or their metadata
// changed between two commands of a scan.
type changed struct{ detail string }

func (c *changed) Error() string { return c.detail }

// Scan asks apt for its plan and dpkg for its database, then apt for the origins
// of what is in the plan. Each command sees the state of its own moment: where
// another program worked in between, all of it is asked again.
func (m *Manager) Scan(ctx context.Context) (packages.Scan, error) {
	const tries = 3
	for try := 1; ; try++ {
		scan, err := m.scan(ctx)
		var c *changed
		if !errors.As(err, &c) {
			return scan, err
		}
		if try == tries {
			return packages.Scan{}, &packages.ChangedError{Detail: c.detail, Tries: tries}
		}
	}
}

func (m *Manager) scan(ctx context.Context) (packages.Scan, error) {
	system, err := packages.ReadOS(m.files)
	if err != nil {
		return packages.Scan{}, err
	}
	plan, installed, folder, err := m.planAndInstalled(ctx)
	if err != nil {
		return packages.Scan{}, err
	}
	scan := packages.Scan{OS: system, Installed: installed.count, Problems: installed.problems()}
	scan.Kernel, scan.Reboot = kernelAndReboot(m.files, installed)
	if tool, found := installed.find(key{name: "apt"}); found {
		scan.ManagerVersion = tool.version
	}
	if scan.MetadataRefreshed, err = metadataRefreshed(m.files); err != nil {
		return packages.Scan{}, err
	}
	interrupted, err := interruptedDpkg(m.files)
	if err != nil {
		return packages.Scan{}, err
	}
	scan.Problems = append(interrupted, scan.Problems...)

	broken := installed.brokenBeside(plan)
	origins, err := m.origins(ctx, installed, plan, broken)
	if err != nil {
		return packages.Scan{}, err
	}
	b := &builder{
		plan: plan, installed: installed, broken: broken, offers: origins.offers, sizes: origins.sizes,
		classifier: newClassifier(system, origins.archives), fetched: fetchedFiles(m.files, folder),
	}
	if scan.Patches, err = b.patches(); err != nil {
		return packages.Scan{}, err
	}
	scan.NewPackages = b.newPackages()
	return scan, nil
}

// planAndInstalled runs side by side the commands that need nothing of each other.
func (m *Manager) planAndInstalled(ctx context.Context) (p *plan, d *database, folder string, err error) {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		const purpose = "plan an upgrade"
		result, err := m.run(ctx, "apt-plan", purpose, readTimeout, planCommand()...)
		if err != nil {
			return err
		}
		if result.ExitCode != 0 {
			return fmt.Errorf("%s: %w", purpose, planFailure(result))
		}
		if p, err = parsePlan(result.Stdout); err != nil {
			return fmt.Errorf("%s: %w", purpose, err)
		}
		return nil
	})
	group.Go(func() (err error) {
		d, err = m.database(ctx, "apt-installed")
		return err
	})
	group.Go(func() (err error) {
		folder, err = m.folder(ctx)
		return err
	})
	return p, d, folder, group.Wait()
}

// output runs a command that must end with exit status 0, and returns what it printed.
func (m *Manager) output(ctx context.Context, name, purpose, tool string, argv ...string) ([]byte, error) {
	result, err := m.run(ctx, name, purpose, readTimeout, argv...)
	if err != nil {
		return nil, err
	}
	if result.ExitCode != 0 {
		return nil, fmt.Errorf("%s: %w", purpose,
			&packages.CommandError{Tool: tool, ExitCode: result.ExitCode, LastLines: lastLines(result)})
	}
	return result.Stdout, nil
}

// planFailure says why there is no plan.
func planFailure(result packages.Result) error {
	const heading = "The following packages have unmet dependencies:"
	unmet := &packages.UnmetDependenciesError{Repair: "apt-get -f install"}
	in := false
	for _, line := range lines(result.Stdout) {
		switch {
		case strings.HasPrefix(line, heading), line == "Unsatisfied dependencies:":
			in = true
		case in && strings.HasPrefix(line, " "):
			unmet.Details = append(unmet.Details, strings.Join(strings.Fields(line), " "))
		default:
			in = false
		}
	}
	if len(unmet.Details) > 0 && strings.Contains(string(result.Stderr), "Unmet dependencies") {
		return unmet
	}
	return &packages.CommandError{Tool: planTool, ExitCode: result.ExitCode, LastLines: lastLines(result)}
}

// origins is what apt says of the packages of a plan.
type origins struct {
	archives map[string]archive
	offers   map[string]*offer // by name as apt prints it
	sizes    map[file]int64    // of packages that the plan has no size for
}

// origins runs after the plan, and not beside it, because all of apt's commands
// build the same cache of its metadata if it is out of date, which takes longest.
func (m *Manager) origins(ctx context.Context, d *database, p *plan, broken []*installed) (*origins, error) {
	var names, keptBack []string
	for _, entry := range slices.Concat(p.upgraded, p.kept, p.phased) {
		names = append(names, entry.qualified())
	}
	for _, entry := range slices.Concat(p.kept, p.phased) {
		keptBack = append(keptBack, entry.qualified()+"="+entry.to)
	}
	for _, b := range broken {
		names = append(names, d.key(b.name, b.architecture).qualified())
	}
	if len(names) == 0 {
		return &origins{}, nil
	}
	o := &origins{offers: map[string]*offer{}, sizes: map[file]int64{}}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		const purpose = "list the package archives"
		output, err := m.output(ctx, "apt-archives", purpose, policyTool, archivesCommand()...)
		if err != nil {
			return err
		}
		if o.archives, err = parseArchives(output); err != nil {
			return fmt.Errorf("%s: %w", purpose, err)
		}
		return nil
	})
	group.Go(func() error {
		const purpose = "list the versions of the packages"
		for batch := range batches(names) {
			output, err := m.output(ctx, "apt-versions", purpose, policyTool, versionsCommand(batch)...)
			if err != nil {
				return err
			}
			if err := parseVersions(output, o.offers); err != nil {
				return fmt.Errorf("%s: %w", purpose, err)
			}
		}
		return nil
	})
	group.Go(func() error {
		const purpose = "list the sizes of the packages that are kept back"
		for batch := range batches(keptBack) {
			output, err := m.output(ctx, "apt-sizes", purpose, showTool, showCommand(batch)...)
			if err != nil {
				return err
			}
			if err := parseSizes(output, o.sizes); err != nil {
				return fmt.Errorf("%s: %w", purpose, err)
			}
		}
		return nil
	})
	return o, group.Wait()
}

// batches yields arguments in as many groups as it takes to keep each far below
// what a command line, and a line of a systemd unit file, may hold.
func batches(arguments []string) iter.Seq[[]string] {
	const most = 128 << 10
	return func(yield func([]string) bool) {
		start, size := 0, 0
		for i, a := range arguments {
			if size += len(a) + 1; size > most && i > start {
				if !yield(arguments[start:i]) {
					return
				}
				start, size = i, len(a)+1
			}
		}
		if start < len(arguments) {
			yield(arguments[start:])
		}
	}
}

// interruptedDpkg looks for what dpkg has written of a transaction and not yet
// put into its database: files with numbers for names.
func interruptedDpkg(files fs.FS) ([]packages.Problem, error) {
	entries, err := fs.ReadDir(files, "var/lib/dpkg/updates")
	if err != nil {
		return nil, fmt.Errorf("look for an interrupted transaction: %w", err)
	}
	for _, e := range entries {
		if _, err := strconv.ParseUint(e.Name(), 10, 64); err == nil {
			return []packages.Problem{{
				Kind:    packages.InterruptedTransaction,
				Message: "dpkg was interrupted: run \"dpkg --configure -a\" on the host",
			}}, nil
		}
	}
	return nil, nil
}

func byName[T any](name, architecture func(*T) string) func(a, b T) int {
	return func(a, b T) int {
		return cmp.Or(cmp.Compare(name(&a), name(&b)), cmp.Compare(architecture(&a), architecture(&b)))
	}
}
