package apt

import (
	"context"
	"errors"
	"slices"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

const repairPurpose = "repair the package database"

// Repair does what dpkg and apt are documented to need after they were cut off,
// and then what both leave undone: after a power cut while it was unpacked, a
// package is to be installed again, and neither of them does so or fails.
func (m *Manager) Repair(ctx context.Context) (packages.Repair, error) {
	repair, err := m.repair(ctx)
	if err != nil {
		return packages.Repair{}, wrap(repairPurpose, err)
	}
	return repair, nil
}

func (m *Manager) repair(ctx context.Context) (packages.Repair, error) {
	before, err := m.database(ctx, "apt-before")
	if err != nil {
		return packages.Repair{}, err
	}
	configure := append([]string{"dpkg"}, conffileOptions()...)
	configure = append(configure, "--abort-after=100000", "--configure", "-a")
	if _, err := m.mend(ctx, "dpkg-configure", "dpkg --configure -a", configure); err != nil {
		return packages.Repair{}, err
	}
	fix := append(m.mendCommand(), "--fix-broken", "install")
	if _, err := m.mend(ctx, "apt-fix", "apt-get -f install", fix); err != nil {
		return packages.Repair{}, err
	}
	db, err := m.database(ctx, "apt-configured")
	if err != nil {
		return packages.Repair{}, err
	}
	for i := range db.packages {
		if p := &db.packages[i]; p.mustBeUnpacked() && p.want != "deinstall" && p.want != "purge" {
			if err := m.reinstall(ctx, db, p); err != nil {
				return packages.Repair{}, err
			}
		}
	}
	return m.repaired(ctx, before)
}

// reinstall unpacks a package again: the version that dpkg has, or if that is not
// to be had any more, the one that apt would install.
func (m *Manager) reinstall(ctx context.Context, db *database, p *installed) error {
	name := db.key(p.name, p.architecture).qualified()
	for _, argument := range []string{name + "=" + p.version, name} {
		argv := append(m.mendCommand(), "--reinstall", "install", "--", argument)
		if ran, err := m.mend(ctx, "apt-reinstall", "apt-get --reinstall install", argv); ran || err != nil {
			return err
		}
	}
	return nil
}

// mendCommand is an apt-get that may download: what is to be unpacked again is not
// always on disk.
func (m *Manager) mendCommand() []string {
	argv := append([]string{"apt-get", "-y", "--no-remove"}, options()...)
	return append(append(argv, transactionOptions()...), m.limits.options()...)
}

// mend runs one step of a repair, and says whether it ran to its end. That it did
// not, or that scripts failed again, is no error: what is left shows in the database.
func (m *Manager) mend(ctx context.Context, name, tool string, argv []string) (ran bool, err error) {
	_, err = m.transaction(ctx, name, tool, argv)
	var (
		unmet   *packages.UnmetDependenciesError
		command *packages.CommandError
		cut     *packages.InterruptedDatabaseError
	)
	if _, is := asRefused(err); is || errors.As(err, &unmet) || errors.As(err, &command) || errors.As(err, &cut) {
		return false, nil
	}
	return err == nil, err
}

// repaired compares the problems of before with those that are left.
func (m *Manager) repaired(ctx context.Context, before *database) (packages.Repair, error) {
	after, err := m.database(ctx, "apt-after")
	if err != nil {
		return packages.Repair{}, err
	}
	remaining, err := interruptedDpkg(m.files)
	if err != nil {
		return packages.Repair{}, err
	}
	repair := packages.Repair{Remaining: append(remaining, after.problems()...)}
	mended := map[key]bool{}
	for _, problem := range before.problems() {
		k := before.key(problem.Name, problem.Architecture)
		if p, found := after.find(k); found && p.problem() == "" {
			repair.Packages = append(repair.Packages, k.qualified()+" "+p.version)
			mended[k] = true
		}
	}
	slices.Sort(repair.Packages)
	folder, err := m.folder(ctx)
	if err != nil {
		return packages.Repair{}, err
	}
	return repair, m.clear(ctx, folder, after, mended)
}
