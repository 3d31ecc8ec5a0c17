// Package blockers says what holds a node back that is otherwise ready to be
// disrupted: pods, its conditions, alerts, and other tools that maintain nodes.
// What cannot be found out holds it back as well.
package blockers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// Block is what holds a node back.
type Block struct {
	// Reason in one word, one of those in api/v1alpha1.
	Reason string
	// Message in a sentence of at most 512 bytes, the same as long as the cause is.
	Message string
}

// Options of a Checker.
type Options struct {
	// Kured is kured's DaemonSet, whose annotation is its lock; not asked if empty.
	Kured types.NamespacedName
	// LeaseNamespace of the Leases node-NAME by which tools of medik8s agree who
	// maintains a node; not asked if empty.
	LeaseNamespace string
	// Holder is who we are in a Lease, "nodepatch" if empty. All managers of a
	// cluster have the same.
	Holder string
	// HTTP is the client for Prometheus; one with Go's defaults if nil.
	HTTP *http.Client
}

// Checker looks for blockers. It is safe for use by many goroutines.
type Checker struct {
	live       client.Reader
	writes     client.Client
	options    Options
	prometheus *prometheus
	clock      clock.PassiveClock
}

// New makes a Checker; live reads from the API server, and writes keeps the Leases.
func New(live client.Reader, writes client.Client, o Options) *Checker {
	if o.Holder == "" {
		o.Holder = "nodepatch"
	}
	clock := clock.RealClock{}
	return &Checker{live: live, writes: writes, options: o, prometheus: newPrometheus(o.HTTP, clock), clock: clock}
}

// Check returns the first thing that holds a node back, nil if nothing does: pods,
// conditions of the node as it is given, alerts, and other coordinators, which
// are asked also where b is nil. It takes up to five seconds where Prometheus
// does not answer.
func (c *Checker) Check(ctx context.Context, node *corev1.Node, b *v1alpha1.Blockers) *Block {
	if b == nil {
		b = &v1alpha1.Blockers{}
	}
	checks := []func() *Block{
		func() *Block { return c.pods(ctx, node.Name, b.Pods) },
		func() *Block { return conditions(node, b.NodeConditions) },
		func() *Block { return c.prometheus.check(ctx, b.Prometheus) },
		func() *Block { return c.Coordinator(ctx, node.Name) },
	}
	for _, check := range checks {
		if block := check(); block != nil {
			return block
		}
	}
	return nil
}

// Coordinator says whether another reboot coordinator holds a node: kured by its
// lock, or whoever has the node's Lease. A Lease of our own does not count.
func (c *Checker) Coordinator(ctx context.Context, node string) *Block {
	if block := c.kured(ctx, node); block != nil {
		return block
	}
	return c.lease(ctx, node)
}

// blocked makes a Block.
func blocked(reason, format string, args ...any) *Block {
	const most = 512
	message := strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")
	if len(message) > most {
		message = strings.ToValidUTF8(message[:most-len("…")], "") + "…"
	}
	return &Block{Reason: reason, Message: message}
}

// plain is an error without what differs from one attempt to the next, as do the
// ports of connections.
func plain(err error) string {
	var dns *net.DNSError
	var operation *net.OpError
	var timeout net.Error
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "there is no host " + dns.Name
	case errors.As(err, &dns):
		return "the host name " + dns.Name + " cannot be resolved"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "it did not answer in time"
	case errors.As(err, &operation):
		return operation.Err.Error()
	}
	return err.Error()
}

// some names the first three, in their order, each once.
func some(names []string) string {
	const most = 3
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if len(names) > most {
		return strings.Join(names[:most], ", ") + " and others"
	}
	return strings.Join(names, ", ")
}
