package apt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

const refreshTool = "apt-get update"

// refreshStamp is touched when all repositories were refreshed. Neither apt's
// files nor those of its own hooks say so: apt gives its lists the times at
// which their servers published them, and runs its success hook also if only one
// repository of several answered.
const refreshStamp = "var/lib/apt/periodic/nodepatch-refresh-stamp"

func refreshCommand() []string {
	argv := append([]string{"apt-get"}, options()...)
	return append(argv,
		// Without it, apt takes an unreachable repository for a success.
		"-o", "APT::Update::Error-Mode=any",
		// A server that does not answer is tried twice for half a minute, not
		// four times for two.
		"-o", "Acquire::http::Timeout=30", "-o", "Acquire::https::Timeout=30", "-o", "Acquire::Retries=1",
		"update")
}

// Refresh fetches the metadata of all repositories. While another program holds
// the lock of the lists, which apt does not wait for, it asks again.
func (m *Manager) Refresh(ctx context.Context) (refresh packages.Refresh, err error) {
	const purpose = "refresh the package metadata"
	err = m.locks.Retry(ctx, m.files, func() error {
		result, err := m.run(ctx, "apt-refresh", purpose, refreshTimeout, refreshCommand()...)
		if err != nil {
			return err
		}
		if held := lockHeld(result.Stderr); held != nil && result.ExitCode != 0 {
			return held
		}
		refresh, err = m.refreshed(ctx, purpose, result)
		return err
	})
	if held := (*packages.LockHeldError)(nil); errors.As(err, &held) {
		err = fmt.Errorf("%s: %w", purpose, err) // not before it knows its holder, and how long it was waited for
	}
	return refresh, err
}

func (m *Manager) refreshed(ctx context.Context, purpose string, result packages.Result) (packages.Refresh, error) {
	refresh, failures, err := parseRefresh(result.Stdout, result.Stderr)
	switch {
	case err != nil:
		return packages.Refresh{}, fmt.Errorf("%s: %w", purpose, err)
	// An apt that does not know the error mode warns of failures and exits with 0.
	case len(failures) > 0:
		return packages.Refresh{}, &packages.RefreshError{Failures: failures}
	case result.ExitCode != 0:
		return packages.Refresh{}, fmt.Errorf("%s: %w", purpose,
			&packages.CommandError{Tool: refreshTool, ExitCode: result.ExitCode, LastLines: lastLines(result)})
	}
	if _, err := m.output(ctx, "apt-refresh-stamp", "record that the package metadata was refreshed", "touch",
		"touch", "/"+refreshStamp); err != nil {
		return packages.Refresh{}, err
	}
	return refresh, nil
}

// metadataRefreshed is a time that all of the metadata is at least as recent as:
// that of the last refresh of ours, or the time at which the oldest of the
// repositories' Release files was published, which apt gives to the file,
// whichever is later. Where another program refreshed the metadata in the
// meantime, that is too early rather than too late.
func metadataRefreshed(files fs.FS) (time.Time, error) {
	const purpose = "read the age of the package metadata"
	entries, err := fs.ReadDir(files, "var/lib/apt/lists")
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", purpose, err)
	}
	var oldest time.Time
	fetched := false
	for _, e := range entries {
		// A repository without a Release file has its index alone.
		fetched = fetched || strings.Contains(e.Name(), "_Packages")
		if !strings.HasSuffix(e.Name(), "Release") { // InRelease too
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) { // replaced by a refresh
			continue
		}
		if err != nil {
			return time.Time{}, fmt.Errorf("%s: %w", purpose, err)
		}
		fetched = true
		if oldest.IsZero() || info.ModTime().Before(oldest) {
			oldest = info.ModTime()
		}
	}
	stamp, err := fs.Stat(files, refreshStamp)
	switch {
	// Lists that were deleted leave the stamp behind.
	case errors.Is(err, fs.ErrNotExist) || !fetched:
		return oldest, nil
	case err != nil:
		return time.Time{}, fmt.Errorf("%s: %w", purpose, err)
	case stamp.ModTime().After(oldest):
		return stamp.ModTime(), nil
	default:
		return oldest, nil
	}
}
