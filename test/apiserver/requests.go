package apiserver

import (
	"net/http"
	"slices"
	"strings"
	"sync"

	"k8s.io/client-go/rest"
)

// Requests remembers what clients asked an API server to change, and what it did not let them do. The zero
// value is ready for use, by many clients at once.
type Requests struct {
	mutex     sync.Mutex
	writes    []string
	forbidden []string
}

// Watch is a copy of a configuration; what its clients ask for is remembered from now on.
func (r *Requests) Watch(config *rest.Config) *rest.Config {
	watched := rest.CopyConfig(config)
	watched.Wrap(func(next http.RoundTripper) http.RoundTripper { return roundTripper{requests: r, next: next} })
	return watched
}

// To lists the writes so far to paths that contain a string, as "PATCH /api/v1/nodes/a", in the order in
// which they were sent. Writes that failed are among them.
func (r *Requests) To(part string) []string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	var found []string
	for _, write := range r.writes {
		if _, path, _ := strings.Cut(write, " "); strings.Contains(path, part) {
			found = append(found, write)
		}
	}
	return found
}

// Forbidden lists the requests so far, reads too, that were answered with 401 or 403, as
// "GET /api/v1/nodes: 403 Forbidden".
func (r *Requests) Forbidden() []string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return slices.Clone(r.forbidden)
}

type roundTripper struct {
	requests *Requests
	next     http.RoundTripper
}

func (t roundTripper) RoundTrip(request *http.Request) (*http.Response, error) {
	r, what := t.requests, request.Method+" "+request.URL.Path
	if request.Method != http.MethodGet {
		// Before it is sent: whoever sees what a write changed finds it here.
		r.mutex.Lock()
		r.writes = append(r.writes, what)
		r.mutex.Unlock()
	}
	response, err := t.next.RoundTrip(request)
	if err == nil && (response.StatusCode == http.StatusForbidden || response.StatusCode == http.StatusUnauthorized) {
		r.mutex.Lock()
		r.forbidden = append(r.forbidden, what+": "+response.Status)
		r.mutex.Unlock()
	}
	return response, err
}
