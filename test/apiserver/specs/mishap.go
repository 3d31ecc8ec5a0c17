package specs

import (
	"context"
	"errors"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/nodepatch/nodepatch/api/patchlog"
)

// Mishap is what happens to one write of a Process.
type Mishap string

// The mishaps. After a kill a process neither reads nor writes any more.
const (
	KilledBefore Mishap = "the manager is killed before it"
	KilledAfter  Mishap = "the manager is killed after it"
	Refused      Mishap = "the API server refuses it"
	Conflict     Mishap = "somebody else wrote first"
	AnswerLost   Mishap = "it succeeds and the answer is lost"
)

// Mishaps are all of them.
var Mishaps = []Mishap{KilledBefore, KilledAfter, Refused, Conflict, AnswerLost}

var errKilled = errors.New("this process was killed")

// Process is a manager's life, of which one write goes wrong. It is safe for use by many goroutines, whose
// requests it takes one by one.
type Process struct {
	// At is the number of the write that goes wrong, from 0; a negative one means none.
	At int
	// Mishap is what happens to it.
	Mishap Mishap
	// Log takes the entries of the patch log. Each is a write.
	Log patchlog.Sink

	mutex  sync.Mutex
	writes int
	what   string
	killed bool
}

// Writes is how many writes the process has tried.
func (p *Process) Writes() int {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.writes
}

// Struck is which write went wrong, such as "status a" or "entry TaskStarted"; empty if none has yet.
func (p *Process) Struck() string {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.what
}

// Killed says whether the process was killed.
func (p *Process) Killed() bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.killed
}

// Write writes an entry of the patch log.
func (p *Process) Write(ctx context.Context, entry patchlog.Entry) error {
	return p.write("entry "+entry.Reason, func() error { return p.Log.Write(ctx, entry) })
}

func (p *Process) write(what string, do func() error) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.killed {
		return errKilled
	}
	p.writes++
	if p.writes-1 != p.At {
		return do()
	}
	p.what = what
	switch p.Mishap {
	case KilledBefore:
		p.killed = true
		return errKilled
	case KilledAfter:
		p.killed = true
		return errors.Join(do(), errKilled)
	case Refused:
		return apierrors.NewInternalError(errors.New("etcdserver: no leader"))
	case Conflict:
		return apierrors.NewConflict(schema.GroupResource{Resource: "things"}, what, errors.New("modified"))
	default:
		return errors.Join(do(), apierrors.NewTimeoutError("the answer was lost", 1))
	}
}

func (p *Process) read(do func() error) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.killed {
		return errKilled
	}
	return do()
}

// Client is the API server as the process sees it. Written is called after each write that the API server
// took, with the object as it then is; it may be nil.
func (p *Process) Client(base client.WithWatch, written func(client.Object)) client.Client {
	done := func(object client.Object, err error) error {
		if err == nil && written != nil {
			written(object)
		}
		return err
	}
	return interceptor.NewClient(base, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			return p.read(func() error { return c.Get(ctx, key, object, options...) })
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			return p.read(func() error { return c.List(ctx, list, options...) })
		},
		Create: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
			return p.write("create "+object.GetName(), func() error { return done(object, c.Create(ctx, object, options...)) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.DeleteOption) error {
			return p.write("delete "+object.GetName(), func() error { return c.Delete(ctx, object, options...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			return p.write("patch "+object.GetName(), func() error { return done(object, c.Patch(ctx, object, patch, options...)) })
		},
		Apply: func(ctx context.Context, c client.WithWatch, object runtime.ApplyConfiguration, options ...client.ApplyOption) error {
			return p.write("apply", func() error { return c.Apply(ctx, object, options...) })
		},
		SubResourceCreate: func(ctx context.Context, c client.Client, subresource string, object, sub client.Object, options ...client.SubResourceCreateOption) error {
			return p.write(subresource+" "+object.GetName(), func() error {
				return c.SubResource(subresource).Create(ctx, object, sub, options...)
			})
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, subresource string, object client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
			return p.write(subresource+" "+object.GetName(), func() error {
				return done(object, c.SubResource(subresource).Patch(ctx, object, patch, options...))
			})
		},
		SubResourceApply: func(ctx context.Context, c client.Client, subresource string, object runtime.ApplyConfiguration, options ...client.SubResourceApplyOption) error {
			return p.write("apply "+subresource, func() error { return c.SubResource(subresource).Apply(ctx, object, options...) })
		},
	})
}
