package host

import (
	"errors"
	"fmt"
	"os"
)

// OpenFile opens a file of the host for reading and writing, by its path below the host's root, and makes it if it is not
// there. Symbolic links in the path cannot lead into the agent's own container; absolute ones are an error.
func (h *Host) OpenFile(path string) (*os.File, error) {
	root, err := os.OpenRoot(h.root)
	if err != nil {
		return nil, fmt.Errorf("open the host's root directory: %w", err)
	}
	f, err := root.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err = errors.Join(err, root.Close()); err != nil {
		return nil, fmt.Errorf("open %s on the host: %w", path, err)
	}
	return f, nil
}
