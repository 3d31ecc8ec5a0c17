package apt

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

const (
	configTool    = "apt-config shell"
	defaultFolder = "/var/cache/apt/archives"
)

// folder is where apt keeps the files of packages that it has downloaded, as the
// host sees it. Administrators move it to where there is room.
func (m *Manager) folder(ctx context.Context) (string, error) {
	const purpose = "ask where apt keeps its downloads"
	output, err := m.output(ctx, "apt-folder", purpose, configTool, "apt-config", "shell", "FOLDER", "Dir::Cache::Archives/d")
	if err != nil {
		return "", err
	}
	folder, err := parseFolder(output)
	if err != nil {
		return "", fmt.Errorf("%s: %w", purpose, err)
	}
	return folder, nil
}

// parseFolder reads "FOLDER='/var/cache/apt/archives/'", or nothing where apt has its default.
func parseFolder(output []byte) (string, error) {
	for n, line := range lines(output) {
		quoted, found := strings.CutPrefix(line, "FOLDER=")
		folder := unquoteShell(quoted)
		if !found || !path.IsAbs(folder) {
			return "", notUnderstood(configTool, n, line, "not an absolute path")
		}
		return path.Clean(folder), nil
	}
	return defaultFolder, nil
}

// unquoteShell undoes apt's single quotes, which it writes as '\” where one is meant.
func unquoteShell(s string) string {
	s = strings.TrimSuffix(strings.TrimPrefix(s, "'"), "'")
	return strings.ReplaceAll(s, `'\''`, "'")
}

// fetchedFiles are the packages in apt's folder by the names of their files. A
// folder that is not there, or cannot be read, has none: apt then says itself what
// is the matter, when it is to download.
func fetchedFiles(files fs.FS, folder string) map[string]fs.DirEntry {
	entries, err := fs.ReadDir(files, strings.TrimPrefix(folder, "/"))
	if err != nil {
		return nil
	}
	found := make(map[string]fs.DirEntry, len(entries))
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".deb") {
			found[e.Name()] = e
		}
	}
	return found
}

// clear deletes the files of packages that are installed now: nothing needs them
// any more, and nothing else would delete them. It is asked for by exact names, so
// that what others keep in the folder stays, and may be repeated after any crash.
func (m *Manager) clear(ctx context.Context, folder string, db *database, keys map[key]bool) error {
	fetched := fetchedFiles(m.files, folder)
	var paths []string
	for k := range keys {
		p, found := db.find(k)
		if !found || p.problem() != "" {
			continue
		}
		name := file{name: p.name, version: p.version, architecture: p.architecture}.fileName()
		if _, is := fetched[name]; is {
			paths = append(paths, path.Join(folder, name))
		}
	}
	for batch := range batches(paths) {
		// That files stay is no reason to lose what a transaction did.
		if _, err := m.run(ctx, "apt-clear", "delete downloads that are installed", readTimeout, append([]string{"rm", "-f", "--"}, batch...)...); err != nil {
			return err
		}
	}
	return nil
}
