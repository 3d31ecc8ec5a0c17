package rpm

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// Repair puts right what a transaction has left in the database that was cut off.
// It returns the packages that it brought to an end, which are installed in full
// now but for those of their scriptlets that were to come at the end, and the
// database as it is afterwards.
//
// Files of the database that are damaged are made anew from what can be read of
// them, with a copy of them kept beside. A package that is there in two versions
// loses its older one, in the way in which the transaction would have gone on:
// the files that the newer version has too stay, and so do changed configuration
// files. Nothing else is ever removed. Locks need no repair: the kernel drops
// them with the process that held them.
func (d *Database) Repair(ctx context.Context) ([]Package, *Installed, error) {
	installed, err := d.Installed(ctx)
	var damaged *packages.InterruptedDatabaseError
	if errors.As(err, &damaged) {
		if err := d.rebuild(ctx); err != nil {
			return nil, nil, err
		}
		installed, err = d.Installed(ctx)
	}
	if err != nil {
		return nil, nil, err
	}
	old := installed.duplicates()
	if len(old) == 0 {
		return nil, installed, nil
	}
	argv := []string{"rpm", "-e", "--nodeps"}
	for _, p := range old {
		// No version of rpm takes offence at a name without its epoch.
		_, version, release := split(p.Version)
		argv = append(argv, p.Name+"-"+version+"-"+release+"."+p.Architecture)
	}
	if err := d.write(ctx, "rpm-erase-old", "remove the old versions that an interrupted transaction has left", argv...); err != nil {
		return nil, nil, err
	}
	after, err := d.Installed(ctx)
	if err != nil {
		return nil, nil, err
	}
	var repaired []Package
	for _, p := range old {
		newest, found := after.Newest(p.Name, p.Architecture)
		if found && len(after.leftovers(p.Name, p.Architecture)) == 0 &&
			(len(repaired) == 0 || repaired[len(repaired)-1].NEVRA() != newest.NEVRA()) {
			repaired = append(repaired, newest)
		}
	}
	return repaired, after, nil
}

// rebuild makes the database's files anew.
func (d *Database) rebuild(ctx context.Context) error {
	const purpose = "find the files of the package database"
	result, err := d.runner.Run(ctx, packages.Command{
		Name: "rpm-dbpath", Argv: []string{"rpm", "--eval", "%_dbpath"}, Env: Environment(), Timeout: readTimeout,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", purpose, err)
	}
	path := strings.TrimSpace(string(result.Stdout))
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "\n\x00") {
		return fmt.Errorf("%s: %w", purpose, NotUnderstood("rpm --eval %_dbpath", 1, path, "not a directory"))
	}
	// The link of newer distributions is followed, and the copy is beside its target.
	if err := d.write(ctx, "rpm-keep", "keep a copy of the damaged package database",
		"cp", "-a", "--backup=numbered", "--no-target-directory", path+"/.", path+".damaged"); err != nil {
		return err
	}
	return d.write(ctx, "rpm-rebuild", "make the package database anew", "rpm", "--rebuilddb")
}

// write runs a command that changes the database and must succeed.
func (d *Database) write(ctx context.Context, name, purpose string, argv ...string) error {
	result, err := d.runner.Run(ctx, packages.Command{Name: name, Argv: argv, Env: Environment(), Transaction: true})
	if err != nil {
		return fmt.Errorf("%s: %w", purpose, err)
	}
	if result.ExitCode != 0 {
		return fmt.Errorf("%s: %w", purpose,
			&packages.CommandError{Tool: strings.Join(argv[:2], " "), ExitCode: result.ExitCode, LastLines: LastLines(result)})
	}
	return nil
}

// Together are the packages that the same transactions have installed as the
// given ones: what an interrupted transaction had got to when one of them is known.
func (s *Installed) Together(with []Package) []Package {
	transactions := map[int64]bool{}
	for _, p := range with {
		transactions[p.Transaction] = p.Transaction != 0
	}
	var all []Package
	for _, p := range s.Packages {
		if transactions[p.Transaction] {
			all = append(all, p)
		}
	}
	return all
}

// Latest are the packages that the last transaction has installed.
func (s *Installed) Latest() []Package {
	var last Package
	for _, p := range s.Packages {
		if p.Transaction > last.Transaction {
			last = p
		}
	}
	if last.Transaction == 0 {
		return nil
	}
	return s.Together([]Package{last})
}
