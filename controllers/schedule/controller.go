// Package schedule makes the PatchTasks that nobody has to ask for: those of the
// policies' schedules, and the scans of nodes that come back overdue. It takes
// them away again when the policy's history has enough of them.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/policy"
)

// afterConflict is when to look again after somebody else wrote first.
const afterConflict = 100 * time.Millisecond

// policyField finds the tasks of a policy: in the manager's cache, and at the API
// server too.
const policyField = "spec.policy"

// Scheduler begins the runs of each policy's tasks when they are due.
type Scheduler struct {
	// Client reads what it wrote before: otherwise two runs of a task might go at
	// once.
	Client client.Client
	// Log takes the manager's entries of the patch log.
	Log patchlog.Sink
	// Clock tells the time.
	Clock clock.PassiveClock
}

// Reconcile begins what is due for one policy, says in its status what comes
// next, and deletes what its history has too much of.
//
// A run's task has a name of its own that follows from the policy, the named task
// and the time, so that it is made once however often it is tried: a manager may
// die between any two of these writes, or do them together with another one.
func (r *Scheduler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	policy := &v1alpha1.PatchPolicy{}
	if err := r.Client.Get(ctx, req.NamespacedName, policy); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !policy.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	seen, err := r.observe(ctx, policy)
	if err != nil {
		return ctrl.Result{}, err
	}
	steps := seen.steps()
	var failures []error
	for i := range steps {
		if err := r.begin(ctx, policy, &steps[i]); err != nil {
			failures = append(failures, err)
		}
	}
	// Before the status, from which on it is no news any more.
	if err := r.tell(ctx, seen, steps); err != nil {
		return ctrl.Result{}, errors.Join(append(failures, err)...)
	}
	err = r.say(ctx, policy, steps)
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: afterConflict}, errors.Join(failures...)
	}
	surplus, wake := seen.surplus()
	if err := errors.Join(append(failures, err, r.prune(ctx, surplus))...); err != nil {
		return ctrl.Result{}, err
	}
	for i := range steps {
		wake = earlier(wake, steps[i].wake)
	}
	if wake.IsZero() {
		return ctrl.Result{}, nil
	}
	return ctrl.Result{RequeueAfter: max(wake.Sub(r.Clock.Now()), time.Millisecond)}, nil
}

// observe reads what the runs follow from.
func (r *Scheduler) observe(ctx context.Context, policy *v1alpha1.PatchPolicy) (*observation, error) {
	seen := &observation{policy: policy, now: r.Clock.Now()}
	tasks, err := tasksOf(ctx, r.Client, policy.Name)
	if err != nil {
		return nil, err
	}
	seen.tasks = tasks
	for i := range policy.Status.Tasks {
		// A run may be due before it was announced for: its jitter may have been another one then.
		if next := policy.Status.Tasks[i].Next; next != nil && !next.After(seen.now.Add(maxJitter)) {
			seen.governs, err = r.governs(ctx, policy.Name)
			return seen, err
		}
	}
	return seen, nil
}

// tasksOf lists the tasks of a policy. They are not to be changed.
func tasksOf(ctx context.Context, reader client.Reader, policy string) ([]*v1alpha1.PatchTask, error) {
	list := &v1alpha1.PatchTaskList{}
	if err := reader.List(ctx, list, client.MatchingFields{policyField: policy}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing the tasks of the policy %s: %w", policy, err)
	}
	tasks := make([]*v1alpha1.PatchTask, len(list.Items))
	for i := range list.Items {
		tasks[i] = &list.Items[i]
	}
	return tasks, nil
}

func (r *Scheduler) governs(ctx context.Context, name string) (bool, error) {
	policies, nodes := &v1alpha1.PatchPolicyList{}, &corev1.NodeList{}
	for _, list := range []client.ObjectList{policies, nodes} {
		if err := r.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return false, fmt.Errorf("listing what the policy %s governs: %w", name, err)
		}
	}
	members := policy.Govern(policies.Items, nodes.Items).Policies[name]
	return members != nil && len(members.Governed) > 0, nil
}

