package assignment

import (
	"context"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// maxBlockedEntries bounds what the patch log says about pods that block one
// node's drain. The assignment always says which they are.
const maxBlockedEntries = 20

// memory is what a process remembers about an operation on a node, to spare work:
// without it everything still comes out the same, but for a count in an entry.
type memory struct {
	operationID string

	mutex   sync.Mutex
	written sets.Set[string]
	blocked int
	evicted int
}

// due says whether an entry is not known to be in the patch log.
func (m *memory) due(entry patchlog.Entry) bool {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return !m.written.Has(entry.Key) && (entry.Reason != v1alpha1.EventDrainBlocked || m.blocked < maxBlockedEntries)
}

func (m *memory) keep(entry patchlog.Entry) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.written.Insert(entry.Key)
	if entry.Reason == v1alpha1.EventDrainBlocked {
		m.blocked++
	}
}

// evict counts evictions, and says how many there were.
func (m *memory) evict(pods int) int {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.evicted += pods
	return m.evicted
}

func (m *memory) evictions() int {
	return m.evict(0)
}

// memories are those of all nodes that are disrupted.
type memories struct {
	mutex sync.Mutex
	nodes map[string]*memory
}

func (m *memories) recall(node, operationID string) *memory {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.nodes == nil {
		m.nodes = map[string]*memory{}
	}
	known := m.nodes[node]
	if known == nil || known.operationID != operationID {
		known = &memory{operationID: operationID, written: sets.New[string]()}
		m.nodes[node] = known
	}
	return known
}

func (m *memories) forget(node string) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	delete(m.nodes, node)
}

// record writes entries to the patch log, except for those that this process
// knows to be there. An entry that the API server will never take is left out:
// a node must not stay cordoned for it.
func (r *Reconciler) record(ctx context.Context, node, operationID string, entries []patchlog.Entry) error {
	memory := r.recall(node, operationID)
	for _, entry := range entries {
		if !memory.due(entry) {
			continue
		}
		switch err := r.Log.Write(ctx, entry); {
		case apierrors.IsForbidden(err), apierrors.IsInvalid(err), apierrors.IsNotFound(err):
			klog.FromContext(ctx).Error(err, "The API server refuses an entry of the patch log, skipped it", "node", klog.KRef("", node), "reason", entry.Reason)
		case err != nil:
			return fmt.Errorf("writing to the patch log of node %s: %w", node, err)
		}
		memory.keep(entry)
	}
	return nil
}
