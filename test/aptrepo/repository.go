// Package aptrepo serves toy apt repositories from a test's own process.
//
//	repo, err := aptrepo.New(aptrepo.Release{Origin: "Debian", Label: "Debian-Security", Suite: "stable-security"})
//	repo.Add(aptrepo.Good("ham", "1.0"), aptrepo.FailingPostinst("egg", "1.0"))
//	err = repo.Publish()
//	server := httptest.NewServer(repo)
//	sources := repo.SourcesList(server.URL)
//
// The packages are built in memory, thousands a second. Several
// repositories can be served by one server, each below a path of its own.
package aptrepo

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nodepatch/nodepatch/test/mirror"
)

// Release is what a repository says of itself in its Release file, by which
// package managers tell security archives from others.
type Release struct {
	Origin, Label, Suite, Codename string
	// Architectures are "amd64" and "arm64" if there are none. Packages for all
	// architectures are listed under each.
	Architectures []string
	// Date is when it was published; now if it is zero.
	Date time.Time
}

// Repository is one apt repository. It is an http.Handler and safe for
// concurrent use; what was published stays served until it is published again.
type Repository struct {
	// Server serves what was published, and can be told to misbehave.
	*mirror.Server

	mu       sync.Mutex
	release  Release
	packages []Package
}

// New returns an empty repository. It serves nothing before [Repository.Publish].
func New(release Release) *Repository {
	if len(release.Architectures) == 0 {
		release.Architectures = []string{"amd64", "arm64"}
	}
	if release.Codename == "" {
		release.Codename = release.Suite
	}
	return &Repository{Server: mirror.New(), release: release}
}

// Add adds packages. One of the same name, version and architecture replaces the earlier.
func (r *Repository) Add(packages ...Package) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range packages {
		r.packages = slices.DeleteFunc(r.packages, func(old Package) bool { return old.path() == p.path() })
		r.packages = append(r.packages, p)
	}
}

// Remove removes all versions of the named packages.
func (r *Repository) Remove(names ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.packages = slices.DeleteFunc(r.packages, func(p Package) bool { return slices.Contains(names, p.Name) })
}

// Publish builds the packages and their index and serves them from now on.
func (r *Repository) Publish() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	files := map[string]mirror.File{}
	indexes := map[string]*bytes.Buffer{}
	for _, architecture := range r.release.Architectures {
		indexes[architecture] = &bytes.Buffer{}
	}
	for i := range r.packages {
		p := &r.packages[i]
		deb, err := p.build()
		if err != nil {
			return err
		}
		record := p.record(deb)
		for architecture, index := range indexes {
			if p.architecture() == "all" || p.architecture() == architecture {
				index.WriteString(record)
			}
		}
		files["/"+p.path()] = mirror.File{Content: deb, Fault: p.Fault, Package: p.Name}
	}

	now := r.release.Date
	if now.IsZero() {
		now = time.Now()
	}
	var sums strings.Builder
	for _, architecture := range r.release.Architectures {
		index := indexes[architecture].Bytes()
		compressed, err := compress(index)
		if err != nil {
			return err
		}
		for _, file := range []struct {
			name    string
			content []byte
		}{{"Packages", index}, {"Packages.gz", compressed}} {
			name := fmt.Sprintf("main/binary-%s/%s", architecture, file.name)
			files[r.dist(name)] = mirror.File{Content: file.content}
			fmt.Fprintf(&sums, " %x %d %s\n", sha256.Sum256(file.content), len(file.content), name)
		}
	}
	files[r.dist("Release")] = mirror.File{Content: fmt.Appendf(nil,
		"Origin: %s\nLabel: %s\nSuite: %s\nCodename: %s\nDate: %s\nArchitectures: %s\nComponents: main\nSHA256:\n%s",
		r.release.Origin, r.release.Label, r.release.Suite, r.release.Codename,
		now.UTC().Format("Mon, 02 Jan 2006 15:04:05 UTC"), strings.Join(r.release.Architectures, " "), sums.String())}
	r.Server.Publish(files, now)
	return nil
}

func (r *Repository) dist(name string) string {
	return "/dists/" + r.release.Codename + "/" + name
}

// record is the package's stanza in the index, for the file as it should be.
func (p *Package) record(deb []byte) string {
	var b strings.Builder
	b.WriteString(p.control())
	fmt.Fprintf(&b, "Filename: %s\nSize: %d\nSHA256: %x\n", p.path(), len(deb), sha256.Sum256(deb))
	if p.Phased > 0 {
		fmt.Fprintf(&b, "Phased-Update-Percentage: %d\n", p.Phased)
	}
	b.WriteByte('\n')
	return b.String()
}

func compress(content []byte) ([]byte, error) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	err := w.Close()
	return b.Bytes(), err
}

// SourcesList is the line for a file below /etc/apt/sources.list.d that names the
// repository, which is served at the given address. It is not signed, so the line
// trusts it.
func (r *Repository) SourcesList(address string) string {
	return fmt.Sprintf("deb [trusted=yes] %s %s main\n", strings.TrimSuffix(address, "/"), r.release.Codename)
}
