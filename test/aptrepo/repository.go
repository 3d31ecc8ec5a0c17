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
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
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
	mu       sync.Mutex
	release  Release
	packages []Package

	files    map[string]served
	modified time.Time
	// again is true if it was published before in the same second. Modification times
	// cannot tell those apart, so nothing is answered with "not modified".
	again    bool
	down     bool
	requests map[string]int
	released chan struct{}
}

// served is a file as clients get it.
type served struct {
	content []byte
	fault   Fault
}

// New returns an empty repository. It serves nothing before [Repository.Publish].
func New(release Release) *Repository {
	if len(release.Architectures) == 0 {
		release.Architectures = []string{"amd64", "arm64"}
	}
	if release.Codename == "" {
		release.Codename = release.Suite
	}
	return &Repository{release: release, requests: map[string]int{}, released: make(chan struct{})}
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
	files := map[string]served{}
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
		if p.Fault == CorruptFile {
			deb = bytes.Clone(deb)
			deb[len(deb)-1] ^= 0xff
		}
		files["/"+p.path()] = served{content: deb, fault: p.Fault}
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
			files[r.dist(name)] = served{content: file.content}
			fmt.Fprintf(&sums, " %x %d %s\n", sha256.Sum256(file.content), len(file.content), name)
		}
	}
	files[r.dist("Release")] = served{content: fmt.Appendf(nil,
		"Origin: %s\nLabel: %s\nSuite: %s\nCodename: %s\nDate: %s\nArchitectures: %s\nComponents: main\nSHA256:\n%s",
		r.release.Origin, r.release.Label, r.release.Suite, r.release.Codename,
		now.UTC().Format("Mon, 02 Jan 2006 15:04:05 UTC"), strings.Join(r.release.Architectures, " "), sums.String())}
	r.again = r.files != nil && now.Unix() <= r.modified.Unix()
	r.files, r.modified = files, now
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

// WriteTo writes what is published below a directory, for sources that are read
// from a disk. Files that are missing on the server are not written.
func (r *Repository) WriteTo(directory string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, file := range r.files {
		if file.fault == MissingFile {
			continue
		}
		name = filepath.Join(directory, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, file.content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// SourcesList is the line for a file below /etc/apt/sources.list.d that names the
// repository, which is served at the given address. It is not signed, so the line
// trusts it.
func (r *Repository) SourcesList(address string) string {
	return fmt.Sprintf("deb [trusted=yes] %s %s main\n", strings.TrimSuffix(address, "/"), r.release.Codename)
}

// SetDown makes all requests fail by a closed connection, or ends that: a server
// that is there and does not answer.
func (r *Repository) SetDown(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
}

// ReleaseSlow lets the slow packages' downloads end, those that wait and those that come.
func (r *Repository) ReleaseSlow() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.released:
	default:
		close(r.released)
	}
}

// Requests is how often the file of a package was asked for, of whatever version.
func (r *Repository) Requests(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for path, count := range r.requests {
		if strings.HasPrefix(path, "/pool/"+name+"_") {
			n += count
		}
	}
	return n
}

// ServeHTTP serves the repository. Mount it below a path with http.StripPrefix.
func (r *Repository) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	r.requests[request.URL.Path]++
	file, found := r.files[request.URL.Path]
	modified, down, released := r.modified, r.down, r.released
	if r.again {
		request.Header.Del("If-Modified-Since")
	}
	r.mu.Unlock()

	switch {
	case down:
		panic(http.ErrAbortHandler) // how net/http is told to close the connection
	case !found || file.fault == MissingFile:
		http.NotFound(w, request)
	case file.fault == SlowFile:
		serveSlowly(w, request, file.content, released)
	default:
		http.ServeContent(w, request, request.URL.Path, modified, bytes.NewReader(file.content))
	}
}

// serveSlowly sends half of the content, and the rest once it is released.
func serveSlowly(w http.ResponseWriter, request *http.Request, content []byte, released <-chan struct{}) {
	w.Header().Set("Content-Length", fmt.Sprint(len(content)))
	half := len(content) / 2
	if _, err := w.Write(content[:half]); err != nil {
		return // the client is gone
	}
	_ = http.NewResponseController(w).Flush()
	select {
	case <-released:
		_, _ = w.Write(content[half:])
	case <-request.Context().Done():
	}
}
