package apt

import (
	"context"
	"fmt"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

const (
	downloadTool    = "apt-get -d install"
	downloadTimeout = 2 * time.Hour
)

// Download fetches the targets' files to apt's own folder.
func (m *Manager) Download(ctx context.Context, targets []packages.Target) (packages.Download, error) {
	const purpose = "download packages"
	var download packages.Download
	if len(targets) == 0 {
		return download, nil
	}
	argv := append([]string{"apt-get", "-y", "-d", "--only-upgrade"}, options()...)
	argv = append(append(argv, "install"), arguments(targets)...)
	err := m.locks.Retry(ctx, m.files, func() error {
		result, err := m.run(ctx, "apt-download", purpose, downloadTimeout, argv...)
		if err != nil {
			return err
		}
		if result.ExitCode == 0 {
			download.Ready = targets
			return nil
		}
		if held := lockHeld(result.Stderr); held != nil {
			return fmt.Errorf("%s: %w", purpose, held)
		}
		return fmt.Errorf("%s: %w", purpose, &packages.CommandError{Tool: downloadTool, ExitCode: result.ExitCode, LastLines: lastLines(result)})
	})
	return download, err
}
