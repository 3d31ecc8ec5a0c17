package blockers

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

const clear = `{"status":"success","data":{"resultType":"vector","result":[]}}`

// firing is an answer of Prometheus with alerts.
func firing(names ...string) string {
	var samples []string
	for _, name := range names {
		samples = append(samples, fmt.Sprintf(
			`{"metric":{"__name__":"ALERTS","alertname":%q,"alertstate":"firing","severity":"critical"},"value":[1795422531.1,"1"]}`, name))
	}
	return `{"status":"success","data":{"resultType":"vector","result":[` + strings.Join(samples, ",") + `]}}`
}

// Whatever is not a clear "no alert" holds nodes back.
func TestPrometheusAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		body   string
		want   string // a part of the message; empty for no block
	}{
		"nothing fires":       {200, clear, ""},
		"an alert":            {200, firing("Down"), "Down (critical)"},
		"many, in any order":  {200, firing("D", "B", "A", "C", "A"), "A (critical), B (critical), C (critical) and others"},
		"a query it refuses":  {400, `{"status":"error","errorType":"bad_data","error":"parse error"}`, "bad_data: parse error"},
		"too much to do":      {503, `{"status":"error","errorType":"timeout","error":"query timed out"}`, "server_error: server error: 503"},
		"a gateway before it": {502, "<html>Bad Gateway</html>", "server_error: server error: 502"},
		"no rights":           {401, "Unauthorized", "client_error: client error: 401"},
		"a page of another":   {200, "<html>Welcome</html>", "bad_response: "},
		"an empty object":     {200, "{}", "could not be asked for alerts: "},
		"a part is missing":   {200, strings.Replace(clear, "{", `{"warnings":["store 2 is away"],`, 1), "it is not sure: store 2 is away"},
		"a number":            {200, `{"status":"success","data":{"resultType":"scalar","result":[1795422531.1,"1"]}}`, "it answered with a scalar"},
		"far too much":        {200, firing(strings.Repeat("a", maxAnswer)), "http: request body too large"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if got, want := r.FormValue("query"), `ALERTS{alertstate="firing",severity="critical"}`; r.URL.Path != "/prom/api/v1/query" || got != want {
					t.Errorf("%s was asked for %s, want %s", r.URL.Path, got, want)
				}
				w.WriteHeader(test.status)
				fmt.Fprint(w, test.body)
			}))
			defer server.Close()
			p := newPrometheus(nil, clocktesting.NewFakePassiveClock(time.Now()))
			block := p.check(t.Context(), &v1alpha1.PrometheusBlocker{URL: server.URL + "/prom/", Alerts: "severity=critical"})
			if test.want == "" {
				if block != nil {
					t.Errorf("Blocked: %s", block.Message)
				}
				return
			}
			if block == nil || block.Reason != v1alpha1.ReasonBlockedByAlert || !strings.Contains(block.Message, test.want) {
				t.Errorf("The block is %+v, want %q", block, test.want)
			}
		})
	}
}

func TestPrometheusAway(t *testing.T) {
	hung := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hung }))
	defer server.Close()
	defer close(hung)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for name, test := range map[string]struct {
		url, alerts, want string
	}{
		"it hangs":          {server.URL, "", "Prometheus at " + server.URL + " could not be asked for alerts: it did not answer in time"},
		"it is not there":   {gone.URL, "", "Prometheus at " + gone.URL + " could not be asked for alerts: connect: connection refused"},
		"its password":      {strings.Replace(gone.URL, "//", "//nodepatch:secret@", 1), "", "nodepatch:xxxxx@"},
		"no address at all": {"http://[::1", "", "Prometheus at an address that cannot be read could not be asked for alerts: "},
		"broken matchers":   {gone.URL, `{severity=`, "blockers.prometheus.alerts cannot be read: "},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPrometheus(nil, clocktesting.NewFakePassiveClock(time.Now()))
			p.timeout = 100 * time.Millisecond
			block := p.check(t.Context(), &v1alpha1.PrometheusBlocker{URL: test.url, Alerts: test.alerts})
			if block == nil || block.Reason != v1alpha1.ReasonBlockedByAlert || !strings.Contains(block.Message, test.want) {
				t.Fatalf("The block is %+v, want %q", block, test.want)
			}
			if strings.Contains(block.Message, "secret") {
				t.Errorf("The message has the password: %s", block.Message)
			}
		})
	}
}

// A plan asks for all waiting nodes at once, and again every few seconds.
func TestPrometheusIsAskedOnce(t *testing.T) {
	var asked atomic.Int32
	body := atomic.Value{}
	body.Store(clear)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		fmt.Fprint(w, body.Load())
	}))
	defer server.Close()
	checker := New(nil, nil, Options{HTTP: &http.Client{}})
	clock := clocktesting.NewFakePassiveClock(time.Now())
	checker.prometheus.clock = clock
	blockers := &v1alpha1.Blockers{Prometheus: &v1alpha1.PrometheusBlocker{URL: server.URL}}
	check := func() *Block {
		return checker.Check(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, blockers)
	}
	expect := func(queries int32, blocked bool) {
		t.Helper()
		if got := asked.Load(); got != queries {
			t.Errorf("Prometheus was asked %d times, want %d", got, queries)
		}
		if block := check(); (block != nil) != blocked {
			t.Errorf("The block is %+v, want one: %t", block, blocked)
		}
	}

	var nodes sync.WaitGroup
	for range 50 {
		nodes.Go(func() {
			if block := check(); block != nil {
				t.Errorf("Blocked: %s", block.Message)
			}
		})
	}
	nodes.Wait()
	expect(1, false)
	body.Store("broken")
	clock.SetTime(clock.Now().Add(answerKept))
	check()
	expect(2, true)
	body.Store(clear)
	clock.SetTime(clock.Now().Add(answerKept))
	expect(2, true)
	clock.SetTime(clock.Now().Add(failureKept - answerKept))
	check()
	expect(3, false)
	if kept := len(checker.prometheus.answers); kept != 1 {
		t.Errorf("%d answers are kept, want 1", kept)
	}
}
