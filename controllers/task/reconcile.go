package task

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/assignment"
	"github.com/nodepatch/nodepatch/controllers/blockers"
	"github.com/nodepatch/nodepatch/controllers/policy"
)

const (
	// interval is how often at most a task of many nodes is looked at: what thousands
	// of agents say within it is counted in one pass.
	interval = time.Second
	// shortInterval is that of a task of few, in which each node waits for it.
	shortInterval = 100 * time.Millisecond
	// afterConflict is when to look again after somebody else wrote first.
	afterConflict = 100 * time.Millisecond
	// parallelWrites is how many objects one pass writes at a time.
	parallelWrites = 16
)

// Reconciler carries PatchTasks out.
type Reconciler struct {
	// Client reads what it wrote before: see SetupWithManager.
	Client client.Client
	// Reports reads PatchReports whole, from the API server itself.
	Reports client.Reader
	// Log takes the manager's entries of the patch log.
	Log patchlog.Sink
	// Clock tells the time.
	Clock clock.PassiveClock

	// Blockers says what holds nodes back; nil if nothing ever does.
	Blockers Blockers
	// Node is the name of the node that this manager runs on, if it is known.
	Node string
	// ClusterMaxUnavailable bounds disruption over all policies; nil for no bound.
	ClusterMaxUnavailable *intstr.IntOrString

	mutex    sync.Mutex
	memories map[string]*memory
	// deploying lets one deployment at a time count the nodes that are not
	// available and admit others: two that count at once would both take the last slot.
	deploying sync.Mutex
}

// Reconcile looks at one task, once.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	task := &v1alpha1.PatchTask{}
	if err := r.Client.Get(ctx, req.NamespacedName, task); err != nil {
		if !apierrors.IsNotFound(err) {
			return ctrl.Result{}, err
		}
		r.forget(req.Name)
		return ctrl.Result{}, r.unsay(ctx, req.Name)
	}
	switch {
	case !task.DeletionTimestamp.IsZero():
		return ctrl.Result{}, nil
	case task.Finished():
		r.forget(task.Name)
		return r.expire(ctx, task)
	}
	memory := r.recall(task)
	if early := memory.early(r.Clock.Now()); early > 0 {
		return ctrl.Result{RequeueAfter: early}, nil
	}
	return r.pass(ctx, task, memory)
}

// pass decides about a task and does what was decided. The order makes a crash
// at any point harmless: assignments carry what was decided about a node, the
// patch log is derived from them, and the status says it last.
func (r *Reconciler) pass(ctx context.Context, task *v1alpha1.PatchTask, memory *memory) (ctrl.Result, error) {
	memory.pause(r.Clock.Now(), interval)
	plan, contended, instructErr := r.act(ctx, task, memory)
	if plan == nil {
		return ctrl.Result{}, instructErr
	}
	memory.pause(r.Clock.Now(), breather(len(plan.Nodes)))
	instructErr = errors.Join(instructErr, r.freeze(ctx, plan))
	if err := r.record(ctx, plan, memory); err != nil {
		return ctrl.Result{}, errors.Join(instructErr, err)
	}
	reportErr := r.report(ctx, task, plan)
	if apierrors.IsConflict(reportErr) {
		contended, reportErr = true, nil
	}
	if err := errors.Join(instructErr, reportErr); err != nil {
		return ctrl.Result{}, err
	}
	switch {
	case contended:
		memory.pause(r.Clock.Now(), afterConflict)
		return ctrl.Result{RequeueAfter: afterConflict}, nil
	case plan.Accepts, plan.Halts, plan.Pinned != nil:
		// Nodes are given work only after the status says that the task began, or what
		// they are to install, and are told to end only after it says why.
		memory.pause(r.Clock.Now(), 0)
		return ctrl.Result{RequeueAfter: time.Millisecond}, nil
	case plan.Ended():
		klog.FromContext(ctx).Info("Task ended", "task", klog.KObj(task), "phase", plan.Phase, "reason", plan.Reason)
		return r.expire(ctx, task)
	case plan.Next.IsZero():
		return ctrl.Result{}, nil
	default:
		return ctrl.Result{RequeueAfter: until(plan.Next, r.Clock.Now())}, nil
	}
}

// breather is how long a task is left alone after a pass: a millisecond for each
// of its nodes.
func breather(nodes int) time.Duration {
	return min(max(time.Duration(nodes)*time.Millisecond, shortInterval), interval)
}

// act decides and gives the nodes their orders. Without a plan, err says why
// there is none. A deployment decides again as long as it asks about blockers:
// meanwhile others may decide, so that it looks at everything anew.
func (r *Reconciler) act(ctx context.Context, task *v1alpha1.PatchTask, memory *memory) (plan *Plan, contended bool, err error) {
	template := task.Status.Template
	if template == nil || template.Action != v1alpha1.ActionDeploy {
		return r.decide(ctx, task, nil, false)
	}
	asked := r.inquire(template, memory)
	for {
		plan, contended, err = r.decide(ctx, task, asked.blocks, asked.left > 0)
		if plan == nil || len(plan.Asks) == 0 || asked.left == 0 {
			return plan, contended, err
		}
		asked.about(ctx, plan)
	}
}

