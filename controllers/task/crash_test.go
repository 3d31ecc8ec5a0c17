package task

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// mishap is what happens to one write of the manager.
type mishap string

const (
	none         mishap = "no mishap"
	killedBefore mishap = "the manager is killed before it"
	killedAfter  mishap = "the manager is killed after it"
	refused      mishap = "the API server refuses it"
	conflict     mishap = "somebody else wrote first"
	answerLost   mishap = "it succeeds and the answer is lost"
)

var errKilled = errors.New("this process was killed")

// process is a manager's life: every write of it goes through here, and after
// it was killed it neither writes nor reads.
type process struct {
	mutex  sync.Mutex
	at     int
	mishap mishap
	writes int
	what   string
	killed bool
	given  map[string]int
	told   map[string]int
	let    map[string]int
}

func (p *process) write(what string, do func() error) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.killed {
		return errKilled
	}
	p.writes++
	if p.writes-1 != p.at || p.mishap == none {
		return do()
	}
	p.what = what
	switch p.mishap {
	case killedBefore:
		p.killed = true
		return errKilled
	case killedAfter:
		p.killed = true
		return errors.Join(do(), errKilled)
	case refused:
		return apierrors.NewInternalError(errors.New("etcdserver: no leader"))
	case conflict:
		return apierrors.NewConflict(schema.GroupResource{Resource: "things"}, what, errors.New("modified"))
	default:
		return errors.Join(do(), apierrors.NewTimeoutError("the answer was lost", 1))
	}
}

func (p *process) read(do func() error) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.killed {
		return errKilled
	}
	return do()
}

// Write is the patch log of the process.
func (p *process) Write(ctx context.Context, entry patchlog.Entry) error {
	return p.write("entry "+entry.Reason, func() error { return events.Write(ctx, entry) })
}

