package mirror_test

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nodepatch/nodepatch/test/mirror"
)

const content = "the whole content"

// ask is one request that is answered at once.
func ask(server *mirror.Server, path string, header http.Header) *httptest.ResponseRecorder {
	request := httptest.NewRequest(http.MethodGet, path, nil)
	maps.Copy(request.Header, header)
	response := httptest.NewRecorder()
	server.ServeHTTP(response, request)
	return response
}

// TestFaults has files with every fault, on the server and on a disk.
func TestFaults(t *testing.T) {
	original := []byte(content)
	server := mirror.New()
	if got := ask(server, "/good", nil).Code; got != http.StatusNotFound {
		t.Errorf("A server without files answers %d", got)
	}
	server.Publish(map[string]mirror.File{
		"/index":        {Content: original},
		"/good":         {Content: original, Package: "ham"},
		"/sub/missing":  {Content: original, Package: "ham", Fault: mirror.MissingFile},
		"/sub/corrupt":  {Content: original, Package: "egg", Fault: mirror.CorruptFile},
		"/sub/released": {Content: original, Package: "egg", Fault: mirror.SlowFile},
	}, time.Now())
	server.ReleaseSlow()
	server.ReleaseSlow() // twice is as once
	directory := t.TempDir()
	if err := server.WriteTo(directory); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/index": content, "/good": content, "/sub/released": content,
		"/sub/corrupt": content[:len(content)-1] + "\x8b", // the complement of a t
		"/sub/missing": "", "/unknown": "",
	} {
		response := ask(server, path, nil)
		if want == "" && response.Code != http.StatusNotFound {
			t.Errorf("%s is answered with %d", path, response.Code)
		}
		if got := response.Body.String(); want != "" && (got != want || response.Code != http.StatusOK) {
			t.Errorf("%s is %q with %d, want %q", path, got, response.Code, want)
		}
		if got, err := os.ReadFile(filepath.Join(directory, path)); string(got) != want || (want == "") != os.IsNotExist(err) {
			t.Errorf("The file %s has %q (%v), want %q", path, got, err, want)
		}
	}
	if !bytes.Equal(original, []byte(content)) {
		t.Errorf("The caller's own bytes are now %q", original)
	}
	for name, want := range map[string]int{"ham": 2, "egg": 2, "": 0, "spam": 0} {
		if got := server.Requests(name); got != want {
			t.Errorf("Package %q has %d requests, want %d", name, got, want)
		}
	}
	server.Publish(nil, time.Now())
	if got := ask(server, "/good", nil).Code; got != http.StatusNotFound {
		t.Errorf("A file that was published before is answered with %d", got)
	}
}

// visit is a request that may have to wait.
type visit struct {
	*httptest.ResponseRecorder
	leave context.CancelFunc // what a client does that gives up
	ended bool
}

// send sends a request in a bubble of synctest.
func send(server *mirror.Server) *visit {
	ctx, leave := context.WithCancel(context.Background())
	v := &visit{ResponseRecorder: httptest.NewRecorder(), leave: leave}
	go func() {
		server.ServeHTTP(v, httptest.NewRequest(http.MethodGet, "/file", nil).WithContext(ctx))
		v.ended = true
	}()
	synctest.Wait()
	return v
}

