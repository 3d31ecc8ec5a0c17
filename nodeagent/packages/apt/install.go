package apt

import (
	"context"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

const (
	installTool    = "apt-get install"
	installPurpose = "install packages"
)

// Install installs the targets with one command. Its arguments, some 60 bytes for
// a target, may be 1 MiB in all: that is a line of a systemd unit file, and half
// of what the kernel takes.
//
// Files of what is installed afterwards are deleted, as nothing needs them any
// more. Apt-get by itself keeps them for ever. Only those of the transaction's own
// packages are, and also if an earlier call was cut off before it could.
func (m *Manager) Install(ctx context.Context, targets []packages.Target) (packages.Install, error) {
	db, from, err := m.beforeInstall(ctx)
	if err != nil {
		return packages.Install{}, wrap(installPurpose, err)
	}
	req := newRequest(db, targets)
	all := req.named()
	var report report
	if len(all) > 0 {
		if from == usesFiles {
			if err := m.onDisk(ctx, req, all); err != nil {
				return packages.Install{}, wrap(installPurpose, err)
			}
		}
		result, err := m.transaction(ctx, "apt-install", installTool, m.installCommand(req, all, from))
		if err != nil {
			return packages.Install{}, wrap(installPurpose, m.explain(ctx, req, all, err))
		}
		report = parseReport(result)
	}
	after, err := m.database(ctx, "apt-after")
	if err != nil {
		return packages.Install{}, wrap(installPurpose, err)
	}
	install := packages.Install{Failed: req.failures(report, after, all)}
	done := report.keys(after)
	for _, t := range targets {
		done[after.key(t.Name, t.Architecture)] = true
	}
	if err := m.clear(ctx, after, done); err != nil {
		return packages.Install{}, wrap(installPurpose, err)
	}
	return install, nil
}

// sources say where apt gets packages from.
type sources int

const (
	usesNetwork sources = iota
	// usesFiles: some are in a repository on the host's own disk, from where apt
	// takes them directly. It refuses that where it must not download.
	usesFiles
)

// beforeInstall reads what an installation has to know.
func (m *Manager) beforeInstall(ctx context.Context) (db *database, from sources, err error) {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		db, err = m.database(ctx, "apt-before")
		return err
	})
	group.Go(func() error {
		output, err := m.output(ctx, "apt-repositories", "list the repositories", "apt-get indextargets",
			"apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
		for _, line := range lines(output) {
			if strings.HasPrefix(line, "file:") {
				from = usesFiles
			}
		}
		return err
	})
	return db, from, group.Wait()
}

func (m *Manager) installCommand(req *request, targets []packages.Target, from sources) []string {
	argv := append([]string{"apt-get"}, installOptions(req.reinstall)...)
	if from == usesNetwork {
		argv = append(argv, "--no-download")
	}
	argv = append(argv, transactionOptions()...)
	return append(append(argv, "install", "--"), req.arguments(targets)...)
}

// conffileOptions keep a configuration file that an administrator has changed, and
// put the package's own beside it. Dpkg asks nothing then.
func conffileOptions() []string { return []string{"--force-confdef", "--force-confold"} }

// transactionOptions are those of every apt-get that runs dpkg.
func transactionOptions() []string {
	list := []string{
		// One failing script would leave all other packages unconfigured.
		"-o", "DPkg::StopOnError=false",
		// What dpkg does of each package, for parseReport.
		"-o", "APT::Status-Fd=3",
		// Locks are waited for by packages.Locks, which says whom it waits for.
		"-o", "DPkg::Lock::Timeout=0",
		// Dpkg would give up all that is left after 50 failures.
		"-o", "Dpkg::Options::=--abort-after=100000",
	}
	for _, option := range conffileOptions() {
		list = append(list, "-o", "Dpkg::Options::="+option)
	}
	return list
}

// transaction runs a command that writes the package database. What it returns
// without an error ran dpkg, or had nothing to do; packages may have failed.
func (m *Manager) transaction(ctx context.Context, name, tool string, argv []string) (result packages.Result, err error) {
	err = m.locks.Retry(ctx, m.files, func() error {
		result, err = m.runner.Run(ctx, packages.Command{
			Name: name, Argv: argv, Transaction: true,
			// Needrestart would restart services, and the container runtime with them.
			Env: append(environment(), "NEEDRESTART_SUSPEND=1"),
		})
		if err != nil || result.ExitCode == 0 {
			return err
		}
		if problem := verdict(tool, result); !dpkgFailed(problem, result) {
			return problem
		}
		return nil
	})
	return result, err
}

// onDisk refuses to install where a file would have to come from the network. It
// is for hosts where apt itself cannot be told so.
func (m *Manager) onDisk(ctx context.Context, req *request, targets []packages.Target) error {
	needed, err := m.locate(ctx, req, targets)
	if err != nil {
		return m.explain(ctx, req, targets, err)
	}
	return req.notOnDisk(needed, targets)
}

// notOnDisk is the refusal of targets whose files are not there; nil if all are.
func (req *request) notOnDisk(needed []location, targets []packages.Target) error {
	needed = slices.DeleteFunc(needed, location.local)
	if len(needed) == 0 {
		return nil
	}
	refusal := &packages.RefusedError{Detail: needed[0].name + " " + needed[0].version + " is not on disk: download it first"}
	for _, t := range targets {
		if slices.ContainsFunc(needed, func(l location) bool { return req.isFile(&t, l.file) }) {
			refusal.Targets = append(refusal.Targets, packages.Failure{Target: t, Message: "its file is not on disk"})
		}
	}
	return refusal
}

// explain makes apt's refusal one of targets.
func (m *Manager) explain(ctx context.Context, req *request, targets []packages.Target, err error) error {
	r, is := asRefused(err)
	if !is {
		return err
	}
	if r.missingFiles {
		needed, err := m.locate(ctx, req, targets)
		if err != nil {
			return err
		}
		if err := req.notOnDisk(needed, targets); err != nil {
			return err
		}
	}
	named, _ := r.of(req.db, targets)
	return &packages.RefusedError{Targets: named, Detail: r.detail}
}
