// Package rpmrepo serves toy rpm repositories, with advisories, from a test's own
// process, to dnf and to zypper.
//
//	repo := rpmrepo.New()
//	repo.Add(rpmrepo.Good("ham", "1.0-1"), rpmrepo.FailingPre("egg", "1.0-1"))
//	repo.Advise(rpmrepo.Advisory{ID: "TOY-2026:1", Type: "security", Packages: []string{"ham-1.0-1"}})
//	err := repo.Publish()
//	server := httptest.NewServer(repo)
//	file := repo.RepoFile("toys", server.URL) // for /etc/yum.repos.d or /etc/zypp/repos.d
//
// The packages are built in memory, over a thousand a second. Several repositories can
// be served by one server, each below a path of its own.
package rpmrepo

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nodepatch/nodepatch/test/mirror"
)

// Repository is one rpm repository. It is an http.Handler and safe for
// concurrent use; what was published stays served until it is published again.
type Repository struct {
	// Server serves what was published, and can be told to misbehave.
	*mirror.Server

	mu         sync.Mutex
	packages   []Package
	advisories []Advisory
	revision   int64
}

// New returns an empty repository. It serves nothing before [Repository.Publish].
func New() *Repository { return &Repository{Server: mirror.New()} }

// Add adds packages. One of the same name, version and architecture replaces the earlier.
func (r *Repository) Add(packages ...Package) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range packages {
		r.packages = slices.DeleteFunc(r.packages, func(old Package) bool {
			return old.path() == p.path() && old.Version == p.Version
		})
		r.packages = append(r.packages, p)
	}
}

// Remove removes all versions of the named packages, and the advisories that name them.
func (r *Repository) Remove(names ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	gone := map[string]bool{}
	r.packages = slices.DeleteFunc(r.packages, func(p Package) bool {
		remove := slices.Contains(names, p.Name)
		gone[p.Name+"-"+p.Version] = gone[p.Name+"-"+p.Version] || remove
		return remove
	})
	r.advisories = slices.DeleteFunc(r.advisories, func(a Advisory) bool {
		return slices.ContainsFunc(a.Packages, func(name string) bool { return gone[name] })
	})
}

// Advise adds advisories. One of the same ID replaces the earlier.
func (r *Repository) Advise(advisories ...Advisory) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range advisories {
		r.advisories = slices.DeleteFunc(r.advisories, func(old Advisory) bool { return old.ID == a.ID })
		r.advisories = append(r.advisories, a)
	}
}

// Publish builds the packages and their metadata and serves them from now on. A
// repository without advisories has no updateinfo, as those of CentOS Stream.
func (r *Repository) Publish() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	files := map[string]mirror.File{}
	all := make([]*indexed, 0, len(r.packages))
	for i := range r.packages {
		p := &r.packages[i]
		rpm, err := p.build()
		if err != nil {
			return err
		}
		indexed, err := index(p, rpm)
		if err != nil {
			return err
		}
		all = append(all, indexed)
		files["/"+p.path()] = mirror.File{Content: rpm, Fault: p.Fault, Package: p.Name}
	}
	kinds := []struct {
		name string
		data any
	}{{"primary", all}, {"filelists", all}, {"other", all}}
	if len(r.advisories) > 0 {
		advisories, err := r.collect(all)
		if err != nil {
			return err
		}
		kinds = append(kinds, struct {
			name string
			data any
		}{"updateinfo", advisories})
	}

	// Clients compare revisions to see that something is new.
	r.revision = max(r.revision+1, time.Now().Unix())
	repomd := struct {
		Revision int64
		Data     []document
	}{Revision: r.revision}
	for _, kind := range kinds {
		d, err := render(kind.name, kind.data)
		if err != nil {
			return err
		}
		repomd.Data = append(repomd.Data, d)
		files["/"+d.Path] = mirror.File{Content: d.content}
	}
	content, err := execute("repomd", repomd)
	if err != nil {
		return err
	}
	files["/repodata/repomd.xml"] = mirror.File{Content: content}
	// Without a time of modification, nothing is answered with "not modified".
	r.Server.Publish(files, time.Time{})
	return nil
}

// RepoFile is the text of a file below /etc/yum.repos.d (dnf) or /etc/zypp/repos.d
// (zypper) that names the repository, which is served at the given address. It is
// not signed, and the file says so.
func (r *Repository) RepoFile(id, address string) string {
	return fmt.Sprintf("[%[1]s]\nname=%[1]s\nenabled=1\nautorefresh=0\nbaseurl=%[2]s/\ntype=rpm-md\ngpgcheck=0\nrepo_gpgcheck=0\n",
		id, strings.TrimSuffix(address, "/"))
}
