package apt

import (
	"context"
	"errors"
	"slices"

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
	install, err := m.install(ctx, targets)
	if err != nil {
		return packages.Install{}, wrap(installPurpose, err)
	}
	return install, nil
}

func (m *Manager) install(ctx context.Context, targets []packages.Target) (install packages.Install, err error) {
	before, folder, err := m.beforeInstall(ctx)
	if err != nil {
		return install, err
	}
	req := newRequest(before, targets)
	var report report
	named := req.named()
	if len(named) > 0 {
		result, err := m.installNamed(ctx, req, named)
		if err != nil {
			return install, err
		}
		report = parseReport(result)
	}
	// A person who stops it now still wants to know what was done.
	ctx = context.WithoutCancel(ctx)
	after, err := m.database(ctx, "apt-after")
	if err != nil {
		return install, err
	}
	install.Failed = req.failures(report, after, named)
	done := report.keys(after)
	for _, t := range targets {
		done[after.key(t.Name, t.Architecture)] = true
	}
	return install, m.clear(ctx, folder, after, done)
}

// beforeInstall reads what an installation has to know.
func (m *Manager) beforeInstall(ctx context.Context) (db *database, folder string, err error) {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		db, err = m.database(ctx, "apt-before")
		return err
	})
	group.Go(func() (err error) {
		folder, err = m.folder(ctx)
		return err
	})
	return db, folder, group.Wait()
}

// installNamed runs the transaction. Apt must not download in it. Told so, it fails
// before it begins if a package comes from a repository on the host's own disk,
// from where it takes files without downloading them: then it is told nothing, and
// asked first whether all other files are there.
func (m *Manager) installNamed(ctx context.Context, req *request, named []packages.Target) (packages.Result, error) {
	argv := append([]string{"apt-get"}, installOptions(req.reinstall)...)
	argv = append(argv, transactionOptions()...)
	names := append([]string{"install", "--"}, req.arguments(named)...)
	result, err := m.transaction(ctx, "apt-install", installTool, slices.Concat(argv, []string{"--no-download"}, names))
	if err == nil {
		return result, nil
	}
	var command *packages.CommandError
	if r, is := asRefused(err); !errors.As(err, &command) && (!is || !r.missingFiles) {
		return result, req.explain(err, named)
	}
	needed, locateErr := m.locate(ctx, req, named)
	if locateErr != nil {
		return result, req.explain(locateErr, named)
	}
	if err := req.notOnDisk(needed, named); err != nil {
		return result, err
	}
	if len(needed) == 0 {
		return result, req.explain(err, named)
	}
	result, err = m.transaction(ctx, "apt-install-local", installTool, append(argv, names...))
	return result, req.explain(err, named)
}

// notOnDisk is the refusal of targets whose files are not there; nil if all are.
func (req *request) notOnDisk(needed []location, targets []packages.Target) error {
	remote := slices.DeleteFunc(slices.Clone(needed), location.local)
	if len(remote) == 0 {
		return nil
	}
	refusal := &packages.RefusedError{Detail: remote[0].name + " " + remote[0].version + " is not on disk: download it first"}
	for _, t := range targets {
		if slices.ContainsFunc(remote, func(l location) bool { return req.isFile(&t, l.file) }) {
			refusal.Targets = append(refusal.Targets, packages.Failure{Target: t, Message: "its file is not on disk"})
		}
	}
	return refusal
}

// explain makes apt's refusal one of targets; other errors stay what they are.
func (req *request) explain(err error, targets []packages.Target) error {
	r, is := asRefused(err)
	if !is {
		return err
	}
	named, _ := r.of(req.db, targets)
	return &packages.RefusedError{Targets: named, Detail: r.detail}
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
		var command *packages.CommandError
		if problem := verdict(tool, result); !errors.As(problem, &command) || !processed(result) {
			return problem
		}
		return nil
	})
	return result, err
}
