package dnf

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// littleRoom is how much of a file dnf may fail to write without noticing.
const littleRoom = 1 << 20

// noRoom says whether a download has failed because the file system of dnf's cache
// is full: with a *packages.DiskFullError. librepo does not see that the end of a file could
// not be written, and finds that its checksum does not match: what would count
// against the package.
func (m *Manager) noRoom(ctx context.Context, reason string) error {
	if !strings.Contains(reason, "checksum") {
		return nil
	}
	directories, err := m.glob(m.cacheDir() + "/*/packages")
	if err != nil || len(directories) == 0 {
		return nil
	}
	argv := []string{"stat", "-f", "-c", "%a %S"}
	for _, d := range directories {
		argv = append(argv, "/"+d)
	}
	result, err := m.runner.Run(ctx, packages.Command{Name: "dnf-space", Argv: argv, Env: rpm.Environment(), Timeout: readTimeout})
	if err != nil {
		return fmt.Errorf("look for room in dnf's cache: %w", err)
	}
	if result.ExitCode != 0 {
		return nil // the checksum does not match, as far as can be seen
	}
	n := 0
	for line := range strings.Lines(string(result.Stdout)) {
		blocks, size, _ := strings.Cut(strings.TrimSpace(line), " ")
		free, err := strconv.ParseInt(blocks, 10, 64)
		if err != nil || n >= len(directories) {
			return nil
		}
		bytes, err := strconv.ParseInt(size, 10, 64)
		if err != nil {
			return nil
		}
		if free*bytes < littleRoom {
			return &packages.DiskFullError{Path: "/" + path.Clean(directories[n]), Detail: fmt.Sprintf("%d bytes are free", free*bytes)}
		}
		n++
	}
	return nil
}
