package blockers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"golang.org/x/sync/singleflight"
	"k8s.io/utils/clock"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

const (
	// queryTimeout bounds a query.
	queryTimeout = 5 * time.Second
	// answerKept is how long an answer stands for all nodes that ask.
	answerKept = 5 * time.Second
	// failureKept is the same for a query that failed, as it may have cost its timeout.
	failureKept = 15 * time.Second
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 4 << 20
)

// prometheus asks Prometheus servers which alerts fire. However many nodes ask
// the same at once, it costs one query.
type prometheus struct {
	http    http.Client
	clock   clock.PassiveClock
	timeout time.Duration
	queries singleflight.Group

	mutex   sync.Mutex
	answers map[string]answer
}

// answer is what a query said, nil if nothing fires.
type answer struct {
	block *Block
	until time.Time
}

func newPrometheus(client *http.Client, clock clock.PassiveClock) *prometheus {
	p := &prometheus{clock: clock, timeout: queryTimeout, answers: map[string]answer{}}
	if client != nil {
		p.http = *client
	}
	next := p.http.Transport
	if next == nil {
		next = http.DefaultTransport
	}
	p.http.Transport = limited{next: next}
	return p
}

// check says which alerts hold nodes back, or why that cannot be known.
func (p *prometheus) check(ctx context.Context, blocker *v1alpha1.PrometheusBlocker) *Block {
	if blocker == nil {
		return nil
	}
	query, err := alertsQuery(blocker.Alerts)
	if err != nil {
		return blocked(v1alpha1.ReasonBlockedByAlert, "blockers.prometheus.alerts cannot be read: %v", err)
	}
	key := blocker.URL + "\x00" + query
	if answer, found := p.recall(key); found {
		return answer.block
	}
	result, _, _ := p.queries.Do(key, func() (any, error) {
		// Whoever came just too late for the query before finds its answer.
		if answer, found := p.recall(key); found {
			return answer.block, nil
		}
		// Others wait for the same answer: it does not end with the first of them.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.timeout)
		defer cancel()
		block, kept := p.ask(ctx, blocker.URL, query)
		p.remember(key, answer{block: block, until: p.clock.Now().Add(kept)})
		return block, nil
	})
	return result.(*Block)
}

// ask queries a server, and says for how long the answer stands.
func (p *prometheus) ask(ctx context.Context, address, query string) (*Block, time.Duration) {
	names, err := p.firing(ctx, address, query)
	switch {
	case err != nil:
		return blocked(v1alpha1.ReasonBlockedByAlert, "Prometheus at %s could not be asked for alerts: %s", redacted(address), answered(err)), failureKept
	case len(names) > 0:
		return blocked(v1alpha1.ReasonBlockedByAlert, "Alerts fire, says Prometheus at %s: %s", redacted(address), some(names)), answerKept
	}
	return nil, answerKept
}

// firing names the alerts that a query finds.
func (p *prometheus) firing(ctx context.Context, address, query string) ([]string, error) {
	client, err := api.NewClient(api.Config{Address: address, Client: &p.http})
	if err != nil {
		return nil, err
	}
	value, warnings, err := promv1.NewAPI(client).Query(ctx, query, time.Time{})
	if err != nil {
		return nil, err
	}
	if len(warnings) > 0 {
		// Such as a part of the data that is missing.
		return nil, fmt.Errorf("it is not sure: %s", strings.Join(warnings, "; "))
	}
	vector, ok := value.(model.Vector)
	if !ok {
		return nil, fmt.Errorf("it answered with a %s", value.Type())
	}
	names := make([]string, 0, len(vector))
	for _, sample := range vector {
		name := string(sample.Metric[model.AlertNameLabel])
		if severity := sample.Metric["severity"]; severity != "" {
			name += " (" + string(severity) + ")"
		}
		names = append(names, name)
	}
	return names, nil
}

func (p *prometheus) recall(key string) (answer, bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	known, found := p.answers[key]
	return known, found && p.clock.Now().Before(known.until)
}

// remember keeps an answer, and drops those that nobody will be given any more.
func (p *prometheus) remember(key string, given answer) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	now := p.clock.Now()
	for key, known := range p.answers {
		if !now.Before(known.until) {
			delete(p.answers, key)
		}
	}
	p.answers[key] = given
}

// answered is an error in a few words: those of Prometheus, if it gave any.
func answered(err error) string {
	var said *promv1.Error
	if errors.As(err, &said) {
		return said.Error()
	}
	return plain(err)
}

// redacted is an address without its password.
func redacted(address string) string {
	parsed, err := url.Parse(address)
	if err != nil {
		return "an address that cannot be read"
	}
	return parsed.Redacted()
}

// limited ends answers that are too long.
type limited struct {
	next http.RoundTripper
}

func (l limited) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := l.next.RoundTrip(request)
	if err == nil {
		response.Body = http.MaxBytesReader(nil, response.Body, maxAnswer)
	}
	return response, err
}
