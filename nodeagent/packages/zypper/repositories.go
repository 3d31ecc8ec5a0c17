package zypper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// repositories are those that are enabled on the host.
type repositories struct {
	all []repository
	// refreshed are the aliases of those that have metadata on the host, and when
	// it was last seen to be current.
	refreshed map[string]time.Time
	cache     cache
}

// cache is where libzypp keeps metadata and packages, relative to the host's root.
type cache struct{ raw, packages string }

// repositories asks zypper which repositories there are. Without being asked to,
// zypper fetches the metadata of one that has none, with --no-refresh too: a
// dead one would hold up each scan. So only those that have some are used.
func (m *Manager) repositories(ctx context.Context) (*repositories, error) {
	c := &command{name: "zypper-repositories", purpose: "list the repositories", verb: "repos", options: []string{"--uri"}}
	a, err := m.ask(ctx, c, exitNoRepositories)
	if err != nil {
		return nil, err
	}
	r := &repositories{refreshed: map[string]time.Time{}, cache: readCache(m.files)}
	list, found := find[repositoryList](a)
	if !found {
		if a.exit == exitOK && len(a.texts("")) == 0 {
			return nil, fmt.Errorf("%s: %w", c.purpose, notUnderstood(c.tool(), 0, "", "it lists nothing and says nothing"))
		}
		return r, nil // none is defined, which it says
	}
	for _, repo := range list.Repositories {
		if repo.Alias == "" || strings.HasPrefix(repo.Alias, "-") || strings.ContainsAny(repo.Alias, "\x00\r\n") {
			return nil, fmt.Errorf("%s: %w", c.purpose, notUnderstood(c.tool(), 0, repo.Alias, "not the alias of a repository"))
		}
		if repo.Enabled != "1" {
			continue
		}
		r.all = append(r.all, repo)
		refreshed, err := r.cache.refreshed(m.files, repo.Alias)
		if err != nil {
			return nil, err
		}
		if !refreshed.IsZero() {
			r.refreshed[repo.Alias] = refreshed
		}
	}
	return r, nil
}

// usable are the aliases of the repositories that zypper can use without network.
// They are all of them if the list is empty and ok is true.
func (r *repositories) usable() (aliases []string, ok bool) {
	if len(r.refreshed) == len(r.all) {
		return nil, len(r.all) > 0
	}
	for _, repo := range r.all {
		if _, found := r.refreshed[repo.Alias]; found {
			aliases = append(aliases, repo.Alias)
		}
	}
	return aliases, len(aliases) > 0
}

// metadataRefreshed is the oldest of the repositories' times, and zero if one has
// no metadata at all.
func (r *repositories) metadataRefreshed() time.Time {
	if len(r.refreshed) < len(r.all) {
		return time.Time{}
	}
	var oldest time.Time
	for _, t := range r.refreshed {
		if oldest.IsZero() || t.Before(oldest) {
			oldest = t
		}
	}
	return oldest
}

// title is what a person calls a repository.
func (r *repositories) title(alias string) string {
	for _, repo := range r.all {
		if repo.Alias == alias {
			return cmp.Or(repo.Name, alias)
		}
	}
	return alias
}

// local says whether a repository's packages lie on the host, where zypper takes
// them from without a copy in its cache.
func (r *repositories) local(alias string) bool {
	for _, repo := range r.all {
		if repo.Alias == alias {
			return len(repo.URLs) > 0 && !slices.ContainsFunc(repo.URLs, func(u string) bool {
				u = strings.TrimSpace(u)
				return !strings.HasPrefix(u, "dir:") && !strings.HasPrefix(u, "file:")
			})
		}
	}
	return false
}

// readCache finds the cache where an administrator has put it (zypp.conf(5)).
func readCache(files fs.FS) cache {
	settings := map[string]string{"cachedir": "/var/cache/zypp"}
	text, err := fs.ReadFile(files, "etc/zypp/zypp.conf")
	if err != nil {
		text = nil // the defaults are built in
	}
	for line := range strings.Lines(string(text)) {
		key, value, found := strings.Cut(line, "=")
		if value = strings.TrimSpace(value); found && strings.HasPrefix(value, "/") {
			settings[strings.TrimSpace(key)] = value
		}
	}
	base := settings["cachedir"]
	relative := func(p string) string { return strings.TrimPrefix(path.Clean(p), "/") }
	return cache{
		raw:      relative(cmp.Or(settings["metadatadir"], base+"/raw")),
		packages: relative(cmp.Or(settings["packagesdir"], base+"/packages")),
	}
}

// directory is a repository's below one of the cache's.
func directory(parent, alias string) string {
	return path.Join(parent, strings.ReplaceAll(alias, "/", "_"))
}

// refreshed is when a repository's metadata was fetched or seen to be current:
// libzypp touches the index then. The time is zero if there is no metadata.
func (c cache) refreshed(files fs.FS, alias string) (time.Time, error) {
	for _, index := range []string{"repodata/repomd.xml", "content", "cookie"} { // rpm-md, YaST, a plain directory
		info, err := fs.Stat(files, path.Join(directory(c.raw, alias), index))
		if err == nil {
			return info.ModTime(), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return time.Time{}, fmt.Errorf("look for the metadata of repository %s: %w", alias, err)
		}
	}
	return time.Time{}, nil
}

// stored are the packages in the cache: the sizes of the files by their names.
// A file is there in full, with the right checksum, or not at all.
func (c cache) stored(files fs.FS) (map[string]int64, error) {
	sizes := map[string]int64{}
	err := fs.WalkDir(files, c.packages, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path.Ext(name) != ".rpm" {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		sizes[entry.Name()] = info.Size()
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the packages in zypper's cache: %w", err)
	}
	return sizes, nil
}

// ready says whether a package needs no download, by what is in the cache.
func (r *repositories) ready(stored map[string]int64, alias string, t packages.Target) bool {
	_, found := stored[fileName(t)]
	return found || r.local(alias)
}
