package e2e

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// probe watches a workload from outside, as a load balancer does: it knows which pods are in service, and
// asks all of them ten times a second.
type probe struct {
	mu sync.Mutex
	// serving are the addresses of the pods that are Ready and not about to go, by name.
	serving map[string]string
	// fewest is the lowest number of them that ever was.
	fewest int

	// answered is the lowest number of pods that answered in one round; of the requests, some failed.
	answered, rounds, requests, failed int
	lastFailure                        string
	stopped                            chan struct{}
}

// watch begins to watch the workload, which must serve, until the context ends.
func (w workload) watch(ctx context.Context) *probe {
	GinkgoHelper()
	p := &probe{serving: map[string]string{}, fewest: int(w.replicas), answered: int(w.replicas), stopped: make(chan struct{})}
	pods, err := ctrlcache.New(config, ctrlcache.Options{Scheme: client.Scheme(), ByObject: map[ctrlclient.Object]ctrlcache.ByObject{
		&corev1.Pod{}: {Namespaces: map[string]ctrlcache.Config{workloads: {}}},
	}})
	Expect(err).NotTo(HaveOccurred())
	informer, err := pods.GetInformer(ctx, &corev1.Pod{}, ctrlcache.BlockUntilSynced(false))
	Expect(err).NotTo(HaveOccurred())
	see := func(object any) {
		if pod, is := object.(*corev1.Pod); is && pod.Labels["app"] == w.name {
			p.see(pod)
		}
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    see,
		UpdateFunc: func(_, object any) { see(object) },
		DeleteFunc: func(object any) {
			if last, is := object.(toolscache.DeletedFinalStateUnknown); is {
				object = last.Obj
			}
			if pod, is := object.(*corev1.Pod); is {
				p.gone(pod.Name)
			}
		},
	})
	Expect(err).NotTo(HaveOccurred())
	go func() {
		defer GinkgoRecover()
		Expect(pods.Start(ctx)).To(Succeed())
	}()
	Expect(toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced)).To(BeTrue())
	p.mu.Lock()
	Expect(p.serving).To(HaveLen(int(w.replicas)), "pods in service at the beginning")
	p.fewest = len(p.serving)
	p.mu.Unlock()
	go p.ask(ctx)
	return p
}

func (p *probe) see(pod *corev1.Pod) {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil && pod.Status.PodIP != "" {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.serving[pod.Name] = pod.Status.PodIP
			return
		}
	}
	p.gone(pod.Name)
}

func (p *probe) gone(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.serving, name)
	p.fewest = min(p.fewest, len(p.serving))
}

// ask sends rounds of requests until the context ends.
func (p *probe) ask(ctx context.Context) {
	defer close(p.stopped)
	// A request must reach its pod itself, and each makes a connection of its own.
	transport := &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: time.Second}).DialContext}
	asking := &http.Client{Transport: transport, Timeout: 2 * time.Second}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		p.round(ctx, asking)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (p *probe) round(ctx context.Context, asking *http.Client) {
	p.mu.Lock()
	addresses := maps.Clone(p.serving)
	p.mu.Unlock()
	errs := make(chan error, len(addresses))
	for name, address := range addresses {
		go func() { errs <- get(ctx, asking, address, name) }()
	}
	answered := len(addresses)
	for range addresses {
		err := <-errs
		if ctx.Err() != nil {
			return // cut off by the end of the probe
		}
		if err != nil {
			answered--
			p.failed++
			p.lastFailure = fmt.Sprintf("%s: %v", time.Now().Format(time.TimeOnly), err)
		}
	}
	p.rounds++
	p.requests += len(addresses)
	p.answered = min(p.answered, answered)
}

// get asks a pod, which has to answer with its name.
func get(ctx context.Context, asking *http.Client, address, name string) error {
	url := "http://" + net.JoinHostPort(address, strconv.Itoa(workloadPort)) + "/"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := asking.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	said, err := io.ReadAll(io.LimitReader(response.Body, 256))
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(said)) != name {
		return fmt.Errorf("%s answers as %q, not as %s", address, said, name)
	}
	return nil
}

// report waits for the end of the probe, whose context must have ended, and says what it saw.
func (p *probe) report() string {
	<-p.stopped
	p.mu.Lock()
	defer p.mu.Unlock()
	report := fmt.Sprintf("at least %d pods in service, at least %d answered in each of %d rounds; %d of %d requests failed",
		p.fewest, p.answered, p.rounds, p.failed, p.requests)
	if p.lastFailure != "" {
		report += ", the last at " + p.lastFailure
	}
	return report
}