// decide decides once, and gives the nodes their orders unless it may ask first.
func (r *Reconciler) decide(ctx context.Context, task *v1alpha1.PatchTask, blocks map[string]*blockers.Block, mayAsk bool) (plan *Plan, contended bool, err error) {
	if template := task.Status.Template; template != nil && template.Action == v1alpha1.ActionDeploy {
		r.deploying.Lock()
		defer r.deploying.Unlock()
	}
	in, err := r.gather(ctx, task)
	if err != nil {
		return nil, false, err
	}
	in.Blocks = blocks
	plan = ptr.To(Decide(in))
	if mayAsk && len(plan.Asks) > 0 {
		return plan, false, nil
	}
	instructed, instructErr := r.instruct(ctx, plan, in.Assignments)
	said, sayErr := r.say(ctx, plan, in.Assignments)
	return plan, instructed || said, errors.Join(instructErr, sayErr)
}

// gather reads what a decision depends on. Nothing of it may be changed: it is
// the cache's own.
func (r *Reconciler) gather(ctx context.Context, task *v1alpha1.PatchTask) (Input, error) {
	var (
		policies    v1alpha1.PatchPolicyList
		tasks       v1alpha1.PatchTaskList
		assignments v1alpha1.PatchAssignmentList
		nodes       corev1.NodeList
	)
	for _, list := range []client.ObjectList{&policies, &tasks, &assignments, &nodes} {
		if err := r.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return Input{}, fmt.Errorf("listing what the task %s depends on: %w", task.Name, err)
		}
	}
	in := Input{
		Now:         r.Clock.Now(),
		Task:        task,
		Policies:    policies.Items,
		Membership:  policy.Govern(policies.Items, nodes.Items),
		Nodes:       nodes.Items,
		Assignments: make(map[string]*v1alpha1.PatchAssignment, len(assignments.Items)),
		Finished:    sets.New[string](),
		Tasks:       tasks.Items,

		OwnNode:               r.Node,
		ClusterMaxUnavailable: r.ClusterMaxUnavailable,
	}
	for i := range assignments.Items {
		in.Assignments[assignments.Items[i].Name] = &assignments.Items[i]
	}
	for i := range tasks.Items {
		if tasks.Items[i].Finished() {
			in.Finished.Insert(string(tasks.Items[i].UID))
		}
	}
	return in, nil
}

// instruct gives operations to nodes, admits nodes, tells nodes to end their
// operations and takes others back. An assignment that somebody else wrote in the
// meantime is left alone and decided about again: then contended is true.
func (r *Reconciler) instruct(ctx context.Context, plan *Plan, assignments map[string]*v1alpha1.PatchAssignment) (contended bool, err error) {
	results := make([]error, len(plan.Nodes))
	group := errgroup.Group{}
	group.SetLimit(parallelWrites)
	for i := range plan.Nodes {
		if node := &plan.Nodes[i]; node.writes() {
			group.Go(func() error {
				results[i] = r.write(ctx, plan, node, assignments[node.Name])
				return nil
			})
		}
	}
	_ = group.Wait() // Each result is looked at below.
	var failures []error
	for i, result := range results {
		switch {
		case result == nil:
			continue
		case apierrors.IsConflict(result), apierrors.IsNotFound(result):
			contended = true
		default:
			failures = append(failures, result)
		}
		plan.undo(i, v1alpha1.ReasonNotAssigned)
	}
	return contended, errors.Join(failures...)
}

// write changes one assignment, if it still is as it was when it was decided about.
func (r *Reconciler) write(ctx context.Context, plan *Plan, node *Node, given *v1alpha1.PatchAssignment) error {
	changed := given.DeepCopy()
	switch {
	case node.Assign != nil:
		assignment.Give(changed, node.Assign, plan.unfinished)
	case node.Admit:
		changed.Spec.Operation.AdmittedAt = &metav1.Time{Time: plan.now}
	case node.Stop != "":
		changed.Spec.Operation.Stop = node.Stop
	default:
		assignment.Conclude(&changed.Spec, node.Verdict)
	}
	patch := client.MergeFromWithOptions(given, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Patch(ctx, changed, patch, client.FieldOwner(v1alpha1.ManagerFieldOwner)); err != nil {
		return fmt.Errorf("writing the assignment of node %s: %w", node.Name, err)
	}
	return nil
}

// record writes the plan's entries to the patch log, except for those that
// this process knows to be there.
func (r *Reconciler) record(ctx context.Context, plan *Plan, memory *memory) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelWrites)
	for _, entry := range plan.Entries() {
		if memory.has(entry) {
			continue
		}
		group.Go(func() error {
			if err := r.Log.Write(ctx, entry); err != nil {
				return err
			}
			memory.keep(entry)
			return nil
		})
	}
	return group.Wait()
}

// report writes the task's status if it changes.
func (r *Reconciler) report(ctx context.Context, task *v1alpha1.PatchTask, plan *Plan) error {
	old := task.DeepCopy()
	task.Status = plan.Status(old.Status)
	if equality.Semantic.DeepEqual(old.Status, task.Status) {
		return nil
	}
	patch := client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Status().Patch(ctx, task, patch, client.FieldOwner(v1alpha1.ManagerFieldOwner)); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("writing the status of the task %s: %w", task.Name, err))
	}
	return nil
}

// until is how long to wait for a time. Decisions know whole seconds only.
func until(at, now time.Time) time.Duration {
	return max(at.Add(time.Second-1).Truncate(time.Second).Sub(now), time.Millisecond)
}
