package dnf

import (
	"context"
	"fmt"
	"io/fs"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// dropStale removes a lock's file that a dnf which was killed has left behind, and
// whose number another process has got since, and says whether it did. dnf takes
// any process of that number for the holder. A holder has written the file, so it
// was started before.
func (m *Manager) dropStale(ctx context.Context, held *packages.LockHeldError) (bool, error) {
	if held.PID == 0 || held.Path == "" {
		return false, nil
	}
	info, err := fs.Stat(m.files, strings.TrimPrefix(held.Path, "/"))
	if err != nil {
		return false, nil // it is gone, or cannot be judged
	}
	if !rpm.StartedAfter(m.files, held.PID, info.ModTime()) {
		return false, nil
	}
	const purpose = "remove a lock that a dnf which was killed has left"
	result, err := m.runner.Run(ctx, packages.Command{
		Name: "dnf-drop-lock", Argv: []string{"rm", "-f", "--", held.Path}, Env: environment(), Timeout: readTimeout,
	})
	if err != nil {
		return false, fmt.Errorf("%s: %w", purpose, err)
	}
	if result.ExitCode != 0 {
		return false, fmt.Errorf("%s: %w", purpose, commandError("rm", result))
	}
	return true, nil
}
