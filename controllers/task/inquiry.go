package task

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/blockers"
)

const (
	// asksPerPass is how many nodes one pass asks the blockers about.
	asksPerPass = 20
	// asksAgain is how many of them at most are nodes that were blocked before,
	// so that those that nobody has asked about have their turn.
	asksAgain = asksPerPass / 2
	// parallelAsks is how many nodes are asked about at a time.
	parallelAsks = 4
	// askTimeout is how long a round of questions may take.
	askTimeout = 30 * time.Second
)

// Blockers finds out what holds nodes back.
type Blockers interface {
	// Check is what holds a node back, nil if nothing does. What cannot be found
	// out holds it back, too.
	Check(ctx context.Context, node *corev1.Node, asked *v1alpha1.Blockers) *blockers.Block
}

// obstacle is what the blockers said about a node that is blocked, and when.
type obstacle struct {
	block *blockers.Block
	at    time.Time
}

// inquiry asks about blockers during one pass. Nodes that were blocked a short
// time ago stay so without being asked about again; that a node is not blocked is
// forgotten after the pass.
type inquiry struct {
	r      *Reconciler
	asked  *v1alpha1.Blockers
	memory *memory
	blocks map[string]*blockers.Block
	left   int
}

func (r *Reconciler) inquire(template *v1alpha1.TaskTemplate, memory *memory) *inquiry {
	if r.Blockers == nil {
		return &inquiry{}
	}
	return &inquiry{
		r: r, asked: template.Blockers, memory: memory,
		blocks: memory.blocked(r.Clock.Now()), left: asksPerPass,
	}
}

// about asks about the nodes that a plan wants to know about, as far as this pass may.
func (q *inquiry) about(ctx context.Context, plan *Plan) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	names := plan.Asks[:min(len(plan.Asks), q.left)]
	q.left -= len(names)
	var mutex sync.Mutex
	group := errgroup.Group{}
	group.SetLimit(parallelAsks)
	for i := range plan.Nodes {
		node := &plan.Nodes[i]
		if !slices.Contains(names, node.Name) {
			continue
		}
		group.Go(func() error {
			block := q.r.Blockers.Check(ctx, node.object, q.asked)
			q.memory.answered(node.Name, block, q.r.Clock.Now())
			mutex.Lock()
			defer mutex.Unlock()
			q.blocks[node.Name] = block
			return nil
		})
	}
	_ = group.Wait() // What cannot be found out is a block, not an error.
}

// blocked are the nodes that are known to be blocked, except for some of those
// of which that has to be found out anew, the oldest first.
func (m *memory) blocked(now time.Time) map[string]*blockers.Block {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	var old []string
	for name, known := range m.obstacles {
		if !now.Before(known.at.Add(blockedAgain)) {
			old = append(old, name)
		}
	}
	slices.SortFunc(old, func(a, b string) int {
		return cmp.Or(m.obstacles[a].at.Compare(m.obstacles[b].at), cmp.Compare(a, b))
	})
	for _, name := range old[:min(len(old), asksAgain)] {
		delete(m.obstacles, name)
	}
	blocks := make(map[string]*blockers.Block, len(m.obstacles))
	for name, known := range m.obstacles {
		blocks[name] = known.block
	}
	return blocks
}

// answered remembers what the blockers said about a node.
func (m *memory) answered(name string, block *blockers.Block, at time.Time) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if block == nil {
		delete(m.obstacles, name)
		return
	}
	if m.obstacles == nil {
		m.obstacles = map[string]obstacle{}
	}
	m.obstacles[name] = obstacle{block: block, at: at}
}