// begin makes the task of a run that is to begin. If it cannot be made, the
// status stays as it was, so that it is tried again.
func (r *Scheduler) begin(ctx context.Context, policy *v1alpha1.PatchPolicy, s *step) error {
	if s.begins.IsZero() {
		return nil
	}
	for _, name := range []string{s.state.Last.Task, secondName(policy, s.task.Name, s.begins)} {
		ours, err := r.make(ctx, policy, name, s)
		if err != nil {
			s.unchanged()
			return fmt.Errorf("beginning the run %s: %w", name, err)
		}
		if ours {
			s.state.Last.Task = name
			return nil
		}
	}
	s.refuse()
	return nil
}

// make makes the task of a run under a name, and says whether the task of that
// name is the run: it may be there already, and be another one's.
func (r *Scheduler) make(ctx context.Context, policy *v1alpha1.PatchPolicy, name string, s *step) (ours bool, err error) {
	task := newTask(policy, name)
	task.Spec.Task = s.task.Name
	err = r.Client.Create(ctx, task)
	if err == nil {
		klog.FromContext(ctx).Info("Began a run of the schedule", "policy", klog.KObj(policy), "task", klog.KObj(task), "run", s.begins)
		return true, nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return false, err
	}
	existing := &v1alpha1.PatchTask{}
	if err := r.Client.Get(ctx, client.ObjectKeyFromObject(task), existing); err != nil {
		return false, err
	}
	return metav1.IsControlledBy(existing, policy) && existing.Spec.Task == s.task.Name, nil
}

// newTask is a task of the policy's own. Only the manager may set owner
// references on a PatchTask, by which the task controller knows who started it.
func newTask(policy *v1alpha1.PatchPolicy, name string) *v1alpha1.PatchTask {
	return &v1alpha1.PatchTask{
		ObjectMeta: metav1.ObjectMeta{
			Name:   name,
			Labels: map[string]string{v1alpha1.PolicyLabel: policy.Name},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion.String(), Kind: "PatchPolicy", Name: policy.Name, UID: policy.UID,
				Controller: ptr.To(true),
			}},
		},
		Spec: v1alpha1.PatchTaskSpec{Policy: policy.Name},
	}
}

// tell writes into the patch log which runs did not begin.
func (r *Scheduler) tell(ctx context.Context, seen *observation, steps []step) error {
	for i := range steps {
		for _, news := range steps[i].news() {
			message := "Task " + steps[i].task.Name + ": " + news
			if err := r.Log.Write(ctx, patchlog.RunMissed(seen.now, seen.policy.Name, seen.policy.UID, message)); err != nil {
				return fmt.Errorf("telling of a run of the policy %s that did not begin: %w", seen.policy.Name, err)
			}
		}
	}
	return nil
}

// say writes the status if it changes, and refuses to do so on an older policy.
func (r *Scheduler) say(ctx context.Context, policy *v1alpha1.PatchPolicy, steps []step) error {
	changed := policy.DeepCopy()
	changed.Status.Tasks, changed.Status.NextRun = nil, nil
	for i := range steps {
		state := &steps[i].state
		changed.Status.Tasks = append(changed.Status.Tasks, *state)
		if next := changed.Status.NextRun; state.Next != nil && (next == nil || state.Next.Before(next)) {
			changed.Status.NextRun = state.Next
		}
	}
	if equality.Semantic.DeepEqual(policy.Status, changed.Status) {
		return nil
	}
	patch := client.MergeFromWithOptions(policy, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Status().Patch(ctx, changed, patch, client.FieldOwner(v1alpha1.ManagerFieldOwner)); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("writing the runs into the status of the policy %s: %w", policy.Name, err))
	}
	return nil
}

// prune deletes tasks. One that is gone already is left alone, and one that is
// another one by now is looked at again.
func (r *Scheduler) prune(ctx context.Context, tasks []*v1alpha1.PatchTask) error {
	var failures []error
	for _, task := range tasks {
		gone := &v1alpha1.PatchTask{ObjectMeta: metav1.ObjectMeta{Name: task.Name}}
		err := r.Client.Delete(ctx, gone, client.Preconditions{UID: ptr.To(task.UID)})
		if err == nil {
			klog.FromContext(ctx).V(4).Info("Deleted a task that the policy's history no longer keeps", "task", klog.KObj(task))
		} else if !apierrors.IsNotFound(err) {
			failures = append(failures, fmt.Errorf("deleting the task %s, which the policy's history no longer keeps: %w", task.Name, err))
		}
	}
	return errors.Join(failures...)
}

// request asks for a look at the policy with a name.
func request(policy string) ctrl.Request {
	return ctrl.Request{NamespacedName: types.NamespacedName{Name: policy}}
}
