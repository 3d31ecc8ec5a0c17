package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// LoadImage puts the image archive (as "make image" writes it) on every machine. Machines that are off
// load it when they boot. Another archive of the same file name replaces it.
func (c *Cluster) LoadImage(ctx context.Context, archive string) error {
	if err := c.addImage(archive); err != nil {
		return err
	}
	machines, err := c.Machines(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, status := range machines {
		if status.Leader == 0 {
			continue
		}
		machine, err := c.Machine(status.Name)
		if err == nil {
			_, err = machine.Exec(ctx, "/usr/local/sbin/import-images")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("load %s: %w", filepath.Base(archive), err))
		}
	}
	return errors.Join(errs...)
}

// addImage copies an archive to where the machines look for them when they boot.
func (c *Cluster) addImage(archive string) error {
	from, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer from.Close()
	path := directory(c.Dir).image(filepath.Base(archive))
	to, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, to.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
