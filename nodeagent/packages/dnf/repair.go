package dnf

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// Repair puts right what a transaction has left that was cut off. rpm has no
// journal: it writes each package into its database when all of its files are in
// place, and removes the old versions last. So the old versions that are left go
// first (see rpm.Database.Repair), and then the packages that the transaction had
// got to are installed again, as far as their files are still in dnf's cache,
// for their scriptlets, which it may not have run: those of a kernel make it
// bootable. A package that it had not come to is as it was, but for some files of
// the one that it was at, and installing the patch puts that right.
func (m *Manager) Repair(ctx context.Context) (packages.Repair, error) {
	var repaired []rpm.Package
	var after *rpm.Installed
	err := m.locks.Retry(ctx, m.files, func() error {
		var err error
		repaired, after, err = m.database.Repair(ctx)
		return err
	})
	if err != nil {
		return packages.Repair{}, err
	}
	cut := after.Together(repaired)
	if len(repaired) == 0 {
		interrupted, err := m.interrupted(ctx)
		if err != nil {
			return packages.Repair{}, err
		}
		if interrupted {
			cut = after.Latest()
		}
	}
	again, err := m.reinstall(ctx, cut)
	if err != nil {
		return packages.Repair{}, err
	}
	var done packages.Repair
	for _, p := range slices.Concat(repaired, again) {
		if name := p.Name + " " + p.Version; !slices.Contains(done.Packages, name) {
			done.Packages = append(done.Packages, name)
		}
	}
	slices.Sort(done.Packages)
	if len(again) > 0 {
		if after, err = m.database.Installed(ctx); err != nil {
			return packages.Repair{}, err
		}
	}
	done.Remaining = after.Problems()
	return done, nil
}

// interrupted says whether dnf 4's history has no end for its last transaction.
// dnf 5 writes its history when a transaction has ended.
func (m *Manager) interrupted(ctx context.Context) (bool, error) {
	if m.five() || !m.exists("var/lib/dnf/history.sqlite") {
		return false, nil
	}
	result, err := m.run(ctx, "look for an interrupted transaction", packages.Command{
		Name: "dnf-history", Argv: m.command("-q", "-C", "history", "info", "last"), Timeout: readTimeout,
	})
	if err != nil {
		return false, err
	}
	return parseInterrupted(result.Stdout), nil
}

// parseInterrupted reads "dnf history info". Of a transaction that was cut off, dnf
// knows no state of the database at its end. Its result does not say so: it is
// a failure like others in some versions, and aborted in others.
//
//	Begin rpmdb    : 0559206a883d6c9b7160acba8e567a99e9d5c3d5d451fc5031c3c0db52cdf7dd
//	End time       : Thu Jan  1 00:00:00 1970 (-1795412133 seconds)
//	End rpmdb      :  **
func parseInterrupted(output []byte) bool {
	begun, ended := false, false
	for line := range strings.Lines(string(output)) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "Begin rpmdb":
			begun = true
		case "End rpmdb":
			ended = strings.Trim(value, " *\r\n") != ""
		}
	}
	return begun && !ended
}

// reinstall installs packages again whose files are in the cache, and returns them.
func (m *Manager) reinstall(ctx context.Context, all []rpm.Package) ([]rpm.Package, error) {
	const purpose = "install again what an interrupted transaction had installed"
	cached, err := m.cached()
	if err != nil {
		return nil, err
	}
	argv := []string{"-y", "-C", "--setopt=keepcache=1", "reinstall"}
	var again []rpm.Package
	for _, p := range all {
		if _, found := cached[fileName(p.Name, p.Version, p.Architecture)]; found {
			argv = append(argv, p.NEVRA())
			again = append(again, p)
		}
	}
	if len(again) == 0 {
		return nil, nil
	}
	result, err := m.run(ctx, purpose, packages.Command{Name: "dnf-reinstall", Argv: m.command(argv...), Transaction: true})
	if err != nil {
		return nil, err
	}
	// A package whose scriptlet fails again stays as it is, and so does one whose
	// version is not offered any more: the database has it installed.
	if result.ExitCode != 0 && !strings.Contains(string(result.Stdout)+string(result.Stderr), "Running transaction\n") && len(unmatched(result, nil)) == 0 &&
		!strings.Contains(string(result.Stderr), "not available") && !strings.Contains(string(result.Stdout), "not available") {
		return nil, fmt.Errorf("%s: %w", purpose, commandError("dnf reinstall", result))
	}
	return again, nil
}
