// Package mirror is the web server below the toy repositories of package aptrepo and package rpmrepo. It serves
// files as mirrors do, and misbehaves as mirrors do when a test tells it to: a file is not there, is not the one
// that the index promised or comes slowly; the whole server closes its connections or lets its clients wait.
//
//	server := mirror.New()
//	server.Publish(map[string]mirror.File{
//		"/index":         {Content: index},
//		"/packages/ham":  {Content: ham, Package: "ham"},
//		"/packages/spam": {Content: spam, Package: "spam", Fault: mirror.MissingFile},
//	}, time.Now())
//	address := httptest.NewServer(server).URL
//	server.SetDown(true) // whoever asks now gets a connection that is closed
//	fmt.Println(server.Requests("ham"))
//
// What the files are, it does not know: the repositories build packages and indexes, and embed a [Server].
package mirror

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// Server is a server of files. It is an http.Handler and safe for concurrent use. Several can be mounted in one
// http.ServeMux, each below a path of its own, with http.StripPrefix.
type Server struct {
	mu       sync.Mutex
	files    map[string]File // by path, which begins with a slash
	modified time.Time
	// again is true if files were published before in the same second. Modification times cannot tell those
	// apart, so nothing is answered with "not modified".
	again    bool
	requests map[string]int // by package
	released chan struct{}  // closed when slow files come whole
	state    state
	ended    chan struct{} // closed when the state ends
}

// File is a file as it should be, and what is wrong with it.
type File struct {
	Content []byte
	Fault   Fault
	// Package is under which name requests for the file are counted; empty if they are not.
	Package string
}

// Fault is what is wrong with the download of a file.
type Fault int

const (
	// NoFault serves the file as it is.
	NoFault Fault = iota
	// MissingFile answers 404.
	MissingFile
	// CorruptFile serves a file of the right size whose last byte is wrong, and so its hash.
	CorruptFile
	// SlowFile sends half of the file, and the rest when [Server.ReleaseSlow] is called.
	SlowFile
)

// state is what all requests meet.
type state int

const (
	up state = iota
	down
	hanging
)

// New returns a server without files: it answers 404.
func New() *Server {
	return &Server{requests: map[string]int{}, released: make(chan struct{}), ended: make(chan struct{})}
}

// Publish serves these files from now on, and no others. The keys are paths that begin with a slash. Clients may
// ask whether files were modified since a time; if modified is zero they always get them.
func (s *Server) Publish(files map[string]File, modified time.Time) {
	served := make(map[string]File, len(files))
	for path, file := range files {
		if file.Fault == CorruptFile {
			file.Content = bytes.Clone(file.Content)
			file.Content[len(file.Content)-1] ^= 0xff
		}
		served[path] = file
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.again = s.files != nil && modified.Unix() <= s.modified.Unix()
	s.files, s.modified = served, modified
}

// WriteTo writes what is published below a directory, for clients that read it from a disk. Missing files are not
// written, and corrupt ones are as they would be served.
func (s *Server) WriteTo(directory string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, file := range s.files {
		if file.Fault == MissingFile {
			continue
		}
		name = filepath.Join(directory, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, file.Content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// SetDown makes all requests fail by a closed connection, or ends that: a server that is there and does not answer.
func (s *Server) SetDown(is bool) { s.set(is, down) }

// SetHanging makes all requests wait for an answer until it is ended.
func (s *Server) SetHanging(is bool) { s.set(is, hanging) }

func (s *Server) set(is bool, to state) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !is {
		to = up
	}
	close(s.ended)
	s.state, s.ended = to, make(chan struct{})
}

// ReleaseSlow lets the downloads of slow files end, those that wait and those that come.
func (s *Server) ReleaseSlow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.released:
	default:
		close(s.released)
	}
}

// Requests is how often the files of a package were asked for, of whatever version and with whatever answer.
func (s *Server) Requests(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[name]
}

// ServeHTTP answers a request, or does not.
func (s *Server) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	s.mu.Lock()
	file, found := s.files[request.URL.Path]
	if file.Package != "" {
		s.requests[file.Package]++
	}
	modified, released := s.modified, s.released
	if s.again {
		request.Header.Del("If-Modified-Since")
	}
	s.mu.Unlock()

	switch s.wait(request) {
	case hanging:
		return
	case down:
		panic(http.ErrAbortHandler) // how net/http is told to close the connection
	}
	switch {
	case !found || file.Fault == MissingFile:
		http.NotFound(w, request)
	case file.Fault == SlowFile:
		serveSlowly(w, request, file.Content, released)
	default:
		http.ServeContent(w, request, request.URL.Path, modified, bytes.NewReader(file.Content))
	}
}

// wait returns the state once the server does not hang; it returns hanging if the client is gone before.
func (s *Server) wait(request *http.Request) state {
	for {
		s.mu.Lock()
		now, ended := s.state, s.ended
		s.mu.Unlock()
		if now != hanging {
			return now
		}
		select {
		case <-ended:
		case <-request.Context().Done():
			return hanging
		}
	}
}

// serveSlowly sends half of the content, and the rest once it is released.
func serveSlowly(w http.ResponseWriter, request *http.Request, content []byte, released <-chan struct{}) {
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
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
