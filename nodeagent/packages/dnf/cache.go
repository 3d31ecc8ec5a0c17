package dnf

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"
)

// refreshStamp is touched when all repositories were refreshed. The times of
// dnf's own files do not say so: those of repositories that are not used any
// more stay, and grow older.
const refreshStamp = "var/lib/dnf/nodepatch-refresh-stamp"

// cacheDir is where dnf keeps metadata and packages, relative to the host's root:
// as configured, or by its version's default.
func (m *Manager) cacheDir() string {
	if dir, found := m.setting("cachedir"); found && strings.HasPrefix(dir, "/") && !strings.Contains(dir, "$") {
		return strings.TrimPrefix(path.Clean(dir), "/")
	}
	if m.five() {
		return "var/cache/libdnf5"
	}
	return "var/cache/dnf"
}

// keepsCache says whether the administrator wants packages to stay in the cache
// when they are installed.
func (m *Manager) keepsCache() bool {
	value, _ := m.setting("keepcache")
	switch strings.ToLower(value) {
	case "1", "true", "yes", "on":
		return true
	}
	return false
}

// setting is a value of dnf's own configuration file.
func (m *Manager) setting(name string) (value string, found bool) {
	text, err := m.readFile("etc/dnf/dnf.conf")
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(text) {
		k, v, is := strings.Cut(line, "=")
		if is && strings.TrimSpace(k) == name {
			value, found = strings.TrimSpace(v), true
		}
	}
	return value, found
}

// cached are the packages in dnf's cache: the paths of the files on the host and
// their sizes, by their names.
func (m *Manager) cached() (map[string]cachedFile, error) {
	found := map[string]cachedFile{}
	names, err := fs.Glob(m.files, m.cacheDir()+"/*/packages/*.rpm")
	if err != nil {
		return nil, fmt.Errorf("list the downloaded packages: %w", err)
	}
	for _, name := range names {
		info, err := fs.Stat(m.files, name)
		if errors.Is(err, fs.ErrNotExist) { // removed in the meantime
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list the downloaded packages: %w", err)
		}
		found[path.Base(name)] = cachedFile{path: "/" + name, size: info.Size()}
	}
	return found, nil
}

type cachedFile struct {
	path string
	size int64
}

// metadataRefreshed is a time that all of the metadata is at least as recent as:
// that of the last refresh of ours, or the one at which the oldest metadata in
// the cache was last found to be current, whichever is later. Where another
// program refreshed the metadata in the meantime, that is too early rather than
// too late.
func (m *Manager) metadataRefreshed() (time.Time, error) {
	const purpose = "read the age of the package metadata"
	names, err := fs.Glob(m.files, m.cacheDir()+"/*/repodata/repomd.xml")
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", purpose, err)
	}
	var oldest time.Time
	for _, name := range names {
		info, err := fs.Stat(m.files, name)
		if errors.Is(err, fs.ErrNotExist) { // replaced by a refresh
			continue
		}
		if err != nil {
			return time.Time{}, fmt.Errorf("%s: %w", purpose, err)
		}
		if oldest.IsZero() || info.ModTime().Before(oldest) {
			oldest = info.ModTime()
		}
	}
	stamp, err := fs.Stat(m.files, refreshStamp)
	switch {
	// A cache that was emptied leaves the stamp behind.
	case errors.Is(err, fs.ErrNotExist) || oldest.IsZero():
		return oldest, nil
	case err != nil:
		return time.Time{}, fmt.Errorf("%s: %w", purpose, err)
	case stamp.ModTime().After(oldest):
		return stamp.ModTime(), nil
	default:
		return oldest, nil
	}
}