// TestWaiting lets clients of a slow file and of a server that hangs wait, and has one give up.
func TestWaiting(t *testing.T) {
	hang := func(s *mirror.Server) { s.SetHanging(true) }
	for name, test := range map[string]struct {
		fault            mirror.Fault
		begin, end       func(*mirror.Server)
		meanwhile, after string // what the client has got
	}{
		"slow file":            {mirror.SlowFile, func(*mirror.Server) {}, (*mirror.Server).ReleaseSlow, content[:len(content)/2], content},
		"server hangs":         {mirror.NoFault, hang, func(s *mirror.Server) { s.SetHanging(false) }, "", content},
		"server hangs anew":    {mirror.NoFault, hang, func(s *mirror.Server) { hang(s); s.SetHanging(false) }, "", content},
		"server is up instead": {mirror.NoFault, hang, func(s *mirror.Server) { s.SetDown(false) }, "", content},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := mirror.New()
				server.Publish(map[string]mirror.File{"/file": {Content: []byte(content), Fault: test.fault, Package: "ham"}}, time.Now())
				test.begin(server)
				patient, hasty := send(server), send(server)
				defer patient.leave()
				if got := server.Requests("ham"); got != 2 {
					t.Errorf("%d requests were counted while the clients wait, want 2", got)
				}
				for _, v := range []*visit{patient, hasty} {
					if got := v.Body.String(); v.ended || got != test.meanwhile {
						t.Errorf("The client got %q before the end, and waits no more: %t", got, v.ended)
					}
				}
				hasty.leave()
				synctest.Wait()
				if !hasty.ended || patient.ended {
					t.Errorf("After one client gave up, the server is done with it: %t, and with the other: %t", hasty.ended, patient.ended)
				}
				test.end(server)
				synctest.Wait()
				if got := patient.Body.String(); !patient.ended || got != test.after {
					t.Errorf("At the end the client has %q, done: %t", got, patient.ended)
				}
				if got := hasty.Body.String(); got != test.meanwhile {
					t.Errorf("The client that gave up got %q", got)
				}
				if late := send(server); !late.ended || late.Body.String() != test.after {
					t.Errorf("Who comes late gets %q, done: %t", late.Body, late.ended)
				}
			})
		})
	}
}

// TestDown closes the connections of clients, also of those that waited for a server that hung.
func TestDown(t *testing.T) {
	server := mirror.New()
	server.Publish(map[string]mirror.File{"/file": {Content: []byte(content), Package: "ham"}}, time.Now())
	web := httptest.NewServer(server)
	defer web.Close()
	get := func() (string, error) {
		response, err := web.Client().Get(web.URL + "/file")
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		return string(body), err
	}
	server.SetDown(true)
	if body, err := get(); err == nil {
		t.Errorf("A server that is down sends %q", body)
	}
	server.SetHanging(true)
	asked, waiting := server.Requests("ham"), make(chan error, 1)
	go func() {
		_, err := get()
		waiting <- err
	}()
	for server.Requests("ham") == asked {
		select {
		case err := <-waiting:
			t.Fatalf("The client did not wait: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	server.SetDown(true)
	if err := <-waiting; err == nil {
		t.Error("A client that waited is served by a server that is down")
	}
	server.SetDown(false)
	if body, err := get(); err != nil || body != content {
		t.Errorf("A server that is up again sends %q, %v", body, err)
	}
}

// TestNotModified has clients that already have a file. What is newer must reach them, even if it was published in
// the same second.
func TestNotModified(t *testing.T) {
	server := mirror.New()
	at := time.Date(2026, time.January, 2, 3, 4, 5, 0, time.UTC)
	var codes []int
	var header http.Header // as the client's last answer was
	for _, modified := range []time.Time{at, at.Add(time.Second / 2), at.Add(time.Second)} {
		server.Publish(map[string]mirror.File{"/file": {Content: []byte(content)}}, modified)
		for range 2 {
			response := ask(server, "/file", header)
			codes = append(codes, response.Code)
			header = http.Header{"If-Modified-Since": response.Result().Header["Last-Modified"]}
		}
	}
	if want := []int{200, 304, 200, 200, 200, 304}; !slices.Equal(codes, want) {
		t.Errorf("The answers are %d, want %d", codes, want)
	}
	server.Publish(map[string]mirror.File{"/file": {Content: []byte(content)}}, time.Time{})
	response := ask(server, "/file", header)
	if got := response.Result().Header.Get("Last-Modified"); response.Code != http.StatusOK || got != "" {
		t.Errorf("Files without a time are answered with %d, modified at %q", response.Code, got)
	}
}
