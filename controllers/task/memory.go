package task

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// memory is what a process remembers about a task, to spare work: without it
// everything still comes out the same.
type memory struct {
	uid types.UID

	mutex   sync.Mutex
	due     time.Time
	written sets.Set[[2]string]
	// obstacles are what the blockers said about nodes that they hold back.
	obstacles map[string]obstacle
}

// early says how long it is until the task is due to be looked at again.
func (m *memory) early(now time.Time) time.Duration {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.due.Sub(now)
}

// pause keeps the task from being looked at for a while, whatever happens.
func (m *memory) pause(now time.Time, d time.Duration) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.due = now.Add(d)
}

// has says whether an entry is known to be in the patch log.
func (m *memory) has(entry patchlog.Entry) bool {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.written.Has([2]string{entry.Node, entry.Key})
}

func (m *memory) keep(entry patchlog.Entry) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.written.Insert([2]string{entry.Node, entry.Key})
}

func (r *Reconciler) recall(task *v1alpha1.PatchTask) *memory {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.memories == nil {
		r.memories = map[string]*memory{}
	}
	known := r.memories[task.Name]
	if known == nil || known.uid != task.UID {
		known = &memory{uid: task.UID, written: sets.New[[2]string]()}
		r.memories[task.Name] = known
	}
	return known
}

func (r *Reconciler) forget(name string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	delete(r.memories, name)
}