// client is the API server as the process sees it.
func (p *process) client() client.Client {
	base, err := client.NewWithWatch(server.Config, client.Options{Scheme: admin.Scheme(), Mapper: admin.RESTMapper()})
	Expect(err).NotTo(HaveOccurred())
	return interceptor.NewClient(base, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			return p.read(func() error { return c.Get(ctx, key, object, options...) })
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			return p.read(func() error { return c.List(ctx, list, options...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			return p.write("assignment "+object.GetName(), func() error {
				err := c.Patch(ctx, object, patch, options...)
				if assignment, ok := object.(*v1alpha1.PatchAssignment); ok && err == nil && assignment.Spec.Operation != nil {
					switch operation := assignment.Spec.Operation; {
					case operation.Stop != "":
						p.told[object.GetName()]++
					case operation.AdmittedAt != nil:
						p.let[object.GetName()]++
					default:
						p.given[object.GetName()]++
					}
				}
				return err
			})
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, subresource string, object client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
			return p.write("status "+object.GetName(), func() error {
				return c.SubResource(subresource).Patch(ctx, object, patch, options...)
			})
		},
		SubResourceApply: func(ctx context.Context, c client.Client, subresource string, object runtime.ApplyConfiguration, options ...client.SubResourceApplyOption) error {
			return p.write("why a node waits", func() error {
				return c.SubResource(subresource).Apply(ctx, object, options...)
			})
		},
	})
}

// ending is what there is to see after a run.
type ending struct {
	Phase      v1alpha1.TaskPhase
	Message    string
	Nodes      v1alpha1.TaskNodeCounts
	Failures   []v1alpha1.NodeFailure
	Conditions []string
	Log        []string
	Events     []string
	Operations map[string]bool
	Given      map[string]int
	Told       map[string]int
	// Let counts how often each node was admitted, and Waits what is left in the
	// assignments about why nodes wait.
	Let   map[string]int
	Waits map[string]string
	// Pinned is what the task has pinned, and Pins says which nodes were told to install that.
	Pinned string
	Pins   map[string]v1alpha1.OperationPin
}

// story is what happens to a task besides its manager.
type story struct {
	nodes []string
	begin func()
	// happen is done after each reconcile.
	happen func()
}

// scan is a scan that one node ends, one fails, one does not answer and to which
// one stays away.
var scan = story{
	nodes: []string{"away", "done", "failed", "silent"},
	begin: func() {
		notReady("away")
		addTask("scan-now", parallel(2))
	},
	happen: func() {
		for node, outcome := range map[string]v1alpha1.Step{"done": v1alpha1.StepDone, "failed": v1alpha1.StepFailed} {
			if assignment := assignmentNow(node); assignment.Spec.Operation != nil && assignment.Status.Agent == nil {
				answer(node, outcome, 3)
			}
		}
	},
}

// stopping is a deployment that a person stops while one node finishes it, one
// does as it is told, one goes away and one waits. As soon as the status remembers
// that, the annotation changes.
var stopping = story{
	nodes: []string{"a-finishes", "b-obeys", "c-leaves", "d-waits"},
	begin: func() { addTask("scan-now", deploy(3)) },
	happen: func() {
		operations := 0
		for _, node := range []string{"a-finishes", "b-obeys", "c-leaves"} {
			if assignmentNow(node).Spec.Operation != nil {
				operations++
			}
		}
		task := taskNow("scan-now")
		switch {
		case task.Status.Stop != nil && task.Annotations[v1alpha1.StopAnnotation] == "wrong cluster":
			stop("scan-now", "as I said")
		case task.Status.Stop == nil && operations == 3:
			stop("scan-now", "wrong cluster")
			notReady("c-leaves")
		}
		for node, outcome := range map[string]v1alpha1.Step{"a-finishes": v1alpha1.StepDone, "b-obeys": v1alpha1.StepStopped} {
			assignment := assignmentNow(node)
			if operation := assignment.Spec.Operation; operation != nil && operation.Stop != "" && assignment.Status.Agent == nil {
				answer(node, outcome, 3)
			}
		}
	},
}

// rollout is a deployment over three nodes, one at a time: one is done, the second
// fails, which halts it, and the third is told to end while it waits.
var rollout = story{
	nodes: []string{"a-done", "b-fails", "c-waits"},
	begin: func() {
		addTask("scan-now", deploy(3), func(task *v1alpha1.PatchTask) {
			task.Spec.Template.Rollout.MaxUnavailable = ptr.To(intstr.FromInt(1))
			task.Spec.Template.Rollout.MaxFailures = ptr.To[int32](0)
		})
	},
	happen: func() {
		var all v1alpha1.PatchAssignmentList
		Expect(admin.List(ctx, &all)).To(Succeed())
		for i := range all.Items {
			// All are ready at the same time, so that it goes by name whatever happens.
			if spec := &all.Items[i].Spec; spec.Operation == nil && len(spec.Verdicts) == 0 {
				return
			}
		}
		for i := range all.Items {
			given := &all.Items[i]
			operation := given.Spec.Operation
			switch {
			case operation == nil:
			case operation.AdmittedAt != nil && given.Name == "b-fails":
				judge(given.Name, v1alpha1.StepFailed, v1alpha1.ReasonDrainTimeout)
			case operation.AdmittedAt != nil:
				judge(given.Name, v1alpha1.StepDone, v1alpha1.ReasonVerified)
			case given.Status.Agent == nil:
				wait(given.Name, 3)
			case operation.Stop != "" && !given.Status.Agent.Step.Ended():
				answer(given.Name, v1alpha1.StepStopped, 3)
			}
		}
	},
}

// takeThrough takes a task through a story in which the write of the number goes wrong.
func takeThrough(story story, number int, mishap mishap) (ending, *process) {
	GinkgoHelper()
	addPolicy("workers")
	addNodes(story.nodes...)
	story.begin()
	clock := testingclock.NewFakePassiveClock(time.Now().Truncate(time.Second))
	given, told, let := map[string]int{}, map[string]int{}, map[string]int{}
	victim := &process{at: number, mishap: mishap, given: given, told: told, let: let}
	life := func(p *process) *Reconciler {
		c := p.client()
		return &Reconciler{Client: c, Reports: c, Log: p, Clock: clock}
	}
	r := life(victim)
	current := victim

	for range 200 {
		task := taskNow("scan-now")
		if task.Finished() {
			break
		}
		if current.killed {
			current = &process{mishap: none, given: given, told: told, let: let}
			r = life(current)
		}
		result, err := r.Reconcile(ctx, requestFor("scan-now"))
		switch {
		case err != nil:
			Expect(current.mishap).NotTo(Equal(none), "%v", err)
			clock.SetTime(clock.Now().Add(time.Second))
		default:
			clock.SetTime(clock.Now().Add(min(result.RequeueAfter, time.Hour)))
		}
		story.happen()
	}
	task := taskNow("scan-now")
	end := ending{
		Phase: task.Status.Phase, Message: task.Status.Message, Nodes: *task.Status.Nodes,
		Failures: task.Status.Failures, Log: logged(task),
		// A wait that ended while no manager was there to see it leaves no entry.
		Events:     slices.DeleteFunc(written(), func(entry string) bool { return strings.HasPrefix(entry, v1alpha1.EventNodeWaiting+" ") }),
		Operations: map[string]bool{}, Given: given, Told: told,
		Let: let, Waits: map[string]string{}, Pins: map[string]v1alpha1.OperationPin{},
	}
	if pinned := task.Status.Pinned; pinned != nil {
		end.Pinned = fmt.Sprint(pinned.Message, pinned.Patches)
	}
	slices.Sort(end.Log)
	for _, condition := range task.Status.Conditions {
		end.Conditions = append(end.Conditions, fmt.Sprintf("%s=%s %s", condition.Type, condition.Status, condition.Reason))
	}
	for _, node := range story.nodes {
		operation := assignmentNow(node).Spec.Operation
		end.Operations[node] = operation != nil
		if operation != nil && operation.Pin != "" {
			end.Pins[node] = operation.Pin
		}
		if says := saysWait(node); says != "" {
			end.Waits[node] = says
		}
	}
	removeAll()
	return end, victim
}

var _ = Describe("A manager that dies, or whose API server does", func() {
	It("ends a run as if nothing had happened, whichever write it happens to", func() {
		want, writes := undisturbed(scan)
		Expect(want.Phase).To(Equal(v1alpha1.TaskFailed))
		Expect(want.Nodes).To(Equal(v1alpha1.TaskNodeCounts{Total: 4, Done: 1, Failed: 2, Unreachable: 1}))
		Expect(want.Given).To(Equal(map[string]int{"done": 1, "failed": 1, "silent": 1}))
		Expect(want.Operations).To(Equal(map[string]bool{"away": false, "done": true, "failed": true, "silent": false}))
		Expect(want.Events).To(Equal([]string{
			"NodeTimedOut silent", "NodeUnreachable away", "TaskFailed", "TaskStarted",
		}))
		Expect(writes).To(BeNumerically(">", 8))
		disturb(scan, mishaps, writes, want)
	})

	It("stops a run as if nothing had happened, in the words of the first press", func() {
		want, writes := undisturbed(stopping)
		Expect(want.Phase).To(Equal(v1alpha1.TaskStopped))
		Expect(want.Message).To(Equal("Stopped (wrong cluster): 1 of 4 nodes patched, 1 could not be reached, 1 stopped after 2 of 5 patches, 1 not begun"))
		Expect(want.Nodes).To(Equal(v1alpha1.TaskNodeCounts{Total: 4, Pending: 1, Done: 1, Stopped: 1, Unreachable: 1}))
		Expect(want.Given).To(Equal(map[string]int{"a-finishes": 1, "b-obeys": 1, "c-leaves": 1}))
		Expect(want.Told).To(Equal(map[string]int{"a-finishes": 1, "b-obeys": 1}))
		Expect(want.Operations).To(Equal(map[string]bool{"a-finishes": true, "b-obeys": true, "c-leaves": false, "d-waits": false}))
		Expect(want.Events).To(Equal([]string{"NodeUnreachable c-leaves", "TaskStarted", "TaskStopped", "TaskStopping"}))
		disturb(stopping, telling, writes, want)
	})

	It("rolls out as if nothing had happened, and halts where it has to", func() {
		want, writes := undisturbed(rollout)
		Expect(want.Phase).To(Equal(v1alpha1.TaskFailed))
		Expect(want.Message).To(Equal("More nodes failed than rollout.maxFailures allows (0): b-fails (DrainTimeout); " +
			"mend what failed there, then start another task: 1 of 3 nodes patched, 1 failed, 1 stopped after 2 of 5 patches"))
		Expect(want.Given).To(Equal(map[string]int{"a-done": 1, "b-fails": 1, "c-waits": 1}))
		Expect(want.Let).To(Equal(map[string]int{"a-done": 1, "b-fails": 1}))
		Expect(want.Told).To(Equal(map[string]int{"c-waits": 1}))
		Expect(want.Waits).To(BeEmpty())
		Expect(want.Events).To(Equal([]string{"TaskFailed", "TaskStarted", "TaskStopping"}))
		Expect(writes).To(BeNumerically(">", 10))
		disturb(rollout, append(telling, conflict), writes, want)
	})

	It("sees the answer that comes while it gives a node up", func() {
		addPolicy("workers")
		addNodes("a")
		addTask("scan-now")
		r, clock := newReconciler()
		step(r, clock, 0, "scan-now")
		base, err := client.NewWithWatch(server.Config, client.Options{Scheme: admin.Scheme(), Mapper: admin.RESTMapper()})
		Expect(err).NotTo(HaveOccurred())
		r.Client = interceptor.NewClient(base, interceptor.Funcs{
			Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
				answer("a", v1alpha1.StepDone, 6)
				return c.Patch(ctx, object, patch, options...)
			},
		})
		step(r, clock, 31*time.Minute, "scan-now")
		Expect(taskNow("scan-now").Status.Phase).To(Equal(v1alpha1.TaskComplete))
		Expect(written()).To(Equal([]string{"TaskFinished", "TaskStarted"}))
		Expect(assignmentNow("a").Spec.Operation).NotTo(BeNil())
	})

	It("does not overwrite another task that came first", func() {
		addPolicy("workers")
		addNodes("a")
		addTask("first")
		addTask("second")
		r, clock := newReconciler()
		base, err := client.NewWithWatch(server.Config, client.Options{Scheme: admin.Scheme(), Mapper: admin.RESTMapper()})
		Expect(err).NotTo(HaveOccurred())
		inner, _ := newReconciler()
		inner.Clock = clock
		once := sync.Once{}
		r.Client = interceptor.NewClient(base, interceptor.Funcs{
			Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
				once.Do(func() { step(inner, clock, 0, "second") })
				return c.Patch(ctx, object, patch, options...)
			},
		})
		step(r, clock, 0, "first")
		Expect(assignmentNow("a").Spec.Operation.Task).To(Equal("second"))
		step(r, clock, 2*time.Second, "first")
		Expect(taskNow("first").Status.Message).To(Equal("0 of 1 node scanned; 1 waiting (a Busy)"))
	})
})

// undisturbed is how a story ends, and with how many writes.
func undisturbed(story story) (ending, int) {
	GinkgoHelper()
	end, process := takeThrough(story, 0, none)
	return end, process.writes
}

// mishaps are all of them, and telling are those that are enough where another
// story has gone through all: after the others the API server has nothing of the
// write, as if the manager had been killed after the one before.
var (
	mishaps = []mishap{killedBefore, killedAfter, refused, conflict, answerLost}
	telling = []mishap{killedAfter, answerLost}
)

// disturb goes through a story with each of some mishaps at every write.
func disturb(story story, mishaps []mishap, writes int, want ending) {
	GinkgoHelper()
	var points []string
	for number := range writes {
		for _, mishap := range mishaps {
			got, victim := takeThrough(story, number, mishap)
			point := fmt.Sprintf("write %d (%s): %s", number, victim.what, mishap)
			points = append(points, point)
			Expect(victim.what).NotTo(BeEmpty(), point)
			Expect(got).To(Equal(want), point)
		}
	}
	AddReportEntry("points", strings.Join(points, "\n"))
}
